"""Safetensors files byte by byte, right ones and wrong ones, and the smallest checkpoint folders around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalogger.checkpoints import File, Shard
from catalogger.checkpoints.headers import read_shard

WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
CONFIG: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def elements(shape: list[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def table(tensors: Mapping[str, tuple[str, list[int]]]) -> dict[str, Any]:
    """The header's table for tensors that lie side by side, as PyTorch's."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        end = at + elements(shape) * WIDTH[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    return entries


def safetensors_bytes(
    header: Mapping[str, Any] | bytes, data: int | None = None, *, length: int | None = None
) -> bytes:
    """A file with this header and `data` zero bytes (as many as the header promises when not said)."""
    if data is None:
        assert not isinstance(header, bytes)
        data = max((e["data_offsets"][1] for n, e in header.items() if n != "__metadata__"), default=0)
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + bytes(data)


def weights(**tensors: list[int]) -> bytes:
    """A right file of bfloat16 tensors."""
    return safetensors_bytes(table({name: ("BF16", shape) for name, shape in tensors.items()}))


def read(content: bytes) -> Shard:
    """The shard as catalogger reads it from these bytes."""
    return read_shard(File("model.safetensors", len(content)), lambda start, end: content[start:end])


def files(**more: bytes) -> dict[str, bytes]:
    """The smallest repository: a config, a tokenizer and one weight file of 4 bfloat16 values."""
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": weights(w=[2, 2]),
        **more,
    }


def folder(at: Path, content: Mapping[str, bytes]) -> Path:
    """The files, written."""
    for path, data in content.items():
        (at / path).parent.mkdir(parents=True, exist_ok=True)
        (at / path).write_bytes(data)
    return at
