"""What the rows showed: kept in `results.json`, shown as a table in the documentation, compared with what is seen now.

It knows neither MLflow nor catalogger.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from matrix.rows import NEWEST, rows

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs/mlflow-versions.md"
BEGIN, END = "<!-- table: make matrix -->", "<!-- end of table -->"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "staged as MLflow writes it": ("test_mlmodel_is_what_upstream_writes", "test_tree_is_what_upstream_writes"),
    "loads and answers the same": ("test_answers_are_upstreams", "test_components_are_upstreams"),
    "written for it elsewhere": (
        "test_written_elsewhere_is_what_this_mlflow_writes",
        "test_written_elsewhere_is_what_we_write_here",
    ),
    "embedded registry": ("test_embedded_registry",),
    "`uc:`": ("test_open_source_unity_catalog",),
    "`databricks-uc`": ("test_databricks_workspace",),
}
"""Columns, each with the tests that it stands for."""


@dataclass(frozen=True)
class Result:
    """What a row showed, with the versions that it had; a verdict is `yes` or `failed`."""

    row: str
    versions: Mapping[str, str]
    verdicts: Mapping[str, str]


def recorded() -> dict[str, Result]:
    """What was seen when the documentation was written."""
    return {name: Result(name, **said) for name, said in json.loads(RESULTS.read_text()).items()}


def write(results: Mapping[str, Result]) -> None:
    """Keep these results, and those of rows that did not run; write the page anew."""
    kept = {**(recorded() if RESULTS.exists() else {}), **results}
    ordered = {row.name: kept[row.name] for row in rows() if row.name in kept}
    data = {name: {k: v for k, v in asdict(result).items() if k != "row"} for name, result in ordered.items()}
    RESULTS.write_text(json.dumps(data, indent=2) + "\n")
    page = PAGE.read_text()
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(ordered)}{END}{after}")


def table(results: Mapping[str, Result]) -> str:
    """The results in Markdown; a row without one was not run."""
    heads = ("row", "MLflow", "Transformers", "Python", *COLUMNS)
    lines = [heads, ("---",) * len(heads)]
    for row in rows():
        result = results.get(row.name)
        if result is None:
            lines.append((row.name, *("not run",) * (len(heads) - 1)))
            continue
        versions = [result.versions.get(name, "?") for name in ("mlflow", "transformers", "python")]
        lines.append((result.row, *versions, *(result.verdicts[column] for column in COLUMNS)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def problems(seen: Mapping[str, Result]) -> list[str]:
    """What failed, and what is not as the documentation says.  The newest row's versions are not held to it."""
    documented, lines = recorded() if RESULTS.exists() else {}, []
    for name, result in seen.items():
        lines += [f"{name}: {column}: failed" for column, verdict in result.verdicts.items() if verdict != "yes"]
        said = documented.get(name)
        if said is None:
            lines.append(f"{name}: not in the documentation: make matrix HOW=--write")
        elif not name.startswith(NEWEST):
            pairs = ((p, said.versions.get(p), result.versions.get(p)) for p in ("mlflow", "transformers"))
            lines += [f"{name}: {p} is {now}, the documentation says {then}" for p, then, now in pairs if then != now]
    return lines
