"""The table of the documentation is that of the results, and there is a good result for each row of constraints."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from matrix.rows import NEWEST, TWICE, Row, rows
from matrix.table import BEGIN, COLUMNS, END, PAGE, problems, recorded, table

from catalogger.validators.mlflow_versions import OLDEST, is_declared

ROOT = Path(__file__).parents[2]
TESTS = "".join(file.read_text() for file in (ROOT / "tests/matrix").glob("test_matrix_*.py"))


def test_the_page_shows_the_results() -> None:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == "\n" + table(recorded())


def test_every_row_was_run_and_is_good() -> None:
    assert list(recorded()) == [row.name for row in rows()]
    assert problems(recorded()) == []
    for row in rows():
        result = recorded()[row.name]
        assert result.versions["python"].startswith(f"{row.python}.")
        for package in ("mlflow", "transformers"):
            assert result.versions[package] == row.pins().get(package, result.versions[package]), row.name


def test_a_row_that_failed_or_changed_is_a_problem() -> None:
    name, result = next(iter(recorded().items()))
    failed = replace(result, verdicts={**result.verdicts, "embedded registry": "failed"})
    assert problems({name: failed}) == [f"{name}: embedded registry: failed"]
    other = replace(result, versions={**result.versions, "mlflow": "2.11.6"})
    assert problems({name: other}) == [f"{name}: mlflow is 2.11.6, the documentation says 2.11.5"]
    assert problems({"mlflow-1.0": result}) == ["mlflow-1.0: not in the documentation: make matrix HOW=--write"]


def test_every_column_stands_for_tests() -> None:
    for names in COLUMNS.values():
        assert [name for name in names if f"def {name}(" not in TESTS] == []


@pytest.mark.parametrize("row", [row for row in rows() if row.constraints != NEWEST], ids=lambda row: row.name)
def test_a_constraint_file_holds_pins_and_nothing_else(row: Row) -> None:
    lines = row.file.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z_-]+==[\d.]+", line)] == []
    assert is_declared(row.pins()["mlflow"], row.pins()["transformers"]), "Transformers that this MLflow declares"


def test_the_rows_go_from_the_oldest_to_the_newest() -> None:
    assert rows()[0].pins()["mlflow"] == OLDEST
    assert "mlflow" not in rows()[-1].pins()
    assert {row.constraints for row in rows() if row.python == "3.12"} == {*TWICE}
