"""Checkpoints for many entries, a Hub that has some of them, and a workspace to register to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints.client import point_at
from fakes import checkpoints
from fakes.hub import Hub
from huggingface_hub import constants
from testing.asking import ANN, TOKENS

from catalogger.testing import Workspace


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("fleet") / "llama")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.bert(tmp_path_factory.mktemp("fleet") / "bert")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)  # for the workers
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface/hub"))
        point_at(monkeypatch, server.url)
        yield server


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace that takes files by the Files API, whose catalog is `main.ml`."""
    with Workspace(tmp_path / "space", tokens=TOKENS, sdk_uploads=True) as workspace:
        workspace.add_schema("main.ml")
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", ANN)
        yield workspace
