"""One registration of one model at a time on this machine."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from catalogger.files.digests import cache_folder
from catalogger.progress import Progress


@contextmanager
def registration_lock(registry_uri: str, name: str, progress: Progress) -> Iterator[bool]:
    """Hold the lock of this name in this registry; the system frees it when the process ends, however it ends.

    Gives whether it is held: where the cache folder cannot be written there is none, and what the number holds is still
    read back.
    """
    file = _opened(registry_uri, name)
    if file is None:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say(f"Another registration of {name} is under way; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True


@contextmanager
def unless_registering(registry_uri: str, name: str) -> Iterator[bool]:
    """Hold that lock too, but without waiting: whether it is held now, so that no registration is under way here."""
    file = _opened(registry_uri, name)
    if file is None:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _opened(registry_uri: str, name: str) -> IO[str] | None:
    """The file of the lock; None where the cache folder cannot be written."""
    folder = cache_folder() / "locks"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / hashlib.sha256(f"{registry_uri} {name}".encode()).hexdigest()[:32]).open("w")
    return None
