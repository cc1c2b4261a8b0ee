"""The other end of a served model's process: it is started, asked, and ended by its own number."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from catalogger.testing import model_child

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_KEY|AUTH", re.IGNORECASE)
_FOREIGN = ("HF_", "DATABRICKS_", "MLFLOW_", "AWS_", "AZURE_", "GOOGLE_")
_LAST = frozenset({"done", "refused", "failed"})
_LINES = 3  # of its last words


class WrongOrderError(Exception):
    """The model cannot answer that: whoever asked is at fault."""


class ModelFailedError(Exception):
    """The model did not load, or its process failed or has ended."""


class ModelProcess:
    """One model in a process of its own, which has no token and no network by Hugging Face's switches.

    Orders of several threads are answered one after another.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self._lock = threading.Lock()
        self._scratch = tempfile.TemporaryDirectory(prefix="catalogger-served-", ignore_cleanup_errors=True)
        self._words = Path(self._scratch.name) / "words"
        with self._words.open("wb") as words:
            self._process = subprocess.Popen(  # noqa: S603  this Python, and a module of ours
                [sys.executable, "-P", "-m", model_child.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                env=_environment(self._scratch.name),
                cwd=self._scratch.name,
                process_group=0,
            )
        self.pid = self._process.pid
        try:
            for _ in self.ask({"folder": str(folder.absolute()), "task": task}):
                """It is ready when it says so."""
        except BaseException:
            self.close()
            raise

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The events that answer the order; the last one is what `done` holds.

        Raises WrongOrderError and ModelFailedError.
        """
        with self._lock:
            self._send(order)
            last = False
            try:
                while not last:
                    event = self._next()
                    last = not _LAST.isdisjoint(event)
                    yield _accepted(event)
            except GeneratorExit:
                while not last:  # whoever asked has left: the next answer begins after this one
                    last = not _LAST.isdisjoint(self._next())
                raise

    def close(self) -> None:
        """End it, whatever it does."""
        self._end()
        with self._process:
            """Its pipes are closed."""
        self._scratch.cleanup()

    def _end(self) -> None:
        if not self.ended:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def _send(self, order: Mapping[str, Any]) -> None:
        pipe: IO[bytes] | None = self._process.stdin
        with suppress(BrokenPipeError):  # there is no answer then, which tells more
            if pipe:
                pipe.write(json.dumps(order).encode() + b"\n")
                pipe.flush()

    def _next(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            self._end()
            raise ModelFailedError(f"The process of the model has ended. {self._last_words()}")
        event: dict[str, Any] = json.loads(line)
        return event

    def _last_words(self) -> str:
        try:
            return " ".join(self._words.read_text(errors="replace").splitlines()[-_LINES:])
        except OSError:  # closed meanwhile
            return ""


def _accepted(event: dict[str, Any]) -> dict[str, Any]:
    if "refused" in event:
        raise WrongOrderError(event["refused"])
    if "failed" in event:
        raise ModelFailedError(event["failed"])
    done: dict[str, Any] | None = event.get("done")
    return event if done is None else done


def _environment(scratch: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not (_SECRET.search(k) or k.startswith(_FOREIGN))}
    return kept | {
        "HF_HOME": f"{scratch}/huggingface",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/none.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONUTF8": "1",
    }
