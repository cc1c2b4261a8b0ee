"""The header reader held against the safetensors library, and against headers that mean harm."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from checkpoints.shard_bytes import WIDTH, elements, read, safetensors_bytes, table, weights
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open

from catalogger.checkpoints import File, Shard, Tensor
from catalogger.checkpoints.headers import GUESS, LARGEST, read_shard

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # whatever else this machine does

_SHAPE = st.lists(st.integers(0, 4), max_size=4)
_NAME = st.one_of(st.sampled_from(["model.layers.0.mlp.weight", "lm_head.weight", "__metadat__"]), st.text(max_size=6))
_TABLES = st.dictionaries(_NAME.filter(lambda n: n != "__metadata__"), st.tuples(st.sampled_from(list(WIDTH)), _SHAPE))
_METADATA = st.one_of(st.none(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))


def _entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _library_refuses(content: bytes) -> bool:
    try:
        deserialize(content)  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError):
        return True
    return False


def _refused(shard: Shard) -> bool:
    return shard.problem is not None or shard.expected != shard.file.size


@patient
@given(_TABLES, _METADATA, st.integers(0, 9))
def test_right_tables_are_read_as_the_library_reads_them(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None, padding: int
) -> None:
    header: dict[str, Any] = table(tensors) | {"__metadata__": metadata}
    if metadata is None:
        del header["__metadata__"]
    raw = json.dumps(header, ensure_ascii=False).encode() + b" " * padding
    content = safetensors_bytes(raw, sum(elements(s) * WIDTH[d] for d, s in tensors.values()))
    Path("model.safetensors").write_bytes(content)
    shard = read(content)
    assert (shard.problem, shard.expected) == (None, len(content))
    assert shard.header_sha256 == hashlib.sha256(content[: 8 + len(raw)]).hexdigest()
    with safe_open("model.safetensors", framework="numpy") as theirs:
        assert dict(shard.metadata) == (theirs.metadata() or {})
        found = {name: theirs.get_slice(name) for name in theirs.keys()}  # noqa: SIM118  no mapping
        assert {t.name: (t.dtype, list(t.shape)) for t in shard.tensors} == {
            name: (part.get_dtype(), part.get_shape()) for name, part in found.items()
        }
    # Where a tensor lies: the bytes at its offsets are the bytes that the library gives.
    data = content[8 + len(raw) :]
    assert {t.name: data[t.start : t.end] for t in shard.tensors} == {
        name: bytes(part["data"])
        for name, part in deserialize(content)  # type: ignore[no-untyped-call]
    }


_BASE = safetensors_bytes(
    {"__metadata__": {"format": "pt"}, **table({"a": ("F32", [2, 0]), "b": ("BF16", [1, 3]), "c": ("I8", [])})}
)
_EDIT = st.tuples(
    st.integers(0, len(_BASE)), st.integers(0, 3), st.one_of(st.binary(max_size=2), st.sampled_from([b"0", b"-", b" "]))
)


@settings(patient, max_examples=300)
@given(st.lists(_EDIT, min_size=1, max_size=3), st.booleans())
def test_what_the_library_refuses_is_never_taken(edits: list[tuple[int, int, bytes]], right_length: bool) -> None:
    content = _BASE
    for at, removed, added in edits:
        content = content[:at] + added + content[at + removed :]
    if right_length:  # an edit of the table then reaches the JSON reader, not only the check of the length
        end = content.rfind(b"}}") + 2
        assume(end > 8)
        content = struct.pack("<Q", end - 8) + content[8:]
    shard = read(content)  # never an exception
    assert _refused(shard) or not _library_refuses(content)


_STRANGE = {
    "unknown dtype": safetensors_bytes({"a": _entry([1], 0, 4, "F33")}),
    "dtype of another size": safetensors_bytes({"a": _entry([1], 0, 4, "C64")}),
    "UTF-16": safetensors_bytes(json.dumps({"a": _entry([1], 0, 4)}).encode("utf-16-le"), 4),
    "byte order mark": safetensors_bytes(b"\xef\xbb\xbf" + json.dumps({"a": _entry([1], 0, 4)}).encode(), 4),
    "half a surrogate pair": safetensors_bytes({"\ud800": _entry([1], 0, 4)}),
    "shape beyond 64 bits": safetensors_bytes({"a": _entry([0, 10**30], 0, 0)}),
    "shape that overflows": safetensors_bytes({"a": _entry([2**40, 2**40, 0], 0, 0)}),
    "minus zero": safetensors_bytes(b'{"a":{"dtype":"I8","shape":[-0],"data_offsets":[0,0]}}', 0),
    "NaN": safetensors_bytes(b'{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1],"more":NaN}}', 1),
}


@pytest.mark.parametrize("content", _STRANGE.values(), ids=_STRANGE)
def test_strange_headers_that_the_library_refuses(content: bytes) -> None:
    assert _library_refuses(content)
    assert _refused(read(content))


def _problem(content: bytes) -> str:
    shard = read(content)
    assert shard.problem is not None
    assert (shard.tensors, shard.expected) == ((), None)
    return shard.problem


@pytest.mark.parametrize("size", [0, 1, 7])
def test_shorter_than_the_length_field(size: int) -> None:
    assert _problem(bytes(size)) == f"is {size} bytes long, too short for a safetensors header"


def test_header_longer_than_the_file() -> None:
    content = weights(w=[2])
    assert "says that its header is 999 bytes long, but the whole file has" in _problem(
        safetensors_bytes(b"{}", 10, length=999)
    )
    assert _problem(struct.pack("<Q", len(content) - 7) + content[8:])
    assert _problem(b"\xff" * 8 + content[8:])


def test_header_larger_than_the_format_allows_is_not_read() -> None:
    asked: list[tuple[int, int]] = []

    def sparse(start: int, end: int) -> bytes:
        asked.append((start, end))
        return (struct.pack("<Q", LARGEST + 1) + bytes(end))[start:end]

    shard = read_shard(File("x", 2 * LARGEST), sparse)
    assert shard.problem == f"says that its header is {LARGEST + 1} bytes long; the format allows {LARGEST}"
    assert asked == [(0, GUESS)]


def test_file_that_ends_inside_its_header() -> None:
    content = weights(w=[2])
    shard = read_shard(File("x", len(content)), lambda start, end: content[start : min(end, 20)])
    assert shard.problem is not None
    assert shard.problem.startswith("ends inside its header of ")


def test_truncated_and_grown_files_show_in_the_expected_size() -> None:
    content = weights(w=[4, 4])
    for other in (content[:-1], content + b"x"):
        shard = read(other)
        assert shard.problem is None
        assert (shard.expected, shard.file.size) == (len(content), len(other))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"__metadata__":{"a":'])
def test_deep_nesting_is_no_crash(opening: bytes) -> None:
    raw = opening * 100_000
    assert _problem(safetensors_bytes(raw, 0)).startswith("has a header that is not JSON: ")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"not json", "has a header that is not JSON"),
        (b"\xff\xfe\xfd{}", "has a header that is not JSON"),
        (b"", "has a header that is not JSON"),
        (b"[1]", "has a header that is no table of tensors"),
        (b"null", "has a header that is no table of tensors"),
        (b'{"a": 1}', 'has no description of tensor "a"'),
        (b'{"a": {}}', 'describes tensor "a" wrongly'),
        (b'{"a": {"dtype": 1, "shape": [], "data_offsets": [0, 4]}}', 'describes tensor "a" wrongly'),
        (b'{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}', 'describes tensor "a" wrongly'),
        (b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', 'describes tensor "a" wrongly'),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', 'describes tensor "a" wrongly'),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}', 'describes tensor "a" wrongly'),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}', 'describes tensor "a" wrongly'),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}', "which do not fit"),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "which do not fit"),
        (b'{"__metadata__": {"a": 1}}', "has metadata that is not text"),
        (b'{"__metadata__": []}', "has metadata that is not text"),
        (b'{"a": ' + b"1" * 5000 + b"}", "has a header that is not JSON"),
    ],
)
def test_wrong_tables(raw: bytes, text: str) -> None:
    assert text in _problem(safetensors_bytes(raw, 4))


def test_name_twice() -> None:
    one = b'"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}'
    assert "a name is there twice" in _problem(safetensors_bytes(b"{" + one + b"," + one + b"}", 1))
    twice = b'{"a":{"dtype":"I8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}'
    assert "a name is there twice" in _problem(safetensors_bytes(twice, 1))


def test_overlap() -> None:
    text = _problem(safetensors_bytes({"a": _entry([1], 0, 4), "b": _entry([1], 2, 6)}))
    assert text == 'has tensor "b" at byte 2, which overlaps the one before it (ends at 4)'


@pytest.mark.parametrize("first", [4, 1])
def test_gap(first: int) -> None:
    text = _problem(safetensors_bytes({"a": _entry([1], first, first + 4)}))
    assert text == f'has tensor "a" at byte {first}, which leaves a gap before it (ends at 0)'


def test_tensors_come_in_the_order_of_their_bytes() -> None:
    shard = read(safetensors_bytes({"b": _entry([1], 4, 8), "a": _entry([1], 0, 4)}))
    assert shard.tensors == (Tensor("a", "F32", (1,), 0, 4), Tensor("b", "F32", (1,), 4, 8))


def test_file_without_tensors() -> None:
    shard = read(safetensors_bytes({}))
    assert (shard.problem, shard.tensors, shard.expected) == (None, (), 10)


@pytest.mark.parametrize("extra", [-9, -8, -7, 0, 1, 100_000])
def test_header_beyond_the_first_guess_takes_a_second_read(extra: int) -> None:
    header = json.dumps(table({"a": ("F32", [1])})).encode()
    content = safetensors_bytes(header.ljust(GUESS + extra), 4)
    asked: list[tuple[int, int]] = []

    def ranged(start: int, end: int) -> bytes:
        asked.append((start, end))
        return content[start:end]

    shard = read_shard(File("x", len(content)), ranged)
    assert (shard.problem, shard.expected) == (None, len(content))
    # The length field takes 8 of the bytes that are asked for first.
    assert asked == [(0, GUESS)] + ([(GUESS, GUESS + 8 + extra)] if extra > -8 else [])


def test_small_file_is_not_asked_for_more_than_it_has() -> None:
    content = weights(w=[1])
    asked: list[tuple[int, int]] = []

    def ranged(start: int, end: int) -> bytes:
        asked.append((start, end))
        return content[start:end]

    read_shard(File("x", len(content)), ranged)
    assert asked == [(0, len(content))]


@patient
@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes_are_a_shard_or_a_problem(content: bytes) -> None:
    shard = read(content)
    assert shard.problem or shard.expected is not None
