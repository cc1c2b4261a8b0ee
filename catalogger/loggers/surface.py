"""What the two kinds of Unity Catalog server are asked for, and what they tell of a version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from catalogger.loggers.record import Logged
from catalogger.remote.storage import Storage
from catalogger.validators.facts import Place

PENDING, READY, FAILED = "PENDING_REGISTRATION", "READY", "FAILED_REGISTRATION"
_MARK = re.compile(r"\(catalogger: shape ([0-9a-f]{64})(?:, fingerprint ([0-9a-f]{64}))?\)\s*$")


@dataclass(frozen=True)
class Row:
    """A version as the server tells it.  `created` is in seconds since 1970; `tags` is None where it has no place for
    them, or was not asked.
    """

    number: str
    status: str
    location: str
    description: str = ""
    run_id: str | None = None
    created: float = 0.0
    tags: Mapping[str, str] | None = None

    @property
    def mark(self) -> Mark | None:
        """What the version is, or is to be; None where catalogger has not made it."""
        found = _MARK.search(self.description)
        return Mark(found[1], found[2]) if found else None


@dataclass(frozen=True)
class Mark:
    """The content of a version, which its description names: its shape, and its fingerprint once that is known."""

    shape: str
    fingerprint: str | None = None

    def on(self, description: str) -> str:
        """The description with the mark as its last line."""
        known = f", fingerprint {self.fingerprint}" if self.fingerprint else ""
        return f"{description}\n\n(catalogger: shape {self.shape}{known})"


class Surface(Protocol):
    """The calls of one kind of server.  `gaps` names what it has no place for: `aliases`, `tags`."""

    words: str
    gaps: frozenset[str]

    def page(self, name: str, number: str) -> str | None:
        """Where people look at a version in a browser; None where there is no such page."""

    def look(self, name: str) -> Place:
        """Catalog, schema, privileges and storage of the name."""

    def versions(self, name: str) -> list[Row]:
        """All versions of the model; none where there is no model."""

    def version(self, name: str, number: str) -> Row:
        """One version."""

    def ensure_model(self, name: str, description: str) -> None:
        """Create the model where it is not there."""

    def create(self, name: str, source: str, logged: Logged, description: str) -> Row:
        """A new pending version.  Raises TryAgain where it is not known whether there is one now."""

    def describe(self, name: str, number: str, description: str) -> None:
        """Set the description of a version."""

    def finalize(self, name: str, number: str) -> None:
        """Say that all files are there."""

    def delete(self, name: str, number: str) -> None:
        """Delete a version."""

    def storage(self, name: str, row: Row, *, write: bool) -> Storage:
        """The files of a version."""

    def aliases(self, name: str) -> Mapping[str, str]:
        """Version numbers by alias."""

    def set_alias(self, name: str, alias: str, number: str) -> None:
        """Set or move an alias."""

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""

    def set_tag(self, name: str, number: str, key: str, value: str) -> None:
        """Set a tag of a version."""

    def model_tags(self, name: str) -> Mapping[str, str]:
        """The tags of the model itself."""

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of the model itself."""

    def names(self, within: str | None) -> list[str]:
        """The full names of all models that one may see, or of those `within` a `catalog.schema`."""
