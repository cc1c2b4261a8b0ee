"""The wheel in an environment with nothing else of this project, and its tasks run there as Databricks runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from leaks import heard
from uv import find_uv_bin

from catalogger.testing.job_runs import Ended, Started
from catalogger.testing.workspace_files import WorkspaceFiles

ROOT = Path(__file__).parents[2]
RUNTIME = Path(__file__).parent / "runtime"
_LAUNCHER = """
import os, sys
os.environ["TASK_PROCESS"] = str(os.getpid())
from importlib.metadata import distribution
package, name, *parameters = sys.argv[1:]
sys.argv = [package, *parameters]
(found,) = [e for e in distribution(package).entry_points if e.name == name]
try:
    found.load()()
except SystemExit as ended:
    sys.exit(ended.code or "SystemExit: 0")  # a failure, whatever its code
"""
"""What Databricks does with a wheel task."""


def build(command: str, folder: Path) -> Path:
    """The wheel, by the bundle's own command in a copy of the project, without a network."""
    project = folder / "project"
    project.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, project)
    shutil.copytree(ROOT / "catalogger", project / "catalogger", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**_uv(), "UV_NO_BUILD_ISOLATION": "1", "UV_PYTHON": sys.executable}
    _done(command.split(), environment, project)
    (wheel,) = (project / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment with the wheel; all that the wheel needs is this one's."""
    uv, fresh = find_uv_bin(), folder / "fresh"
    _done([uv, "venv", "--quiet", "--python", sys.executable, str(fresh)], _uv(), folder)
    python = fresh / "bin" / "python"
    options = ("--quiet", "--compile-bytecode", "--no-deps", "--python", str(python))
    _done([uv, "pip", "install", *options, str(wheel)], _uv(), folder)
    (site,) = (fresh / "lib").glob("python*/site-packages")
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "needed.pth").write_text("\n".join(others))  # after its own, and none of their own links
    return python


def _uv() -> dict[str, str]:
    """No network, and `uv` on the PATH."""
    path = f"{Path(find_uv_bin()).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "PATH": path, "UV_OFFLINE": "1", "UV_NO_CONFIG": "1"}


def _done(command: Iterable[str], environment: dict[str, str], folder: Path) -> None:
    done = subprocess.run(list(command), env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@dataclass
class Machine:
    """Runs tasks, each in a process of its own, with the workspace's files where /Workspace is mounted."""

    python: Path
    folder: Path
    files: WorkspaceFiles
    environment: dict[str, str]

    def __call__(self, started: Started) -> Ended:
        self._mount()
        values = self.folder / f"values-{started.task_key}.json"
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            **self.environment,
            "PYTHONPATH": str(RUNTIME),
            "DATABRICKS_RUNTIME_VERSION": "client.4.9",  # as serverless compute says it
            "TASK_VALUES": str(values),
        }
        done = subprocess.run(
            [self.python, "-c", _LAUNCHER, started.package_name, started.entry_point, *started.parameters],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        heard(f"task {started.task_key}", done.stdout + done.stderr)
        published = json.loads(values.read_text()) if values.exists() else {}
        return Ended(done.returncode == 0, f"{done.stdout}{done.stderr}", published)

    def _mount(self) -> None:
        """The test's root stands for the mount: a path in the workspace is the same path here."""
        for path in self.files.paths:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            if not Path(path).exists() or Path(path).read_bytes() != self.files.read(path):
                Path(path).write_bytes(self.files.read(path))
