"""The real huggingface_hub client, pointed at a loopback Hub and an empty cache of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import adapters
from checkpoints.client import point_at
from fakes import checkpoints
from fakes.hub import Hub
from huggingface_hub import constants
from huggingface_hub.utils import close_session


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """huggingface_hub as it is after an import with HF_HOME in the test's folder.

    Its settings are constants, read once at import; every use goes through `constants.NAME`, so setting them there is
    the same.  test_checkpoints_settings.py holds the environment variables themselves, in processes of their own.
    """
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield monkeypatch
    close_session()


@pytest.fixture
def hub(client: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that the client talks to."""
    with Hub() as hub:
        point_at(client, hub.url)
        yield hub


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Permissions hold for the test, which root would pass by."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder: Path = checkpoints.llama(tmp_path / "base", hidden=64)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return adapters.train(base, tmp_path / "adapter", **adapters.Q_V)
