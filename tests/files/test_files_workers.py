"""Workers do in processes what `place` and `sha256_file` do here, and end when they are told to."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from catalogger.errors import DiskError, UsageError
from catalogger.files.place import place
from catalogger.files.workers import Stopped, Task, Workers

CONTENT = os.urandom(3_000_001)  # neither whole windows nor whole pages
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def test_a_copy_is_hashed_on_its_way(source: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    with Workers() as workers:
        placed = workers.submit(Task(source, tmp_path / "new" / "copy"), counts.append).result()
    assert (tmp_path / "new" / "copy").read_bytes() == CONTENT
    assert (placed.how, placed.read, placed.written, placed.sha256) == ("copied", len(CONTENT), len(CONTENT), DIGEST)
    assert sum(counts) == len(CONTENT)


def test_a_link_is_hashed_unless_its_digest_is_known(source: Path, tmp_path: Path) -> None:
    with Workers() as workers:
        unknown = workers.submit(Task(source, tmp_path / "one", "link")).result()
        known = workers.submit(Task(source, tmp_path / "two", "link", known=True)).result()
    assert (unknown.how, unknown.read, unknown.written, unknown.sha256) == ("linked", len(CONTENT), 0, DIGEST)
    assert (known.how, known.read, known.written, known.sha256) == ("linked", 0, 0, None)
    assert source.stat().st_nlink == 3


def test_only_hashed(source: Path) -> None:
    with Workers() as workers:
        done = [workers.submit(Task(source)) for _ in range(9)]
        assert {d.result().sha256 for d in done} == {DIGEST}
    assert done[0].result().written == 0


def test_an_empty_file_is_copied(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with Workers() as workers:
        placed = workers.submit(Task(tmp_path / "empty", tmp_path / "copy")).result()
    assert placed.sha256 == hashlib.sha256().hexdigest()
    assert (tmp_path / "copy").stat().st_size == 0


def test_errors_come_back_as_they_are(source: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with Workers() as workers:
        with pytest.raises(DiskError, match="File exists"):
            workers.submit(Task(source, tmp_path / "taken")).result()
        with pytest.raises(FileNotFoundError, match="missing"):
            workers.submit(Task(tmp_path / "missing")).result()
        assert workers.submit(Task(source)).result().sha256 == DIGEST, "it goes on after an error"


def test_a_link_to_another_file_system_is_refused(source: Path) -> None:
    other = Path("/dev/shm") / source.parent.name  # noqa: S108  the one other file system
    if other.parent.stat().st_dev == source.stat().st_dev:
        other = Path("/proc/self") / "copy"
    with Workers() as workers, pytest.raises((UsageError, DiskError)):
        workers.submit(Task(source, other, "link")).result()
    assert not other.exists()


def test_stopped_in_the_middle(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 40)  # a hole that takes longer to hash than anybody waits
    moving = threading.Event()
    with Workers() as workers:
        begun = workers.submit(Task(tmp_path / "large"), lambda _: moving.set())
        queued = [workers.submit(Task(tmp_path / "large")) for _ in range(8)]
        assert moving.wait(60)
    with pytest.raises(Stopped):
        begun.result()
    assert queued[-1].cancelled()
    assert all(process.poll() is not None for process in workers._processes)


def test_a_worker_that_is_killed_is_told(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 40)

    def kill(_: int) -> None:
        for process in workers._processes:
            os.kill(process.pid, signal.SIGKILL)

    with Workers() as workers, pytest.raises(DiskError, match="was not read to its end"):
        workers.submit(Task(tmp_path / "large"), kill).result(timeout=60)


def test_a_file_that_is_cut_short_while_it_is_copied(tmp_path: Path) -> None:
    """The kernel ends a process that reads a mapped page which is not there any more, or says that nothing is left."""
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(2_000_000_000)
    with Workers() as workers, pytest.raises(DiskError) as refused:
        workers.submit(Task(source, target), lambda _: os.truncate(source, 10)).result()
    assert str(tmp_path) in refused.value.message
    assert refused.value.exit_code == 6


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_without_processes_it_is_done_here(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    with Workers() as workers:
        assert workers.submit(Task(source, tmp_path / "copy")).result().sha256 == DIGEST
    assert (tmp_path / "copy").read_bytes() == CONTENT


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL])
def test_copied_by_blocks_where_the_kernel_cannot(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    counts: list[int] = []
    placed = place(source, tmp_path / "copy", "copy", ours=False, known=False, tick=counts.append)
    assert (placed.sha256, sum(counts)) == (DIGEST, len(CONTENT))
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_a_full_disk_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(DiskError, match="No space left"):
        place(source, tmp_path / "copy", "copy", ours=False, known=False, tick=lambda _: None)
    assert not (tmp_path / "copy").exists()
