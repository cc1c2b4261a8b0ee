"""One registration of one model at a time on this machine."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from catalogger.files.digests import cache_folder
from catalogger.progress import Progress


@contextmanager
def registration_lock(registry_uri: str, name: str, progress: Progress) -> Iterator[bool]:
    """Hold the lock of this name in this registry; the system frees it when the process ends, however it ends.

    Gives whether it is held: where the cache folder cannot be written there is none, and what the number holds is still
    read back.
    """
    folder = cache_folder() / "locks"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        file = (folder / hashlib.sha256(f"{registry_uri} {name}".encode()).hexdigest()[:32]).open("w")
    except OSError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"Another registration of {name} is under way; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True
