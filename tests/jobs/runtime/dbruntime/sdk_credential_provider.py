"""What a task signs in with.  No other process has it, as in a runtime, where it is in the task's memory."""

from __future__ import annotations

import os
from collections.abc import Callable


def init_runtime_native_auth() -> tuple[str, Callable[[], dict[str, str]]] | tuple[None, None]:
    """The workspace's address, and the headers; none in a process that the task started."""
    if os.environ.get("TASK_PROCESS") != str(os.getpid()):
        return None, None
    return os.environ["TASK_HOST"], lambda: {"Authorization": f"Bearer {os.environ['TASK_TOKEN']}"}
