"""Where the files of a version are sent: what every kind of storage can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from catalogger.files.arriving import Arriving
from catalogger.files.digests import Tick


@dataclass(frozen=True)
class Sending:
    """One file to send: its path below the location, where it is here, its size in bytes, its digest where known.

    `arriving` says how much of it is here, where it is still on its way: nobody but us writes to it then.
    """

    path: str
    source: Path
    size: int
    sha256: str | None = None
    arriving: Arriving | None = None


@dataclass(frozen=True)
class Sent:
    """What was moved, in bytes, and the digests by path of the files whose digest was not known before."""

    read: int = 0
    written: int = 0
    sent: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: Sent) -> Sent:
        return Sent(
            self.read + other.read,
            self.written + other.written,
            self.sent + other.sent,
            {**self.digests, **other.digests},
        )


class Storage(Protocol):
    """The files below one location.  Nothing outside of it is read or changed.

    Raises AccessDenied, NetworkUnreachable, DiskError and RegistryError.
    """

    location: str

    def listing(self) -> Mapping[str, int]:
        """Every file below the location, with its size in bytes."""

    def send(self, files: Sequence[Sending], tick: Tick) -> Sent:
        """Bring the files there, whole or not at all each.

        What an earlier attempt has left is taken over where its checksum is right, part by part where the storage can
        tell, and replaced where not.  `tick` counts every byte that is there, sent now or found.
        """

    def free(self) -> int | None:
        """Bytes of room there; None where that cannot be told, or where none is needed."""

    def read(self, path: str) -> bytes:
        """The content of one small file."""

    def part(self, path: str, start: int, count: int) -> bytes:
        """The `count` bytes of a file from `start` on."""

    def unfinished(self) -> Mapping[str, int]:
        """Uploads below the location that were begun and not ended: the bytes that are there of each path.  None where
        the storage does not tell.
        """

    def abandon(self) -> None:
        """End all of those, and take away what is there of them."""

    def remove(self, paths: Iterable[str]) -> None:
        """Delete these files; one that is not there is none."""
