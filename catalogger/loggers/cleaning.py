"""Remove what runs of catalogger have left that did not end.  Listed first; removed only where one agrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from catalogger.errors import CataloggerError, UsageError, human
from catalogger.lines import as_block, as_text
from catalogger.loggers.keepers import asked_names, kept, there
from catalogger.loggers.leftovers import Left, Leftover, folders_left, versions_left
from catalogger.loggers.stores import Stores, choose_stores
from catalogger.progress import Progress, Silent

A_DAY = 24 * 3600.0
"""Seconds after which what did not end is not being worked on any more."""


@dataclass(frozen=True)
class Cleaned:
    """One thing that was found: whether it is gone now, and what went wrong where it should be."""

    found: Leftover
    removed: bool = False
    error: CataloggerError | None = None

    def document(self) -> dict[str, Any]:
        """All of it as JSON data."""
        error = self.error.document() if self.error else None
        return {**asdict(self.found), "age": round(self.found.age), "removed": self.removed, "error": error}

    def row(self) -> tuple[str, str]:
        """What became of it, and what it is."""
        found = self.found
        label = "removed" if self.removed else "failed" if self.error else "left over" if found.ours else "stays"
        size = f", {human(found.size)}" if found.size is not None else ""
        why = f"{found.why}: {self.error.message}" if self.error else found.why
        return label, f"{found.what}{size}, {found.age / 3600:.1f} h old: {why}"


@dataclass(frozen=True)
class Cleaning:
    """What was found and what became of it."""

    things: tuple[Cleaned, ...]

    @property
    def left(self) -> tuple[Cleaned, ...]:
        """What is catalogger's and could go."""
        return tuple(one for one in self.things if one.found.ours and not one.removed)

    @property
    def exit_code(self) -> int:
        """That of what could not be removed."""
        return next((one.error.exit_code for one in self.things if one.error), 0)

    def document(self) -> dict[str, Any]:
        """All of it as JSON data."""
        removed = [one for one in self.things if one.removed]
        return {
            "things": [one.document() for one in self.things],
            "left": len(self.left),
            "removed": len(removed),
            "bytes": {"left": _bytes(self.left), "removed": _bytes(removed)},
        }

    def __str__(self) -> str:
        return as_text(one.row() for one in self.things)

    def _repr_html_(self) -> str:
        return as_block(str(self))


def clean(
    names: Sequence[str] = (),
    *,
    yes: bool = False,
    older_than: float = A_DAY,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    progress: Progress | None = None,
) -> Cleaning:
    """List what catalogger has left of runs that did not end; with `yes`, remove it.

    These are versions that never became READY, with their files and unfinished uploads, and folders of this machine.
    What catalogger did not make stays, and so does what a run is at work in.

    names: models, or `catalog.schema`s with all that is in them: then only their versions.  By default all of the
        registry, and this machine's folders.
    older_than: seconds since it was last changed.
    """
    if older_than < 0:
        raise UsageError(f"{older_than} seconds are no age.")
    told, stores = progress or Silent(), choose_stores(tracking_uri, registry_uri)
    with ExitStack() as stack:
        things = []
        for left in _found(stack, stores, names, older_than):
            things.append(_removed(left, told) if yes and left.told.ours else Cleaned(left.told))
        return Cleaning(tuple(things))


def _found(stack: ExitStack, stores: Stores, names: Sequence[str], older_than: float) -> Iterator[Left]:
    if names or there(stores):
        keeper = stack.enter_context(kept(stores))
        for name in asked_names(keeper, names):
            yield from versions_left(keeper, stores.registry_uri, name, older_than)
    if not names:
        yield from folders_left(stores, older_than)


def _removed(left: Left, progress: Progress) -> Cleaned:
    """One that cannot be removed does not keep the others."""
    progress.say(f"Removing {left.told.what}")
    try:
        left.remove()
    except CataloggerError as error:
        return Cleaned(left.told, error=error)
    return Cleaned(left.told, removed=True)


def _bytes(things: Sequence[Cleaned]) -> int:
    return sum(one.found.size or 0 for one in things)
