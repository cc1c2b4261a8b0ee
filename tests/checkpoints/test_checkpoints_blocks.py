"""A tensor of many blocks is what it would be in one: every number in its place, whatever the shape and the change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogger.checkpoints.changing import outputs
from catalogger.checkpoints.changing.floats import Counts, narrowed, widened
from catalogger.checkpoints.changing.outputs import Delta, Output, Rows, blocks
from catalogger.checkpoints.changing.stored import Reader, Stored

_SHAPES = [(700, 3001), (1, 2_000_003), (2_000_003, 1), (2049, 1024), (9, 200_000)]
_CODES = {np.dtype("<f4"): "F32", np.dtype("<u2"): "BF16", np.dtype("u1"): "U8"}


def _stored(folder: Path, name: str, values: Any) -> Stored:
    (folder / name).write_bytes(b"header" + values.tobytes())
    return Stored(folder / name, name, _CODES[values.dtype], values.shape, 6, 6 + values.nbytes)


def _numbers(shape: tuple[int, ...]) -> Any:
    """Whole ones, so that no sum of their products is rounded, in whatever order it is added."""
    return np.random.default_rng(0).integers(-8, 9, shape).astype("<f4")


def _bfloat16(values: Any) -> Any:
    return np.frombuffer(narrowed(values, "BF16", Counts()), "<u2").reshape(values.shape)


def _made(output: Output) -> tuple[bytes, int]:
    """As the writer takes them: a block is still being written while the next is asked for."""
    whole, read, before = bytearray(), 0, memoryview(b"")
    with Reader(stored.file for stored in output.sources) as reader:
        for count, block in blocks(output, reader, Counts()):
            whole += before
            before, read = block, read + count
        return bytes(whole + before), read


@pytest.mark.parametrize("shape", _SHAPES)
def test_cast(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype("<f4")
    made, read = _made(Output("weight", "BF16", _stored(tmp_path, "weight", values)))
    assert made == _bfloat16(values).tobytes()
    assert read == values.nbytes


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", _SHAPES)
def test_merged(shape: tuple[int, int], transposed: bool, tmp_path: Path) -> None:
    rows, columns = shape[::-1] if transposed else shape
    a, b, base = _numbers((16, columns)), _numbers((rows, 16)), _bfloat16(_numbers(shape))
    delta = Delta(_stored(tmp_path, "a", a), _stored(tmp_path, "b", b), 0.5, transposed)
    made, read = _made(Output("weight", "BF16", _stored(tmp_path, "weight", base), delta))
    product = (b.astype("f8") @ a.astype("f8")).astype("<f4") / 2
    expected = widened(base.tobytes(), "BF16").reshape(shape) + (product.T if transposed else product)
    assert made == _bfloat16(expected).tobytes()
    assert read == base.nbytes


def test_rows_put_in(tmp_path: Path) -> None:
    values, new = _bfloat16(_numbers((5000, 999))), _bfloat16(100 + _numbers((3, 999)))
    rows = Rows((0, 2500, 4999), _stored(tmp_path, "new", new))
    made, _ = _made(Output("weight", "BF16", _stored(tmp_path, "weight", values), rows=rows))
    expected = values.copy()
    expected[list(rows.indices)] = new
    assert made == expected.tobytes()


def test_copied(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, 5_000_001, np.uint8)
    assert _made(Output("weight", "U8", _stored(tmp_path, "weight", values))) == (values.tobytes(), values.nbytes)


@pytest.mark.parametrize("rank", [1, 3, 16, 100, 5000])
def test_a_matrix_product_in_pieces(rank: int) -> None:
    left, right = _numbers((27, rank)), _numbers((rank, 5003))
    assert np.array_equal(outputs._product(left, right), left.astype("f8") @ right.astype("f8"))
