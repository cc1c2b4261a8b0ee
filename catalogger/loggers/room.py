"""The room on this disk that weight files on their way may take, and how much of it a job needs at least."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from catalogger.files.workers import Stopped

_AT_ONCE = 2  # files: one on its way here, one on its way to the registry


class Room:
    """So many bytes, taken and given back by several threads; some of them for a file that has a name."""

    def __init__(self, size: int) -> None:
        self._size, self._taken, self._closed = size, 0, False
        self._names = set[Path]()
        self._moved = threading.Condition()

    def take(self, size: int, name: Path | None = None) -> None:
        """Wait until there is room for so many bytes.  Raises Stopped."""
        with self._moved:
            self._moved.wait_for(lambda: self._closed or self._taken + size <= self._size)
            if self._closed:
                raise Stopped
            self._taken += size
            self._names |= {name} if name else set()

    def give(self, size: int, name: Path | None = None) -> None:
        """So many bytes are free again."""
        with self._moved:
            self._taken -= size
            self._names.discard(name or Path())
            self._moved.notify_all()

    def holds(self, name: Path) -> bool:
        """Whether room was taken for the file of this name."""
        with self._moved:
            return name in self._names

    def close(self) -> None:
        """Whoever waits need not wait any longer."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()


def most_at_once(files: Sequence[tuple[int, Sequence[Path]]], fetched: Mapping[Path, int], *, changed: bool) -> int:
    """Bytes that stand on the disk at most: two of the largest files, or more where a file is made of so many at once.

    Each file is given by its size and its sources in their order, and `fetched` has the sizes of those that are not
    here.  Of files that are `changed` both stand here, of others the source alone.
    """
    sizes = list(fetched.values()) + ([size for size, _ in files] if changed else [])
    last = {path: n for n, (_, sources) in enumerate(files) for path in sources}
    held, least = set[Path](), 0
    for n, (size, sources) in enumerate(files):
        for path in (p for p in sources if p in fetched):
            held.add(path)
            least = max(least, sum(fetched[p] for p in held) + (size if changed else 0))
            held -= {path} if last[path] == n else set()
    return min(max(_AT_ONCE * max(sizes, default=0), least), sum(sizes))
