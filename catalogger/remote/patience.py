"""Try again what may pass: back-off with jitter, what the other side asked for, and an end to it."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from catalogger.errors import CataloggerError, UsageError

T = TypeVar("T")
VARIABLE = "CATALOGGER_RETRY_SECONDS"
_DEFAULT = 300.0  # seconds that one request is tried for after it first failed; every success begins them anew
_FIRST, _LONGEST = 0.5, 30.0  # seconds
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses that may be others a moment later."""


class TryAgain(Exception):
    """Raised by an attempt that failed in a way that may pass.  `after` is in seconds, where the other side asked for
    it; `error` is raised when patience ends.
    """

    def __init__(self, error: CataloggerError, after: float | None = None) -> None:
        self.error, self.after = error, after
        super().__init__(error.message)


def patiently(attempt: Callable[[], T]) -> T:
    """What the attempt gives, tried again for `CATALOGGER_RETRY_SECONDS`; any other exception passes through.

    They begin with the first failure: to send gigabytes in one attempt may take longer.
    """
    patience, end = retry_seconds(), math.inf
    longest = _FIRST
    while True:
        try:
            return attempt()
        except TryAgain as again:
            own = random.uniform(longest / 2, longest)  # noqa: S311
            # A server that asks for less than is due is believed at first: for ever, "0" would be a storm of requests.
            pause = own if again.after is None else max(again.after, own - _FIRST)
            end = min(end, time.monotonic() + patience)
            if time.monotonic() + pause > end:
                raise again.error from again.__cause__
        time.sleep(pause)
        longest = min(longest * 2, _LONGEST)


def asked_pause(value: object) -> float | None:
    """Seconds of a `Retry-After` header, or of a field of that name; None where there is none, or a date."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def retry_seconds() -> float:
    """How long one request is tried for.  Raises UsageError where the variable is no number."""
    said = os.environ.get(VARIABLE)
    if said is None:
        return _DEFAULT
    seconds = asked_pause(said)
    if seconds is None:
        raise UsageError(f'{VARIABLE} is "{said}".', "It is a number of seconds.")
    return seconds
