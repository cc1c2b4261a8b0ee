"""A file in parts that arrive one after the other at one address: Google's way.

Sources: https://cloud.google.com/storage/docs/performing-resumable-uploads, and databricks-sdk's `mixins/files.py`
(0.156; later ones send such a file whole).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from catalogger.errors import CataloggerError, RegistryError
from catalogger.remote.cloud_http import unreachable
from catalogger.remote.parts import Span
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.presigned import Address, Presigned, refused
from catalogger.remote.sessions import Body

_KEPT = re.compile(r"bytes=0-(\d+)")
_INCOMPLETE = 308


class ResumableUpload:
    """An upload that was begun, of `size` bytes, to the address of its session, which lives for a week."""

    at_once = 1

    def __init__(self, presigned: Presigned, session: Address, size: int) -> None:
        self._presigned, self._session, self._size = presigned, session, size
        self._kept: int | None = 0  # bytes that are there; None where it must be asked

    def put(self, span: Span, content: Callable[[Span], Body]) -> None:
        """Send one part, after the one before; `content` gives the bytes of what of it is not there yet."""
        patiently(lambda: self._attempt(span, content))

    def complete(self) -> None:
        """Nothing: the last part has made the file."""

    def abort(self) -> None:
        """Have what was sent forgotten; where that fails, Google forgets it with the session."""
        with suppress(CataloggerError, TryAgain):
            self._presigned.send("DELETE", self._session, b"")

    def _attempt(self, span: Span, content: Callable[[Span], Body]) -> None:
        if self._kept is None:
            self._kept = self._put(b"", "*")
        end = span.start + span.size
        while self._kept < end:
            start, self._kept = self._kept, None
            kept = self._put(content(Span(span.number, start, end - start)), f"{start}-{end - 1}")
            if kept <= start:
                raise TryAgain(unreachable(self._session.server))
            self._kept = kept

    def _put(self, content: Body, span: str) -> int:
        """How many of the file's bytes are there afterwards: Google may keep less than it was sent."""
        response = self._presigned.send("PUT", self._session, content, {"Content-Range": f"bytes {span}/{self._size}"})
        if response.status_code in (200, 201):
            return self._size
        if response.status_code != _INCOMPLETE:
            raise refused(self._session, response)
        said = response.headers.get("Range", "")
        if not said:
            return 0
        if not (found := _KEPT.fullmatch(said)):
            raise RegistryError(f'"{self._session.server}" says that it has "{said}", which is no beginning of a file.')
        return int(found[1]) + 1
