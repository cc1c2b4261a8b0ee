"""The files of a version by a workspace's Files API: large ones in parts past the workspace, small ones through it."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from typing import Any
from urllib.parse import quote

from catalogger.errors import AccessDenied, CataloggerError, NetworkUnreachable, Refused, RegistryError, human
from catalogger.files.digests import Tick
from catalogger.remote.directories import sizes_below
from catalogger.remote.multipart import AT_ONCE
from catalogger.remote.parts import PART, Source, Span, Window, blocks, spans
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.presigned import Presigned
from catalogger.remote.rest import Rest
from catalogger.remote.sessions import Body
from catalogger.remote.storage import Sending, Sent
from catalogger.remote.uploads import FILES, NotInParts, Upload, begin

_LARGE = 3 * PART  # bytes from which on a file goes in parts
_MOST = 5 << 30  # bytes that a workspace takes in one request
_FULL = re.compile(r"RESOURCE_EXHAUSTED|INSUFFICIENT.STORAGE|answered 507|no space|out of space|quota", re.IGNORECASE)
_FIX_FULL = "Free some room in the storage behind the catalog, then run the same command again."
_FIX_ACCESS = "Ask the owner of the model for the privilege, or use another token."


class FilesStorage:
    """The files below `location` (`/Models/CATALOG/SCHEMA/MODEL/VERSION`) of the workspace that `rest` speaks to.

    The Files API tells a file's size and its time, and no checksum; to read a file back for comparison moves as many
    bytes as to send it.  So what an earlier attempt has left is never taken over: every file is sent whole.
    """

    def __init__(self, location: str, rest: Rest) -> None:
        self.location = location.rstrip("/")
        self._rest, self._presigned = rest, Presigned(rest.timeout)
        self._not_in_parts: CataloggerError | None = None  # why, as soon as one file could not go in them

    def listing(self) -> Mapping[str, int]:
        """Every file below the location, with its size in bytes; none where the location is not there."""
        return sizes_below(self._document, self.location)

    def send(self, files: Sequence[Sending], tick: Tick) -> Sent:
        """Bring the files there, small ones at the same time and first: they show at once whether it is allowed.

        After each file its size there is compared.  `tick` is called in other threads too, for each byte once,
        however often it must be sent.
        """
        stopped, pool = threading.Event(), ThreadPoolExecutor(AT_ONCE)
        outgoing = [_Outgoing(file, tick, stopped) for file in files]
        try:
            list(pool.map(self._through, [one for one in outgoing if one.file.size < _LARGE]))
            for one in outgoing:
                if one.file.size >= _LARGE:
                    self._past(one, pool)
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)  # one that waits for a server cannot be woken
            raise
        pool.shutdown()
        size = sum(file.size for file in files)
        return Sent(
            read=size, sent=size, digests={one.file.path: one.digest.hexdigest() for one in outgoing if one.digest}
        )

    def free(self) -> int | None:
        """None: the storage does not tell."""
        return None

    def read(self, path: str) -> bytes:
        """The content of one small file."""
        with self._understood():
            return self._rest.content(f"{FILES}{quote(self._path(path))}")

    def part(self, path: str, start: int, count: int) -> bytes:
        """So many bytes of a file, from `start` on."""
        with self._understood():
            return self._rest.part(f"{FILES}{quote(self._path(path))}", start, count)

    def unfinished(self) -> Mapping[str, int]:
        """None: the Files API does not tell them, and the workspace ends them after a while."""
        return {}

    def abandon(self) -> None:
        """Nothing, as none are known."""

    def remove(self, paths: Iterable[str]) -> None:
        """Delete these files; one that is not there is none."""
        for path in paths:
            self._there("DELETE", f"{FILES}{quote(self._path(path))}")

    def _path(self, path: str) -> str:
        return f"{self.location}/{path}"

    def _through(self, outgoing: _Outgoing) -> None:
        """Send a file in one request through the workspace."""
        path = f"{FILES}{quote(self._path(outgoing.file.path))}"
        whole = Span(1, 0, outgoing.file.size)

        def attempt() -> None:
            with outgoing.source.opened() as stream, self._understood():
                self._rest.put(path, outgoing.body(stream, whole), query={"overwrite": "true"})

        outgoing.hash(whole)
        patiently(attempt)
        outgoing.source.check()
        outgoing.tell(*outgoing.spans)
        self._compare(outgoing.file)

    def _past(self, outgoing: _Outgoing, pool: ThreadPoolExecutor) -> None:
        """Send a large file in parts to the storage; through the workspace where they do not get there."""
        if not self._not_in_parts:
            try:
                patiently(lambda: self._in_parts(outgoing, pool))
                return self._compare(outgoing.file)
            except NotInParts as refusal:
                self._not_in_parts = refusal.reason
        if outgoing.file.size > _MOST:
            with self._understood():
                raise self._not_in_parts
        return self._through(outgoing)

    def _in_parts(self, outgoing: _Outgoing, pool: ThreadPoolExecutor) -> None:
        path, size = self._path(outgoing.file.path), outgoing.file.size
        with self._understood():
            upload = begin(self._rest, self._presigned, path, size, len(outgoing.spans))
        try:
            _send_the_first(upload, outgoing)
            _send_the_others(upload, outgoing, pool)
            outgoing.source.check()
            self._complete(upload)
        except BaseException:
            upload.abort()
            raise

    def _complete(self, upload: Upload) -> None:
        try:
            with self._understood():
                upload.complete()
        except Refused as refused:
            if refused.status != 404:
                raise
            raise TryAgain(refused) from refused  # gone: it was completed and the answer lost, or it was forgotten

    def _compare(self, file: Sending) -> None:
        path = self._path(file.path)
        answer = self._there("HEAD", f"{FILES}{quote(path)}")
        there = None if answer is None else int(answer[1].get("Content-Length", -1))
        if there != file.size:
            arrived = "nothing" if there is None else human(there)
            raise RegistryError(
                f'"{path}" is wrong at "{self._rest.base}": {arrived} of {human(file.size)} arrived.',
                "Run the same command again; it sends the file once more.",
            )

    def _document(self, path: str, query: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        answer = self._there("GET", path, query)
        return answer[0] if answer else None

    def _there(
        self, method: str, path: str, query: Mapping[str, Any] | None = None
    ) -> tuple[Mapping[str, Any], Mapping[str, str]] | None:
        """The answer's document and headers; None where the file or folder is not there."""
        try:
            with self._understood():
                return self._rest.answer(method, path, query=query)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """What the workspace says of privileges and of room is an error of its own."""
        try:
            yield
        except Refused as refused:
            if refused.status == 403:
                denied = f'"{self._rest.base}" does not give access to "{self.location}": {refused.said}'
                raise AccessDenied(denied, _FIX_ACCESS) from refused
            if _FULL.search(f"{refused.reason} {refused.message}"):
                raise self._full(refused) from refused
            raise
        except TryAgain as again:
            if _FULL.search(again.error.message):
                raise self._full(again.error) from again
            raise

    def _full(self, error: CataloggerError) -> RegistryError:
        return RegistryError(f'The storage behind "{self.location}" is full: {error.message}', _FIX_FULL)


