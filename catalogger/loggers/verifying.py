"""Compare the files of a registered version with the digests that were recorded when it was registered.

Everything is read, in bounded memory; nothing is changed.  What is not recorded is said to be not checked.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

from catalogger.errors import NothingRecorded, human
from catalogger.lines import as_block, as_text
from catalogger.loggers.keeper import Reader
from catalogger.loggers.keepers import is_ours, kept_at, referred
from catalogger.loggers.manifest import MANIFEST, Manifest, Recorded, read_manifest
from catalogger.loggers.registry import FINGERPRINT
from catalogger.loggers.surface import Row
from catalogger.progress import Progress, Silent

State = Literal["same", "differs", "missing", "not checked"]
_AT_ONCE = 4


@dataclass(frozen=True)
class VerifiedFile:
    """One file: whether it is as it was recorded, its size in bytes there, and why where it is not simply the same."""

    path: str
    state: State
    size: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Verified:
    """What was found of one registered version.  `fingerprint` is the one that the registry has of it."""

    name: str
    version: str
    location: str
    fingerprint: str | None
    files: tuple[VerifiedFile, ...]

    @property
    def wrong(self) -> tuple[VerifiedFile, ...]:
        """The files that are missing or hold other bytes."""
        return tuple(file for file in self.files if file.state in ("differs", "missing"))

    @property
    def passed(self) -> bool:
        """Whether nothing that is recorded is wrong."""
        return not self.wrong

    def document(self) -> dict[str, Any]:
        """All of it as JSON data."""
        own = asdict(self) | {"files": [asdict(file) for file in self.files]}
        return own | {"passed": self.passed, "counts": self._counts()}

    def _counts(self) -> dict[str, int]:
        states = [file.state for file in self.files]
        return {state: states.count(state) for state in ("same", "differs", "missing", "not checked")}

    def __str__(self) -> str:
        rows = [(file.state, _line(file)) for file in self.files]
        counts = ", ".join(f"{count} {state}" for state, count in self._counts().items() if count)
        verdict = "verified" if self.passed else "wrong"
        return as_text([*rows, (verdict, f"{self.name} version {self.version}: {counts}")])

    def _repr_html_(self) -> str:
        return as_block(str(self))


def verify(
    model: str,
    *,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Read every file of a registered version and compare it with the digest that was recorded of it.

    model: `NAME` (its newest version that is READY), `NAME/VERSION` or `NAME@ALIAS`.
    Raises NothingRecorded for a version that catalogger has not made, UsageError where there is no such version.
    """
    told = progress or Silent()
    with kept_at(tracking_uri, registry_uri) as keeper:
        name, row = referred(keeper, model)
        if not is_ours(row):
            raise NothingRecorded(f"{name}/{row.number}", "it was not registered by catalogger")
        reader = keeper.reader(name, row)
        manifest = read_manifest(lambda: reader)
        if manifest is None:
            raise NothingRecorded(f"{name}/{row.number}", f'its "{MANIFEST}" is not there, or cannot be read')
        told.say(f"Reading {name} version {row.number} at {reader.location}")
        files = _compared(reader, manifest, told)
    return Verified(name, row.number, reader.location, _fingerprint(row), (*files, _of_manifest(row, manifest)))


def _compared(reader: Reader, manifest: Manifest, progress: Progress) -> list[VerifiedFile]:
    """Every file that is recorded or there, by path; the largest are read first, a few at once."""
    there = reader.listing()
    recorded = {**manifest.files, **manifest.beside}
    read = {path: size for path, size in there.items() if path in recorded and size == recorded[path].size}
    with progress.bar("files", sum(read.values())) as tick, ThreadPoolExecutor(_AT_ONCE) as pool:
        largest_first = sorted(read, key=lambda path: -read[path])
        reading = {path: pool.submit(reader.digest, path, read[path], tick) for path in largest_first}
        try:
            digests = {path: future.result() for path, future in reading.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    paths = sorted({*there, *recorded} - {MANIFEST})
    return [_file(path, there.get(path), recorded.get(path), digests.get(path)) for path in paths]


def _file(path: str, size: int | None, recorded: Recorded | None, digest: str | None) -> VerifiedFile:
    if recorded is None:
        return VerifiedFile(path, "not checked", size, "no digest of it is recorded")
    if size is None:
        return VerifiedFile(path, "missing", None, f"{human(recorded.size)} were recorded")
    if size != recorded.size:
        return VerifiedFile(path, "differs", size, f"{recorded.size} bytes were recorded, {size} are there")
    if digest != recorded.sha256:
        why = f"its digest is {str(digest)[:16]}…, {recorded.sha256[:16]}… was recorded"
        return VerifiedFile(path, "differs", size, why)
    return VerifiedFile(path, "same", size)


def _of_manifest(row: Row, manifest: Manifest) -> VerifiedFile:
    """Whether the recorded digests are those that the registry's fingerprint was made of."""
    kept = _fingerprint(row)
    if kept is None or manifest.own_fingerprint is None:
        return VerifiedFile(MANIFEST, "not checked", None, "the registry has no fingerprint to hold it against")
    if kept != manifest.own_fingerprint:
        why = f"its digests make {manifest.own_fingerprint[:16]}…, the registry's fingerprint is {kept[:16]}…"
        return VerifiedFile(MANIFEST, "differs", None, why)
    return VerifiedFile(MANIFEST, "same")


def _fingerprint(row: Row) -> str | None:
    """As the registry keeps it, apart from the files: in the description's mark, or in a tag."""
    marked = row.mark.fingerprint if row.mark else None
    return marked or (row.tags or {}).get(FINGERPRINT)


def _line(file: VerifiedFile) -> str:
    size = f" ({human(file.size)})" if file.size is not None else ""
    return f"{file.path}{size}{': ' if file.why else ''}{file.why}"
