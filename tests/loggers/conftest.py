"""A real MLflow server on loopback, and MLflow's global state put back after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import checkpoints
from fakes.s3 import S3Server
from loggers.catalogs import KINDS, Catalog, DatabricksCatalog, OssCatalog, opened
from loggers.zygote import Zygote

from catalogger.testing.tracking import TrackingServer


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """The address of a tracking server that proxies artifacts, ended by its own process id."""
    folder = tmp_path / "tracking"
    folder.mkdir()
    with TrackingServer(folder) as server:
        yield server.url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server, one for all tests."""
    with S3Server() as server:
        yield server


@pytest.fixture(params=KINDS)
def catalog(request: pytest.FixtureRequest, s3_server: S3Server, tmp_path: Path) -> Iterator[Catalog]:
    """A Unity Catalog of each kind, with each way that files take."""
    with opened(request.param, s3_server, tmp_path / "catalog") as found:
        yield found


@pytest.fixture
def oss(s3_server: S3Server, tmp_path: Path) -> Iterator[OssCatalog]:
    """An open-source server whose files go to a folder."""
    with opened("oss-folder", s3_server, tmp_path / "catalog") as found:
        yield found


@pytest.fixture
def workspace(s3_server: S3Server, tmp_path: Path) -> Iterator[DatabricksCatalog]:
    """A workspace that gives credentials for S3."""
    with opened("databricks-storage", s3_server, tmp_path / "catalog") as found:
        yield found


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A small checkpoint in two shards."""
    return checkpoints.llama(tmp_path / "llama", shards=2)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """A process that forks one for each job, for the tests of one file."""
    process = Zygote()
    yield process
    process.stop()
