"""Open a checkpoint that is a folder on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import yaml

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
    files = {path: _file(folder, path, size) for path, size in _files(folder)}
    chosen = select(files)
    require_config(chosen, origin)
    small = {path: _read_small(folder, files[path], origin) for path in (*chosen.small, *chosen.code)}
    shards = tuple(_shard(folder, files[path]) for path in chosen.weights)
    return assemble(origin, chosen, small, shards, files, licence=licence, root=folder, allow_pickle=allow_pickle)


def assemble(
    origin: Origin,
    chosen: Selection,
    small: Mapping[str, bytes],
    shards: tuple[Shard, ...],
    listed: Mapping[str, File],
    *,
    licence: str | None,
    root: Path | None,
    allow_pickle: bool,
) -> Checkpoint:
    """One Checkpoint of the parts that folder and Hub have read.  Raises CheckpointError where a JSON file is none."""
    left_out = dict(chosen.left_out)
    if allow_pickle and not shards:
        shards = tuple(Shard(listed[path]) for path in chosen.pickled)
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
    """Path and size of every file in the folder and one level below; links that lead nowhere are no files."""
    for entry in _entries(folder):
        with suppress(OSError):
            if entry.is_file():
                yield entry.name, entry.stat().st_size
            elif entry.is_dir():
                inner = [e for e in _entries(Path(entry.path)) if e.is_file()]
                yield from ((f"{entry.name}/{e.name}", e.stat().st_size) for e in inner)


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if e.name not in _HIDDEN]
    except PermissionError as error:
        raise SourceInvalid(str(folder), "cannot be read: permission denied") from error


def _read_small(folder: Path, file: File, origin: Origin) -> bytes:
    """A small file's content.  A link may not lead out of the checkpoint: its content would be published with the
    model.
    """
    path = file.path
    if file.size > LARGEST_SMALL:
        raise CheckpointError(origin.location, f'has a "{path}" of {human(file.size)}, which is too large to be one')
    target = (folder / path).resolve()
    if not target.is_relative_to(folder.resolve()) and _blob(folder, path) is None:
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
    blob = _blob(folder, path)
    return File(path, size, blob if blob and re.fullmatch(r"[0-9a-f]{64}", blob) else None)


def _blob(folder: Path, path: str) -> str | None:
    """The blob that the file is a link to, where the folder is a snapshot in the Hub's cache layout."""
    link = folder.resolve() / path
    if not link.is_symlink():
        return None
    target = Path(os.path.normpath(link.parent / link.readlink()))
    snapshots = folder.resolve().parent
    return target.name if snapshots.name == "snapshots" and target.parent == snapshots.parent / "blobs" else None


def _shard(folder: Path, file: File) -> Shard:
    try:
        with (folder / file.path).open("rb") as stream:
            descriptor = stream.fileno()
            return read_shard(file, lambda start, end: os.pread(descriptor, end - start, start))
    except OSError as error:
        return Shard(file, problem=f"cannot be read: {error.strerror}")


def _require_json(path: str, content: bytes, origin: Origin) -> None:
    if path == "tokenizer.json":  # tens of megabytes that become hundreds as objects; what is cut off shows at the end
        if not (content.lstrip()[:1] == b"{" and content.rstrip()[-1:] == b"}"):
            raise CheckpointError(origin.location, f'has a "{path}" that is not whole')
        return
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(origin.location, f'has a "{path}" that is not JSON: {error}') from error
    wanted, name = (list, "list") if path == "modules.json" else (dict, "object")
    if not isinstance(data, wanted):
        raise CheckpointError(origin.location, f'has a "{path}" that is no JSON {name}')


def licence_id(card: Mapping[str, object]) -> str | None:
    """What a model card calls the licence; `other` stands for the name beside it."""
    said = card.get("license")
    said = said[0] if isinstance(said, list) and said else said
    named = card.get("license_name") if said == "other" else None
    return next((text for text in (named, said) if isinstance(text, str) and text), None)


def _card_licence(small: Mapping[str, bytes]) -> str | None:
    """The licence that the model card's front matter declares."""
    card = small.get("README.md", b"").decode("utf-8", "replace").replace("\r\n", "\n")
    front = re.match(r"---\n(.*?)\n---", card, re.DOTALL)
    try:
        said = yaml.safe_load(front[1]) if front else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # a card that cannot be read declares nothing
    return licence_id(said) if isinstance(said, dict) else None
