"""SHA-256 of files, each byte read once, and remembered as build tools remember: by device, inode, size and times.

The memory is a convenience: when it cannot be opened, files are hashed again.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path

BLOCK = 1 << 18  # bytes read at a time; larger ones only cost memory
_SETTLED = 50_000_000  # ns; a file younger than a few clock ticks could change without its times showing it

Tick = Callable[[int], None]
"""Called with a number of bytes that were just read, copied or fetched."""


def sha256_file(path: Path, tick: Tick = lambda _: None) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(block):
            digest.update(block[:count])
            tick(count)
    return digest.hexdigest()


def git_blob(content: bytes) -> str:
    """Git's object id of a file's content, which the Hub gives for files outside its large-file storage."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def identity(about: os.stat_result) -> tuple[int, int, int]:
    """Size, time of change and inode: another file, or one that was written to, has another."""
    return about.st_size, about.st_mtime_ns, about.st_ino


class DigestMemory:
    """Digests of files that have not changed since they were hashed.

    Keeps one row a file in `$XDG_CACHE_HOME/catalogger/digests.sqlite`.  With `distrust`, nothing is looked up (but
    what is hashed is remembered).  A rewrite that restores size, inode, modification and change time cannot be seen.
    """

    def __init__(self, file: Path | None = None, *, distrust: bool = False) -> None:
        self._file = file or cache_folder() / "digests.sqlite"
        self.distrusts = distrust

    def recall(self, path: Path) -> str | None:
        """The digest of the file as it is now, or None where it is not known."""
        if self.distrusts or not self._file.exists():
            return None
        query = "select sha256 from digests where device=? and inode=? and size=? and modified=? and changed=?"
        with suppress(sqlite3.Error, OSError), closing(self._open()) as memory:
            row = memory.execute(query, _key(path.stat())).fetchone()
            return str(row[0]) if row else None
        return None

    def remember(self, found: Iterable[tuple[Path, str, os.stat_result]]) -> None:
        """Keep the digest of each file, unless it changed since the stat that was taken when reading it began.

        The change time may differ: a hard link that was made meanwhile sets it and leaves the content alone.
        """
        rows = [(*_key(now), sha256) for path, sha256, before in found if _is_settled(now := path.stat(), before)]
        if not rows:
            return
        with suppress(sqlite3.Error, OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as memory, memory:
                memory.executemany("insert or replace into digests values (?,?,?,?,?,?)", rows)

    def _open(self) -> sqlite3.Connection:
        memory = sqlite3.connect(self._file, timeout=5)
        memory.execute(
            "create table if not exists digests (device int, inode int, size int, modified int, changed int,"
            " sha256 text, primary key (device, inode))"
        )
        return memory


def cache_folder() -> Path:
    """Where catalogger keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "catalogger"


def hash_file(path: Path, memory: DigestMemory) -> str:
    """The SHA-256 of a file's content, read now and remembered."""
    before = path.stat()
    digest = sha256_file(path)
    memory.remember([(path, digest, before)])
    return digest


def _is_settled(now: os.stat_result, before: os.stat_result) -> bool:
    same = identity(now) == identity(before)
    return same and time.time_ns() - now.st_mtime_ns >= _SETTLED


def _key(stat: os.stat_result) -> tuple[int, int, int, int, int]:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
