"""Tensors where they lie: a file, and a range of bytes in it.  Ranges are read; nothing is ever written here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from catalogger.checkpoints.facts import Shard
from catalogger.checkpoints.headers import WIDTHS
from catalogger.errors import CheckpointError
from catalogger.files.digests import identity


@dataclass(frozen=True)
class Stored:
    """One tensor of a file; `start` and `end` are byte offsets in the whole file.

    `strides` are steps in numbers, where they do not lie side by side; then `end` is only `start` and the size.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int
    strides: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        return self.end - self.start


def stored_in(root: Path, shard: Shard) -> list[Stored]:
    """Every tensor of a shard whose header could be read."""
    behind = (shard.expected or 0) - (shard.tensors[-1].end if shard.tensors else 0)
    path = root / shard.file.path
    return [Stored(path, t.name, t.dtype, t.shape, behind + t.start, behind + t.end) for t in shard.tensors]


class Reader:
    """Reads ranges of files that must stay as they were when it began."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._were = {file: identity(file.stat()) for file in files}
        self._open: dict[Path, int] = {}
        self._opening = threading.Lock()
        self._closing = ExitStack()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._closing.close()

    def read(self, tensor: Stored, start: int, buffer: memoryview) -> None:
        """Fill the buffer with the tensor's bytes from `start` on.  Raises CheckpointError where they are not there."""
        if tensor.strides is not None:
            self._gather(tensor, tensor.strides, start, buffer)
            return
        self._fill(tensor.file, tensor.start + start, buffer)

    def _fill(self, file: Path, at: int, buffer: memoryview) -> None:
        descriptor, done = self._descriptor(file), 0
        while done < len(buffer):
            count = os.preadv(descriptor, [buffer[done:]], at + done)
            if not count:
                raise _changed(file)
            done += count

    def _gather(self, tensor: Stored, strides: tuple[int, ...], start: int, buffer: memoryview) -> None:
        """Numbers from all over the storage, in the order of the shape.  Mapped for this block alone: memory stays
        flat.
        """
        import numpy as np

        width = WIDTHS[tensor.dtype]
        left = np.arange(start // width, (start + len(buffer)) // width)
        places = np.zeros_like(left)
        for count, step in zip(reversed(tensor.shape), reversed(strides), strict=True):
            left, within = np.divmod(left, count)
            places += within * step
        reach = sum((count - 1) * step for count, step in zip(tensor.shape, strides, strict=True)) + 1
        try:
            held = np.memmap(tensor.file, f"<u{width}", "r", tensor.start, (reach,))
        except ValueError as error:  # the file is shorter than it was
            raise _changed(tensor.file) from error
        np.take(held, places, out=np.frombuffer(buffer, held.dtype))

    def whole(self, tensor: Stored) -> bytearray:
        """All bytes of a tensor."""
        held = bytearray(tensor.nbytes)
        self.read(tensor, 0, memoryview(held))
        return held

    def require_unchanged(self) -> None:
        """Raises CheckpointError where a file is no longer the one that was planned with."""
        for file, was in self._were.items():
            try:
                same = identity(file.stat()) == was
            except OSError:
                same = False
            if not same:
                raise _changed(file)

    def _descriptor(self, file: Path) -> int:
        with self._opening:
            if file not in self._open:
                self._open[file] = self._closing.enter_context(file.open("rb", buffering=0)).fileno()
            return self._open[file]


def _changed(file: Path) -> CheckpointError:
    return CheckpointError(
        str(file.parent), f'changed while it was read: "{file.name}" is not what it was', "Run the same command again."
    )
