"""A checkpoint in the words of one generation of Transformers.  From facts to facts: nothing is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from catalogger.checkpoints.facts import Checkpoint, File
from catalogger.checkpoints.normalizing import config, tokenizer
from catalogger.checkpoints.normalizing.rope import Unsayable
from catalogger.errors import CheckpointError, UsageError
from catalogger.progress import Progress

GENERATIONS = (4, 5)
_CONFIG = "config.json"
_LONGEST = 60  # characters of a value that is shown


@dataclass(frozen=True)
class Change:
    """One key of one file, what it said and what it says now; None where it was not there, or is no more.

    A file that is new as a whole has no key.
    """

    file: str
    key: str | None
    was: str | None
    now: str | None

    def document(self) -> dict[str, str | None]:
        """The change as JSON data."""
        return vars(self)

    def __str__(self) -> str:
        where = f"{self.file}: {self.key} " if self.key else f"{self.file}: "
        if self.was is None:
            return f"{where}added: {self.now}"
        return f"{where}{self.was} -> {self.now}" if self.now is not None else f"{where}removed: {self.was}"


@dataclass(frozen=True)
class Normalized:
    """In which generation's words a checkpoint is, and what was changed for that; `notes` say what remains."""

    transformers: int
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tag(self) -> str | None:
        """How it is recorded; None where nothing was changed."""
        return f"transformers {self.transformers}" if self.changes else None

    def document(self) -> dict[str, Any]:
        """All of it as JSON data."""
        changes = [change.document() for change in self.changes]
        return {"transformers": self.transformers, "changes": changes, "notes": list(self.notes)}

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line that people read."""
        lines = [str(change) for change in self.changes] or [
            f"nothing: it is as Transformers {self.transformers} reads it"
        ]
        return [("normalised", line) for line in (*lines, *self.notes)]


def normalized(checkpoint: Checkpoint, generation: int | None, progress: Progress) -> Checkpoint:
    """The checkpoint as it was asked for, and every change told; as it is where none is asked for."""
    if generation is None:
        return checkpoint
    changed = normalize(checkpoint, generation)
    if changed.normalized:
        progress.say("\n".join(f"{label} {text}" for label, text in changed.normalized.rows()))
    return changed


def normalize(checkpoint: Checkpoint, generation: int) -> Checkpoint:
    """The checkpoint with its small files as that generation of Transformers writes and reads them.

    Raises UsageError for a generation that is neither 4 nor 5, CheckpointError for what it has no words for.
    """
    small, made = put(checkpoint.small, generation, checkpoint.origin.location)
    files = [File(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in small.items()]
    files += [shard.file for shard in checkpoint.shards]
    return replace(checkpoint, small=small, files=tuple(files), normalized=made)


def put(small: Mapping[str, bytes], generation: int, location: str) -> tuple[dict[str, bytes], Normalized]:
    """The small files of the checkpoint at the location in the generation's words, and what was changed for that."""
    if generation not in GENERATIONS:
        raise UsageError(f'"{generation}" is no generation of Transformers to normalise to.', "Give 4 or 5.")
    notes: list[str] = []
    try:
        changed = _small(small, generation, notes)
    except Unsayable as error:
        fix = "Leave --normalize out: readers of the Transformers that wrote it can read it."
        raise CheckpointError(location, f"has {error}", fix) from error
    return changed, Normalized(generation, tuple(_changes(small, changed)), tuple(notes))


def _small(small: Mapping[str, bytes], generation: int, notes: list[str]) -> dict[str, bytes]:
    files = tokenizer.as_4(small, notes) if generation == 4 else tokenizer.as_5(small)
    said = json.loads(small[_CONFIG])
    changed = config.as_said_by(generation, said, notes)
    if changed != said:
        files[_CONFIG] = tokenizer.as_json(changed)
    return files


def _changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[Change]:
    """What differs, key by key where it is a small JSON file."""
    for path, content in after.items():
        if path not in before and not path.endswith(".json"):
            yield Change(path, None, None, f"{len(content)} bytes")
        elif path == tokenizer.TOKENIZER and content != before[path]:
            yield Change(path, "merges", "pairs", "texts")
        elif content != before.get(path):
            yield from _keys(path, json.loads(before.get(path, b"{}")), json.loads(content))


def _keys(path: str, before: Mapping[str, Any], after: Mapping[str, Any], within: str = "") -> Iterator[Change]:
    for key in dict.fromkeys((*before, *after)):
        was, now = before.get(key), after.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _keys(path, was, now, f"{within}{key}.")
        elif was != now or (key in before) != (key in after):
            shown = (_shown(m[key]) if key in m else None for m in (before, after))
            yield Change(path, within + key, *shown)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
