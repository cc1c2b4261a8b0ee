"""What goes on beside a measured process: the room that its files take, and what the whole machine is busy with.

Must not judge.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PAUSE = 0.02  # seconds between two looks at the disk


@dataclass
class Seen:
    """`stood`: bytes allocated at most.  The rest is of the whole machine: shares of the processors' time that were
    worked in and that waited for the disk, and bytes written to disks a second.
    """

    stood: int = 0
    busy: float = 0
    waiting: float = 0
    written: float = 0


@contextmanager
def watched(folder: Path) -> Iterator[Seen]:
    """Look at everything below the folder all the time, and at the machine's counters at both ends."""
    seen, stop = Seen(), threading.Event()

    def look() -> None:
        while not stop.wait(_PAUSE):
            seen.stood = max(seen.stood, allocated(folder))

    watcher, (spent, written, began) = threading.Thread(target=look), _counters()
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()
        now, written_now, ended = _counters()
        moved = [b - a for a, b in zip(spent, now, strict=True)]
        _user, _nice, _system, idle, waiting = moved[:5]
        seen.busy, seen.waiting = 1 - (idle + waiting) / sum(moved), waiting / sum(moved)
        seen.written = (written_now - written) / (ended - began)


def allocated(folder: Path) -> int:
    """Bytes of the disk that the files below really take: a hole takes none, a link no second time."""
    size = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(f"{at}/{name}").st_blocks * 512
    return size


def _counters() -> tuple[list[int], int, float]:
    """Clock ticks by kind, without guests' as they are users' too; bytes written to disks; now."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    lines = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return ticks, int(lines["pgpgout"]) * 1024, time.monotonic()
