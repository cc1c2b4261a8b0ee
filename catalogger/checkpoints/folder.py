"""Open a checkpoint that is a folder on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from catalogger.checkpoints.facts import Checkpoint, File, Origin, Shard
from catalogger.checkpoints.headers import read_shard
from catalogger.checkpoints.selection import Selection, select
from catalogger.errors import CheckpointError, SourceInvalid, human

LARGEST_SMALL = 64_000_000
"""Bytes; a config, tokenizer or index file above it is no such file."""
_HIDDEN = (".git", ".cache", "__pycache__", ".gitattributes", ".gitignore")


def open_folder(folder: Path, origin: Origin, *, licence: str | None = None, allow_pickle: bool = False) -> Checkpoint:
    """The facts of a folder: every small file is read, of every weight file only the header.

    Raises CheckpointError where the folder holds no checkpoint at all, SourceInvalid where it is no folder.
    """
    if not folder.is_dir():
        raise SourceInvalid(
            origin.asked,
            "is neither a folder nor ORG/REPO",
            "Give a folder, or a Hub repository as ORG/REPO[@REVISION].",
        )
    sizes = dict(_files(folder))
    chosen = select(sizes)
    require_config(chosen, origin)
    small = {path: _read_small(folder, path, sizes[path], origin) for path in (*chosen.small, *chosen.code)}
    shards = tuple(_shard(folder, _file(folder, path, sizes[path])) for path in chosen.weights)
    return assemble(origin, chosen, small, shards, sizes, licence=licence, root=folder, allow_pickle=allow_pickle)


def assemble(
    origin: Origin,
    chosen: Selection,
    small: Mapping[str, bytes],
    shards: tuple[Shard, ...],
    sizes: Mapping[str, int],
    *,
    licence: str | None,
    root: Path | None,
    allow_pickle: bool,
) -> Checkpoint:
    """One Checkpoint of the parts that folder and Hub have read.  Raises CheckpointError where a JSON file is none."""
    left_out = dict(chosen.left_out)
    if allow_pickle and not shards:
        shards = tuple(Shard(File(path, sizes[path])) for path in chosen.pickled)
        left_out = {path: why for path, why in left_out.items() if path not in chosen.pickled}
    for path, content in small.items():
        if path.endswith(".json"):
            _require_json(path, content, origin)
    files = [File(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in small.items()]
    files += [shard.file for shard in shards]
    return Checkpoint(origin, tuple(files), left_out, small, shards, licence or _card_licence(small), root)


def require_config(chosen: Selection, origin: Origin) -> None:
    """Raises CheckpointError for a place without `config.json`: it holds no Transformers checkpoint."""
    if "config.json" in chosen.small:
        return
    below = sorted({p.rsplit("/", 1)[0] for p in chosen.left_out if p.endswith("/config.json")})
    hint = (
        f"There is one below it: {', '.join(below)}."
        if below
        else "Point --source at the folder that holds config.json."
    )
    raise CheckpointError(origin.location, "has no config.json, so it is no Transformers checkpoint", hint)


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for entry in _entries(folder):
        if entry.is_file():
            yield entry.name, entry.stat().st_size
        elif entry.is_dir():
            yield from ((f"{entry.name}/{e.name}", e.stat().st_size) for e in _entries(Path(entry.path)) if e.is_file())


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if e.name not in _HIDDEN]
    except PermissionError as error:
        raise SourceInvalid(str(folder), "cannot be read: permission denied") from error


def _read_small(folder: Path, path: str, size: int, origin: Origin) -> bytes:
    """A small file's content.  A link may not lead out of the checkpoint: its content would be published with the
    model.
    """
    if size > LARGEST_SMALL:
        raise CheckpointError(origin.location, f'has a "{path}" of {human(size)}, which is too large to be one')
    target = (folder / path).resolve()
    inside = target.is_relative_to(folder.resolve()) or target.parent.name == "blobs"
    if not inside:
        raise CheckpointError(
            origin.location,
            f'has a "{path}" that is a link out of the folder, to "{target}"',
            "Copy the file into the folder.",
        )
    try:
        return target.read_bytes()
    except OSError as error:
        raise CheckpointError(origin.location, f'has a "{path}" that cannot be read: {error.strerror}') from error


def _file(folder: Path, path: str, size: int) -> File:
    """The file, with the digest that the Hub's cache gives as the name of the blob."""
    link = folder / path
    blob = link.resolve() if link.is_symlink() else None
    known = blob is not None and blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name)
    return File(path, size, blob.name if blob and known else None)


def _shard(folder: Path, file: File) -> Shard:
    try:
        with (folder / file.path).open("rb") as stream:
            descriptor = stream.fileno()
            return read_shard(file, lambda start, end: os.pread(descriptor, end - start, start))
    except OSError as error:
        return Shard(file, problem=f"cannot be read: {error.strerror}")


def _require_json(path: str, content: bytes, origin: Origin) -> None:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(origin.location, f'has a "{path}" that is not JSON: {error}') from error
    if path != "modules.json" and not isinstance(data, dict):
        raise CheckpointError(origin.location, f'has a "{path}" that is no JSON object')


def licence_id(card: Mapping[str, object]) -> str | None:
    """What a model card calls the licence; `other` stands for the name beside it."""
    said = card.get("license")
    return str(card.get("license_name") or said) if said == "other" else str(said) if said else None


def _card_licence(small: Mapping[str, bytes]) -> str | None:
    """The licence that the model card's front matter declares."""
    card = small.get("README.md", b"").decode("utf-8", "replace")
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    said = dict(re.findall(r"^(license|license_name):\s*['\"]?([\w.+-]+)", front[1], re.MULTILINE)) if front else {}
    return licence_id(said)
