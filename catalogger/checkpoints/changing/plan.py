"""The plan of a changed checkpoint: every file of the result with its size and header, before a byte is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from catalogger.checkpoints.changing.floats import FLOATS
from catalogger.checkpoints.changing.outputs import Output
from catalogger.checkpoints.facts import INDEX
from catalogger.files.digests import identity

LARGEST_SHARD = 5_000_000_000
"""Bytes that storage takes in one piece; a larger shard is cut without being asked."""
_FORM = "1"  # of what is written for a plan: a change of it makes finished shards of older versions worthless


@dataclass(frozen=True)
class PlannedShard:
    """One weight file of the result."""

    path: str
    outputs: tuple[Output, ...]

    @cached_property
    def header(self) -> bytes:
        """The file's first bytes: the header's length, the table of tensors, and blanks up to a whole word."""
        table: dict[str, object] = {"__metadata__": {"format": "pt"}}
        at = 0
        for output in self.outputs:
            end = at + output.nbytes
            table[output.name] = {"dtype": output.dtype, "shape": list(output.shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @property
    def size(self) -> int:
        return len(self.header) + sum(o.nbytes for o in self.outputs)


@dataclass(frozen=True)
class Plan:
    """The whole result: weight files, and the content of every small file.  `said` are sentences for the user.

    `pickled` names the pickled files that are read, and `apart` says how their reader was kept apart.
    """

    shards: tuple[PlannedShard, ...]
    small: Mapping[str, bytes]
    said: tuple[str, ...] = ()
    pickled: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(s.size for s in self.shards) + sum(map(len, self.small.values()))

    @property
    def inputs(self) -> list[Path]:
        """Every file that is read."""
        return sorted({t.file for s in self.shards for o in s.outputs for t in o.sources})

    @cached_property
    def digest(self) -> str:
        """Equal for the same changes of the same input files."""
        seen = hashlib.sha256(_FORM.encode())
        for file in self.inputs:
            seen.update(repr((str(file), identity(file.stat()))).encode())
        for shard in self.shards:
            seen.update(repr((shard.path, shard.outputs)).encode())
        for path, content in sorted(self.small.items()):
            seen.update(repr((path, hashlib.sha256(content).hexdigest())).encode())
        return seen.hexdigest()


def cut(groups: Iterable[Sequence[Output]], most: int | None) -> tuple[PlannedShard, ...]:
    """The shards of the result: those of the source, or as many as `most` bytes of tensors each ask for."""
    groups = [list(group) for group in groups if group]
    if most is not None or any(sum(o.nbytes for o in group) > LARGEST_SHARD for group in groups):
        groups = _filled([output for group in groups for output in group], most or LARGEST_SHARD)
    count = len(groups)
    names = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    names = ["model.safetensors"] if count == 1 else names
    ordered = (tuple(sorted(group, key=lambda o: -FLOATS.get(o.dtype, 1))) for group in groups)
    return tuple(PlannedShard(name, group) for name, group in zip(names, ordered, strict=True))


def index_of(shards: Sequence[PlannedShard]) -> dict[str, bytes]:
    """The index file, where there is more than one shard."""
    if len(shards) < 2:
        return {}
    weight_map = {o.name: s.path for s in shards for o in s.outputs}
    total = sum(o.nbytes for s in shards for o in s.outputs)
    return {INDEX: as_json({"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})}


def as_json(data: object) -> bytes:
    """A small JSON file as Transformers writes it."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _filled(outputs: Sequence[Output], most: int) -> list[list[Output]]:
    """One after another into the open shard, a new one where it would grow over `most`; a larger tensor is alone."""
    groups: list[list[Output]] = [[]]
    held = 0
    for output in outputs:
        if groups[-1] and held + output.nbytes > most:
            groups.append([])
            held = 0
        groups[-1].append(output)
        held += output.nbytes
    return groups
