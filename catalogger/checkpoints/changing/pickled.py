"""Where the tensors of a pickled weight file lie, so that their bytes are read as those of a safetensors file are.

A process of its own (`pickled_child`) reads the pickle, as data; what it says is looked at here before it is believed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from catalogger.checkpoints.changing.stored import Stored
from catalogger.checkpoints.headers import WIDTHS
from catalogger.checkpoints.probe import environment
from catalogger.checkpoints.probe_child import printable
from catalogger.errors import CheckpointError

CHILD = Path(__file__).with_name("pickled_child.py")
_CPU, _WALL, _MEMORY = 60, 120.0, 1 << 30  # seconds, seconds by the clock, bytes: names and shapes take little
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.bin")


@dataclass(frozen=True)
class Pickled:
    """What a file holds; `apart` says how the process that read it was kept apart from everything else."""

    tensors: list[Stored]
    apart: tuple[str, ...]


def weights_among(paths: Iterable[str], location: str) -> list[str]:
    """The files that make one checkpoint.  Raises CheckpointError where one of a numbered row is missing."""
    paths = sorted(paths)
    chosen = [path for path in paths if path.startswith("pytorch_model")] or paths
    for found in filter(None, map(_NUMBERED.fullmatch, chosen)):
        row = [f"{found['stem']}-{n:05}-of-{found['count']}.bin" for n in range(1, int(found["count"]) + 1)]
        if lost := [path for path in row if path not in chosen]:
            raise CheckpointError(location, f'has no "{lost[0]}" beside "{found[0]}"', "Fetch or save it again.")
    return chosen


def read_pickled(file: Path, location: str) -> Pickled:
    """Every tensor of a file that PyTorch wrote.  Raises CheckpointError for anything else, and says what it is."""
    said = _asked(file, location)
    size = file.stat().st_size
    try:
        tensors = [_stored(file, size, entry) for entry in said["tensors"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _no(file, location, f"says of its tensors what cannot be: {printable(str(error))[:200]}") from error
    return Pickled(tensors, tuple(map(str, said.get("apart", ()))))


def _asked(file: Path, location: str) -> dict[str, Any]:
    command = [sys.executable, "-I", "-S", str(CHILD), str(_CPU), str(_MEMORY)]
    try:
        with file.open("rb") as stream:
            done = subprocess.run(  # noqa: S603  this Python, and a file of ours
                command,
                stdin=stream,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
                timeout=_WALL,
                check=False,
            )
        said = json.loads(done.stdout) if done.returncode == 0 else {"problem": f"ends its reader ({done.returncode})"}
    except subprocess.TimeoutExpired as error:
        raise _no(file, location, f"takes longer than {_WALL:g} s to read") from error
    except OSError as error:
        raise _no(file, location, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _no(file, location, "makes its reader say nothing that can be read") from error
    if "problem" in said:
        raise _no(file, location, printable(str(said["problem"])))
    return dict(said)


def _stored(file: Path, size: int, entry: dict[str, Any]) -> Stored:
    """Raises ValueError or TypeError where the tensor would reach out of its storage, or that out of the file."""
    name, dtype, width = str(entry["name"]), str(entry["dtype"]), WIDTHS[entry["dtype"]]
    if name.encode() == b"__metadata__":  # which safetensors has for something else; half a character cannot be encoded
        raise ValueError('a tensor cannot be named "__metadata__"')
    shape, strides = _naturals(entry["shape"]), _naturals(entry["strides"])
    offset, start, room = _naturals([entry["offset"], *entry["storage"]])
    if len(shape) != len(strides) or start + room > size:
        raise ValueError(f'"{printable(name)[:100]}" lies out of the file')
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if all(shape) else -1
    if (offset + last + 1) * width > room:
        raise ValueError(f'"{printable(name)[:100]}" lies out of its storage')
    first = start + offset * width
    side_by_side = strides == _row_major(shape) or _plain(shape, strides)
    return Stored(file, name, dtype, shape, first, first + prod(shape) * width, None if side_by_side else strides)


def _naturals(values: Iterable[Any]) -> tuple[int, ...]:
    held = tuple(values)
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in held):
        raise ValueError(f"{str(held)[:100]} are no sizes")
    return held


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[at + 1 :]) for at in range(len(shape)))


def _plain(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the numbers lie side by side all the same: steps over one or no number do not matter."""
    steps = zip(shape, strides, _row_major(shape), strict=True)
    return not all(shape) or all(n == 1 or said == plain for n, said, plain in steps)


def _no(file: Path, location: str, problem: str) -> CheckpointError:
    return CheckpointError(
        location,
        f'has a "{file.name}" that {problem}',
        "Save the model as safetensors where it was trained: model.save_pretrained(folder).",
    )
