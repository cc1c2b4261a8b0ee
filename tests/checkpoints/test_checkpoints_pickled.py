"""Pickled weights: the same bytes as safetensors hold, read as data; a pickle that does anything is refused unrun."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints.adapters import all_tensors
from fakes import checkpoints, trained
from fakes.hub import Hub

from catalogger import CataloggerError, convert
from catalogger.checkpoints.changing.pickled import CHILD, read_pickled
from catalogger.checkpoints.changing.stored import Reader

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own advice


@pytest.mark.parametrize("files", [1, 3])
def test_the_same_bytes(files: int, tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    trained.pickled(source, tmp_path / "pickled", files=files)
    done = convert(tmp_path / "pickled", tmp_path / "out", allow_pickle=True)
    assert all_tensors(tmp_path / "out") == all_tensors(source)
    assert len(done.pickled) == files
    assert "an audit hook that forbids everything else" in done.document()["apart"]
    assert not list((tmp_path / "out").glob("*.bin"))
    assert any("read as data by a process apart" in sentence for sentence in done.said)


def test_not_without_being_allowed(tmp_path: Path) -> None:
    trained.pickled(checkpoints.llama(tmp_path / "source"), tmp_path / "pickled")
    with pytest.raises(CataloggerError, match=r'has pickled weights only \("pytorch_model.bin"\)') as caught:
        convert(tmp_path / "pickled", tmp_path / "out")
    assert (caught.value.exit_code, "--allow-pickle" in caught.value.fix) == (2, True)
    assert not (tmp_path / "out").exists()


def test_safetensors_go_before_a_pickle(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"whatever it is")
    assert convert(source, tmp_path / "out", allow_pickle=True).pickled == ()


def test_every_way_that_numbers_lie(tmp_path: Path) -> None:
    """Turned, cut out, spread, shared, empty, alone, of every dtype: as PyTorch itself reads them."""
    import torch

    whole = torch.randn(40, 60)
    state: dict[str, Any] = {
        "whole": whole,
        "turned": whole.t(),
        "rows": whole[3:9],
        "columns": whole[:, 2:50:3],
        "cube": torch.randn(4, 5, 6).permute(2, 0, 1),
        "spread": torch.randn(1, 3).expand(7, 3),
        "shared": whole,
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
    }
    kinds = ("float64", "float16", "bfloat16", "int64", "int8", "uint8", "bool", "uint16", "float8_e4m3fn")
    state |= {kind: torch.ones(3, 2).to(getattr(torch, kind)) for kind in kinds}
    torch.save(state, tmp_path / "pytorch_model.bin")
    held = read_pickled(tmp_path / "pytorch_model.bin", "here").tensors
    assert [t.name for t in held] == list(state)
    with Reader({t.file for t in held}) as reader:
        for tensor in held:
            plain = state[tensor.name].detach().contiguous()
            theirs = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
            assert tensor.shape == tuple(plain.shape)
            assert bytes(reader.whole(tensor)) == theirs, tensor.name
            part = bytearray(tensor.nbytes // 2 // plain.element_size() * plain.element_size())
            reader.read(tensor, tensor.nbytes - len(part), memoryview(part))
            assert bytes(part) == theirs[len(theirs) - len(part) :], tensor.name


def test_turned_weights_are_cast(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    held = {name: t.t().contiguous().t() for name, t in trained.tensors(source).items()}
    assert any(not t.is_contiguous() for t in held.values())
    trained.pickled(source, tmp_path / "pickled", state=held)
    convert(tmp_path / "pickled", tmp_path / "out", allow_pickle=True, dtype="bfloat16")
    convert(source, tmp_path / "plain", dtype="bfloat16")
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "plain")


@pytest.mark.parametrize("tie", [True, False])
def test_a_head_that_is_the_embedding(tie: bool, tmp_path: Path) -> None:
    """One tensor under two names: the head is left out where the config ties them, and both are there where not."""
    source = checkpoints.llama(tmp_path / "source", tie=tie)
    held = trained.tensors(source)
    held["lm_head.weight"] = held["model.embed_tokens.weight"]
    trained.pickled(source, tmp_path / "pickled", state=held)
    convert(tmp_path / "pickled", tmp_path / "out", allow_pickle=True)
    ours = all_tensors(tmp_path / "out")
    assert ("lm_head.weight" in ours) is not tie
    assert tie or ours["lm_head.weight"] == ours["model.embed_tokens.weight"]


def test_base_and_adapter_pickled(base: Path, adapter: Path, tmp_path: Path) -> None:
    convert(base, tmp_path / "plain", adapter=adapter)
    trained.pickled(base, tmp_path / "pickled")
    trained.pickled_adapter(adapter)
    done = convert(tmp_path / "pickled", tmp_path / "out", adapter=adapter, allow_pickle=True)
    assert all_tensors(tmp_path / "out") == all_tensors(tmp_path / "plain")
    assert (done.pickled, done.merged) == (("pytorch_model.bin", "adapter_model.bin"), 4)
    with pytest.raises(CataloggerError, match=r'pickled weights only \("adapter_model.bin"\)') as caught:
        convert(base, tmp_path / "other", adapter=adapter)
    assert "--allow-pickle" in caught.value.fix


def test_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    hub.add("org/pickled", trained.pickled(source, tmp_path / "pickled", files=2))
    convert("org/pickled", tmp_path / "out", allow_pickle=True)
    assert all_tensors(tmp_path / "out") == all_tensors(source)


class _Writes:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_does_something_is_not_run(protocol: int, tmp_path: Path) -> None:
    """It is a real one: Python's own reader runs it."""
    import torch

    folder = trained.pickled(checkpoints.llama(tmp_path / "source"), tmp_path / "pickled")
    state = {"model.norm.weight": torch.ones(3), "more": _Writes(tmp_path / "made")}
    torch.save(state, folder / "pytorch_model.bin", pickle_protocol=max(protocol, 1))
    if protocol == 0:
        program = pickle.dumps({"more": _Writes(tmp_path / "made")}, protocol=0)
        with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
            archive.writestr("archive/data.pkl", program)
    with pytest.raises(CataloggerError) as caught:
        convert(folder, tmp_path / "out", allow_pickle=True)
    assert caught.value.exit_code == 2
    assert 'asks for "posix.mkdir"' in caught.value.message or "has the instruction" in caught.value.message
    assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(_Writes(tmp_path / "made"), protocol=protocol))  # noqa: S301  our own, to see it act
    assert (tmp_path / "made").exists()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def _no_zip(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04 and more")


def _of_old(file: Path) -> None:
    import torch

    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=False)


