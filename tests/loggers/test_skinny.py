"""`mlflow-skinny` does all that loads no model: in an environment without the whole MLflow, pandas and SQLAlchemy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution, requires, version
from pathlib import Path

import pytest
import yaml
from fakes import checkpoints
from fakes.s3 import S3Server
from leaks import heard
from loggers.catalogs import Kind, log, opened
from packaging.requirements import Requirement
from uv import find_uv_bin

from catalogger.testing.tracking import TrackingServer

ROOT = Path(__file__).parents[2]
OF_THE_DATABRICKS_KIND = ("databricks-sdk", "boto3")
TOLD = ("catalogger", "transformers", "torch", "accelerate", "pip", "setuptools", "wheel")
"""What a model asks for: their metadata alone is enough to tell it."""
CACHE = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
"""Of the one who runs the tests, before a test has a home of its own."""


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with what catalogger depends on, in the versions at hand, but skinny instead of MLflow."""
    folder = tmp_path_factory.mktemp("skinny") / "environment"
    needed = [Requirement(line) for line in requires("catalogger") or ()]
    names = [r.name for r in needed if not r.marker and r.name != "mlflow"]
    pins = [f"{name}=={version(name)}" for name in (*names, *OF_THE_DATABRICKS_KIND)]
    uv, env = find_uv_bin(), os.environ | {"UV_CACHE_DIR": CACHE}
    for command in (
        [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(folder), f"mlflow-skinny=={version('mlflow')}", *pins],
    ):
        subprocess.run(command, env=env, check=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    here = Path(str(distribution("catalogger").locate_file("")))
    for name in TOLD:
        for metadata in here.glob(f"{name}-*.dist-info"):
            shutil.copytree(metadata, site / metadata.name)
    (site / "catalogger.pth").write_text(str(ROOT))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with TrackingServer(tmp_path_factory.mktemp("tracking")) as server:
        yield server.url


def _run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-c", "from catalogger.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_is_skinny(python: Path) -> None:
    script = (
        "import importlib.util as u; print([n for n in ('pandas', 'sqlalchemy', 'pyarrow', 'torch') if u.find_spec(n)])"
    )
    assert subprocess.run([python, "-c", script], capture_output=True, text=True).stdout == "[]\n"


def test_a_check(python: Path, work: Path) -> None:
    done = _run(python, "check", "--recipe", "llama-chat", "--source", str(checkpoints.llama(work / "llama")))
    assert (done.returncode, "0 errors" in done.stdout) == (0, True)


@pytest.mark.parametrize("kind", ["oss-folder", "databricks-files"])
def test_a_registration_is_that_of_the_whole_mlflow(kind: Kind, python: Path, tracking: str, work: Path) -> None:
    source = checkpoints.llama(work / "llama")
    arguments = ["--recipe", "llama-chat", "--source", str(source), "--name", "main.ml.bot", "--tracking-uri", tracking]
    with S3Server() as s3, opened(kind, s3, work / "catalog") as catalog:
        done = _run(python, *arguments, "--registry-uri", catalog.uri)
        assert done.returncode == 0, done.stderr
        (held,) = catalog.versions()
        assert held.status == "READY"
        thin = catalog.digests(held)
        again = _run(python, *arguments, "--registry-uri", catalog.uri)
        assert "unchanged" in again.stdout
        assert log(source, catalog, tracking_uri=tracking).action == "unchanged", (
            "the same content, by the whole MLflow"
        )
        catalog.empty()
        assert log(source, catalog, tracking_uri=tracking).action == "registered"
        (whole,) = catalog.versions()
        made_anew = {"MLmodel", "catalogger.json"}  # with ids and times
        assert {p: d for p, d in catalog.digests(whole).items() if p not in made_anew} == {
            path: digest for path, digest in thin.items() if path not in made_anew
        }


def test_mlmodel_is_that_of_the_whole_mlflow(python: Path, tracking: str, work: Path) -> None:
    """Of a dry run, which gives no ids."""
    source = str(checkpoints.llama(work / "llama"))
    arguments = ["--recipe", "llama-chat", "--source", source, "--name", "main.ml.bot", "--tracking-uri", tracking]
    shown = [_run(Path(by), *arguments, "--dry-run").stdout for by in (python, sys.executable)]
    thin, whole = (yaml.safe_load(text.partition("MLmodel:\n")[2]) for text in shown)
    assert thin["signature"] == whole["signature"]
    differing = {key for key in thin.keys() | whole.keys() if thin.get(key) != whole.get(key)}
    assert differing <= {"model_uuid", "utc_time_created"}


def test_it_reaches_no_database(python: Path, work: Path) -> None:
    done = _run(python, "--recipe", "llama-chat", "--source", str(checkpoints.llama(work / "llama")), "--name", "a.b.c")
    heard("errors of skinny", done.stderr)
    assert (done.returncode, "mlflow-skinny comes without what reaches one" in done.stderr) == (2, True)
    assert [path.name for path in work.iterdir()] == ["llama"]
