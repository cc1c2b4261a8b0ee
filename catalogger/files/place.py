"""Put a weight file where the model needs it: by hard link, by reflink, or by one copy that is hashed on the way."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from catalogger.errors import DiskError, UsageError
from catalogger.files.digests import BLOCK, Tick

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

Weights = Literal["auto", "copy", "link"]
_FICLONE = 0x40049409  # linux/fs.h
_WINDOW = 1 << 20  # bytes that the kernel copies at a time
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Placed:
    """What was done for one file.  `read` and `written` in bytes; `sha256` where the content was read."""

    how: Literal["linked", "reflinked", "copied", "hashed"]
    read: int
    written: int
    sha256: str | None = None


def place(source: Path, target: Path, weights: Weights, *, ours: bool, known: bool, tick: Tick) -> Placed:
    """Place `source` at `target`, which does not exist.

    `ours` says that nobody edits the source in place (the Hub's cache, a temporary folder), so that `auto` may link it.
    `known` says that the digest is known, so that a copy need not compute it.
    Raises DiskError, and UsageError where a link was asked for and cannot be made.
    """
    size = source.stat().st_size
    target.parent.mkdir(parents=True, exist_ok=True)
    wanted = weights == "link" or (weights == "auto" and ours)
    if wanted and _linked(source, target, must=weights == "link"):
        tick(size)
        return Placed("linked", 0, 0)
    try:
        if weights == "auto" and _reflinked(source, target):
            tick(size)
            return Placed("reflinked", 0, 0)
        digest = _copy(source, target, tick, hashed=not known)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise DiskError(
            f'Cannot write "{target}": {error.strerror}.',
            "Free some room or choose another tracking URI, then run the same command again.",
        ) from error
    return Placed("copied", size, size, digest)


def write_at(descriptor: int, block: memoryview, at: int, path: Path) -> None:
    """Write all of the block there, into the file at `path`, which a later run takes up.  Raises DiskError."""
    done = 0
    try:
        while done < len(block):
            done += os.pwrite(descriptor, block[done:], at + done)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> DiskError:
    """A file cannot be written that a later run takes up."""
    return DiskError(
        f'Cannot write "{path}": {error.strerror}.',
        "Free some room, then run the same command again: it goes on where it stopped.",
    )


def same_file_system(one: Path, other: Path) -> bool:
    """Whether hard links between the folders, or their nearest parents that exist, can be made."""
    return existing(one).stat().st_dev == existing(other).stat().st_dev


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _linked(source: Path, target: Path, *, must: bool) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise DiskError(f'Cannot link "{target}": {error.strerror}.', "Is the folder writable?") from error
        if must:
            raise UsageError(
                f'"{source}" cannot be linked to "{target}": {error.strerror}.',
                "Use --weights copy, or put both on one file system.",
            ) from error
        return False
    return True


def _reflinked(source: Path, target: Path) -> bool:
    """A copy that shares blocks until one side changes, where the file system can (Btrfs, XFS)."""
    with source.open("rb") as origin, target.open("xb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), _FICLONE, origin.fileno())
        except OSError:
            target.unlink()
            return False
    return True


def _copy(source: Path, target: Path, tick: Tick, *, hashed: bool) -> str | None:
    """Copy once; the digest is taken of the bytes as they pass."""
    digest = hashlib.sha256() if hashed else None
    with source.open("rb", buffering=0) as origin, target.open("xb", buffering=0) as copy:
        if not _copied_by_kernel(origin, copy, digest, tick):
            _copied_by_blocks(origin, copy, digest, tick)
    return digest.hexdigest() if digest else None


def _copied_by_kernel(origin: FileIO, copy: FileIO, digest: Hash | None, tick: Tick) -> bool:
    """Let the kernel copy, which moves no byte through this process, and hash the pages that it has just read.

    False, with nothing written, where the file systems cannot.
    """
    size = os.fstat(origin.fileno()).st_size
    done = 0
    try:
        with mmap.mmap(origin.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as pages:
            while done < size:
                count = os.copy_file_range(origin.fileno(), copy.fileno(), min(_WINDOW, size - done), done, done)
                if not count:
                    raise OSError(errno.EIO, "the file became shorter while it was copied")
                if digest:
                    digest.update(pages[done : done + count])
                    mapped.madvise(mmap.MADV_DONTNEED, done - done % mmap.PAGESIZE, count)
                done += count
                tick(count)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        if done or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            raise
        return False
    return True


def _copied_by_blocks(origin: FileIO, copy: FileIO, digest: Hash | None, tick: Tick) -> None:
    block = memoryview(bytearray(BLOCK))
    while count := origin.readinto(block):
        if digest:
            digest.update(block[:count])
        written = 0
        while written < count:
            written += copy.write(block[written:count])
        tick(count)
