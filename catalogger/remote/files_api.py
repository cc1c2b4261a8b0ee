"""The files of a version by a workspace's Files API: sent by the Databricks SDK, each byte read once, few in memory."""

from __future__ import annotations

import ctypes
import hashlib
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

from packaging.version import Version

from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    DiskError,
    NetworkUnreachable,
    Refused,
    RegistryError,
    UsageError,
    human,
)
from catalogger.files.digests import Tick
from catalogger.remote.directories import sizes_below
from catalogger.remote.patience import TryAgain, patiently, retry_seconds
from catalogger.remote.storage import Sending, Sent
from catalogger.remote.workspace import workspace_rest

if TYPE_CHECKING:
    from databricks.sdk.core import Config
    from databricks.sdk.mixins.files import FilesExt

T = TypeVar("T")
_MIB = 1 << 20
_SDK = "0.156"  # before, a part whose address has expired is sent again empty
_PART = 5 * _MIB  # the least that S3 takes; each part under way is held in memory by the SDK
_PARTS = 10_000  # of one file, as S3 has it
_AT_ONCE = 3  # parts
_SMALL_AT_ONCE = 4  # files
_M_MMAP_THRESHOLD = -3  # malloc.h
_FULL = re.compile(r"RESOURCE_EXHAUSTED|INSUFFICIENT.STORAGE|status: 507|no space|out of space|quota", re.IGNORECASE)
_FIX_FULL = "Free some room in the storage behind the catalog, then run the same command again."
_FIX_NETWORK = "Check the address and the network, then run the same command again."
_FIX_ACCESS = "Ask the owner of the model for the privilege, or use another token."


