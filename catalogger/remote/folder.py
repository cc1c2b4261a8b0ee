"""Storage in a folder of this machine: what an open-source server with a `file:` root hands out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

from catalogger.errors import DiskError, RegistryError
from catalogger.files.digests import Tick, sha256_file
from catalogger.files.place import Placed, Weights, existing
from catalogger.files.workers import Task, Workers
from catalogger.remote.parts import Source
from catalogger.remote.storage import Sending, Sent

_PART = ".catalogger-part"  # ends the name of a file that is not whole yet


class FolderStorage:
    """Files below a `file:` address.  `weights` and `ours` as for `place`: links where both allow it."""

    def __init__(self, location: str, workers: Workers, weights: Weights = "copy", *, ours: bool = False) -> None:
        self.location = location
        self.folder = Path(unquote(urlparse(location).path))
        self._workers, self._weights, self._ours = workers, weights, ours

    def listing(self) -> Mapping[str, int]:
        """Every whole file."""
        return {path: size for path, size in self._found().items() if not path.endswith(_PART)}

    def send(self, files: Sequence[Sending], tick: Tick) -> Sent:
        """Place each file under another name, then give it its own: what has its name is whole."""
        self._require_here()
        there, waiting = self._found(), []
        sources = [Source(file.source, file.size) for file in files]
        for file in files:
            task = self._task(file, there.get(file.path))
            waiting.append((file, task, self._workers.submit(task, tick)))
        placed = [(file, self._finish(file, task, future)) for file, task, future in waiting]
        for source in sources:
            source.check()
        return Sent(
            read=sum(p.read for _, p in placed),
            written=sum(p.written for _, p in placed),
            digests={file.path: p.sha256 for file, p in placed if p.sha256 and not file.sha256},
        )

    def free(self) -> int | None:
        """None where the weights may be links, which take no room."""
        if self._weights == "link" or (self._weights == "auto" and self._ours):
            return None
        return shutil.disk_usage(existing(self.folder)).free

    def read(self, path: str) -> bytes:
        try:
            return (self.folder / path).read_bytes()
        except OSError as error:
            raise RegistryError(f'"{self.folder / path}" cannot be read: {error.strerror}.') from error

    def part(self, path: str, start: int, count: int) -> bytes:
        try:
            with (self.folder / path).open("rb", buffering=0) as stream:
                return os.pread(stream.fileno(), count, start)
        except OSError as error:
            raise RegistryError(f'"{self.folder / path}" cannot be read: {error.strerror}.') from error

    def unfinished(self) -> Mapping[str, int]:
        return {path: size for path, size in self._found().items() if path.endswith(_PART)}

    def abandon(self) -> None:
        self.remove(self.unfinished())

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            (self.folder / path).unlink(missing_ok=True)

    def _task(self, file: Sending, there: int | None) -> Task:
        """What is there with its size is looked at again; anything else is placed anew."""
        if there == file.size and file.sha256 and sha256_file(self.folder / file.path) == file.sha256:
            return Task(self.folder / file.path, None, known=True)
        part = self._part(file)
        part.unlink(missing_ok=True)
        return Task(file.source, part, self._weights, ours=self._ours, known=file.sha256 is not None)

    def _finish(self, file: Sending, task: Task, future: Future[Placed]) -> Placed:
        placed = future.result()
        if task.target is not None:
            try:
                task.target.replace(self.folder / file.path)
            except OSError as error:
                raise DiskError(f'Cannot write "{self.folder / file.path}": {error.strerror}.') from error
        return placed

    def _part(self, file: Sending) -> Path:
        return self.folder / f"{file.path}{_PART}"

    def _found(self) -> dict[str, int]:
        found = {}
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file():
                    found[path.relative_to(self.folder).as_posix()] = path.stat().st_size
        return found

    def _require_here(self) -> None:
        if not self.folder.is_dir():
            raise RegistryError(
                f'The registry keeps its files in "{self.folder}", which is no folder of this machine.',
                "Run this on the server's machine, or give the server object storage as its root.",
            )
