"""A checkpoint cast and cut anew: the result opens, holds the same numbers, and is there whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from checkpoints.adapters import all_tensors
from fakes import checkpoints
from fakes.checkpoints import write_safetensors

from catalogger import CataloggerError, convert, open_source
from catalogger.checkpoints.changing.change import plan_of


def _assert_nothing(work: Path, name: str = "out") -> None:
    assert [p.name for p in work.iterdir() if name in p.name] == []


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cast(dtype: Any, tmp_path: Path) -> None:
    import torch

    source = checkpoints.llama(tmp_path / "source", dtype=dtype, shards=3)
    done = convert(source, tmp_path / "out", dtype="bfloat16")
    was, now = all_tensors(source), all_tensors(tmp_path / "out")
    assert was.keys() == now.keys()
    for name, (code, shape, content) in now.items():
        assert (code, shape) == ("BF16", was[name][1])
        theirs = torch.frombuffer(bytearray(was[name][2] or b""), dtype=getattr(torch, dtype)).to(torch.bfloat16)  # type: ignore[arg-type]
        assert content == theirs.view(torch.uint8).numpy().tobytes(), name
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    assert (done.cast, done.shards) == (len(now), 3)
    opened = open_source(str(tmp_path / "out"))
    assert opened.index == {t.name: s.file.path for s in opened.shards for t in s.tensors}
    assert {p: sha256((tmp_path / "out" / p).read_bytes()).hexdigest() for p in done.digests} == done.digests
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_integers_stay_as_they_are(tmp_path: Path) -> None:
    source = checkpoints.bert(tmp_path / "source")
    tensors = all_tensors(source)
    ids = ("I64", (2,), bytes(range(16)))
    write_safetensors(source / "model.safetensors", {"embeddings.position_ids": ids, **tensors})
    convert(source, tmp_path / "out", dtype="bfloat16")
    assert all_tensors(tmp_path / "out")["embeddings.position_ids"] == ids


@pytest.mark.parametrize(("shards", "most"), [(1, "20kB"), (4, "20kB"), (4, "1GB"), (1, 1)])
def test_shards_split_and_joined(shards: int, most: int | str, tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", shards=shards)
    done = convert(source, tmp_path / "out", max_shard_size=most)
    assert all_tensors(tmp_path / "out") == all_tensors(source)
    opened = open_source(str(tmp_path / "out"))
    held = [sum(t.end - t.start for t in s.tensors) for s in opened.shards]
    limit = 20_000 if most == "20kB" else 10**9
    assert all(size <= limit or len(s.tensors) == 1 for size, s in zip(held, opened.shards, strict=True))
    assert done.shards == len(held) == {"20kB": len(held), "1GB": 1, 1: len(all_tensors(source))}[most]
    assert (opened.index is None) == (len(held) == 1)


def test_the_plan_is_the_result(tmp_path: Path) -> None:
    """Names, sizes and headers are known before a byte is written."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    plan = plan_of(open_source(str(source)), None, "BF16", 30_000)
    convert(source, tmp_path / "out", dtype="bfloat16", max_shard_size=30_000)
    assert len(plan.shards) > 1
    for shard in plan.shards:
        content = (tmp_path / "out" / shard.path).read_bytes()
        assert (len(content), content[: len(shard.header)]) == (shard.size, shard.header)
    files = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files.keys() == {*plan.small, *(s.path for s in plan.shards)}
    assert sum(p.stat().st_size for p in files.values()) == plan.size


def test_a_file_over_the_limit_of_storage_is_cut(tmp_path: Path) -> None:
    source = checkpoints.big_llama(tmp_path / "source", 8, shards=1, sparse=True)
    plan = plan_of(open_source(str(source)), None, None, None)
    assert len(plan.shards) == 2
    assert "cut into smaller ones" in plan.said[0]
    assert len(plan_of(open_source(str(source)), None, None, 10**10).shards) == 1


def _with_first(source: Path, first: bytes) -> Path:
    """The checkpoint with other first bytes in its first tensor that is a matrix."""
    tensors = all_tensors(source)
    name = "model.layers.0.mlp.up_proj.weight"
    code, shape, content = tensors[name]
    assert isinstance(content, bytes)
    write_safetensors(source / "model.safetensors", tensors | {name: (code, shape, first + content[len(first) :])})
    return source


def test_nan_is_counted_and_said(tmp_path: Path) -> None:
    """What is no number before stays none: that is a warning, with the count."""
    source = _with_first(checkpoints.llama(tmp_path / "source", dtype="float32"), b"\0\0\xc0\x7f" * 3)
    heard = _At(1, lambda: None)
    done = convert(source, tmp_path / "out", dtype="bfloat16", progress=heard)
    assert done.nan == done.document()["nan"] == {"model.layers.0.mlp.up_proj.weight": 3}
    assert 'NaN          3 numbers, in "model.layers.0.mlp.up_proj.weight"' in str(done)
    assert heard.said[-1].startswith("Warning: 3 numbers are NaN")
    assert convert(source, tmp_path / "copied").nan == {}, "what is only copied is not looked at"


