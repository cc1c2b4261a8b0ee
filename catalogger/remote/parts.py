"""A file cut into parts, each sent through a window that holds a block of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from catalogger.errors import CataloggerError, DiskError
from catalogger.files.arriving import Arriving
from catalogger.files.digests import BLOCK, identity
from catalogger.files.rate import pace

PART = 1 << 24  # bytes
_MOST = 10_000  # parts that S3 takes of one object, and others too
_STEP = 1 << 20


class Stopped(Exception):
    """The work was ended before it was done."""


@dataclass(frozen=True)
class Span:
    """One part: its number as S3 counts (from 1), where it begins in the file, its size in bytes."""

    number: int
    start: int
    size: int


def spans(size: int) -> list[Span]:
    """The parts of a file, by its size alone, so that a later run cuts in the same places."""
    part = max(PART, -(-size // (_MOST * _STEP)) * _STEP)
    return [Span(n + 1, start, min(part, size - start)) for n, start in enumerate(range(0, max(size, 1), part))]


class Source:
    """A file that must stay as it was when it was first looked at, until all of it is sent; or one that is `arriving`.

    Raises DiskError where it cannot be read, has another size than `size`, or changes.
    """

    def __init__(self, path: Path, size: int, arriving: Arriving | None = None) -> None:
        self.path = path
        self._arriving = arriving
        self._before = None if arriving else self._looked_at()
        if self._before and self._before[0] != size:
            raise DiskError(f'"{path}" has {self._before[0]} bytes now, {size} were expected.', _FIX)

    def until(self, end: int) -> None:
        """Wait until the first `end` bytes are there.  Raises what has stopped them from coming."""
        if self._arriving:
            self._arriving.until(end)

    def check(self) -> None:
        """Raise DiskError where it is another file now."""
        if self._before and self._looked_at() != self._before:
            raise self.changed()

    def changed(self) -> DiskError:
        return DiskError(f'"{self.path}" changed while it was sent.', _FIX)

    def _looked_at(self) -> tuple[int, int, int]:
        with self.readable():
            return identity(self.path.stat())

    def opened(self) -> FileIO:
        with self.readable():
            return self.path.open("rb", buffering=0)

    @contextmanager
    def readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DiskError(f'Cannot read "{self.path}": {error.strerror}.', _FIX) from error


_FIX = "Leave the checkpoint alone while it is sent, then run the same command again."


class Window:
    """The bytes of one part as a request's body: read block by block, and again from its start where it is sent again.

    The HTTP client wraps what is raised while it reads; `failure` keeps it.
    """

    def __init__(self, source: Source, stream: FileIO, span: Span, stopped: threading.Event) -> None:
        self.failure: CataloggerError | Stopped | None = None
        self._source, self._stream, self._span, self._stopped = source, stream, span, stopped
        self._at = 0

    def __len__(self) -> int:
        return self._span.size

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._span.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = self._span.size - self._at
        try:
            block = self._read(left if size < 0 else min(size, left))
        except (CataloggerError, Stopped) as failure:
            self.failure = failure
            raise
        self._at += len(block)
        pace(len(block))
        return block

    def _read(self, size: int) -> bytes:
        if self._stopped.is_set():
            raise Stopped
        with self._source.readable():
            block = os.pread(self._stream.fileno(), size, self._span.start + self._at)
        if size and not block:
            raise self._source.changed()
        return block


def blocks(source: Source, stream: FileIO, span: Span, stopped: threading.Event) -> Iterator[memoryview]:
    """The part's bytes through one buffer: each block is gone when the next one is asked for."""
    source.until(span.start + span.size)
    buffer = memoryview(bytearray(min(BLOCK, span.size)))
    done = 0
    while done < span.size:
        if stopped.is_set():
            raise Stopped
        with source.readable():
            count = os.preadv(stream.fileno(), [buffer[: span.size - done]], span.start + done)
        if not count:
            raise source.changed()
        yield buffer[:count]
        done += count