def _a_training(file: Path) -> None:
    import torch

    torch.save({"model": {"a": torch.ones(2)}, "epoch": 3}, file)


def _sparse(file: Path) -> None:
    import torch

    torch.save({"a": torch.eye(3).to_sparse()}, file)


def _script(file: Path) -> None:
    import torch

    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(file))


def _named(name: Any) -> Callable[[Path], None]:
    def save(file: Path) -> None:
        import torch

        torch.save({name: torch.ones(2)}, file)

    return save


def _repacked(change: Callable[[bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    def repack(file: Path) -> None:
        import torch

        torch.save({"a": torch.ones(2)}, file)
        with zipfile.ZipFile(file) as archive:
            held = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(file, "w", compression) as archive:
            for name, content in held.items():
                archive.writestr(name, change(content) if name.endswith("data.pkl") else content)

    return repack


def _larger(program: bytes) -> bytes:
    """The shape says more numbers than the storage has: (2,) becomes (200,)."""
    changed = program.replace(b"K\x00K\x02\x85", b"K\x00K\xc8\x85")
    assert changed != program
    return changed


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut short": (_cut, "is not whole"),
    "of old": (_of_old, "not in the format that PyTorch writes since 1.6"),
    "no zip": (_no_zip, "is not whole"),
    "another zip": (lambda file: zipfile.ZipFile(file, "w").writestr("a/b", "c"), "none that PyTorch writes"),
    "a training": (_a_training, "which is no tensor"),
    "sparse": (_sparse, 'asks for "torch._utils._rebuild_sparse_tensor"'),
    "a program": (_script, "is a TorchScript program"),
    "half a character": (_named("a\ud800"), "says of its tensors what cannot be"),
    "the name of something else": (_named("__metadata__"), "says of its tensors what cannot be"),
    "a number for a name": (_named(3), "by something that is no text"),
    "out of its storage": (_repacked(_larger), '"a" lies out of its storage'),
    "no end": (_repacked(lambda program: program[:-1]), 'has a "pytorch_model.bin" that'),
    "compressed": (_repacked(bytes, zipfile.ZIP_DEFLATED), "compressed or encrypted"),
    "nested": (_repacked(lambda _: b"(" * 1_000_000 + b"."), 'has a "pytorch_model.bin" that'),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore")
def test_refused_by_what_it_is(name: str, tmp_path: Path) -> None:
    breaks, says = BROKEN[name]
    breaks(trained.pickled(checkpoints.llama(tmp_path / "source"), tmp_path / "pickled") / "pytorch_model.bin")
    with pytest.raises(CataloggerError) as caught:
        convert(tmp_path / "pickled", tmp_path / "out", allow_pickle=True)
    assert (caught.value.exit_code, caught.value.code) == (2, "checkpoint")
    assert says in caught.value.message
    assert not list(tmp_path.glob("*out*"))


def test_one_of_a_row_is_missing(tmp_path: Path) -> None:
    folder = trained.pickled(checkpoints.llama(tmp_path / "source"), tmp_path / "pickled", files=3)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(CataloggerError, match=r'has no "pytorch_model-00002-of-00003\.bin"'):
        convert(folder, tmp_path / "out", allow_pickle=True)


_ATTEMPTS = ("socket.socket()", "open('/etc/hostname')", "os.system('true')", "os.fork()", "__import__('wave')")


@pytest.mark.parametrize(
    ("attempt", "hook", "says"),
    [
        *((attempt, True, "is forbidden") for attempt in _ATTEMPTS),
        *((attempt, False, "Too many open files") for attempt in _ATTEMPTS[:2]),
    ],
)
def test_the_reader_is_kept_apart(attempt: str, hook: bool, says: str) -> None:
    """What a pickle could do if it could do anything; without the hook the kernel still says no to file and socket."""
    script = f"""
import importlib.util, os, socket, sys
found = importlib.util.spec_from_file_location("child", {str(CHILD)!r})
child = importlib.util.module_from_spec(found)
sys.modules["child"] = child
found.loader.exec_module(child)
if not {hook}:
    child._forbid = lambda event, arguments: None
child._apart(60, 1 << 30)
try:
    {attempt}
except (PermissionError, OSError, ImportError) as error:
    print("refused:", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert says in done.stdout, done.stderr


def test_memory_stays_flat(tmp_path: Path) -> None:
    """128 MB that do not lie side by side."""
    import torch

    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    held = trained.tensors(source) | {"model.big.weight": torch.ones(1 << 13, 1 << 12).t()}
    trained.pickled(source, tmp_path / "pickled", state=held)
    script = (
        "import resource, sys; from catalogger import convert; import numpy;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "convert(sys.argv[1], sys.argv[2], dtype='bfloat16', allow_pickle=True);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "pickled"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000  # kB
    assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "bfloat16"
