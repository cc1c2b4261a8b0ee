"""Floating-point numbers as checkpoints store them, to float32 and back, rounded to nearest, ties to even.

Arithmetic on one block at a time; it knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The dtypes that can be computed with, and their bytes."""
_LARGEST = {"BF16": 3.3895313892515355e38, "F16": 65504.0, "F32": 3.4028234663852886e38}


@dataclass
class Counts:
    """What the numbers of one tensor are: `infinite` before they are rounded, `overflowed` only after it, or `nan`;
    `broken` are those of the `nan` that were numbers before a change.
    """

    nan: int = 0
    broken: int = 0
    infinite: int = 0
    overflowed: int = 0


def widened(raw: bytes | bytearray | memoryview, dtype: str, *, new: bool = True) -> Floats:
    """The stored numbers as an array of float32, which need not be a new one; of float64 the nearest, which may be
    infinite.
    """
    import numpy as np

    if dtype == "BF16":
        bits = np.frombuffer(raw, "<u2").astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    with np.errstate(over="ignore"):
        return np.frombuffer(raw, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32, copy=new)


def narrowed(values: Floats, dtype: str, counts: Counts) -> memoryview:
    """The numbers as bytes of a dtype; what is not finite is counted.  NaN stays NaN."""
    import numpy as np

    values = values.reshape(-1)
    peak = max(values.max(), -values.min()) if values.size else 0.0  # NaN where one is NaN
    if not peak <= _LARGEST[dtype]:
        _count(values, dtype, counts)
    if dtype == "BF16":
        return _bfloat16(values, nan=bool(np.isnan(peak))).data.cast("B")
    with np.errstate(over="ignore"):
        stored = values.astype({"F32": "<f4", "F16": "<f2"}[dtype], copy=False)
    return np.ascontiguousarray(stored).data.cast("B")


def nan_in(values: Floats) -> int:
    """How many of them are no numbers."""
    import numpy as np

    return int(np.isnan(values).sum())


def rounded(values: Floats, dtype: str) -> Floats:
    """The numbers as they are after a stay in a dtype."""
    return widened(narrowed(values, dtype, Counts()), dtype)


def _bfloat16(values: Floats, *, nan: bool) -> NDArray[np.uint16]:
    """The upper half of each float32 after half a unit was added, less a hair where the unit is even; `nan` where one
    of them may be none.
    """
    import numpy as np

    bits = np.ascontiguousarray(values).view(np.uint32)
    sums = bits >> 16
    sums &= 1
    sums += 0x7FFF
    sums += bits
    sums >>= 16
    upper = sums.astype(np.uint16)
    if nan:  # half a unit would carry some of them over to numbers
        upper[np.isnan(values)] = 0x7FC0
    return upper


def _count(values: Floats, dtype: str, counts: Counts) -> None:
    import numpy as np

    infinite = int(np.isinf(values).sum())
    counts.nan += nan_in(values)
    counts.infinite += infinite
    with np.errstate(over="ignore"):
        held = values.astype(np.float16 if dtype == "F16" else np.float32)
    if dtype == "BF16":
        held = widened(_bfloat16(values, nan=True).data.cast("B"), dtype)
    counts.overflowed += int(np.isinf(held).sum()) - infinite
