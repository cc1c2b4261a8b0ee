"""A limit of bytes per second that several processes share: a file says from when on the next byte may go."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

_RATE, _FILE = "CATALOGGER_RATE", "CATALOGGER_RATE_FILE"
_MOMENT = struct.Struct("d")


class Rate:
    """So many bytes per second for all processes that name the same file; the clock is that of the whole machine."""

    def __init__(
        self,
        rate: float,
        file: Path,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate, self.file = rate, file
        self._clock, self._sleep = clock, sleep

    def take(self, count: int) -> None:
        """Wait until so many bytes may go."""
        with self.file.open("r+b") as state:
            fcntl.flock(state, fcntl.LOCK_EX)
            said = state.read(_MOMENT.size)
            now = self._clock()
            begin = max(now, _MOMENT.unpack(said)[0]) if len(said) == _MOMENT.size else now
            state.seek(0)
            state.write(_MOMENT.pack(begin + count / self.rate))
        if begin > now:
            self._sleep(begin - now)

    def environment(self) -> Mapping[str, str]:
        """What makes another process keep to it."""
        return {_RATE: repr(self.rate), _FILE: str(self.file)}


def limit() -> Rate | None:
    """The limit that this process has to keep to, if any."""
    return _limit(os.environ.get(_RATE), os.environ.get(_FILE))


def pace(count: int) -> None:
    """Wait until so many bytes may be sent or fetched."""
    if (rate := limit()) is not None:
        rate.take(count)


@cache
def _limit(rate: str | None, file: str | None) -> Rate | None:
    return Rate(float(rate), Path(file)) if rate and file else None
