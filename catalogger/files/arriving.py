"""A file that another thread is bringing, from its beginning on: who reads it waits for what is not there yet."""

from __future__ import annotations

import threading


class Arriving:
    """How much of a file of `size` bytes is there.  Its last byte counts only when the whole is known to be right."""

    def __init__(self, size: int) -> None:
        self._size, self._there, self._right = size, 0, False
        self._failure: BaseException | None = None
        self._moved = threading.Condition()

    @property
    def failed(self) -> bool:
        """Whether it will never be whole."""
        return self._failure is not None

    def until(self, end: int) -> None:
        """Wait until the first `end` bytes may be read.  Raises what has stopped the other thread."""
        with self._moved:
            self._moved.wait_for(lambda: self._failure or self._may_be_read(end))
            if self._failure:
                raise self._failure

    def reached(self, count: int) -> None:
        """So many bytes are there."""
        with self._moved:
            self._there = count
            self._moved.notify_all()

    def whole(self) -> None:
        """All are there, and they are what they should be."""
        with self._moved:
            self._there, self._right = self._size, True
            self._moved.notify_all()

    def fail(self, failure: BaseException) -> None:
        """It comes to nothing; every reader is told why."""
        with self._moved:
            self._failure = failure
            self._moved.notify_all()

    def _may_be_read(self, end: int) -> bool:
        return self._right if end >= self._size else self._there >= end
