"""A Unity Catalog, to look after what is registered there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from catalogger.loggers.keeper import Reader
from catalogger.loggers.surface import Row, Surface
from catalogger.loggers.unity import tags_of_manifest
from catalogger.remote.reading import Reading
from catalogger.remote.storage import Storage


class UnityKeeper:
    """One catalog server.  What it has no tags for is read in the versions' manifests."""

    def __init__(self, surface: Surface) -> None:
        self._surface = surface
        self.words, self.gaps = surface.words, surface.gaps

    def names(self, within: str | None) -> list[str]:
        return self._surface.names(within)

    def rows(self, name: str) -> list[Row]:
        return sorted(self._surface.versions(name), key=lambda row: int(row.number))

    def row(self, name: str, number: str) -> Row:
        row = self._surface.version(name, number)
        if row.tags is not None or not row.mark:
            return row
        return replace(row, tags=tags_of_manifest(self._surface, name, row))

    def aliases(self, name: str) -> Mapping[str, str]:
        return self._surface.aliases(name)

    def set_alias(self, name: str, alias: str, number: str) -> None:
        self._surface.set_alias(name, alias, number)

    def delete_alias(self, name: str, alias: str) -> None:
        self._surface.delete_alias(name, alias)

    def model_tags(self, name: str) -> Mapping[str, str]:
        return self._surface.model_tags(name)

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        self._surface.set_model_tag(name, key, value)

    def reader(self, name: str, row: Row) -> Reader:
        return Reading(self._surface.storage(name, row, write=False))

    def storage(self, name: str, row: Row) -> Storage | None:
        return self._surface.storage(name, row, write=True)

    def delete(self, name: str, number: str) -> None:
        self._surface.delete(name, number)
