"""The rows of the matrix: a constraint file each, and the Pythons that it is run with.

It knows neither MLflow nor catalogger, so that any Python can run the matrix.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("constraints")
TWICE = ("mlflow-2.11", "newest")
"""Rows that are run with both Pythons."""
LOADED = ("mlflow-2.11", "mlflow-2.19", "newest")
"""Rows that load weights in a quick run: the oldest, a middle one, the newest."""
WRITERS = ("mlflow-2.11", "newest")
"""Rows that write models for all others."""
NEWEST = "newest"
"""The row that leaves MLflow and Transformers open: the newest that can be installed."""


@dataclass(frozen=True)
class Row:
    """One environment: pins of a constraint file, and a Python."""

    constraints: str
    python: str = "3.11"

    @property
    def name(self) -> str:
        return self.constraints if self.python == "3.11" else f"{self.constraints}-py{self.python}"

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.constraints}.txt"

    def pins(self) -> dict[str, str]:
        """Versions by package."""
        lines = (line.partition("==") for line in self.file.read_text().split())
        return {package: version for package, _, version in lines}


def rows() -> list[Row]:
    """All rows, oldest MLflow first, the newest last."""
    names = {f.stem for f in FOLDER.glob("*.txt")} - {NEWEST}
    ordered = [*sorted(names, key=lambda n: [int(part) for part in n.partition("-")[2].split(".")]), NEWEST]
    return [Row(name, python) for name in ordered for python in ("3.11", "3.12") if python == "3.11" or name in TWICE]


def interpreter(version: str) -> str | None:
    """A Python of this version on this machine that runs; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    beside = Path(sys.base_prefix).parent  # where pyenv keeps this one, whoever's home it is
    found = [python for folder in (pyenv, beside) for python in sorted(folder.glob(f"{version}.*/bin/python"))]
    candidates = [shutil.which(f"python{version}"), *map(str, found)]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "import venv"], capture_output=True).returncode == 0:
            return candidate
    return None
