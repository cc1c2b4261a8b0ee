"""What every test stands on: nothing of this machine's settings, a folder of its own, no network but loopback."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["leaks"]

_FOREIGN = ("HF_", "MLFLOW_", "DATABRICKS_", "HUGGING_FACE_", "HUGGINGFACE_", "XDG_", "CATALOGGER_", "AWS_", "AZURE_")


@pytest.fixture(autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME, caches and working folder are the test's own; no setting of the machine leaks in."""
    world = tmp_path_factory.mktemp("world")
    for name in list(os.environ):
        if name.startswith(_FOREIGN) and not name.startswith("CATALOGGER_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(world))
    monkeypatch.setenv("XDG_CACHE_HOME", str(world / "cache"))
    monkeypatch.setenv("HF_HOME", str(world / "huggingface"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    (world / "work").mkdir()
    monkeypatch.chdir(world / "work")


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to any other machine is a failure of the test, not a delay."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "unix"
        if host not in ("127.0.0.1", "::1", "localhost", "unix"):
            raise OSError(f"a test tried to reach {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _mlflow_is_as_it_was() -> Iterator[None]:
    """What was set by MLflow's setters holds for the process: a run, stores, and an experiment that would be looked for
    in every other store.
    """
    yield
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    if mlflow := sys.modules.get("mlflow"):
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
    if fluent := sys.modules.get("mlflow.tracking.fluent"):
        fluent._active_experiment_id = None  # type: ignore[attr-defined]


@pytest.fixture
def work() -> Path:
    """The test's working folder."""
    return Path.cwd()