class FilesStorage:
    """The files below `location` (`/Models/CATALOG/SCHEMA/MODEL/VERSION`) of the workspace that `config` names.

    The Files API tells a file's size and its time, and no checksum; to read a file back for comparison moves as many
    bytes as to send it.  So what an earlier attempt has left is never taken over: every file is sent whole.

    Raises UsageError where the Databricks SDK is too old to send a large file safely.
    """

    def __init__(self, location: str, config: Config) -> None:
        self.location = location.rstrip("/")
        self._files = _client(config)
        self._rest = workspace_rest(config, (10.0, float(config.http_timeout_seconds or 60)))
        self._large = int(config.files_ext_multipart_upload_min_stream_size)  # bytes; smaller ones go in one request

    def listing(self) -> Mapping[str, int]:
        """Every file below the location, with its size in bytes; none where the location is not there."""
        return sizes_below(self._document, self.location)

    def send(self, files: Sequence[Sending], tick: Tick) -> Sent:
        """Bring the files there, small ones at the same time and first: they show at once whether it is allowed.

        After each file its size there is compared.  `tick` is called in other threads too, for each byte once,
        however often it must be sent.
        """
        small = [file for file in files if file.size < self._large]
        large = [file for file in files if file.size >= self._large]
        with ThreadPoolExecutor(_SMALL_AT_ONCE) as pool:
            sources = list(pool.map(lambda file: self._bring(file, tick), small))
        sources += [self._bring(file, tick) for file in large]
        read = sum(source.read_in_all for source in sources)
        return Sent(read=read, sent=read, digests={s.file.path: s.sha256 for s in sources if s.sha256})

    def free(self) -> int | None:
        """None: the storage does not tell."""
        return None

    def read(self, path: str) -> bytes:
        """The content of one small file."""

        def download() -> bytes:
            with self._files.download(self._path(path)).contents as content:
                return bytes(content.read())

        return patiently(lambda: self._translated(download))

    def remove(self, paths: Iterable[str]) -> None:
        """Delete these files; one that is not there is none."""
        for path in paths:
            self._ask("DELETE", f"/api/2.0/fs/files{quote(self._path(path))}")

    def _path(self, path: str) -> str:
        return f"{self.location}/{path}"

    def _bring(self, file: Sending, tick: Tick) -> _Source:
        with _Source(file, tick) as source:
            try:
                self._attempt(source)
            except TryAgain:
                # Patience begins with the first failure: until then a large file may have taken hours.
                patiently(lambda: self._attempt(source))
        return source

    def _attempt(self, source: _Source) -> None:
        """Send the whole file, and see that it is there."""
        path, size = self._path(source.file.path), source.file.size
        parts = {"part_size": _part_size(size), "parallelism": _AT_ONCE}
        try:
            self._translated(lambda: self._files.upload(path, source, overwrite=True, **parts))
        except (CataloggerError, TryAgain) as error:
            if source.failure:
                raise source.failure from error
            if size >= self._large and source.tell() == size and _is_not_found(error):
                # The upload is gone that all parts were sent to: it was completed, and the answer was lost.
                raise TryAgain(cast(CataloggerError, error)) from error.__cause__
            raise
        there = self._size(path)
        if there != size:
            arrived = "nothing" if there is None else human(there)
            raise RegistryError(
                f'"{path}" is wrong at "{self._rest.base}": {arrived} of {human(size)} arrived.',
                "Run the same command again; it sends the file once more.",
            )

    def _size(self, path: str) -> int | None:
        """The size of a file there; None where there is none."""
        answer = self._ask("HEAD", f"/api/2.0/fs/files{quote(path)}")
        return None if answer is None else int(answer[1].get("Content-Length", -1))

    def _document(self, path: str, query: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        answer = self._ask("GET", path, query)
        return answer[0] if answer else None

    def _ask(
        self, method: str, path: str, query: Mapping[str, Any] | None = None
    ) -> tuple[Mapping[str, Any], Mapping[str, str]] | None:
        """The answer's document and headers; None where the file or folder is not there."""
        try:
            return self._rest.answer(method, path, query=query)
        except Refused as refused:
            if refused.status == 404:
                return None
            if refused.status == 403:
                raise self._denied(refused.said) from refused
            raise

    def _translated(self, call: Callable[[], T]) -> T:
        """What the SDK gives; its errors as ours, and TryAgain for what may pass and it did not try again itself."""
        try:
            return call()
        except (OSError, ValueError, RuntimeError) as error:  # DatabricksError and those of requests are OSErrors
            raise self._error(error) from error

    def _error(self, error: Exception) -> CataloggerError | TryAgain:
        from databricks.sdk import errors
        from requests import RequestException

        last = error.__cause__
        if isinstance(error, TimeoutError | RuntimeError) and last is not None:  # the SDK's own patience has ended
            return NetworkUnreachable(f'"{self._rest.base}" fails again and again: {_said(last)}', _FIX_NETWORK)
        if isinstance(error, errors.Unauthenticated | errors.PermissionDenied):
            return self._denied(_said(error))
        said = f"{getattr(error, 'error_code', None) or ''} {_said(error)}"
        if _FULL.search(said):
            return RegistryError(f'The storage behind "{self.location}" is full: {_said(error)}', _FIX_FULL)
        if isinstance(error, ValueError) or not isinstance(error, errors.InternalError | RequestException):
            return RegistryError(f'"{self._rest.base}" does not take "{self.location}": {_said(error)}')
        return TryAgain(NetworkUnreachable(f'"{self._rest.base}" fails again and again: {_said(error)}', _FIX_NETWORK))

    def _denied(self, said: str) -> AccessDenied:
        return AccessDenied(f'"{self._rest.base}" does not give access to "{self.location}": {said}', _FIX_ACCESS)


class _Source(io.BufferedIOBase):
    """A file as the SDK reads it: `size` bytes, of which each is hashed and counted when it first passes.

    The SDK reads in order, and again from the beginning where it must send again.  `failure` is why it cannot be read.
    """

    def __init__(self, file: Sending, tick: Tick) -> None:
        self.file = file
        self.failure: DiskError | None = None
        self.passed = self.read_in_all = 0
        self._tick = tick
        self._digest = None if file.sha256 else hashlib.sha256()
        try:
            self._stream = file.source.open("rb")
        except OSError as error:
            raise DiskError(f'Cannot read "{file.source}": {error.strerror}.') from error

    @property
    def sha256(self) -> str | None:
        """The digest, where it was not known before."""
        return self._digest.hexdigest() if self._digest else None

    def read(self, size: int | None = -1, /) -> bytes:
        position = self._stream.tell()
        left = self.file.size - position
        wanted = left if size is None or size < 0 else min(size, left)
        try:
            block = self._stream.read(wanted)
        except OSError as error:
            raise self._fail(f'Cannot read "{self.file.source}": {error.strerror}.') from error
        if len(block) < wanted:
            raise self._fail(f'"{self.file.source}" became shorter while it was sent.')
        self._pass(block, position)
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._stream.tell(), io.SEEK_END: self.file.size}[whence]
        return self._stream.seek(start + offset)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _pass(self, block: bytes, position: int) -> None:
        self.read_in_all += len(block)
        new = memoryview(block)[max(self.passed - position, 0) :]
        self.passed += len(new)
        if self._digest:
            self._digest.update(new)
        if new:
            self._tick(len(new))

    def _fail(self, message: str) -> ValueError:
        """Of a kind that neither the SDK nor what is below it takes for a failure of the network."""
        self.failure = DiskError(message, "Let nothing write to it, then run the same command again.")
        return ValueError(message)


def _client(config: Config) -> FilesExt:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.version import __version__ as found

    if Version(found) < Version(_SDK):
        raise UsageError(
            f"The Databricks SDK {found} cannot send a large file safely.", f"pip install -U 'databricks-sdk>={_SDK}'"
        )
    _return_freed_memory()
    patient = config.copy()
    patient.retry_timeout_seconds = max(1, math.ceil(retry_seconds()))
    patient.experimental_files_ext_cloud_api_max_retries = None  # time is what ends it
    return WorkspaceClient(config=patient).files


def _return_freed_memory() -> None:
    """Keep glibc from keeping freed parts: one set for each thread that sends, three times what is under way."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MIB)


def _part_size(size: int) -> int:
    return max(_PART, math.ceil(size / _PARTS / _MIB) * _MIB)


def _is_not_found(error: Exception) -> bool:
    from databricks.sdk.errors import NotFound

    return isinstance(error.__cause__, NotFound)


def _said(error: BaseException) -> str:
    """One line of what the other side said, without the query of a signed address and what S3 tells of a signature."""
    text = re.split(r", body: |This is likely a bug", str(error))[0]
    return (re.sub(r"\?\S*", "?…", text).strip().splitlines() or [type(error).__name__])[0][:300]
