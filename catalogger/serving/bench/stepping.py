"""One step of the ladder: so many streams, each of which asks anew as soon as it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from catalogger.serving.bench.figures import TOO_MANY, ClientLoad, Sample, Step, figures, quantile

_LOOK = 0.01  # seconds between two looks at how late the client is
_IN_A_ROW = 3  # failures of each stream, none answered, after which the endpoint is given up
_AT_LEAST = 10

Ask = Callable[[], Awaitable[tuple[Sample, float]]]


@dataclass(frozen=True)
class Ended:
    """A step's figures, and whether the endpoint no longer answers."""

    step: Step
    given_up: bool


class Streams:
    """So many streams.

    They begin one after another, spread over so many seconds: the client's own work for all at once would be taken for
    the endpoint's.  The first request of each belongs to the beginning, when the queue of the endpoint fills; then the
    step is measured, for so many seconds or until so many requests of each stream are answered, and none that was begun
    is broken off.
    """

    def __init__(self, ask: Ask, parallel: int, seconds: float, requests: int | None, spread: float) -> None:
        self._ask, self._parallel, self._seconds, self._requests = ask, parallel, seconds, requests
        self._spread = spread
        self._samples: list[Sample] = []
        self._opened: float | None = None
        self._closed: float | None = None
        self._over = asyncio.Event()
        self._ended = [0] * parallel
        self._counted_begun = [0] * parallel
        self._counted_ended = [0] * parallel
        self._failed_in_a_row = 0
        self._late: list[float] = []
        self._cpu = 0.0

    async def run(self) -> Ended:
        """Measure.  Where it is cancelled, the streams are hung up, and `so_far` tells what there is."""
        looking = asyncio.create_task(self._look())
        try:
            async with asyncio.TaskGroup() as streams:
                for number in range(self._parallel):
                    streams.create_task(self._stream(number))
        finally:
            looking.cancel()
        step = self.so_far()
        return Ended(step, given_up=self._hopeless or not (step.answered or step.too_many))

    def so_far(self) -> Step:
        """The figures of what has been measured by now; of the beginning too, where there is nothing else."""
        closed = time.monotonic() if self._closed is None else self._closed
        if self._opened is not None:
            load = self._load(closed - self._opened)
            return figures(self._parallel, self._samples, self._opened, closed, load)
        opened = min((sample.began for sample in self._samples), default=closed)
        samples = [replace(sample, counted=True) for sample in self._samples]
        return figures(self._parallel, samples, opened, closed, ClientLoad())

    @property
    def _hopeless(self) -> bool:
        return self._failed_in_a_row >= max(_AT_LEAST, _IN_A_ROW * self._parallel)

    async def _stream(self, number: int) -> None:
        await self._rest(self._spread * number / self._parallel)
        while self._closed is None:
            counted = self._opened is not None and not self._has_enough(number)
            self._counted_begun[number] += counted
            sample, pause = await self._ask()
            self._samples.append(replace(sample, counted=counted))
            self._ended[number] += 1
            self._counted_ended[number] += counted
            self._failed_in_a_row = self._failed_in_a_row + 1 if sample.error not in (None, TOO_MANY) else 0
            self._open_or_close()
            if pause:
                await self._rest(pause)

    def _has_enough(self, number: int) -> bool:
        return self._requests is not None and self._counted_begun[number] >= self._requests

    def _open_or_close(self) -> None:
        now = time.monotonic()
        if self._opened is None and all(self._ended):
            self._opened, self._cpu = now, time.process_time()
            self._late.clear()
            if self._requests is None:
                asyncio.get_running_loop().call_later(self._seconds, self._open_or_close)
        if self._closed is None and (self._hopeless or self._is_measured(now)):
            self._closed, self._cpu = now, time.process_time() - self._cpu
            self._over.set()

    def _is_measured(self, now: float) -> bool:
        if self._opened is None:
            return False
        if self._requests is None:
            return now >= self._opened + self._seconds and all(self._counted_begun)
        return min(self._counted_ended) >= self._requests

    async def _rest(self, seconds: float) -> None:
        """Wait, unless it is over before."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return

    async def _look(self) -> None:
        """How late the event loop is: as late as that, it may have seen a token.

        One long absence counts for each look that was due in it, so that the quantiles are those of time.
        """
        due = time.monotonic()
        while self._closed is None:
            await asyncio.sleep(due + _LOOK - time.monotonic())
            now = time.monotonic()
            while due + _LOOK <= now:
                due += _LOOK
                self._late.append(now - due)

    def _load(self, seconds: float) -> ClientLoad:
        if not self._late or seconds <= 0:
            return ClientLoad()
        used = self._cpu if self._closed is not None else time.process_time() - self._cpu
        ordered = sorted(self._late)
        return ClientLoad(quantile(ordered, 0.95), ordered[-1], used / seconds)
