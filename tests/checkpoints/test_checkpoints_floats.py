"""Rounding to bfloat16, bit by bit as PyTorch does it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogger.checkpoints.changing.floats import Counts, narrowed, rounded, widened

_BITS = {"F32": 32, "F16": 16, "F64": 64}
_HALVES = [0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x7F7FFFFF, 0x7F7F7FFF, 0x7F7F8000, 0x00000001, 0x80008000]


def _torch(raw: bytes, dtype: str) -> Any:
    import torch

    kind = {"F32": torch.float32, "F16": torch.float16, "F64": torch.float64}[dtype]
    return torch.frombuffer(bytearray(raw), dtype=kind).to(torch.bfloat16).view(torch.uint16).numpy()


def _ours(raw: bytes, dtype: str) -> tuple[Any, Counts]:
    counts = Counts()
    return np.frombuffer(narrowed(widened(raw, dtype), "BF16", counts), np.uint16), counts


@pytest.mark.parametrize("dtype", _BITS)
@settings(deadline=None)  # the first example imports torch
@given(data=st.data())
def test_as_torch(dtype: str, data: st.DataObject) -> None:
    """Any bit patterns: ties, subnormal numbers, infinities, both zeros; NaN stays NaN, with any bits."""
    pattern = st.integers(0, 2 ** _BITS[dtype] - 1)
    patterns = data.draw(st.lists(pattern | st.sampled_from(_HALVES) if dtype == "F32" else pattern, min_size=1))
    raw = b"".join(p.to_bytes(_BITS[dtype] // 8, "little") for p in patterns)
    (ours, counts), theirs = _ours(raw, dtype), _torch(raw, dtype)
    nan = (theirs & 0x7FFF) > 0x7F80
    assert np.array_equal(ours[~nan], theirs[~nan])
    assert np.all((ours[nan] & 0x7FFF) > 0x7F80)
    assert counts.nan == nan.sum()
    assert counts.overflowed + counts.infinite == ((theirs & 0x7FFF) == 0x7F80).sum()


def test_every_float16() -> None:
    raw = np.arange(1 << 16, dtype=np.uint16).tobytes()
    (ours, counts), theirs = _ours(raw, "F16"), _torch(raw, "F16")
    nan = (theirs & 0x7FFF) > 0x7F80
    assert np.array_equal(ours[~nan], theirs[~nan])
    assert (counts.nan, counts.infinite, counts.overflowed) == (2046, 2, 0)


def test_what_is_counted() -> None:
    values = np.array([1.0, math.inf, -math.inf, 3.4e38, -3.4028e38, math.nan, 3.389e38], np.float32)
    _, counts = _ours(values.tobytes(), "F32")
    assert (counts.nan, counts.infinite, counts.overflowed) == (1, 2, 2)


def test_float16_overflows_too() -> None:
    counts = Counts()
    narrowed(np.array([65504.0, 65519.9, 65520.0, -1e9], np.float32), "F16", counts)
    assert (counts.nan, counts.infinite, counts.overflowed) == (0, 0, 2)


def test_an_infinite_number_is_no_overflow_of_its_neighbours() -> None:
    counts = Counts()
    narrowed(np.array([math.inf, 1e30, -70000.0], np.float32), "F32", counts)
    assert (counts.nan, counts.infinite, counts.overflowed) == (0, 1, 0)


@pytest.mark.parametrize("value", [3.3e38, 1.9e19, -1.9e19, 256.5, 0.0])
def test_large_numbers_are_counted_one_by_one(value: float) -> None:
    """The sum of their squares is infinite long before any of them is."""
    counts = Counts()
    narrowed(np.full(1000, value, np.float32), "BF16", counts)
    narrowed(np.full(1000, min(value, 65504.0), np.float32), "F32", counts)
    assert counts == Counts()


def test_rounded_in_place_of_stored() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    assert list(rounded(values, "BF16")) == [1.0, 1 + 2**-6]
