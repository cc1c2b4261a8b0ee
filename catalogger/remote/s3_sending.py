"""Send files to S3: several parts at a time, each verified by the server, those that are there already left alone."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import FileIO
from typing import Any

from catalogger.errors import Refused
from catalogger.files.digests import Tick
from catalogger.remote.parts import Source, Span, Stopped, Window, spans
from catalogger.remote.s3_checksums import crc32, encoded, md5, whole_crc32, whole_etag
from catalogger.remote.s3_client import S3Client, is_damaged
from catalogger.remote.s3_unfinished import Told, Unfinished, Upload
from catalogger.remote.storage import Sending, Sent

_WORKERS = 6


class Outgoing:
    """One file on its way.  `sums` are the checksums of its parts by number, `done` what S3 said of them."""

    def __init__(self, sending: Sending, key: str) -> None:
        self.sending, self.key = sending, key
        self.spans = spans(sending.size)
        self.digest = None if sending.sha256 else hashlib.sha256()
        self.sums: dict[int, int] = {}
        self.upload = Upload("", checksummed=False)
        self.done: dict[int, Told] = {}
        self._waiting: deque[Span] = deque()
        self._hashing = False

    def look(self) -> None:
        """Remember how the file is now.  Raises DiskError where it is not as it was planned."""
        self.source = Source(self.sending.source, self.sending.size, self.sending.arriving)

    def begin(self) -> None:
        self._waiting.extend(self.spans)

    def take(self) -> Span | None:
        """The next part, unless the one before must be hashed first: SHA-256 goes through a file in order."""
        if self._hashing or not self._waiting:
            return None
        self._hashing = self.digest is not None and len(self.sums) < len(self.spans)
        return self._waiting.popleft()

    def hashed(self) -> None:
        self._hashing = False

    def checksum(self) -> str:
        """That of the object, when all parts are known."""
        return whole_crc32([self.sums[span.number] for span in self.spans])


class Sender:
    """Sends `files` once.  `there` gives the sizes of the objects that were found, by key.

    All workers are equal: each takes the next part, hashes it and sends it from the page cache, so that a file is
    hashed in order and its parts are under way side by side.  They are daemons, because one that waits for a server
    cannot be woken: when the work is ended they do no more than notice it.
    """

    def __init__(
        self, client: S3Client, prefix: str, files: Sequence[Outgoing], there: Mapping[str, int], tick: Tick
    ) -> None:
        self._client, self._files, self._there, self._tick = client, files, there, tick
        self._uploads = Unfinished(client, prefix, (file.key for file in files))
        self._turn = threading.Condition()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._pending = deque(files)
        self._open: list[Outgoing] = []
        self._unfinished = len(files)
        self._sent = 0

    def run(self) -> Sent:
        """Send them all; the first failure ends the work."""
        in_parts = any(len(file.spans) > 1 for file in self._files)
        if in_parts:
            self._uploads.find()
        self._work_together(min(_WORKERS, sum(len(file.spans) for file in self._files)))
        if in_parts:
            self._uploads.remove()
        digests = {file.sending.path: file.digest.hexdigest() for file in self._files if file.digest}
        return Sent(read=sum(file.sending.size for file in self._files), sent=self._sent, digests=digests)

    def _work_together(self, count: int) -> None:
        workers = [threading.Thread(target=self._work, daemon=True, name=f"s3-{n}") for n in range(count)]
        try:
            for worker in workers:
                worker.start()
            with self._turn:
                self._turn.wait_for(lambda: self._failure or not self._unfinished)
        finally:
            self._end()
        if self._failure:
            raise self._failure
        for worker in workers:
            worker.join()

    def _work(self) -> None:
        try:
            while job := self._next():
                job()
        except Stopped:
            pass
        except BaseException as failure:
            with self._turn:
                self._failure = self._failure or failure
            self._end()

    def _end(self) -> None:
        with self._turn:
            self._stop.set()
            self._turn.notify_all()

    def _next(self) -> Callable[[], None] | None:
        with self._turn:
            while self._unfinished and not self._stop.is_set():
                for file in self._open:
                    if span := file.take():
                        return partial(self._part, file, span)
                if self._pending:
                    return partial(self._begin, self._pending.popleft())
                self._turn.wait()
        return None

    def _begin(self, file: Outgoing) -> None:
        file.look()
        if self._there.get(file.key) == file.sending.size and self._is_right(file):
            self._finish(file, file.sending.size)
        elif len(file.spans) == 1:
            self._put(file)
        else:
            self._resume(file)
            with self._turn:
                file.begin()
                self._open.append(file)
                self._turn.notify_all()

    def _is_right(self, file: Outgoing) -> bool:
        """Whether the object's checksum is that of the file, which is read for it."""
        try:
            told = self._call(file, "head_object", ChecksumMode="ENABLED")
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        with file.source.opened() as stream:
            for span in file.spans:
                self._sum(file, stream, span)
            if "ChecksumCRC32" in told:
                return bool(told["ChecksumCRC32"] == file.checksum())
            digests = [md5(file.source, stream, span, self._stop) for span in file.spans]
        return bool(told.get("ETag", "").strip('"') == whole_etag(digests))

    def _put(self, file: Outgoing) -> None:
        span = file.spans[0]
        with file.source.opened() as stream:
            self._sum(file, stream, span)
            self._upload(file, stream, span, "put_object", **self._client.upload_args)
        file.source.check()
        self._finish(file, span.size)

    def _resume(self, file: Outgoing) -> None:
        if found := self._uploads.take_over(file.key):
            file.upload = found
        else:
            told = self._call(file, "create_multipart_upload", ChecksumAlgorithm="CRC32", **self._client.upload_args)
            file.upload = Upload(told["UploadId"], told.get("ChecksumAlgorithm") == "CRC32")

    def _part(self, file: Outgoing, span: Span) -> None:
        with file.source.opened() as stream:
            self._sum(file, stream, span)
            told = file.upload.parts.get(span.number)
            if told is None or not self._is_kept(file, stream, span, told):
                told = self._upload(file, stream, span, "upload_part", UploadId=file.upload.id, PartNumber=span.number)
        self._count(span.size)
        with self._turn:
            file.done[span.number] = told
            last = len(file.done) == len(file.spans)
        if last:
            self._complete(file)

    def _is_kept(self, file: Outgoing, stream: FileIO, span: Span, told: Told) -> bool:
        if told["Size"] != span.size:
            return False
        if "ChecksumCRC32" in told:
            return bool(told["ChecksumCRC32"] == encoded(file.sums[span.number]))
        return bool(told.get("ETag", "").strip('"') == md5(file.source, stream, span, self._stop).hex())

    def _sum(self, file: Outgoing, stream: FileIO, span: Span) -> int:
        if span.number not in file.sums:
            checksum = crc32(file.source, stream, span, self._stop, file.digest)
            with self._turn:
                file.sums[span.number] = checksum
                file.hashed()
                self._turn.notify_all()
        return file.sums[span.number]

    def _upload(self, file: Outgoing, stream: FileIO, span: Span, operation: str, **arguments: Any) -> Told:
        """Send one part, or the whole of a small file, for the server to verify."""
        checksum = file.sums[span.number]

        def once(client: Any) -> Told:
            body = Window(file.source, stream, span, self._stop)
            try:
                return self._ask(
                    client,
                    operation,
                    Key=file.key,
                    Body=body if span.size else b"",
                    ChecksumAlgorithm="CRC32",
                    ChecksumCRC32=encoded(checksum),
                    **arguments,
                )
            except Exception as error:
                if body.failure:
                    raise body.failure from error
                if is_damaged(error) and crc32(file.source, stream, span, self._stop) != checksum:
                    raise file.source.changed() from error
                raise

        answer = self._client.do(once, file.key)
        with self._turn:
            self._sent += span.size
        return answer

    def _complete(self, file: Outgoing) -> None:
        file.source.check()
        names = ("ETag", "ChecksumCRC32") if file.upload.checksummed else ("ETag",)
        done = [(span.number, file.done[span.number]) for span in file.spans]
        parts = [{"PartNumber": n} | {name: told[name] for name in names} for n, told in done]
        try:
            self._call(file, "complete_multipart_upload", UploadId=file.upload.id, MultipartUpload={"Parts": parts})
        except Refused as refused:  # done before, and the answer was lost?
            if refused.status != 404 or not self._is_right(file):
                raise
        self._finish(file)

    def _finish(self, file: Outgoing, count: int = 0) -> None:
        self._count(count)
        with self._turn:
            self._unfinished -= 1
            self._turn.notify_all()

    def _count(self, count: int) -> None:
        with self._turn:
            if self._stop.is_set():
                raise Stopped
            if count:
                self._tick(count)

    def _call(self, file: Outgoing, operation: str, **arguments: Any) -> Told:
        return self._client.do(lambda client: self._ask(client, operation, Key=file.key, **arguments), file.key)

    def _ask(self, client: Any, operation: str, **arguments: Any) -> Told:
        if self._stop.is_set():
            raise Stopped
        return self._client.ask(client, operation, **arguments)
