"""A conversion that is killed or runs out of disk at any moment: the same command goes on, to the same bytes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from checkpoints.adapters import Q_V, train
from fakes import checkpoints

from catalogger import convert
from catalogger.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own advice

_MOMENTS = 20
_SCRIPT = """
import json, os, signal, sys
from contextlib import contextmanager
import numpy
from catalogger.checkpoints.changing.converting import convert

arguments, moments, out = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")

class Counted:
    def say(self, text): pass
    @contextmanager
    def bar(self, label, total):
        yield lambda count: moment()

count, last = 0, 0

def moment():
    global count
    count += 1
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(event, details):
    if event in EVENTS and details and os.path.basename(out) in str(details[0]):
        moment()

def run(last_moment, to):
    '''In a process of its own: how it ended, and what it told.'''
    global last
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        last = last_moment
        sys.addaudithook(hook)
        done = convert(to=to, progress=Counted(), **arguments)
        os.write(writing, json.dumps([count, done.taken_up, done.action, done.digests]).encode())
        os._exit(0)
    os.close(writing)
    held = os.read(reading, 10_000)
    os.close(reading)
    return os.waitpid(child, 0)[1], json.loads(held or "null")

ended, (all_moments, _, _, digests) = run(0, out)
assert ended == 0
os.rename(out, out + "-whole")
taken_up, unreported = [], 0
for number in range(moments):
    at = 1 + number * (all_moments - 1) // (moments - 1)
    ended, _ = run(at, out)
    assert ended == signal.SIGKILL, (ended, at)
    whole = os.path.exists(out)  # it has its name only when it is whole, as the digests must show
    ended, (_, taken, action, told) = run(0, out)
    assert (ended, action, told) == (0, "unchanged" if whole else "converted", digests)
    unreported += whole
    if not whole:
        taken_up.append(taken)
    os.rename(out, f"{out}-{number}")
print(json.dumps({"moments": all_moments, "taken_up": taken_up, "unreported": unreported}))
"""


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("merging", [True, False])
def test_killed_at_twenty_moments(merging: bool, tmp_path: Path) -> None:
    """A moment is every block that is written, and every file that is made, named or removed; spread from the first to
    the last of them.
    """
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=6)
    arguments = {"source": str(source), "dtype": "bfloat16"}
    if merging:
        arguments["adapter"] = str(train(source, tmp_path / "adapter", **Q_V))
    command = [sys.executable, "-c", _SCRIPT, json.dumps(arguments), str(_MOMENTS), str(tmp_path / "out")]
    one = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # a process with threads is not forked
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["moments"] > _MOMENTS
    assert max(told["taken_up"]) >= 4
    assert told["unreported"] >= 1, "killed after the last file had its name"
    whole = _digests(tmp_path / "out-whole")
    for number in range(_MOMENTS):
        assert _digests(tmp_path / f"out-{number}") == whole, number
    assert not list(tmp_path.glob(".out*"))


def _command(source: Path, out: Path, limit: int | None, *more: str) -> subprocess.CompletedProcess[str]:
    """The command; a limit on the size of a file stands in for the disk's end."""
    script = "from catalogger.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, "convert", str(source), "--to", str(out), *more],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None,
    )


def _largest_last(source: Path) -> None:
    """The file with the embedding, which is the largest, gets the last name: others are whole when it begins."""
    names = sorted(p.name for p in source.glob("model-*"))
    one, other = source / names[0], source / names[-1]
    one.rename(source / "between")
    other.rename(one)
    (source / "between").rename(other)
    index = source / "model.safetensors.index.json"
    swapped = {one.name: other.name, other.name: one.name}
    held = json.loads(index.read_text())
    held["weight_map"] = {name: swapped.get(file, file) for name, file in held["weight_map"].items()}
    index.write_text(json.dumps(held))


