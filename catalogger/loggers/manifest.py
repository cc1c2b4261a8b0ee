"""The file of a model that says what the model is: tags, fingerprint, every file with size and digest.

It is made here and read here; where it stands, and what it is compared with, is for others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from catalogger.errors import CataloggerError
from catalogger.loggers.layout import Layout, digest_of

MANIFEST = "catalogger.json"


@dataclass(frozen=True)
class Recorded:
    """What is recorded of one file: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a model says of itself.

    `files` are those that make the fingerprint; `beside` those that the version of MLflow decides; `effect` what the
    recipe adds to the fingerprint.
    """

    fingerprint: str | None
    effect: Mapping[str, Any] | None
    tags: Mapping[str, str]
    files: Mapping[str, Recorded]
    beside: Mapping[str, Recorded]

    @property
    def own_fingerprint(self) -> str | None:
        """The fingerprint that the recorded digests make; None where the recipe's effect is not recorded."""
        if self.effect is None:
            return None
        return digest_of(self.effect, ((path, file.sha256) for path, file in self.files.items()))


class Readable(Protocol):
    """Where a small file can be read."""

    def read(self, path: str) -> bytes: ...


def manifest(
    fingerprint: str, effect: Mapping[str, Any], tags: Mapping[str, str], aliases: Collection[str], whole: Layout
) -> dict[str, Any]:
    """What a model says of itself, as JSON data; `whole` has every digest."""
    return {
        "fingerprint": fingerprint,
        "effect": dict(effect),
        "tags": dict(tags),
        "aliases": list(aliases),
        "files": {i.path: {"size": i.size, "sha256": i.sha256} for i in whole.items},
    }


def write_manifest(folder: Path, data: Mapping[str, Any], *, without: Collection[str] = ()) -> None:
    """Write it into the model's folder, with the digests of what else is there; `without` those that may yet change."""
    known = {*data["files"], MANIFEST, *without}
    others = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    beside = {path: _entry(file.read_bytes()) for path, file in others.items() if path not in known}
    text = json.dumps({**data, "beside": beside}, indent=2, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n")


def read_manifest(storage: Callable[[], Readable]) -> Manifest | None:
    """What the model in the storage says of itself; None where it has no manifest that can be read."""
    try:
        data = json.loads(storage().read(MANIFEST))
        return Manifest(
            fingerprint=data.get("fingerprint"),
            effect=data.get("effect"),
            tags={str(key): str(value) for key, value in data["tags"].items()},
            files=_recorded(data["files"]),
            beside=_recorded(data.get("beside") or {}),
        )
    except (CataloggerError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _recorded(files: Mapping[str, Any]) -> dict[str, Recorded]:
    return {path: Recorded(int(told["size"]), str(told["sha256"])) for path, told in files.items()}


def _entry(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
