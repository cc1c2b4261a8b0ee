"""Server-sent events: the text of each event's data, from bytes in whatever pieces they come.

Source: the WHATWG's standard of the event stream format (text/event-stream).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Iterable

_LINE_END = re.compile("\r\n|\r|\n")


def event_data(blocks: Iterable[bytes]) -> Generator[str]:
    """The data of each event; comments and all other fields are left out.

    An event counts when its last line is whole: the blank line behind it may be missing at the end of the stream.
    """
    events = Events()
    for block in blocks:
        yield from events.feed(block)
    yield from events.end()


class Events:
    """As `event_data`, for whoever is given the blocks one by one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._begun, self._after_return = "", False
        self._data: list[str] = []

    def feed(self, block: bytes) -> list[str]:
        """The data of the events that are whole by this block."""
        events = []
        for line in self._lines(block):
            name, _, value = line.partition(":")
            if not line and self._data:
                events += self.end()
            elif name == "data":
                self._data.append(value.removeprefix(" "))
        return events

    def end(self) -> list[str]:
        """The data of the event that no blank line has ended, if there is one."""
        events = ["\n".join(self._data)] if self._data else []
        self._data = []
        return events

    def _lines(self, block: bytes) -> list[str]:
        """The whole lines, without their ends; what stands behind the last line end is none yet."""
        text = self._decoder.decode(block)
        if not text:
            return []
        if self._after_return and text[0] == "\n":  # the second half of a line end that two blocks share
            text = text[1:]
        self._after_return = text.endswith("\r")
        *whole, self._begun = _LINE_END.split(self._begun + text)
        return whole
