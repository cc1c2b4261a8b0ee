"""Server-sent events: the text of each event's data, from bytes in whatever pieces they come.

Source: the WHATWG's standard of the event stream format (text/event-stream).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Iterable, Iterator

_LINE_END = re.compile("\r\n|\r|\n")


def event_data(blocks: Iterable[bytes]) -> Generator[str]:
    """The data of each event; comments and all other fields are left out.

    An event counts when its last line is whole: the blank line behind it may be missing at the end of the stream.
    """
    data: list[str] = []
    for line in _lines(blocks):
        name, _, value = line.partition(":")
        if not line and data:
            yield "\n".join(data)
            data = []
        elif name == "data":
            data.append(value.removeprefix(" "))
    if data:
        yield "\n".join(data)


def _lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """The whole lines, without their ends; what stands behind the last line end is none."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    begun, after_return = "", False
    for block in blocks:
        text = decoder.decode(block)
        if not text:
            continue
        if after_return and text[0] == "\n":  # the second half of a line end that two blocks share
            text = text[1:]
        after_return = text.endswith("\r")
        *whole, begun = _LINE_END.split(begun + text)
        yield from whole
