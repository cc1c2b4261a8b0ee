"""Databricks' own tool over the bundle, where it is on the PATH, against the loopback workspace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs.bundle_file import SHORT
from jobs.fresh import ROOT
from testing.asking import ANN, TOKENS
from uv import find_uv_bin

from catalogger.testing import Workspace

TOOL = shutil.which("databricks")

pytestmark = pytest.mark.skipif(TOOL is None, reason="the databricks tool is not on the PATH")


@pytest.fixture
def space(tmp_path: Path, tracking: str) -> Iterator[Workspace]:
    with Workspace(tmp_path / "uc", tokens=TOKENS, tracking=tracking) as found:
        found.add_schema("lab.nlp")
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy: the tool writes beside what it deploys."""
    left_out = shutil.ignore_patterns("__pycache__", "dist", ".*")
    for name in ("catalogger", "jobs"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / "project")
    return tmp_path / "project" / "jobs"


def _bundle(space: Workspace, project: Path, *arguments: str) -> str:
    variables = ("--var", "catalog=lab", "--var", "schema=nlp")
    environment = {
        **os.environ,
        **space.environment,
        "DATABRICKS_BUNDLE_ENGINE": "direct",
        "UV_NO_BUILD_ISOLATION": "1",
        "PATH": f"{Path(find_uv_bin()).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [str(TOOL), "bundle", *arguments, *variables]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tool_finds_nothing_wrong(space: Workspace, project: Path) -> None:
    assert "Validation OK" in _bundle(space, project, "validate", "--target", "dev")
    _bundle(space, project, "validate", "--target", "prod", "--var", "notify=team@example.com")


def test_the_tool_deploys_two_changed_variables(space: Workspace, project: Path) -> None:
    _bundle(space, project, "deploy", "--target", "dev", "--auto-approve")
    job = space.deployed.jobs.named(f"[dev {SHORT}] catalogger-registration")
    assert job.settings["schedule"]["pause_status"] == "PAUSED"
    assert space.model(f"lab.nlp.dev_{SHORT}_bge_small") is not None
    assert any(path.endswith(".whl") for path in space.deployed.files.paths)
    assert space.matching("POST .*jobs/create")[0].user == TOKENS[ANN]
