"""One at a time on this machine: one registration of a model, one making of an embedded store."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from catalogger.files.digests import cache_folder
from catalogger.loggers.stores import Stores, pointed_at, sqlite_file, translated
from catalogger.progress import Progress


@contextmanager
def registration_lock(registry_uri: str, name: str, progress: Progress) -> Iterator[bool]:
    """Hold the lock of this name in this registry; the system frees it when the process ends, however it ends.

    Gives whether it is held: where the cache folder cannot be written there is none, and what the number holds is still
    read back.
    """
    file = _opened(f"{registry_uri} {name}")
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
    file = _opened(f"{registry_uri} {name}")
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


def make_embedded(stores: Stores) -> None:
    """Make the tables of an SQLite store that is not there yet, where no other process is at it: MLflow's own making
    fails for the second of two.
    """
    if not (stores.file or sqlite_file(stores.registry_uri)):
        return
    file = _opened(f"{stores.tracking_uri} {stores.registry_uri}")
    if file is None:
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not stores.exist:
            import mlflow

            with pointed_at(stores), translated(stores):
                client = mlflow.MlflowClient(stores.tracking_uri, stores.registry_uri)
                if stores.file:
                    client.search_experiments(max_results=1)
                if sqlite_file(stores.registry_uri):
                    client.search_registered_models(max_results=1)


def _opened(what: str) -> TextIO | None:
    folder = cache_folder() / "locks"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        return (folder / hashlib.sha256(what.encode()).hexdigest()[:32]).open("w")
    except OSError:
        return None
