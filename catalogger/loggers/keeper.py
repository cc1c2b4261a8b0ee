"""What looking after registered models asks of a registry, whoever that is: names, versions, aliases, tags, files.

Nothing is registered here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from catalogger.files.digests import Tick
from catalogger.loggers.surface import Row
from catalogger.remote.storage import Storage


class Reader(Protocol):
    """The files of a version, to read them."""

    location: str

    def listing(self) -> Mapping[str, int]:
        """Every file with its size in bytes."""

    def read(self, path: str) -> bytes:
        """The content of one small file."""

    def digest(self, path: str, size: int, tick: Tick) -> str:
        """The SHA-256 of a file of so many bytes; `tick` counts them as they come."""


class Keeper(Protocol):
    """One registry.  `words` names it; `gaps` are what it has no place for: `aliases`, `tags`."""

    words: str
    gaps: frozenset[str]

    def names(self, within: str | None) -> list[str]:
        """The names of all models, or of those `within` a `catalog.schema`."""

    def rows(self, name: str) -> list[Row]:
        """All versions by number, whatever their status; their tags where these cost nothing."""

    def row(self, name: str, number: str) -> Row:
        """One version with its tags."""

    def aliases(self, name: str) -> Mapping[str, str]:
        """Version numbers by alias."""

    def set_alias(self, name: str, alias: str, number: str) -> None:
        """Set or move an alias."""

    def delete_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""

    def model_tags(self, name: str) -> Mapping[str, str]:
        """The tags of the model itself."""

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of the model itself."""

    def reader(self, name: str, row: Row) -> Reader:
        """The files of a version."""

    def storage(self, name: str, row: Row) -> Storage | None:
        """The same to change them; None where they are not the registry's."""

    def delete(self, name: str, number: str) -> None:
        """Delete a version."""
