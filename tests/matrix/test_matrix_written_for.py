"""What another MLflow wrote for this one, against what this one writes itself; it loads here and answers the same.

In the matrix, the oldest and the newest row write for every row.  Outside of it, the MLflow at hand writes for itself.
"""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest
from matrix.differences import CASES, Pair, answer, made, unlike_fields, unlike_files
from matrix.staging import stage

from catalogger.validators.facts import environment

STAGED = os.environ.get("MATRIX_STAGED")
"""The folder of what was written for this row, in it one of every row that wrote."""
BY = sorted(folder.name for folder in Path(STAGED).iterdir()) if STAGED else ["itself"]


@pytest.fixture(params=[(by, case) for by in BY for case in CASES if case != "all-minilm-l6-v2"], ids=" ".join)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of the case, and the folder of its model."""
    by, case = request.param
    if STAGED:
        return case, Path(STAGED) / by / os.environ["MATRIX_ROW"] / case
    folder = tmp_path_factory.mktemp("staged") / case
    stage(case, _itself(), folder)
    return case, folder


def test_written_elsewhere_is_what_this_mlflow_writes(
    written: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    case, folder = written
    pair = replace(made(case, tmp_path_factory), ours=folder)
    assert unlike_fields(pair) == {}
    assert unlike_files(pair) == {}
    assert answer(pair.ours, pair.case) == answer(pair.theirs, pair.case)


def test_written_elsewhere_is_what_we_write_here(written: tuple[str, Path], tmp_path: Path) -> None:
    case, folder = written
    stage(case, None, tmp_path / "here")
    pair = Pair(CASES[case], folder, tmp_path / "here")
    assert unlike_fields(pair) == {}
    assert unlike_files(pair) == {}


def _itself() -> str:
    here = environment()
    return f"mlflow=={here.mlflow},transformers=={here.transformers},python=={platform.python_version()}"
