"""Write a plan to a folder: shard by shard, hashed on the way, each under its name only once it is whole.

What was begun stands in a folder beside the target, which gets its name at the very end; a note beside it tells the
result to the next run, until it was reported.  Finished shards of the same plan are taken up after an interruption, a
kill or a full disk; where the input is at fault nothing is left.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from catalogger.checkpoints.changing.floats import Counts
from catalogger.checkpoints.changing.outputs import counted
from catalogger.checkpoints.changing.plan import Plan, PlannedShard
from catalogger.checkpoints.changing.stored import Reader
from catalogger.errors import CheckpointError, DiskError, NotEnoughRoom
from catalogger.files.digests import Tick, sha256_file
from catalogger.files.place import existing
from catalogger.files.workers import Stopped

_PROCESSORS = os.cpu_count() or 1
_WORKERS = min(8, 2 * _PROCESSORS)  # more than processors: the last files are not waited for one by one
_PLAN = ".plan"
_ROOM = 10_000_000  # bytes that a file system may take beside the files


@dataclass
class Written:
    """What was done.  `counts` by the tensor's name, where a number was not finite; bytes in `read` and `written`."""

    digests: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    read: int = 0
    written: int = 0
    taken_up: int = 0


def beside(target: Path) -> Path:
    """Where the result stands until it is whole."""
    return target.parent / f".{target.name}.converting"


def _note(target: Path) -> Path:
    """Says what the finished result is, until that was reported."""
    return target.parent / f".{target.name}.converted"


def write(plan: Plan, target: Path, tick: Tick) -> Written:
    """Write the whole result.  `tick` counts bytes of the result.

    Raises NotEnoughRoom, DiskError, WeightsNotFinite, and CheckpointError where an input changes meanwhile.
    """
    work = beside(target)
    with _picked_up_later(work):
        written = _write_weights(plan, work, tick)
        for path, content in plan.small.items():
            (work / path).parent.mkdir(exist_ok=True)
            (work / path).write_bytes(content)
            tick(len(content))
            written.written += len(content)
        note = {"plan": plan.digest, "digests": written.digests}
        note["counts"] = {name: vars(counts) for name, counts in written.counts.items()}
        (work / _PLAN).write_text(json.dumps(note))  # in there first: without room for it, it goes with the folder
        (work / _PLAN).rename(_note(target))
        for made in work.glob("*.sha256"):
            made.unlink()
        if target.exists():
            target.rmdir()  # it was seen to be empty
        work.rename(target)
    return written


def is_unreported(target: Path) -> bool:
    """Whether a run that has written there may have ended before it could say so."""
    return _note(target).is_file()


def reported(target: Path) -> None:
    """What was written is known to who asked for it: the note of it goes away.  Raises DiskError."""
    try:
        _note(target).unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(f'Cannot remove "{_note(target)}": {error.strerror}.', "Remove it.") from error


