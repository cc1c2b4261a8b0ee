"""Digests, and the memory of files that have not changed since."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogger.files.digests import BLOCK, DigestMemory, cache_folder, git_blob, sha256_file

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # whatever else this machine does

HOUR = 3_600_000_000_000  # ns


@pytest.fixture
def file(work: Path) -> Path:
    """A file that was last written an hour ago."""
    path = work / "model.safetensors"
    path.write_bytes(b"weights")
    _age(path)
    return path


def _age(path: Path, by: int = HOUR) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns - by, stat.st_mtime_ns - by))


def _remembered(path: Path, *, distrust: bool = False) -> DigestMemory:
    memory = DigestMemory(distrust=distrust)
    memory.remember([(path, sha256_file(path), path.stat())])
    return memory


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_sha256_of_a_file_and_its_ticks(size: int, work: Path) -> None:
    content = os.urandom(size)
    (work / "file").write_bytes(content)
    ticks: list[int] = []
    assert sha256_file(work / "file", ticks.append) == hashlib.sha256(content).hexdigest()
    assert (sum(ticks), max(ticks, default=0) <= BLOCK) == (size, True)


@patient
@given(st.binary())
def test_git_blob_is_gits(content: bytes) -> None:
    framed = f"blob {len(content)}\0".encode() + content
    assert git_blob(content) == hashlib.sha1(framed, usedforsecurity=False).hexdigest()


def test_git_blob_as_git_itself_says(work: Path) -> None:
    (work / "file").write_bytes(b"one\ntwo\0\xff")
    said = subprocess.run(["git", "hash-object", "--no-filters", "file"], capture_output=True, text=True, check=True)
    assert git_blob(b"one\ntwo\0\xff") == said.stdout.strip()


def test_remembers_across_instances(file: Path) -> None:
    assert DigestMemory().recall(file) is None
    _remembered(file)
    assert DigestMemory().recall(file) == hashlib.sha256(b"weights").hexdigest()


def test_keeps_its_file_in_the_cache_folder(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "catalogger"
    _remembered(file)
    assert (tmp_path / "catalogger" / "digests.sqlite").exists()
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "catalogger"


def _other_content(path: Path) -> None:
    path.write_bytes(b"WEIGHTS")
    _age(path)


def _other_size(path: Path) -> None:
    path.write_bytes(b"weights and more")
    _age(path)


def _times_put_back(path: Path) -> None:
    """What a cheat does: other content of the same size, modification time restored; the change time tells."""
    stat = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _replaced(path: Path) -> None:
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [_other_content, _other_size, _times_put_back, _replaced, _gone])
def test_forgets_after_a_change(file: Path, change: Callable[[Path], None]) -> None:
    memory = _remembered(file)
    assert memory.recall(file) is not None
    change(file)
    assert memory.recall(file) is None


def test_remembers_the_newer_digest(file: Path) -> None:
    memory = _remembered(file)
    _other_content(file)
    _remembered(file)
    assert memory.recall(file) == hashlib.sha256(b"WEIGHTS").hexdigest()


@pytest.mark.parametrize("change", [_other_content, _other_size, _replaced])
def test_does_not_remember_a_file_that_changed_while_it_was_read(file: Path, change: Callable[[Path], None]) -> None:
    memory, before = DigestMemory(), file.stat()
    digest = sha256_file(file)
    change(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns - 1))
    memory.remember([(file, digest, before)])
    assert memory.recall(file) is None


def test_a_file_just_written_is_not_remembered(work: Path) -> None:
    path = work / "new"
    path.write_bytes(b"x")
    future = path.stat().st_mtime_ns + HOUR  # however slow this machine is, it is not settled
    os.utime(path, ns=(future, future))
    assert _remembered(path).recall(path) is None


def test_a_hard_link_made_meanwhile_is_no_change(file: Path) -> None:
    memory, before = DigestMemory(), file.stat()
    digest = sha256_file(file)
    file.with_name("linked").hardlink_to(file)
    memory.remember([(file, digest, before)])
    assert memory.recall(file) == digest
    assert memory.recall(file.with_name("linked")) == digest


def test_distrust_looks_nothing_up_but_remembers(file: Path) -> None:
    distrustful = _remembered(file, distrust=True)
    assert distrustful.distrusts
    assert distrustful.recall(file) is None
    assert DigestMemory().recall(file) is not None


def test_broken_memory_only_costs_time(file: Path) -> None:
    store = cache_folder() / "digests.sqlite"
    store.parent.mkdir(parents=True)
    store.write_bytes(b"this is no database, " * 100)
    memory = _remembered(file)
    assert memory.recall(file) is None


def test_memory_of_another_form_only_costs_time(file: Path) -> None:
    import sqlite3
    from contextlib import closing

    store = cache_folder() / "digests.sqlite"
    store.parent.mkdir(parents=True)
    with closing(sqlite3.connect(store)) as other:
        other.execute("create table digests (something text)")
    assert _remembered(file).recall(file) is None


def test_cache_folder_that_cannot_be_made_only_costs_time(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "blocked").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "blocked"))
    assert _remembered(file).recall(file) is None


def test_cache_folder_where_nobody_may_write_only_costs_time(file: Path) -> None:
    memory = DigestMemory(Path("/proc/self/catalogger/digests.sqlite"))
    memory.remember([(file, "0" * 64, file.stat())])
    assert memory.recall(file) is None
