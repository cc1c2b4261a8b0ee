"""The command as its users start it: a real process, with its exit code and both its streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START = (sys.executable, "-c", "from catalogger.cli import main; main()")


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document that stdout holds: anything before or after it is an error."""
        document: dict[str, Any] = json.loads(self.out)
        return document


def run(*arguments: str, cwd: Path | None = None, timeout: float = 60, **environment: str) -> Done:
    """Run `log-model` with these arguments and, beside the test's own, these environment variables."""
    done = subprocess.run(
        [*START, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
