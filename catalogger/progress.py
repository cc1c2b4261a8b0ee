"""How a long job tells what it does.  The default is silent; the command shows lines and bars on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from catalogger.files.digests import Tick


class Progress(Protocol):
    """Where a job reports to."""

    def say(self, text: str) -> None:
        """One line about what happens now."""

    def bar(self, label: str, total: int) -> AbstractContextManager[Tick]:
        """A bar over so many bytes; the function it gives is called with each further number of bytes, from any
        thread.
        """


class Silent:
    """Reports nothing."""

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Tick]:
        yield lambda _: None
