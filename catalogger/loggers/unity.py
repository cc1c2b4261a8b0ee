"""Registration to a Unity Catalog: a version is created, its files are sent once, it is finalized and read back.

The two kinds of server differ in their calls (`Surface`), not in what must hold.  An interrupted registration is taken
up: its version is pending, and its description names the content that it is to hold.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from catalogger.errors import (
    CataloggerError,
    CheckpointError,
    NotEnoughRoom,
    NotStreamed,
    Refused,
    RegistryError,
    human,
)
from catalogger.files.digests import Tick
from catalogger.loggers.layout import Layout, stand_at
from catalogger.loggers.manifest import MANIFEST, read_manifest
from catalogger.loggers.offer import Offer
from catalogger.loggers.record import Logged
from catalogger.loggers.registry import FINGERPRINT, SHAPE, Standing, Version, existing
from catalogger.loggers.surface import FAILED, PENDING, READY, Mark, Row, Surface
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.storage import Sent, Storage
from catalogger.validators import Existing

_ABANDONED = 24 * 3600  # seconds after which a pending version of another run is not being worked on any more
_TRIES = 30  # new numbers to ask for while others are given the same


@dataclass(frozen=True)
class Registered:
    """A READY version that was read back, with what was moved and what should be told."""

    version: Version
    sent: Sent
    notes: tuple[str, ...] = ()


class UnityRegistry:
    """Versions of models in one Unity Catalog."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self._rows: dict[str, list[Row]] = {}

    def versions_with(self, name: str, tag: str, value: str) -> list[Version]:
        """READY versions that their own description says to have this shape or fingerprint, newest first."""
        found = [r for r in self._versions(name) if r.status == READY and r.mark and _has(r.mark, tag, value)]
        read = [self.surface.version(name, r.number) for r in found]
        return [
            self._version(name, r) for r in reversed(read) if r.status == READY and r.mark and _has(r.mark, tag, value)
        ]

    def newest(self, name: str) -> Existing | None:
        row = self._newest(name)
        return existing(row.number, row.tags or {}) if row else None

    def standing(self, name: str) -> Standing | None:
        """The newest ready version with its tags, and where the aliases point."""
        row, gaps = self._newest(name, fresh=True), self.surface.gaps
        if row is None:
            return None
        return Standing(row.number, row.tags or {}, {} if "aliases" in gaps else self.surface.aliases(name), gaps)

    def _newest(self, name: str, *, fresh: bool = False) -> Row | None:
        """The newest ready version with its tags; those of its manifest where the server has no place for them."""
        ready = [r for r in self._versions(name, fresh=fresh) if r.status == READY]
        if not ready:
            return None
        if "tags" not in self.surface.gaps:
            return self.surface.version(name, ready[-1].number)
        return replace(ready[-1], tags=tags_of_manifest(self.surface, name, ready[-1]))

    def is_whole(self, version: Version, layout: Layout) -> bool:
        return stand_at(version.location, layout)

    def make_true(
        self, name: str, version: Version, aliases: Iterable[str], tags: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Set and read back what the server has a place for; say what it has none for."""
        notes = []
        wanted = list(aliases)
        if wanted and "aliases" in self.surface.gaps:
            said = f"{', '.join(wanted)} {'is' if len(wanted) == 1 else 'are'} not set"
            notes.append(f"{self.surface.words} has no aliases: {said}, and kept in {MANIFEST} of the version only")
        elif wanted:
            self._make_aliases_true(name, version.number, wanted)
        if "tags" in self.surface.gaps:
            notes.append(f"{self.surface.words} has no tags: they are kept in {MANIFEST} of the version")
        else:
            self._make_tags_true(name, version, tags)
        return tuple(notes)

    def register(self, name: str, logged: Logged, offer: Offer, tick: Tick) -> Registered:
        """One READY version with these files; a pending one of the same run is taken up.  What its number loads is
        compared with what was sent before it is returned.

        Raises AccessDenied, NetworkUnreachable, DiskError and RegistryError; what is pending then is taken up by the
        next call.
        """
        self.surface.ensure_model(name, offer.description)
        row, notes = self._begun(name, logged, offer)
        sent = Sent()
        for _ in range(_TRIES):
            with _still_pending(name, row), self._without_rest(name, row):
                moved, offer = self._send(name, row, offer, tick)
                sent += moved
                if self._is_ours(name, row):
                    self._finalize(name, row, offer)
            read = self.surface.version(name, row.number)
            if read.location == row.location and read.mark == offer.mark:
                storage = self.surface.storage(name, read, write=False)
                _compare(name, storage.listing(), offer.sizes(), exact=False)
                return Registered(self._version(name, read), sent, tuple(notes))
            self.surface.storage(name, row, write=True).remove(offer.sizes())
            notes.append(_clash(name, row))
            row = self._created(name, logged, offer, notes)
        raise RegistryError(f"{name}: the server gave {_TRIES} numbers that others hold too.", "Run it again later.")

    def _begun(self, name: str, logged: Logged, offer: Offer) -> tuple[Row, list[str]]:
        """The version to fill: the pending one of this very run, or a new one."""
        notes: list[str] = []
        for row in self._versions(name, fresh=True):
            if row.status != PENDING or not row.mark:
                continue
            if row.run_id == logged.run_id and row.mark.shape == offer.mark.shape:
                return row, ["an interrupted registration was taken up"]
            if time.time() - row.created > _ABANDONED and self._is_ours(name, row):
                self.surface.delete(name, row.number)
                notes.append(f"version {row.number} was pending for more than a day and is deleted")
            else:
                notes.append(f"version {row.number} is pending: another run's, which may still be at work")
        return self._created(name, logged, offer, notes), notes

    def _created(self, name: str, logged: Logged, offer: Offer, notes: list[str]) -> Row:
        """A new pending version whose number loads it.  Servers have been seen to give one number to many callers."""
        for _ in range(_TRIES):
            row = self._create(name, logged, offer)
            if self._is_ours(name, row):
                return row
            notes.append(_clash(name, row))
        raise RegistryError(f"{name}: the server gave {_TRIES} numbers that others hold too.", "Run it again later.")

    def _create(self, name: str, logged: Logged, offer: Offer) -> Row:
        known = {r.location for r in self._versions(name)}
        text = offer.mark.on(offer.description)

        def attempt() -> Row:
            try:
                return self.surface.create(name, logged.location, logged, text)
            except TryAgain:
                mine = [r for r in self._versions(name, fresh=True) if r.status == PENDING and r.location not in known]
                if found := next((r for r in mine if r.run_id == logged.run_id and r.mark == offer.mark), None):
                    return found
                raise

        return patiently(attempt)

    def _send(self, name: str, row: Row, offer: Offer, tick: Tick) -> tuple[Sent, Offer]:
        """Bring every file there, the manifest last, and compare what stands there."""
        if offer.stream and row.location.startswith("file:"):
            self.surface.delete(name, row.number)
            needs = f"{human(sum(f.size for f in offer.weights))} there"
            raise NotStreamed(f'keeps its files on this machine, in "{row.location}"', needs)
        storage = self.surface.storage(name, row, write=True)
        there = storage.listing()
        missing = [size for path, size in offer.sizes().items() if there.get(path) != size]
        self._require_room(name, row, storage, sum(missing))
        sent = offer.send(storage, row.location, there, tick)
        if extra := set(there) - offer.sizes().keys() - {MANIFEST}:
            storage.remove(sorted(extra))
        sealed, offer = offer.sealed(storage, sent.digests)
        _compare(name, storage.listing(), offer.sizes(), exact=True)
        return sent + sealed, offer

    def _require_room(self, name: str, row: Row, storage: Storage, needed: int) -> None:
        free = storage.free()
        if free is not None and needed > free:
            self.surface.delete(name, row.number)
            raise NotEnoughRoom(row.location, needed, free)

    def _finalize(self, name: str, row: Row, offer: Offer) -> None:
        """Name the content, then say that it is there; wait until the server agrees."""
        if row.mark != offer.mark:
            self.surface.describe(name, row.number, offer.mark.on(offer.description))
        try:
            self.surface.finalize(name, row.number)
        except Refused:  # by another caller, or by an attempt whose answer was lost: the version tells
            if self.surface.version(name, row.number).status != READY:
                raise

        def ready() -> None:
            status = self.surface.version(name, row.number).status
            if status == FAILED:
                raise RegistryError(f"{name} version {row.number} failed to register.", "Run the same command again.")
            if status != READY:
                waiting = f"{name} version {row.number} is still {status}."
                raise TryAgain(RegistryError(waiting, "Run the same command again: it goes on from here."))

        patiently(ready)

    @contextmanager
    def _without_rest(self, name: str, row: Row) -> Iterator[None]:
        """Where the checkpoint itself is at fault, no later run can go on: nothing of the version is left."""
        try:
            yield
        except CheckpointError:
            storage = self.surface.storage(name, row, write=True)
            storage.abandon()
            storage.remove(sorted(storage.listing()))
            self.surface.delete(name, row.number)
            raise

    def _is_ours(self, name: str, row: Row) -> bool:
        return self.surface.version(name, row.number).location == row.location

    def _version(self, name: str, row: Row) -> Version:
        mark = row.mark
        known = {SHAPE: mark.shape, FINGERPRINT: mark.fingerprint or ""} if mark and row.tags is None else {}
        page = self.surface.page(name, row.number)
        return Version(row.number, row.run_id, {**known, **(row.tags or {})}, row.location, page)

    def _versions(self, name: str, *, fresh: bool = False) -> list[Row]:
        """In numeric order; asked once, unless what is fresh is wanted."""
        if fresh or name not in self._rows:
            self._rows[name] = sorted(self.surface.versions(name), key=lambda r: int(r.number))
        return self._rows[name]

    def _make_aliases_true(self, name: str, number: str, wanted: Sequence[str]) -> None:
        now = self.surface.aliases(name)
        for alias in (a for a in wanted if now.get(a) != number):
            self.surface.set_alias(name, alias, number)
        if any(now.get(a) != number for a in wanted):
            now = self.surface.aliases(name)
        for alias in wanted:
            if now.get(alias) != number:
                raise RegistryError(
                    f'The alias "{alias}" of {name} points at version {now.get(alias)}, not {number}.',
                    "Run the same command again.",
                )

    def _make_tags_true(self, name: str, version: Version, tags: Mapping[str, str]) -> None:
        missing = {key: value for key, value in tags.items() if version.tags.get(key) != value}
        for key, value in missing.items():
            self.surface.set_tag(name, version.number, key, value)
        now = (self.surface.version(name, version.number).tags or {}) if missing else version.tags
        if wrong := [key for key in tags if now.get(key) != tags[key]]:
            raise RegistryError(
                f"Tags of {name} version {version.number} are not what was set: {', '.join(wrong)}.",
                "Run the same command again.",
            )


def tags_of_manifest(surface: Surface, name: str, row: Row) -> Mapping[str, str]:
    """What the version says of itself; nothing where it has no manifest that can be read."""
    found = read_manifest(lambda: surface.storage(name, row, write=False)) if row.mark else None
    return found.tags if found else {}


@contextmanager
def _still_pending(name: str, row: Row) -> Iterator[None]:
    """Whatever stops the sending, its error says what was left where."""
    try:
        yield
    except (NotEnoughRoom, CheckpointError, NotStreamed):
        raise
    except CataloggerError as error:
        error.fix = f"{error.fix}\n{name} version {row.number} stays pending; the same command goes on with it.".strip()
        raise


def _has(mark: Mark, tag: str, value: str) -> bool:
    return value == {FINGERPRINT: mark.fingerprint, SHAPE: mark.shape}[tag]


def _compare(name: str, there: Mapping[str, int], wanted: Mapping[str, int], *, exact: bool) -> None:
    """Raises RegistryError where a file is missing, or has another size; `exact`: or is one too many."""
    wrong = sorted(path for path in wanted if there.get(path) != wanted[path])
    wrong += sorted(set(there) - set(wanted)) if exact else []
    if wrong:
        raise RegistryError(
            f"{name}: {len(wrong)} of {len(wanted)} files are not in the registry's storage as they were sent:"
            f" {', '.join(wrong[:3])}.",
            "Run the same command again.",
        )


def _clash(name: str, row: Row) -> str:
    return f"the server gave version {row.number} of {name} to another caller too; a new number was taken"
