"""What is left of runs that did not end: their versions in the registry, and their folders on this machine.

Each is looked at here, and only what is known to be catalogger's and at rest is told to be so.  Nothing is changed but
by `remove`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from catalogger.errors import CataloggerError, DiskError, RegistryError
from catalogger.files.digests import cache_folder
from catalogger.files.temporary import led_to, size_of, take_away, whose
from catalogger.loggers.changing import CHANGED, link_to
from catalogger.loggers.glance import artifacts_to_be
from catalogger.loggers.keeper import Keeper
from catalogger.loggers.keepers import is_ours
from catalogger.loggers.lock import unless_registering
from catalogger.loggers.stores import Stores
from catalogger.loggers.streaming import STREAMED
from catalogger.loggers.surface import FAILED, PENDING, Row

_UNDER_WAY = "a registration of this model is under way on this machine"


@dataclass(frozen=True)
class Leftover:
    """One thing that is left.  `size` in bytes, where it is known; `age` in seconds.

    `why` says how it is known to be catalogger's or, where it is not `ours` to remove, why it stays.
    """

    kind: Literal["version", "folder"]
    what: str
    ours: bool
    why: str
    size: int | None
    age: float


@dataclass(frozen=True)
class VersionLeft:
    """A version that never became READY, in its registry."""

    told: Leftover
    keeper: Keeper
    registry_uri: str
    name: str
    row: Row

    def remove(self) -> None:
        """Its uploads, its files, and the version, if it is still as it was seen.  Raises CataloggerError."""
        with unless_registering(self.registry_uri, self.name) as alone:
            now = self.keeper.row(self.name, self.row.number)
            seen = (self.row.status, self.row.location, self.row.mark)
            if not alone or (now.status, now.location, now.mark) != seen:
                raise RegistryError(f"{self.told.what} is being worked on.", "It was left as it is.")
            storage = self.keeper.storage(self.name, now) if now.status == PENDING else None
            if storage:
                storage.abandon()
                storage.remove(sorted(storage.listing()))
            self.keeper.delete(self.name, now.number)


@dataclass(frozen=True)
class FolderLeft:
    """A folder on this machine, which its marker says to be catalogger's."""

    told: Leftover
    folder: Path

    def remove(self) -> None:
        """All that is in it.  Raises DiskError."""
        try:
            gone = take_away(self.folder)
        except OSError as error:
            raise DiskError(f'"{self.folder}" cannot be removed: {error.strerror}.') from error
        if not gone:
            raise DiskError(f'"{self.folder}" is being worked in.', "It was left as it is.")
        if (link := link_to(self.folder)).is_symlink():
            link.unlink()


Left = VersionLeft | FolderLeft


def versions_left(keeper: Keeper, registry_uri: str, name: str, older_than: float) -> Iterator[VersionLeft]:
    """The versions of the model that are pending or failed, whoever made them."""
    rows = keeper.rows(name)
    for row in rows:
        if row.status not in (PENDING, FAILED):
            continue
        age = time.time() - row.created
        ours, why = _version_ours(registry_uri, name, row, rows, age, older_than)
        size = _size(keeper, name, row) if ours else None
        told = Leftover("version", f"{name} version {row.number} ({row.status})", ours, why, size, age)
        yield VersionLeft(told, keeper, registry_uri, name, row)


def folders_left(stores: Stores, older_than: float) -> Iterator[FolderLeft]:
    """The folders of this machine that look as if catalogger had made them."""
    for folder in dict.fromkeys(_folders(stores)):
        owner = whose(folder)
        if owner == "not ours":
            yield _folder(folder, "it has no marker of catalogger, which did not make it", ours=False)
        elif owner == "in use":
            yield _folder(folder, "a process is at work in it", ours=False)
        elif (
            told := _folder(folder, "catalogger's marker is in it, and no process holds it", ours=True)
        ).told.age < older_than:
            yield _folder(folder, f"it was changed less than {_hours(older_than)} ago", ours=False)
        else:
            yield told


def _version_ours(
    registry_uri: str, name: str, row: Row, rows: list[Row], age: float, older_than: float
) -> tuple[bool, str]:
    if not is_ours(row):
        return False, "catalogger did not make it: its description names no content of catalogger's"
    if row.location and sum(other.location == row.location for other in rows) > 1:
        return False, "another version has the same files"
    if age < older_than:
        return False, f"it was created less than {_hours(older_than)} ago, and may be at work elsewhere"
    with unless_registering(registry_uri, name) as alone:
        if not alone:
            return False, _UNDER_WAY
    return True, "its description names the content that catalogger was to bring there"


def _size(keeper: Keeper, name: str, row: Row) -> int | None:
    """Bytes of its files and unfinished uploads; None where they cannot be looked at."""
    if row.status != PENDING:
        return None
    try:
        storage = keeper.storage(name, row)
        return sum(storage.listing().values()) + sum(storage.unfinished().values()) if storage else None
    except CataloggerError:
        return None


def _folders(stores: Stores) -> Iterator[Path]:
    """Where catalogger works: the system's place for such folders, beside the artifacts, in the cache, and where links
    in the cache lead to.
    """
    yield from sorted(Path(tempfile.gettempdir()).glob("catalogger-*"))
    artifacts = artifacts_to_be(stores)
    for place in (artifacts, artifacts.parent) if artifacts else ():
        yield from sorted(place.glob(".catalogger-*"))
    for name in ("packages", CHANGED, STREAMED):
        for found in sorted((cache_folder() / name).glob("*")):
            yield from led_to(found) if found.is_symlink() else [found]


def _folder(folder: Path, why: str, *, ours: bool) -> FolderLeft:
    size, last = size_of(folder)
    return FolderLeft(Leftover("folder", str(folder), ours, why, size, time.time() - last), folder)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:g} h"
