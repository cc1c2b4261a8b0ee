"""Folders that go away with their block, and that a later run knows for ours where a process was killed meanwhile.

Each holds a marker, locked as long as its process lives.  The system frees the lock, however the process ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from catalogger.errors import DiskError

MARKER = ".catalogger"
WORK = "work"
"""The folder inside that is worked in, where the marker must not be among its files."""
_GOING = "-going"
_SAYS = b"made by catalogger, to be taken away again\n"


@contextmanager
def temporary(purpose: str, beside: Path | None = None) -> Iterator[Path]:
    """A folder to work in, in the system's place for such, or hidden `beside` what it is moved to later."""
    hidden = "." if beside else ""
    with marked(Path(tempfile.mkdtemp(prefix=f"{hidden}catalogger-{purpose}-", dir=beside))) as folder:
        (folder / WORK).mkdir()
        yield folder / WORK


@contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """This folder, made anew with its marker in it.  What was there goes away."""
    shutil.rmtree(folder, ignore_errors=True)
    with kept(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def kept(folder: Path) -> Iterator[Path]:
    """This folder with its marker in it, and with what an earlier run has left there; who is done with it takes it
    away.  What is there without a marker goes away.
    """
    if not (folder / MARKER).is_file():
        shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / MARKER).open("wb", buffering=0)
    except OSError as error:
        raise DiskError(f'Cannot write "{folder}": {error.strerror}.', "Is there room, and is it writable?") from error
    with file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(_SAYS)
        yield folder


@contextmanager
def findable(folder: Path, link: Path) -> Iterator[None]:
    """A link of the same name leads to the folder while it stands, however the process ends.  Raises DiskError."""
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
    except OSError as error:
        raise DiskError(f'Cannot write "{link}": {error.strerror}.', "Is there room, and is it writable?") from error
    try:
        yield
    finally:
        if not folder.exists():
            link.unlink(missing_ok=True)


def led_to(link: Path) -> list[Path]:
    """The folder that such a link leads to, by its name or by that of its removal; none where it is gone."""
    at = link.readlink()
    return sorted(at.parent.glob(f"{at.name}*")) if at.name == link.name else [link]


def whose(folder: Path) -> Literal["ours", "in use", "not ours"]:
    """Whether this is a folder that catalogger made, and whether a process is at work in it.

    A link is never ours, nor a folder of another user or one whose marker says something else.  Where the lock cannot
    be asked for, somebody may be at work.
    """
    try:
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            return "not ours"
        descriptor = os.open(folder / MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return "not ours"
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if file.read(len(_SAYS) + 1) != _SAYS:
            return "not ours"
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "in use"
    return "ours"


def take_away(folder: Path) -> bool:
    """Remove a folder of ours, unless somebody has begun to work in it; links in it go, not what they lead to.

    It gets another name first, so that a process that wants its name makes a new one.  Raises OSError.
    """
    going = folder if folder.name.endswith(_GOING) else folder.with_name(folder.name + _GOING)
    folder.rename(going)
    if whose(going) != "ours":
        going.rename(folder)
        return False
    for entry in going.iterdir():  # the marker last: what is half removed is still known
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    shutil.rmtree(going)
    return True


def size_of(folder: Path) -> tuple[int, float]:
    """Bytes of the files below, links left out, and when the last of them was changed, in seconds since 1970."""
    size, last = 0, folder.lstat().st_mtime
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                about = (Path(at) / name).lstat()
                last = max(last, about.st_mtime)
                size += about.st_size if stat.S_ISREG(about.st_mode) else 0
    return size, last
