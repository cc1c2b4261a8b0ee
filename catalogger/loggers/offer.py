"""A model that is offered to a registry which takes files itself: what there is to send, and sending it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalogger.errors import DigestMismatch
from catalogger.files.digests import Tick
from catalogger.loggers.manifest import MANIFEST, write_manifest
from catalogger.loggers.surface import Mark
from catalogger.remote.storage import Sending, Sent, Storage


@dataclass(frozen=True)
class Offer:
    """A model to register: its small files in `folder`, its weight files, what it is and how it is described.

    `seal` makes the mark and the manifest of the weight files' digests, when all of them are known.  `stream` brings
    weight files that are not here, one by one: those that the storage at a location does not have, by its sizes.
    """

    folder: Path
    weights: Sequence[Sending]
    mark: Mark
    description: str
    seal: Callable[[Mapping[str, str]], tuple[Mark, Mapping[str, Any]]]
    stream: Callable[[str, Mapping[str, int]], Generator[Sending]] | None = None

    def files(self) -> list[Sending]:
        """Every file, small ones first: what is refused is refused early."""
        return [*self._small(), *self.weights]

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by its path; none is read for it."""
        small = {self._path(file): file.stat().st_size for file in self._beside()}
        return small | {f.path: f.size for f in self.weights}

    def send(self, storage: Storage, location: str, there: Mapping[str, int], tick: Tick) -> Sent:
        """Bring every file but the manifest to the storage at the location, which has files of these sizes."""
        if self.stream is None:
            return storage.send(self.files(), tick)
        sent = storage.send(self._small(), tick)
        with closing(self.stream(location, there)) as coming:
            for file in coming:
                with suppress(DigestMismatch):  # it comes once more, or the stream ends with this
                    sent += storage.send([file], tick)
        return sent

    def sealed(self, storage: Storage, digests: Mapping[str, str]) -> tuple[Sent, Offer]:
        """Send the manifest, which names every digest; the offer with the mark that this makes known."""
        mark, manifest = self.seal(digests)
        write_manifest(self.folder, manifest)
        sent = storage.send([self._sending(self.folder / MANIFEST)], lambda _: None)
        return sent, replace(self, mark=mark)

    def _beside(self) -> list[Path]:
        """Every file but the weights."""
        return [file for file in sorted(self.folder.rglob("*")) if file.is_file()]

    def _small(self) -> list[Sending]:
        return [self._sending(file) for file in self._beside()]

    def _sending(self, file: Path) -> Sending:
        content = file.read_bytes()
        return Sending(self._path(file), file, len(content), hashlib.sha256(content).hexdigest())

    def _path(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()
