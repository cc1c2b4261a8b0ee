"""A real MLflow server on loopback, and MLflow's global state put back after each test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from fakes.s3 import S3Server
from loggers.catalogs import KINDS, Catalog, opened


@pytest.fixture(autouse=True)
def _mlflow_forgets() -> Iterator[None]:
    yield
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """The address of a tracking server that proxies artifacts, ended by its own process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/art"],
        env={k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)  # between two looks, not in place of one
    raise TimeoutError(url)


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