@pytest.mark.parametrize("merging", [True, False])
def test_a_disk_that_fills_in_the_middle(merging: bool, tmp_path: Path) -> None:
    """What is whole stays, and is taken up when there is room; what is half is removed, to make some."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=18, vocabulary=3000, tie=True)
    _largest_last(source)
    out, more = tmp_path / "out", ["--dtype", "bfloat16"]
    if merging:
        more += ["--adapter", str(train(source, tmp_path / "adapter", **Q_V))]
    limit = sorted(s.stat().st_size for s in source.glob("model-*"))[-1] // 4  # half of what it becomes
    done = _command(source, out, limit, *more)
    assert (done.returncode, done.stdout) == (6, "")
    work = tmp_path / ".out.converting"
    kept = {p.name for p in work.glob("*.safetensors")}
    assert 18 - 8 <= len(kept) < 18
    assert f'{len(kept)} finished files stay in "{work}"' in done.stderr
    assert not list(work.glob("*.part"))
    assert not out.exists()
    again = _command(source, out, None, *more, "-o", "json")
    assert (again.returncode, json.loads(again.stdout)["taken_up"]) == (0, len(kept))
    _command(source, tmp_path / "whole", None, *more)
    assert _digests(out) == _digests(tmp_path / "whole")


def test_a_disk_without_room_for_one_file(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=2)
    done = _command(source, tmp_path / "out", 5_000, "--dtype", "bfloat16")
    assert (done.returncode, done.stdout) == (6, "")
    assert "Nothing was left there." in done.stderr
    assert not list(tmp_path.glob("*out*"))


def test_what_is_left_of_a_broken_source_is_removed(tmp_path: Path) -> None:
    """Files that were finished of a source which changed are worth nothing."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=6)
    done = _command(source, tmp_path / "out", 5_000, "--dtype", "bfloat16")
    assert done.returncode == 6
    checkpoints.llama(source, dtype="float32", shards=6, seed=1)
    assert convert(source, tmp_path / "out", dtype="bfloat16").taken_up == 0


def _unreported(source: Path, out: Path) -> Path:
    """A result that nobody was told of: the report could not be written.  Gives its note."""
    from catalogger.checkpoints.changing.change import Wish
    from catalogger.checkpoints.changing.converting import converting

    with pytest.raises(BrokenPipeError), converting(source, out, Wish(dtype="bfloat16")):
        raise BrokenPipeError
    return out.parent / f".{out.name}.converted"


def test_a_result_that_was_not_reported_is_told_by_the_next_run(tmp_path: Path) -> None:
    source, out = checkpoints.llama(tmp_path / "source", dtype="float32", shards=2), tmp_path / "out"
    note = _unreported(source, out)
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.iterdir()}
    assert note.is_file()
    done = _command(source, out, None, "--dtype", "bfloat16")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"unchanged    {out}"), done.stderr
    assert "every file was hashed again" in done.stderr
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in out.iterdir()} == before
    assert not note.exists()
    again = _command(source, out, None, "--dtype", "bfloat16")
    assert (again.returncode, "is no empty folder" in again.stderr) == (2, True), "it was told once"


@pytest.mark.parametrize("kind", ["another command", "weights", "a small file", "one more", "one less", "no note"])
def test_anything_else_in_the_folder_is_left_alone(kind: str, tmp_path: Path) -> None:
    source, out = checkpoints.llama(tmp_path / "source", dtype="float32", shards=2), tmp_path / "out"
    note = _unreported(source, out)
    shard = next(out.glob("*.safetensors"))
    more = {"max_shard_size": "10kB"} if kind == "another command" else {}
    if kind == "weights":
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif kind == "a small file":
        (out / "config.json").write_text("{}")
    elif kind == "one more":
        (out / "notes.txt").write_text("mine")
    elif kind == "one less":
        (out / "tokenizer.json").unlink()
    elif kind == "no note":
        note.write_text("{")
    before = _digests(out)
    with pytest.raises(UsageError, match="is no empty folder"):
        convert(source, out, dtype="bfloat16", **more)
    assert _digests(out) == before