def written_before(plan: Plan, target: Path, tick: Tick) -> Written | None:
    """What such a run has written of the same plan; None where the folder is anything else.

    Every file is hashed again, as nobody watched over them meanwhile.
    """
    try:
        said = json.loads(_note(target).read_text())
        counts = {name: Counts(**held) for name, held in said["counts"].items()}
        digests = {str(path): str(digest) for path, digest in said["digests"].items()}
        whole = digests | {path: hashlib.sha256(content).hexdigest() for path, content in plan.small.items()}
        there = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if not path.is_dir()}
        same = said["plan"] == plan.digest and there.keys() == whole.keys()
        same = same and all(sha256_file(there[path], tick) == digest for path, digest in whole.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Written(digests, counts, taken_up=len(digests)) if same else None


def write_weights(plan: Plan, work: Path, tick: Tick) -> Written:
    """Write the weight files alone into a folder that is ours, and leave the notes there by which the next call for the
    same plan takes them up.  Raises as `write` does.
    """
    with _picked_up_later(work):
        return _write_weights(plan, work, tick)


def _write_weights(plan: Plan, work: Path, tick: Tick) -> Written:
    written = Written()
    with Reader(plan.inputs) as reader:
        missing = _begin(plan, work, written, tick)
        _require_room(work, plan.size - sum(s.size for s in plan.shards if s not in missing))
        _write_shards(work, missing, reader, written, tick)
        reader.require_unchanged()
    return written


@contextmanager
def _picked_up_later(work: Path) -> Iterator[None]:
    """What is finished stays, to be taken up by the next run, but where the input is at fault: then it is removed."""
    try:
        yield
    except CheckpointError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    except OSError as error:
        kept = _finished(work)
        left = f'{kept} finished files stay in "{work}"' if kept else "Nothing was left there"
        raise DiskError(
            f'Cannot write "{work.parent}": {error.strerror}. {left}.',
            "Free some room and run the same command again, which goes on from there; or choose another folder.",
        ) from error
    except BaseException:
        _finished(work)
        raise


def _finished(work: Path) -> int:
    """Remove what is half done, and the folder where nothing else is in it; how many files of weights are whole."""
    for part in work.glob("*.part"):
        part.unlink(missing_ok=True)
    whole = sum(1 for note in work.glob("*.sha256") if note.with_suffix("").is_file())
    if not whole:
        shutil.rmtree(work, ignore_errors=True)
    return whole


def _begin(plan: Plan, work: Path, written: Written, tick: Tick) -> list[PlannedShard]:
    """The shards that are still to be written; those of another plan are removed."""
    with suppress(FileNotFoundError):
        if (work / _PLAN).read_text() != plan.digest:
            shutil.rmtree(work)
    if work.exists() and not (work / _PLAN).exists():
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    (work / _PLAN).write_text(plan.digest)
    missing = []
    for shard in plan.shards:
        if _is_whole(work, shard, written):
            written.taken_up += 1
            tick(shard.size)
        else:
            missing.append(shard)
    return missing


def _is_whole(work: Path, shard: PlannedShard, written: Written) -> bool:
    """Whether the shard was finished before; its bytes are hashed again, as nobody watched over them meanwhile."""
    path, note = work / shard.path, work / f"{shard.path}.sha256"
    if not path.exists() or not note.exists() or path.stat().st_size != shard.size:
        return False
    try:
        said = json.loads(note.read_text())
        counts = {name: Counts(**held) for name, held in said["counts"].items()}
        whole = bool(sha256_file(path) == said["sha256"])
    except (ValueError, KeyError, TypeError):
        return False
    if whole:
        written.digests[shard.path] = said["sha256"]
        written.counts |= counts
    return whole


def _require_room(work: Path, needed: int) -> None:
    free = shutil.disk_usage(existing(work)).free
    if needed + _ROOM > free:
        raise NotEnoughRoom(str(work.parent), needed, free)


def _write_shards(work: Path, shards: list[PlannedShard], reader: Reader, written: Written, tick: Tick) -> None:
    stop = Event()
    few = len(shards) < _PROCESSORS
    with ThreadPoolExecutor(_PROCESSORS) as aside, ThreadPoolExecutor(_WORKERS) as pool:
        others = aside if few else None
        jobs = {pool.submit(_write_shard, work, shard, reader, stop, tick, others): shard for shard in shards}
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()  # all is done, or nothing more is wanted
            pool.shutdown(wait=True, cancel_futures=True)
    failed = [e for job in jobs if not job.cancelled() and (e := job.exception()) and not isinstance(e, Stopped)]
    if failed:
        raise failed[0]
    for job, shard in jobs.items():
        digest, counts, read = job.result()
        written.digests[shard.path] = digest
        written.counts |= counts
        written.read += read
        written.written += shard.size


class _Digest:
    """The SHA-256 of what is written.  Where there are fewer files than processors each block is hashed `aside`, while
    the next is computed; where there are enough, more threads would only wait for each other.
    """

    def __init__(self, header: bytes, aside: Executor | None) -> None:
        self._sha256, self._aside = hashlib.sha256(header), aside
        self._last: Future[None] | None = None

    def update(self, block: memoryview) -> None:
        if self._aside is None:
            self._sha256.update(block)
            return
        if self._last:
            self._last.result()
        self._last = self._aside.submit(self._sha256.update, block)

    def hexdigest(self) -> str:
        if self._last:
            self._last.result()
        return self._sha256.hexdigest()


def _write_shard(
    work: Path, shard: PlannedShard, reader: Reader, stop: Event, tick: Tick, aside: Executor | None
) -> tuple[str, dict[str, Counts], int]:
    """Write one file; its digest, what was counted, and the bytes that were read."""
    part, digest, found, read = work / f"{shard.path}.part", _Digest(shard.header, aside), dict[str, Counts](), 0
    with part.open("wb", buffering=0) as file:
        _write_all(file.fileno(), memoryview(shard.header))
        for output in shard.outputs:
            for count, block in counted(output, reader, stop, found, str(output.source.file.parent)):
                digest.update(block)
                _write_all(file.fileno(), block)
                read += count
                tick(len(block))
    sha256 = digest.hexdigest()
    note = {"sha256": sha256, "counts": {name: vars(counts) for name, counts in found.items()}}
    (work / f"{shard.path}.sha256").write_text(json.dumps(note))
    part.rename(work / shard.path)
    return sha256, found, read


def _write_all(descriptor: int, block: memoryview) -> None:
    written = 0
    while written < len(block):
        written += os.write(descriptor, block[written:])
