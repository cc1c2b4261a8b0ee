"""A process that has imported everything and forks one for each job: registration without two seconds of imports.

It has no threads, so that a fork is safe. Run as a program it is the process; imported, it is the handle of it.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

_IMPORTED = (
    "mlflow",
    "mlflow.models",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "catalogger.loggers.job",
    "boto3",
    "databricks.sdk",
    "transformers",
)


class Zygote:
    """The process. Jobs are run one after another, each in a working folder and an environment of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.running: int | None = None
        self._read()

    def start(self, folder: Path, *, constants: Mapping[str, Any] | None = None, **arguments: Any) -> None:
        """Begin `log_model(**arguments)` with this test's environment, and these constants of modules set."""
        job = {"folder": str(folder), "environment": dict(os.environ), "arguments": arguments}
        job["constants"] = dict(constants or {})
        self._pipe(self._process.stdin).write(json.dumps(job) + "\n")
        self._pipe(self._process.stdin).flush()
        self.running = int(self._read())

    def kill(self) -> None:
        """SIGKILL the job that is running."""
        if self.running:
            os.kill(self.running, signal.SIGKILL)

    def wait(self, seconds: float | None = None) -> dict[str, Any] | None:
        """What came of the job: its outcome's document, or `killed`; None where it is not done in that time."""
        from leaks import heard  # not at the top: the process itself has no folder of tests in its path

        if seconds is not None and not select.select([self._pipe(self._process.stdout)], [], [], seconds)[0]:
            return None
        said = self._read()
        self.running = None
        heard("what came of a job", said)
        return cast(dict[str, Any], json.loads(said))

    def ended(self) -> None:
        """Wait until the job has ended, and leave what came of it to `wait`."""
        select.select([self._pipe(self._process.stdout)], [], [])

    def stop(self) -> None:
        with self._process as process:
            process.kill()

    def _read(self) -> str:
        line = self._pipe(self._process.stdout).readline()
        assert line, "the process has ended"
        return line

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe
        return pipe


def _serve() -> None:
    for module in _IMPORTED:
        importlib.import_module(module)
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        job = json.loads(line)
        result, answer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(result)
            _perform(job, answer)
        os.close(answer)
        print(pid, flush=True)  # noqa: T201
        with os.fdopen(result) as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
        print(said or json.dumps({"killed": True}), flush=True)  # noqa: T201


def _perform(job: dict[str, Any], answer: int) -> None:
    from catalogger import log_model

    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    os.dup2(2, 1)
    for place, value in job["constants"].items():
        module, _, name = place.rpartition(".")
        setattr(importlib.import_module(module), name, value)
    try:
        document: dict[str, Any] = log_model(**job["arguments"]).document()
    except BaseException:
        document = {"error": traceback.format_exc()}
    with os.fdopen(answer, "w") as pipe:
        json.dump(document, pipe)
    os._exit(0)


if __name__ == "__main__":
    _serve()