class _Outgoing:
    """A file on its way: hashed in order and told of once, however often its bytes are sent."""

    def __init__(self, file: Sending, tick: Tick, stopped: threading.Event) -> None:
        self.file, self.stopped = file, stopped
        self.source = Source(file.source, file.size, file.arriving)
        self.spans = spans(file.size)
        self.digest = None if file.sha256 else hashlib.sha256()
        self._tick, self._telling = tick, threading.Lock()
        self._hashed = 0  # bytes
        self._told = set[int]()  # numbers of parts

    def hash(self, span: Span) -> None:
        """Up to the end of the part, when all of that is here."""
        end = span.start + span.size
        self.source.until(end)
        if self.digest and self._hashed < end:
            rest = Span(span.number, self._hashed, end - self._hashed)
            with self.source.opened() as stream:
                for block in blocks(self.source, stream, rest, self.stopped):
                    self.digest.update(block)
            self._hashed = end

    def body(self, stream: FileIO, span: Span) -> Body:
        """The part for one request."""
        return Window(self.source, stream, span, self.stopped) if span.size else b""

    def tell(self, *parts: Span) -> None:
        """These parts have arrived."""
        with self._telling:
            new = [span for span in parts if span.number not in self._told]
            self._told.update(span.number for span in new)
            if count := sum(span.size for span in new):
                self._tick(count)


def _send_the_first(upload: Upload, outgoing: _Outgoing) -> None:
    """Raises NotInParts where the storage cannot be reached, or lets nobody in: a firewall may keep it away."""
    first = outgoing.spans[0]
    outgoing.hash(first)
    try:
        _send(upload, outgoing, first)
    except (AccessDenied, NetworkUnreachable, RegistryError) as error:
        raise NotInParts(error) from error


def _send_the_others(upload: Upload, outgoing: _Outgoing, pool: ThreadPoolExecutor) -> None:
    """A part is hashed here, in its turn, and then read again out of the page cache while it is sent."""
    waiting = deque[Future[None]]()
    try:
        for span in outgoing.spans[1:]:
            outgoing.hash(span)
            if len(waiting) == upload.at_once:
                waiting.popleft().result()
            waiting.append(pool.submit(_send, upload, outgoing, span))
        for sent in waiting:
            sent.result()
    except BaseException:
        outgoing.stopped.set()  # what arrives after the upload was aborted may stay there for ever
        raise


def _send(upload: Upload, outgoing: _Outgoing, span: Span) -> None:
    with outgoing.source.opened() as stream:
        upload.put(span, lambda rest: outgoing.body(stream, rest))
    outgoing.tell(span)
