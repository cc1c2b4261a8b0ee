"""A real S3 server for the module and a proxy before it for each test, and a workspace with files to send to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.s3 import S3Proxy, S3Server
from remote.files_workspace import Files, Workspace

from catalogger.remote.patience import VARIABLE


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Proxy]:
    with S3Proxy(s3_server) as proxy:
        yield proxy


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv(VARIABLE, "20")
    with Workspace(tmp_path / "root") as workspace:
        yield workspace


@pytest.fixture
def impatient(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "2")


@pytest.fixture
def files(work: Path) -> Files:
    return Files(work)
