"""Files to a cloud that vends access: what is sent, found and checked, told here once; each client only moves bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Protocol

from catalogger.errors import DiskError, RegistryError
from catalogger.files.digests import Tick
from catalogger.files.rate import pace
from catalogger.remote.storage import Sending, Sent

PART = 1 << 22  # bytes in one request, held in memory by each file on its way
AT_ONCE = 4  # files on their way


class StoppedError(Exception):
    """Another file has failed: this one need not go on."""


class Content:
    """A file on its way: each byte is hashed and counted once, however often it is read.

    `read` raises DiskError where there are fewer bytes than `size`.
    """

    def __init__(self, sending: Sending, tick: Tick, stopped: threading.Event) -> None:
        self.size = sending.size
        self.passed = 0  # bytes that were read at least once
        self._sending, self._tick, self._stopped = sending, tick, stopped
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = None if sending.sha256 else hashlib.sha256()

    def __enter__(self) -> Content:
        try:
            self._stream = self._sending.source.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(PART):
            yield data

    def read(self, count: int = -1) -> bytes:
        """The next bytes: as many as asked for, and none after `size`."""
        if self._stopped.is_set():
            raise StoppedError
        start = self.tell()
        rest = self.size - start
        count = rest if count < 0 else min(count, rest)
        self.until(start + count)
        try:
            data = self._stream.read(count)
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        if len(data) < count:
            raise self._unreadable("it became shorter while it was sent")
        self._pass(memoryview(data)[max(self.passed - start, 0) :])
        pace(len(data))
        return data

    def until(self, end: int) -> None:
        """Wait until the first `end` bytes are here.  Raises what has stopped them from coming."""
        if self._sending.arriving:
            self._sending.arriving.until(end)

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int) -> int:
        return self._stream.seek(offset)

    def md5(self) -> bytes:
        """Of all that has passed."""
        return self._md5.digest()

    def sha256(self) -> str | None:
        """Of all that has passed; None where it was known before."""
        return self._sha256.hexdigest() if self._sha256 else None

    def _pass(self, fresh: memoryview) -> None:
        self._md5.update(fresh)
        if self._sha256:
            self._sha256.update(fresh)
        self.passed += len(fresh)
        self._tick(len(fresh))

    def _unreadable(self, reason: str | None) -> DiskError:
        return DiskError(
            f'"{self._sending.source}" cannot be read to its end: {reason}.',
            "Leave the model's files alone while they are sent, then run the same command again.",
        )


@dataclass(frozen=True)
class Stored:
    """What a cloud says of one file: bytes, and the MD5 where it keeps one."""

    size: int
    md5: bytes | None = None


class Cloud(Protocol):
    """One cloud's client below one location.  Every method is patient, and raises errors of catalogger only."""

    def sizes(self) -> Mapping[str, int]: ...

    def stored(self, path: str) -> Stored: ...

    def put(self, path: str, content: Content) -> None: ...

    def get(self, path: str, span: tuple[int, int] | None = None) -> bytes:
        """All of a small file, or so many bytes from where on: `span` is start and count."""

    def delete(self, path: str) -> None: ...


class CloudStorage:
    """The `Storage` that is made of one cloud's client.

    A file that is there already is taken over where the cloud tells its MD5 and that is right: Google computes it of
    every file, Azure keeps the one that was sent along, default storage tells none.  Any other file is sent again,
    and from its beginning.  A file in Azure that is being sent is listed with size 0 until it is whole.
    """

    def __init__(self, location: str, cloud: Cloud) -> None:
        self.location = location.rstrip("/")
        self._cloud = cloud

    def listing(self) -> Mapping[str, int]:
        """Every file below the location, with its size in bytes."""
        return self._cloud.sizes()

    def send(self, files: Sequence[Sending], tick: Tick) -> Sent:
        """Bring the files there, a few at once; each is read once, or twice where one of its size is there already."""
        there, counting, stopped = self.listing(), threading.Lock(), threading.Event()

        def counted(count: int) -> None:
            with counting:
                tick(count)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            largest_first = sorted(files, key=lambda file: file.size, reverse=True)
            sent = [pool.submit(self._bring, file, there, counted, stopped) for file in largest_first]
            try:
                done = [future.result() for future in as_completed(sent)]
            except BaseException:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return sum(done, Sent())

    def free(self) -> int | None:
        """None: the storage does not tell."""
        return None

    def read(self, path: str) -> bytes:
        """The content of one small file."""
        return self._cloud.get(path)

    def part(self, path: str, start: int, count: int) -> bytes:
        """So many bytes of a file, from `start` on."""
        return self._cloud.get(path, (start, count))

    def unfinished(self) -> Mapping[str, int]:
        """None: what was not finished is not kept apart by these storages."""
        return {}

    def abandon(self) -> None:
        """Nothing, as there are none."""

    def remove(self, paths: Iterable[str]) -> None:
        """Delete these files; one that is not there is none."""
        for path in paths:
            self._cloud.delete(path)

    def _bring(self, file: Sending, there: Mapping[str, int], tick: Tick, stopped: threading.Event) -> Sent:
        looked_at = 0
        if there.get(file.path) == file.size and (md5 := self._cloud.stored(file.path).md5):
            with Content(file, lambda _: None, stopped) as found:
                for _ in found:
                    pass
            looked_at = found.passed
            if found.md5() == md5:
                tick(file.size)
                return Sent(looked_at, 0, 0, _digests(file, found))
        with Content(file, tick, stopped) as content:
            self._cloud.put(file.path, content)
        self._check(file, content)
        return Sent(looked_at + content.passed, 0, file.size, _digests(file, content))

    def _check(self, file: Sending, content: Content) -> None:
        found = self._cloud.stored(file.path)
        if found.size == file.size and found.md5 in (None, content.md5()):
            return
        what = f"{found.size} bytes of {file.size}" if found.size != file.size else "other bytes than were sent"
        raise RegistryError(
            f'"{file.path}" did not arrive whole: the storage has {what}.',
            "Does another process write there? Run the same command again.",
        )


def _digests(file: Sending, content: Content) -> dict[str, str]:
    sha256 = content.sha256()
    return {file.path: sha256} if sha256 else {}
