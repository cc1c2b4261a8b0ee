"""One weight file of the Hub into a file of ours, from its beginning on, by a few connections, verified at its end.

Unlike huggingface_hub's download it tells how far it is, so that what is there can be read while the rest still comes.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from catalogger.checkpoints.asking import answer, patiently, translated
from catalogger.checkpoints.facts import File, Origin
from catalogger.checkpoints.hub import expected
from catalogger.errors import DigestMismatch, DiskError, NetworkUnreachable
from catalogger.files.arriving import Arriving
from catalogger.files.digests import BLOCK
from catalogger.files.place import unwritable, write_at
from catalogger.files.rate import pace
from catalogger.files.workers import Stopped

PIECE = 1 << 26  # bytes of one request: few enough requests for the Hub, small enough to begin with soon
_CONNECTIONS = 4


def bring(origin: Origin, file: File, target: Path, arriving: Arriving, stop: threading.Event) -> str:
    """Fetch the file to `target`, where what an earlier run has left is gone on with; its SHA-256.

    Raises DigestMismatch, after which the next call begins anew; AccessDenied, NetworkUnreachable, DiskError, Stopped.
    """
    with translated(origin.location, origin.revision):
        coming = _Coming(origin, file, target, arriving, stop)
        try:
            found, sha256 = coming.run()
        finally:
            coming.close()
    if found != expected(file):
        _note(target).unlink()  # the file itself may be being read
        raise DigestMismatch(origin.location, file.path, expected(file), found)
    arriving.whole()
    return sha256


def forget(target: Path) -> None:
    """Remove what was fetched of a file."""
    target.unlink(missing_ok=True)
    _note(target).unlink(missing_ok=True)


def fetched(target: Path) -> int:
    """How many bytes of a file are there, from its beginning on."""
    with suppress(OSError, ValueError):
        return min(int(_note(target).read_text()), target.stat().st_size)
    return 0


def _note(target: Path) -> Path:
    """Says how many bytes are there: behind them pieces may stand already, with holes between."""
    return target.with_name(f"{target.name}.at")


class _Coming:
    """One file on its way: pieces come side by side, and are hashed in their order."""

    def __init__(self, origin: Origin, file: File, target: Path, arriving: Arriving, stop: threading.Event) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        self._url = hf_hub_url(origin.location, file.path, revision=origin.revision)
        self._headers: Mapping[str, str] = build_hf_headers()
        self._file, self._target, self._arriving, self._stop = file, target, arriving, stop
        self._sha256 = hashlib.sha256()
        self._blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if file.blob else None
        self._pool = ThreadPoolExecutor(_CONNECTIONS)
        self._closed = False
        try:
            self._descriptor = os.open(target, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise unwritable(target, error) from error

    def run(self) -> tuple[str, str]:
        """The digest that the Hub goes by, and the SHA-256."""
        at = fetched(self._target)
        self._hash(0, at)
        waiting = deque[tuple[int, Future[None]]]()
        while at < self._file.size or waiting:
            while at < self._file.size and len(waiting) < _CONNECTIONS:
                end = min(at + PIECE, self._file.size)
                waiting.append((at, self._pool.submit(self._fetch, at, end)))
                at = end
            begin, piece = waiting.popleft()
            piece.result()
            self._hash(begin, waiting[0][0] if waiting else at)
        sha256 = self._sha256.hexdigest()
        return (self._blob.hexdigest() if self._blob else sha256), sha256

    def close(self) -> None:
        """End every request: each sees it with its next block."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        os.close(self._descriptor)

    def _fetch(self, start: int, end: int) -> None:
        def attempt() -> None:
            nonlocal start
            before, asked = start, {**self._headers, "Range": f"bytes={start}-{end - 1}"}
            with answer(self._url, asked) as (status, blocks):
                if status != 206 and start:
                    raise NetworkUnreachable(f'"{self._url}" sends no part of a file.', "Leave --stream out.")
                for block in blocks:
                    start += self._write(memoryview(block)[: end - start], start)
                    if start == end:
                        return
            if start == before:
                raise NetworkUnreachable(f'"{self._url}" sends nothing.', "Run the same command again.")

        while start < end:  # an answer that is cut short is no error to every client
            patiently(attempt)

    def _write(self, block: memoryview, at: int) -> int:
        if self._closed or self._stop.is_set():
            raise Stopped
        pace(len(block))
        write_at(self._descriptor, block, at, self._target)
        return len(block)

    def _hash(self, start: int, end: int) -> None:
        """What has come up to `end` is in order, and may be read."""
        buffer = memoryview(bytearray(BLOCK))
        while start < end:
            if self._stop.is_set():
                raise Stopped
            count = os.preadv(self._descriptor, [buffer[: end - start]], start)
            if not count:
                raise DiskError(f'"{self._target}" became shorter.', "Run the same command again.")
            for digest in filter(None, (self._sha256, self._blob)):
                digest.update(buffer[:count])
            start += count
        try:
            _note(self._target).write_text(str(end))
        except OSError as error:
            raise unwritable(self._target, error) from error
        self._arriving.reached(end)
