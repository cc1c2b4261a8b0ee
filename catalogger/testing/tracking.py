"""A real MLflow tracking server on loopback, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

_SETTINGS = ("MLFLOW_", "DATABRICKS_")
_NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Without its queues of jobs it is one process in place of many; it stores and serves as before."""


class TrackingServer:
    """The server, started by `with`, over a folder: SQLite, and artifacts that it serves itself."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> TrackingServer:
        try:
            while not self._started():
                pass  # somebody else took the port that was free
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)  # a group of its own: the server has workers
            self._process.wait(30)

    def _started(self) -> bool:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  this Python's own MLflow
                [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
                 "--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/tracking.db",
                 "--artifacts-destination", f"{self._folder}/artifacts"],
                env={**kept, **_NO_JOBS},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = (self._folder / "log").read_text()
                if "already in use" in said:
                    return False
                raise RuntimeError(f"the MLflow server ended: {said}")
            if self._is_healthy():
                return True
            time.sleep(0.1)  # between two looks
        raise TimeoutError(self.url)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
