"""Ways to break a checkpoint or a logged model, one defect each."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Header = dict[str, Any]


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; `...` takes one out."""
    data = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**data, **changes}.items() if v is not ...}))


def rewrite(path: Path, change: Callable[[Header, bytearray], object]) -> None:
    """Change the header and the data of a safetensors file; the header is written again at its new length."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    change(header, data)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def tensors(path: Path) -> Header:
    """The entries of a safetensors header."""
    found: Header = {}
    rewrite(path, lambda header, _: found.update({k: v for k, v in header.items() if k != "__metadata__"}))
    return found


def renamed(path: Path, old: str, new: str) -> None:
    """Give a tensor another name."""

    def change(header: Header, _: bytearray) -> None:
        header[new] = header.pop(old)

    rewrite(path, change)


def dropped(path: Path, name: str) -> None:
    """Take a tensor out, its bytes too."""

    def change(header: Header, data: bytearray) -> None:
        start, end = header.pop(name)["data_offsets"]
        del data[start:end]
        for key, entry in header.items():
            if key != "__metadata__" and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [offset - (end - start) for offset in entry["data_offsets"]]

    rewrite(path, change)


def added(path: Path, name: str, dtype: str = "F32", shape: tuple[int, ...] = (4,), width: int = 4) -> None:
    """Put a further tensor of zeros at the end."""

    def change(header: Header, data: bytearray) -> None:
        size = width
        for length in shape:
            size *= length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + size]}
        data += bytes(size)

    rewrite(path, change)
