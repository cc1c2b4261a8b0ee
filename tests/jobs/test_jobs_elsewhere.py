"""The cron line and the workflow, for those without Databricks jobs."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from jobs.bundle_file import FOLDER


def _line() -> tuple[list[str], str]:
    """When it runs, and what."""
    (line,) = [text for text in (FOLDER / "crontab").read_text().splitlines() if not text.startswith("#")]
    *when, command = line.split(None, 5)
    return when, command


def _workflow() -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((FOLDER / "github-actions.yml").read_text())
    return found


@pytest.fixture
def place(tmp_path: Path, python: Path) -> Path:
    """The folder of the cron line, with an environment that holds a token, and a manifest without an entry."""
    (tmp_path / ".venv").symlink_to(python.parents[1])
    (tmp_path / "environment").write_text("export MLFLOW_REGISTRY_URI=sqlite:///mlflow.db\n")
    (tmp_path / "models.yaml").write_text("models: []\n")
    return tmp_path


def _cron(place: Path) -> int:
    """Run the line as cron does, by sh and with next to nothing in the environment."""
    command = _line()[1].replace("/srv/models", str(place))
    environment = {"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin"}
    return subprocess.run(["/bin/sh", "-c", command], env=environment, timeout=120).returncode


def test_the_cron_line_runs_sync(place: Path) -> None:
    when, command = _line()
    assert (len(when), "%" in command) == (5, False), "a percent sign would be a line's end to cron"
    assert _cron(place) == 2
    assert "holds no entry" in (place / "sync.log").read_text()


def test_a_second_run_ends_at_once_while_the_first_is_under_way(place: Path) -> None:
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _cron(place) == 1
    assert (place / "sync.log").read_text() == "", "nothing was run"


def test_the_workflow_waits_for_its_own_kind_and_may_only_read() -> None:
    workflow = _workflow()
    assert workflow["concurrency"] == {"group": "registration", "cancel-in-progress": False}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True]["schedule"] == [{"cron": "17 3 * * *"}], "YAML takes `on` for a yes"
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] < 360, "where GitHub ends it, without an artifact"
    assert all("uses" in step or "run" in step for step in job["steps"])


def test_secrets_of_the_workflow_are_secrets() -> None:
    (job,) = _workflow()["jobs"].values()
    for name, value in job["env"].items():
        hidden = value.startswith("${{ secrets.")
        assert hidden == (name.endswith(("TOKEN", "SECRET"))), name


def test_its_command_and_the_cron_lines_are_ones_that_there_are() -> None:
    from catalogger.cli.sync import sync_command

    (job,) = _workflow()["jobs"].values()
    runs = [step["run"] for step in job["steps"] if "run" in step]
    for text in (*(run for run in runs if run.startswith("log-model")), _line()[1]):
        words = shlex.split(text.partition(">>")[0])
        arguments = words[words.index("sync") + 1 :]
        assert sync_command.make_context("sync", arguments).params["report"] == Path("report.html")
        with pytest.raises(click.UsageError):
            sync_command.make_context("sync", [*arguments, "--reprt"])
