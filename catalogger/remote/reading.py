"""Reading what stands in a storage, in bounded memory: part by part, each asked for again where it did not come."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from catalogger.errors import RegistryError
from catalogger.files.digests import Tick
from catalogger.remote.storage import Storage

_PART = 1 << 23  # bytes in memory for each file that is being read


class Reading:
    """The files of a storage, to read them.  Nothing there is changed."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.location = storage.location

    def listing(self) -> Mapping[str, int]:
        """Every file with its size in bytes."""
        return self._storage.listing()

    def read(self, path: str) -> bytes:
        """The content of one small file."""
        return self._storage.read(path)

    def digest(self, path: str, size: int, tick: Tick) -> str:
        """The SHA-256 of a file of so many bytes; `tick` counts them as they come.

        Raises RegistryError where there are fewer.
        """
        digest = hashlib.sha256()
        for start in range(0, size, _PART):
            count = min(_PART, size - start)
            part = self._storage.part(path, start, count)
            if len(part) != count:
                raise RegistryError(f'"{path}" became shorter while it was read.', "Run the same command again.")
            digest.update(part)
            tick(count)
        return digest.hexdigest()
