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
_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
    "U16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8,
    "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
WIDTHS = {dtype: bits // 8 for dtype, bits in _BITS.items() if bits % 8 == 0}
"""Bytes of one number, by the format's name of the dtype."""
_WORD = 1 << 64  # the format's numbers are unsigned 64-bit

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
        table = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_int=_natural, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise _Bad(f"has a header that is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise _Bad("has a header that is no table of tensors")
    return table


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name is there twice")
    for name in table:
        name.encode("utf-8")
    return table


def _natural(digits: str) -> int:
    """The number; -1 for every negative one, as the format has none (`-0` is refused too)."""
    if digits.startswith("-"):
        return -1
    if len(digits) > 20 or int(digits) >= _WORD:
        raise ValueError(f"{digits[:20]}… does not fit 64 bits")
    return int(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _tensor(name: str, entry: object) -> Tensor:
    if not isinstance(entry, Mapping):
        raise _Bad(f'has no description of tensor "{name}"')
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise _Bad(f'describes tensor "{name}" wrongly: {str(dict(entry))[:200]}')
    tensor = Tensor(name, dtype, tuple(shape), *offsets)
    if dtype not in _BITS:
        raise _Bad(f'has tensor "{name}" of an unknown dtype "{dtype[:40]}"')
    if _bits(tensor) != (tensor.end - tensor.start) * 8:
        raise _Bad(f'gives tensor "{name}" of {dtype} {list(shape)} the bytes {list(offsets)}, which do not fit')
    return tensor


def _bits(tensor: Tensor) -> int:
    """The tensor's size.  Raises _Bad where the product leaves 64 bits on the way, as the format's own reader does."""
    count = _BITS[tensor.dtype]
    for length in (1, *tensor.shape):
        count *= length
        if count >= _WORD:
            raise _Bad(f'has tensor "{tensor.name}" of a shape that is too large')
    return count


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
