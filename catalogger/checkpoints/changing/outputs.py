"""One tensor of the result and what it is made of: a stored tensor, a low-rank product added, rows put in, a cast.

Facts, and the arithmetic of one tensor in blocks; which tensor gets what is for `merging` and `plan` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from math import prod
from threading import Event
from typing import TYPE_CHECKING

from catalogger.checkpoints.changing.floats import FLOATS, Counts, nan_in, narrowed, rounded, widened
from catalogger.checkpoints.changing.stored import Reader, Stored
from catalogger.errors import WeightsNotFinite
from catalogger.files.workers import Stopped

if TYPE_CHECKING:
    from catalogger.checkpoints.changing.floats import Floats

_ELEMENTS = 1 << 18  # of one block; in smaller ones threads wait for the interpreter's lock more than the cache saves
_COPIED = 1 << 20  # bytes of one block that is only copied
_PIECE = 1 << 18  # multiplications of one matrix product; OpenBLAS starts threads above it
_ROWS = 16  # of one matrix product; with more of them its rows are too short to be fast

Block = tuple[int, memoryview]
"""How many bytes of stored weights it took, and the bytes of the result; good until the next but one is asked for."""


@dataclass(frozen=True)
class Delta:
    """`scale * (b @ a)`, or its transpose.  `rounded` to the base's dtype before it is added, as in PEFT's tables."""

    a: Stored
    b: Stored
    scale: float
    transposed: bool = False
    rounded: bool = False


@dataclass(frozen=True)
class Rows:
    """Rows that take the place of those at `indices`."""

    indices: tuple[int, ...]
    values: Stored


@dataclass(frozen=True)
class Output:
    """One tensor of the result.  A change is computed in float32 and rounded to the stored dtype, then to `dtype`."""

    name: str
    dtype: str
    source: Stored
    delta: Delta | None = None
    rows: Rows | None = None
    between: str | None = None
    """The dtype that a value of the adapter is rounded to first: the one that the base holds it in."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    @property
    def nbytes(self) -> int:
        width = FLOATS.get(self.dtype)
        return self.source.nbytes if width is None or not self.changed else prod(self.shape) * width

    @property
    def changed(self) -> bool:
        return self.dtype != self.source.dtype or bool(self.delta or self.rows)

    @property
    def sources(self) -> list[Stored]:
        inner = [self.delta.a, self.delta.b] if self.delta else []
        return [self.source, *inner, *([self.rows.values] if self.rows else [])]


def counted(output: Output, reader: Reader, stop: Event, found: dict[str, Counts], location: str) -> Iterator[Block]:
    """As `blocks`, until somebody says stop; what was counted is in `found` at the end.

    Raises Stopped, and WeightsNotFinite, which names the checkpoint's location, for numbers that the change made NaN.
    """
    counts = Counts()
    for block in blocks(output, reader, counts):
        if stop.is_set():
            raise Stopped
        yield block
    if counts.broken:
        raise WeightsNotFinite(location, output.name, counts.broken)
    if counts.nan or counts.infinite or counts.overflowed:
        found[output.name] = counts


def blocks(output: Output, reader: Reader, counts: Counts) -> Iterator[Block]:
    """The tensor's bytes, block by block; what is not finite is counted."""
    if not output.changed:
        yield from _copied(output.source, reader)
        return
    source, held = output.source, output.between or output.source.dtype
    width, columns = FLOATS[source.dtype], (prod(source.shape[1:]) if output.delta or output.rows else 1)
    each = max(1, _ELEMENTS // max(1, columns)) * columns  # whole rows
    buffer = memoryview(bytearray(min(source.nbytes, each * width)))
    changes = [change for change in (_added(output, reader, held), _put_in(output, reader)) if change]
    for start in range(0, prod(source.shape), each):
        raw = buffer[: min(len(buffer), source.nbytes - start * width)]
        reader.read(source, start * width, raw)
        values = widened(raw, source.dtype, new=bool(changes))
        if held not in (source.dtype, output.dtype):
            values = rounded(values, held)
        for change in changes:
            change(values.reshape(-1, columns), start // columns)
        if changes and held != output.dtype:
            values = rounded(values, held)
        before = counts.nan
        block = narrowed(values, output.dtype, counts)
        if changes and counts.nan > before:
            counts.broken += counts.nan - before - nan_in(widened(raw, source.dtype))
        yield len(raw), block


def _copied(source: Stored, reader: Reader) -> Iterator[Block]:
    buffers = cycle([memoryview(bytearray(min(source.nbytes, _COPIED))) for _ in range(2)])
    for start in range(0, source.nbytes, _COPIED):
        raw = next(buffers)[: source.nbytes - start]
        reader.read(source, start, raw)
        yield len(raw), raw


Change = Callable[["Floats", int], None]
"""Change(values, first): the rows of a block in place; `first` is the first row's number."""


def _added(output: Output, reader: Reader, held: str) -> Change | None:
    import numpy as np

    if (delta := output.delta) is None:
        return None
    a, b = (widened(reader.whole(t), t.dtype).reshape(t.shape) for t in (delta.a, delta.b))
    left, right = (a.T, b.T) if delta.transposed else (b, a)
    scale = np.float32(delta.scale)

    def change(values: Floats, first: int) -> None:
        product = _product(left[first : first + len(values)], right)
        product *= scale
        values += rounded(product, held).reshape(values.shape) if delta.rounded else product

    return change


def _product(left: Floats, right: Floats) -> Floats:
    """The matrix product in pieces so small that the library for it starts no threads of its own: each shard has its
    thread, and theirs would wait for each other at every piece, tens of times as long as the arithmetic takes.
    NumPy is given all pieces of a size at once: a call for each would wait for the interpreter's lock.
    """
    import numpy as np

    rank = left.shape[1]
    product = np.empty((left.shape[0], right.shape[1]), np.float32)
    rows = min(len(left), _ROWS)
    for some, high in _parts(len(left), rows):
        for others, wide in _parts(right.shape[1], max(1, _PIECE // (rows * rank))):
            place = product[some, others]
            np.matmul(
                left[some].reshape(-1, 1, high, rank),
                right[:, others].reshape(rank, -1, wide).swapaxes(0, 1),
                out=place.reshape(-1, high, place.shape[1] // wide, wide).swapaxes(1, 2),
            )
    return product


def _parts(total: int, size: int) -> Iterator[tuple[slice, int]]:
    """What can be cut into pieces of a size, and the smaller piece that is left; each with the size of its pieces."""
    whole = total - total % size
    if whole:
        yield slice(whole), size
    if whole < total:
        yield slice(whole, total), total - whole


def _put_in(output: Output, reader: Reader) -> Change | None:
    if (rows := output.rows) is None:
        return None
    new = widened(reader.whole(rows.values), rows.values.dtype).reshape(rows.values.shape)

    def change(values: Floats, first: int) -> None:
        for number, index in enumerate(rows.indices):
            if first <= index < first + len(values):
                values[index - first] = new[number]

    return change
