"""The tokenizer of a checkpoint that was saved without one: that of the base which the folder names.

Files are found and read; what is in them is looked at only for the largest token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from catalogger.checkpoints.changing.adapter import CONFIG, Adapter, named
from catalogger.checkpoints.facts import Checkpoint
from catalogger.checkpoints.hub import fetch_some
from catalogger.checkpoints.selection import TOKENIZER
from catalogger.checkpoints.source import hub_reference
from catalogger.errors import CheckpointError

VOCABULARIES = {
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
}
_ID = re.compile(rb'"id"\s*:\s*(\d+)')
_STEP = re.compile(r"(checkpoint-|epoch_|step_)\d+")


def largest_token(files: Mapping[str, bytes]) -> int:
    """The largest id that the tokenizer's files give a token by name."""
    ids = [int(n) for n in _ID.findall(files.get("tokenizer.json", b""))]
    added = files.get("added_tokens.json")
    ids += [n for n in json.loads(added).values() if isinstance(n, int)] if added else []
    return max(ids, default=0)


def found_tokenizer(checkpoint: Checkpoint, adapter: Adapter | None) -> tuple[dict[str, bytes], str | None]:
    """Tokenizer files for a checkpoint that has none, and the sentence that says whose they are; nothing for others.

    Raises CheckpointError where none can be found, and what the Hub's client raises but for what is not there.
    """
    if VOCABULARIES & {*checkpoint.small, *(adapter.small if adapter else ())}:
        return {}, None
    tried = []
    own = (checkpoint.origin.location, str(checkpoint.root))
    for name, where in dict(_named(checkpoint, adapter)).items():
        if name in own:
            continue
        files = _files(name)
        if VOCABULARIES & files.keys():
            _require_rows(checkpoint, name, files)
            return files, f'The weights came without a tokenizer: that of "{name}" is taken, which {where}.'
        tried.append(name)
    what = f"and none is at {named(tried)}" if tried else "and names no base that has one"
    raise CheckpointError(
        checkpoint.origin.location, f"has no tokenizer, {what}", "Put the tokenizer's files of its base beside it."
    )


def _named(checkpoint: Checkpoint, adapter: Adapter | None) -> Iterator[tuple[str, str]]:
    """Where a tokenizer may be, and who says so; the nearest first."""
    folder = Path(checkpoint.origin.location)
    folder = folder if checkpoint.origin.kind == "folder" else checkpoint.root or folder
    if _STEP.fullmatch(folder.name):
        yield str(folder.parent), "is the folder around it"
    if adapter and adapter.base:
        yield adapter.base, f'"{CONFIG}" names as the base'
    for file, key in ((CONFIG, "base_model_name_or_path"), ("original_repo_id.json", "repo_id")):
        yield from _said(_json(folder / file).get(key), f'"{file}" names')
    yield from _said(checkpoint.config.get("_name_or_path"), '"config.json" names')
    yield from _said(_card(checkpoint.small.get("README.md", b"")).get("base_model"), '"README.md" names as the base')


def _said(value: object, where: str) -> Iterator[tuple[str, str]]:
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, str) and name:
            yield name, where


def _files(name: str) -> dict[str, bytes]:
    """The tokenizer's files in a folder or repository; none where it is not there."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        hub = hub_reference(name)
        if hub is None:
            return {}
        try:
            folder = fetch_some(*hub, TOKENIZER)[1]
        except CheckpointError:
            return {}
    return {path: (folder / path).read_bytes() for path in TOKENIZER if (folder / path).is_file()}


def _require_rows(checkpoint: Checkpoint, name: str, files: Mapping[str, bytes]) -> None:
    rows, largest = checkpoint.config.get("vocab_size"), largest_token(files)
    if isinstance(rows, int) and largest >= rows:
        raise CheckpointError(
            checkpoint.origin.location,
            f'has no tokenizer, and that of "{name}" is another one: it has token {largest}, the embedding {rows} rows',
            "Put the tokenizer's files that it was trained with beside it.",
        )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _card(readme: bytes) -> Mapping[str, Any]:
    front = re.match(rb"---\r?\n(.*?)\n---", readme, re.DOTALL)
    try:
        said = yaml.safe_load(front[1]) if front else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
