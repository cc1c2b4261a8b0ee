"""A line of so many bytes a second, shared by all connections of a loopback server.

Must not know what is sent through it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST = 0.2  # seconds that may be made up for, where a sleep took longer than it was to


class Throttle:
    """Lets `rate` bytes a second pass; whoever comes too early waits in `take`."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate, self._clock, self._sleep = rate, clock, sleep
        self._free = clock()  # from when on the line has nothing to carry
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait until so many bytes have passed."""
        with self._lock:
            now = self._clock()
            self._free = max(self._free, now - _BURST) + count / self.rate
            wait = self._free - now
        if wait > 0:
            self._sleep(wait)
