"""One upload in Google's way, by https://cloud.google.com/storage/docs/performing-resumable-uploads."""

from __future__ import annotations

import re
from pathlib import Path

from catalogger.testing.files_replies import Call, Reply, empty_reply, xml_reply

_GRAIN = 1 << 18  # bytes; what is kept, and each chunk but the last, is a multiple of it
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class Resumable:
    """An upload to `path`; what has come of it is in the file `arriving`."""

    def __init__(self, path: str, arriving: Path) -> None:
        self.path, self.arriving = path, arriving
        self.finished = False
        self.arriving.touch()

    def put(self, call: Call, *, shortened: bool) -> Reply:
        """Take a chunk, or say how much has come; status 200 where that is all. `shortened` keeps less than half."""
        if self.finished:
            return empty_reply(200)
        found = _RANGE.fullmatch(call.headers.get("content-range", ""))
        if not found:
            return xml_reply(400, "InvalidArgument", "Content-Range is needed.")
        if found[1] and (refusal := self._take(call, int(found[1]), int(found[2]), found[3], shortened)):
            return refusal
        there = self.arriving.stat().st_size
        if str(there) == found[3]:
            return empty_reply(200)
        return empty_reply(308, {"Range": f"bytes=0-{there - 1}"} if there else None)

    def cancelled(self) -> Reply:
        self.arriving.unlink(missing_ok=True)
        return empty_reply(499)

    def _take(self, call: Call, first: int, last: int, total: str, shortened: bool) -> Reply | None:
        there, size = self.arriving.stat().st_size, last + 1 - first
        if first > there:
            return xml_reply(503, "ServiceUnavailable", "Bytes before these have not come.")
        if size != call.body.left or (str(last + 1) != total and size % _GRAIN):
            return xml_reply(400, "InvalidArgument", "A chunk is a multiple of 256 KiB, and all that was announced.")
        with self.arriving.open("r+b") as file:
            file.seek(first)
            try:
                for block in call.body.blocks():
                    file.write(block)
            finally:
                came = first + size // 2 // _GRAIN * _GRAIN if shortened else file.tell()
                file.truncate(came if came > last else came - came % _GRAIN)  # of a client that hung up, whole grains
        return None
