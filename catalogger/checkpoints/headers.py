"""Read safetensors headers: eight bytes of length, a JSON table of tensors.  The weights behind it are never read.

One reader for files and for ranged reads over HTTP, stricter than the format's own: a header comes from outside, and
what is
wrong in it must be known before a weight moves.  Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from catalogger.checkpoints.facts import File, Shard, Tensor

GUESS = 64 * 1024
"""Bytes asked for at first; the headers of ordinary shards fit, so one request is enough."""
LARGEST = 100_000_000
"""The format's own limit of a header, in bytes."""
_WIDTH = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip

Read = Callable[[int, int], bytes]
"""Read(start, end): the bytes from start up to, not including, end; fewer where the file ends before."""


class _Bad(Exception):
    pass


def read_shard(file: File, read: Read) -> Shard:
    """The shard's header, or the shard with a `problem` when the header cannot be one."""
    try:
        return _parse(file, read)
    except _Bad as bad:
        return Shard(file, problem=str(bad))


def _parse(file: File, read: Read) -> Shard:
    first = read(0, min(file.size, GUESS))
    if len(first) < 8:
        raise _Bad(f"is {file.size} bytes long, too short for a safetensors header")
    length = int.from_bytes(first[:8], "little")
    if length > file.size - 8:
        raise _Bad(f"says that its header is {length} bytes long, but the whole file has {file.size}")
    if length > LARGEST:
        raise _Bad(f"says that its header is {length} bytes long; the format allows {LARGEST}")
    raw = first[8 : 8 + length]
    if len(raw) < length:
        raw += read(8 + len(raw), 8 + length)
    if len(raw) < length:
        raise _Bad(f"ends inside its header of {length} bytes")
    table = _table(raw)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _Bad("has metadata that is not text")
    tensors = tuple(sorted((_tensor(n, e) for n, e in table.items()), key=lambda t: (t.start, t.end)))
    return Shard(file, tensors, metadata, 8 + length + _end(tensors), hashlib.sha256(first[:8] + raw).hexdigest())


def _table(raw: bytes) -> dict[str, Any]:
    try:
        table = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _Bad(f"has a header that is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise _Bad("has a header that is no table of tensors")
    return table


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name is there twice")
    return table


def _tensor(name: str, entry: object) -> Tensor:
    if not isinstance(entry, Mapping):
        raise _Bad(f'has no description of tensor "{name}"')
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise _Bad(f'describes tensor "{name}" wrongly: {str(dict(entry))[:200]}')
    tensor = Tensor(name, dtype, tuple(shape), *offsets)
    width = _WIDTH.get(dtype)
    if tensor.end < tensor.start or (width and tensor.end - tensor.start != tensor.elements * width):
        raise _Bad(f'gives tensor "{name}" of {dtype} {list(shape)} the bytes {list(offsets)}, which do not fit')
    return tensor


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _end(tensors: tuple[Tensor, ...]) -> int:
    """Where the last tensor ends.  Tensors must lie side by side, without gap or overlap, as the format demands."""
    at = 0
    for tensor in tensors:
        if tensor.start != at:
            what = "overlaps the one before it" if tensor.start < at else "leaves a gap before it"
            raise _Bad(f'has tensor "{tensor.name}" at byte {tensor.start}, which {what} (ends at {at})')
        at = tensor.end
    return at