def test_overflow_is_counted_and_said(tmp_path: Path) -> None:
    source = _with_first(checkpoints.llama(tmp_path / "source", dtype="float32"), b"\xff\xff\x7f\x7f" + b"\0\0\x80\x7f")
    done = convert(source, tmp_path / "out", dtype="bfloat16")
    assert done.overflowed == done.infinite == {"model.layers.0.mlp.up_proj.weight": 1}
    assert 'overflow     1 numbers, in "model.layers.0.mlp.up_proj.weight"' in str(done)


def test_two_files_that_hold_one_tensor(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", shards=2)
    (source / "model.safetensors").write_bytes((source / "model-00001-of-00002.safetensors").read_bytes())
    with pytest.raises(CataloggerError, match="twice: in") as caught:
        convert(source, tmp_path / "out", max_shard_size="1GB")
    assert caught.value.exit_code == 2
    _assert_nothing(tmp_path)


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", shards=2)
    (source / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CataloggerError, match="which its index names"):
        convert(source, tmp_path / "out", max_shard_size="1GB")
    _assert_nothing(tmp_path)


def test_no_room(tmp_path: Path) -> None:
    """Known before a byte is written: 406 GB and more are on no disk that tests run on."""
    source = checkpoints.sparse_llama_405b(tmp_path / "source")
    with pytest.raises(CataloggerError, match="GB free") as caught:
        convert(source, tmp_path / "out", max_shard_size="1GB")
    assert (caught.value.exit_code, caught.value.code) == (6, "disk-full")
    _assert_nothing(tmp_path)


@pytest.mark.parametrize("kind", ["file", "full"])
def test_a_target_that_is_taken(kind: str, tmp_path: Path) -> None:
    source, out = checkpoints.llama(tmp_path / "source"), tmp_path / "out"
    if kind == "full":
        out.mkdir()
        (out / "mine").touch()
    else:
        out.touch()
    with pytest.raises(CataloggerError, match="is no empty folder") as caught:
        convert(source, out)
    assert caught.value.exit_code == 2


class _At:
    """Progress that does something once, after so many bytes."""

    def __init__(self, share: float, act: Callable[[], None]) -> None:
        self._share, self._act, self._done = share, act, 0
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        def tick(count: int) -> None:
            before, self._done = self._done, self._done + count
            if before < total * self._share <= self._done:
                self._act()

        yield tick


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_taken_up_after_an_interruption(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=12)
    whole = convert(source, tmp_path / "whole", dtype="bfloat16")
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", dtype="bfloat16", progress=_At(0.9, _interrupt))
    assert not (tmp_path / "out").exists()
    done = convert(source, tmp_path / "out", dtype="bfloat16")
    assert done.taken_up > 0
    assert done.written < whole.written
    assert done.digests == whole.digests
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "whole")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}


def test_nothing_is_taken_up_of_another_source(tmp_path: Path) -> None:
    """The base moved between two runs: the shards of the old one are worth nothing."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=12)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", dtype="bfloat16", progress=_At(0.9, _interrupt))
    checkpoints.llama(source, dtype="float32", shards=12, seed=1)
    assert convert(source, tmp_path / "out", dtype="bfloat16").taken_up == 0
    convert(source, tmp_path / "whole", dtype="bfloat16")
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "whole")


def test_a_finished_shard_with_other_bytes_is_written_again(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=12)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out", dtype="bfloat16", progress=_At(0.9, _interrupt))
    for shard in (tmp_path / ".out.converting").glob("*.safetensors"):
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
    assert convert(source, tmp_path / "out", dtype="bfloat16").taken_up == 0
    convert(source, tmp_path / "whole", dtype="bfloat16")
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "whole")


def test_a_source_that_changes_meanwhile(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    weights = source / "model.safetensors"

    def touched() -> None:
        weights.write_bytes(weights.read_bytes())

    with pytest.raises(CataloggerError, match="changed while it was read"):
        convert(source, tmp_path / "out", dtype="bfloat16", progress=_At(0.5, touched))
    _assert_nothing(tmp_path)


@pytest.mark.parametrize("size", ["", "0", "-1GB", "1 TB of it", "GB"])
def test_no_size(size: str, tmp_path: Path) -> None:
    with pytest.raises(CataloggerError, match="is no size of a shard"):
        convert(tmp_path, tmp_path / "out", max_shard_size=size)


def test_memory_stays_flat(tmp_path: Path) -> None:
    """400 MB of float32 in one process: far more than it may hold at any time."""
    import numpy as np

    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    block = np.ones(1 << 20, "<f4").tobytes()
    big: Any = ("F32", (100, 1 << 20), (block for _ in range(100)))
    write_safetensors(source / "model.safetensors", all_tensors(source) | {"model.big.weight": big})
    script = (
        "import resource, sys; from catalogger import convert; import numpy;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "convert(sys.argv[1], sys.argv[2], dtype='bfloat16');"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # kB
