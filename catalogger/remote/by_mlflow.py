"""The other storages that a workspace gives access to: Azure, Google Cloud, and its own default storage.

What is sent, found and checked is told here once; each cloud's client only moves bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote, unquote, urlsplit

from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    DiskError,
    NetworkUnreachable,
    Refused,
    RegistryError,
    UsageError,
)
from catalogger.files.digests import Tick
from catalogger.remote.patience import PASSING, TryAgain, asked_pause, patiently
from catalogger.remote.rest import Rest
from catalogger.remote.storage import Sending, Sent

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

T = TypeVar("T")
_PART = 1 << 22  # bytes in one request, held in memory by each file on its way
_AT_ONCE = 4  # files on their way
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two bytes of an answer
_CODE = re.compile(r'<Code>(\w+)</Code>|"(?:reason|error_code)":\s*"(\w+)"|ErrorCode:(\w+)')
_FULL = re.compile(r"storage_?quota|insufficient_?storage|no space", re.IGNORECASE)
_FIX_NETWORK = "Check the network, then run the same command again: what has arrived and can be verified is kept."


class _Stopped(Exception):
    """Another file has failed: this one need not go on."""


class Content:
    """A file on its way: each byte is hashed and counted once, however often it is read.

    `read` raises DiskError where there are fewer bytes than `size`.
    """

    def __init__(self, sending: Sending, tick: Tick, stopped: threading.Event) -> None:
        self.size = sending.size
        self.passed = 0  # bytes that were read at least once
        self._sending, self._tick, self._stopped = sending, tick, stopped
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = None if sending.sha256 else hashlib.sha256()

    def __enter__(self) -> Content:
        try:
            self._stream = self._sending.source.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(_PART):
            yield data

    def read(self, count: int = -1) -> bytes:
        """The next bytes: as many as asked for, and none after `size`."""
        if self._stopped.is_set():
            raise _Stopped
        start = self.tell()
        rest = self.size - start
        count = rest if count < 0 else min(count, rest)
        try:
            data = self._stream.read(count)
        except OSError as error:
            raise self._unreadable(error.strerror) from error
        if len(data) < count:
            raise self._unreadable("it became shorter while it was sent")
        self._pass(memoryview(data)[max(self.passed - start, 0) :])
        return data

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int) -> int:
        return self._stream.seek(offset)

    def md5(self) -> bytes:
        """Of all that has passed."""
        return self._md5.digest()

    def sha256(self) -> str | None:
        """Of all that has passed; None where it was known before."""
        return self._sha256.hexdigest() if self._sha256 else None

    def _pass(self, fresh: memoryview) -> None:
        self._md5.update(fresh)
        if self._sha256:
            self._sha256.update(fresh)
        self.passed += len(fresh)
        self._tick(len(fresh))

    def _unreadable(self, reason: str | None) -> DiskError:
        return DiskError(
            f'"{self._sending.source}" cannot be read to its end: {reason}.',
            "Leave the model's files alone while they are sent, then run the same command again.",
        )


@dataclass(frozen=True)
class Stored:
    """What a cloud says of one file: bytes, and the MD5 where it keeps one."""

    size: int
    md5: bytes | None = None


class Cloud(Protocol):
    """One cloud's client below one location.  Every method is patient, and raises errors of catalogger only."""

    def sizes(self) -> Mapping[str, int]: ...

    def stored(self, path: str) -> Stored: ...

    def put(self, path: str, content: Content) -> None: ...

    def get(self, path: str) -> bytes: ...

    def delete(self, path: str) -> None: ...


class CloudStorage:
    """The `Storage` that is made of one cloud's client.

    A file that is there already is taken over where the cloud tells its MD5 and that is right: Google computes it of
    every file, Azure keeps the one that was sent along, default storage tells none.  Any other file is sent again,
    and from its beginning.  A file in Azure that is being sent is listed with size 0 until it is whole.
    """

    def __init__(self, location: str, cloud: Cloud) -> None:
        self.location = location.rstrip("/")
        self._cloud = cloud

    def listing(self) -> Mapping[str, int]:
        """Every file below the location, with its size in bytes."""
        return self._cloud.sizes()

    def send(self, files: Sequence[Sending], tick: Tick) -> Sent:
        """Bring the files there, a few at once; each is read once, or twice where one of its size is there already."""
        there, counting, stopped = self.listing(), threading.Lock(), threading.Event()

        def counted(count: int) -> None:
            with counting:
                tick(count)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            largest_first = sorted(files, key=lambda file: file.size, reverse=True)
            sent = [pool.submit(self._bring, file, there, counted, stopped) for file in largest_first]
            try:
                done = [future.result() for future in as_completed(sent)]
            except BaseException:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        digests = {path: sha256 for one in done for path, sha256 in one.digests.items()}
        return Sent(sum(one.read for one in done), 0, sum(one.sent for one in done), digests)

    def free(self) -> int | None:
        """None: the storage does not tell."""
        return None

    def read(self, path: str) -> bytes:
        """The content of one small file."""
        return self._cloud.get(path)

    def remove(self, paths: Iterable[str]) -> None:
        """Delete these files; one that is not there is none."""
        for path in paths:
            self._cloud.delete(path)

    def _bring(self, file: Sending, there: Mapping[str, int], tick: Tick, stopped: threading.Event) -> Sent:
        looked_at = 0
        if there.get(file.path) == file.size and (md5 := self._cloud.stored(file.path).md5):
            with Content(file, lambda _: None, stopped) as found:
                for _ in found:
                    pass
            looked_at = found.passed
            if found.md5() == md5:
                tick(file.size)
                return Sent(looked_at, 0, 0, _digests(file, found))
        with Content(file, tick, stopped) as content:
            self._cloud.put(file.path, content)
        self._check(file, content)
        return Sent(looked_at + content.passed, 0, file.size, _digests(file, content))

    def _check(self, file: Sending, content: Content) -> None:
        found = self._cloud.stored(file.path)
        if found.size == file.size and found.md5 in (None, content.md5()):
            return
        what = f"{found.size} bytes of {file.size}" if found.size != file.size else "other bytes than were sent"
        raise RegistryError(
            f'"{file.path}" did not arrive whole: the storage has {what}.',
            "Does another process write there? Run the same command again.",
        )


def azure_storage(location: str, sas: Callable[[], str]) -> CloudStorage:
    """Files below `abfss://container@account.dfs.core.windows.net/path`.

    `sas` gives a shared access signature; it is asked for another one when that has expired.
    Raises UsageError where Azure's client is not installed.
    """
    return CloudStorage(location, _Azure(location, sas))


def google_storage(location: str, token: Callable[[], str]) -> CloudStorage:
    """Files below `gs://bucket/path`.

    `token` gives an OAuth access token; it is asked for another one when that has expired.
    Raises UsageError where Google's client is not installed.
    """
    return CloudStorage(location, _Google(location, token))


def default_storage(full_name: str, version: str, registry_uri: str) -> CloudStorage:
    """Files of a model version in the workspace's own storage, by addresses that the workspace signs for each.

    Each file is one request, so the cloud below sets a limit on its size (5 GiB on AWS).
    Raises UsageError where the Databricks SDK is not installed, and AccessDenied where it finds no credentials.
    """
    from catalogger.remote.workspace import workspace

    location = f"/Models/{full_name.replace('.', '/')}/{version}"
    return CloudStorage(location, _Default(location, workspace(registry_uri)))


class _Azure:
    def __init__(self, location: str, sas: Callable[[], str]) -> None:
        try:
            from azure.core.credentials import AzureSasCredential
            from azure.core.pipeline.transport import RequestsTransport
            from azure.storage.filedatalake import DataLakeServiceClient
        except ImportError as error:
            raise _missing("Azure") from error
        url = urlsplit(location)
        container, _, self._host = url.netloc.partition("@")
        self._folder = unquote(url.path).strip("/")
        self._sas, self._renewing = sas, threading.Lock()
        self._credential = AzureSasCredential(sas())
        self._client = DataLakeServiceClient(
            f"https://{self._host}",
            self._credential,
            transport=RequestsTransport(session=_patient(_session(), self._host), session_owner=False),
            retry_total=0,
            connection_timeout=_TIMEOUT[0],
            read_timeout=_TIMEOUT[1],
        ).get_file_system_client(container)

    def sizes(self) -> Mapping[str, int]:
        from azure.core.exceptions import ResourceNotFoundError

        def ask() -> dict[str, int]:
            try:
                found = [p for p in self._client.get_paths(self._folder, recursive=True) if not p.is_directory]
            except ResourceNotFoundError as error:
                if _azure_code(error) != "PathNotFound":
                    raise
                return {}
            return {p.name.removeprefix(f"{self._folder}/"): p.content_length for p in found}

        return self._ask(ask)

    def stored(self, path: str) -> Stored:
        found = self._ask(self._file(path).get_file_properties)
        md5 = found.content_settings.content_md5
        return Stored(found.size, bytes(md5) if md5 else None)

    def put(self, path: str, content: Content) -> None:
        from azure.storage.filedatalake import ContentSettings

        file = self._file(path)
        self._ask(file.create_file)
        while (sent := content.tell()) < content.size:
            part = content.read(_PART)
            self._ask(partial(file.append_data, part, sent, len(part)))
            del part  # or two parts would be held while the next one is read
        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(content.md5()))
        if sent:
            self._ask(lambda: file.flush_data(sent, content_settings=settings))

    def get(self, path: str) -> bytes:
        return self._ask(lambda: bytes(self._file(path).download_file().readall()))

    def delete(self, path: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        def ask() -> None:
            with suppress(ResourceNotFoundError):
                self._file(path).delete_file()

        self._ask(ask)

    def _file(self, path: str) -> Any:
        return self._client.get_file_client(f"{self._folder}/{path}")

    def _ask(self, ask: Callable[[], T]) -> T:
        from azure.core.exceptions import AzureError, DecodeError, HttpResponseError

        def attempt() -> T:
            used = self._credential.signature
            try:
                return ask()
            except HttpResponseError as error:
                if _azure_code(error) != "AuthenticationFailed":
                    raise
                self._renew(used)
            return ask()

        def translated() -> T:
            try:
                return attempt()
            except DecodeError:  # an answer that was cut off, too
                raise TryAgain(_unreachable(self._host)) from None
            except HttpResponseError as error:
                raise _refused(self._host, error.status_code, f"ErrorCode:{_azure_code(error)}") from None
            except AzureError:
                raise TryAgain(_unreachable(self._host)) from None

        return patiently(translated)

    def _renew(self, used: str) -> None:
        """Put another signature in the place of the one that was used, unless another thread has."""
        with self._renewing:
            if self._credential.signature == used:
                self._credential.update(self._sas())


class _Google:
    def __init__(self, location: str, token: Callable[[], str]) -> None:
        try:
            from google.auth.transport.requests import AuthorizedSession
            from google.cloud.storage import Client
            from google.oauth2.credentials import Credentials
        except ImportError as error:
            raise _missing("Google Cloud") from error
        url = urlsplit(location)
        self._where = f"gs://{url.netloc}"
        self._folder = url.path.strip("/")

        def renew(*_: object, **__: object) -> tuple[str, datetime]:
            # how long it lives is not told: the time only has to be one to come, as an expired one is seen by its 401
            return token(), datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)

        session = AuthorizedSession(Credentials(token(), refresh_handler=renew))
        _patient(session, self._where)
        self._bucket = Client(project="catalogger", credentials=session.credentials, _http=session).bucket(url.netloc)

    def sizes(self) -> Mapping[str, int]:
        prefix = f"{self._folder}/"
        found = self._ask(lambda: list(self._bucket.list_blobs(prefix=prefix, retry=None, timeout=_TIMEOUT)))
        return {blob.name.removeprefix(prefix): blob.size for blob in found if not blob.name.endswith("/")}

    def stored(self, path: str) -> Stored:
        blob = self._blob(path)
        self._ask(lambda: blob.reload(retry=None, timeout=_TIMEOUT))
        return Stored(blob.size, base64.b64decode(blob.md5_hash) if blob.md5_hash else None)

    def put(self, path: str, content: Content) -> None:
        from google.api_core.exceptions import GoogleAPICallError

        def ask() -> None:
            content.seek(0)
            blob = self._blob(path)
            blob.chunk_size = _PART
            try:
                blob.upload_from_file(content, size=content.size, checksum=None, retry=None, timeout=_TIMEOUT)
            except GoogleAPICallError as error:
                if error.code not in (404, 410):  # the upload was forgotten there: Google asks for another one then
                    raise
                raise TryAgain(self._refusal(error)) from None
            except ValueError:  # only some of a part was kept, from where the client cannot go on
                raise TryAgain(_unreachable(self._where)) from None

        self._ask(ask)

    def get(self, path: str) -> bytes:
        return self._ask(lambda: bytes(self._blob(path).download_as_bytes(retry=None, timeout=_TIMEOUT)))

    def delete(self, path: str) -> None:
        from google.api_core.exceptions import NotFound

        def ask() -> None:
            with suppress(NotFound):
                self._blob(path).delete(retry=None, timeout=_TIMEOUT)

        self._ask(ask)

    def _refusal(self, error: Any) -> CataloggerError:
        return _refused(self._where, error.code, "" if error.response is None else error.response.text)

    def _blob(self, path: str) -> Any:
        return self._bucket.blob(f"{self._folder}/{path}")

    def _ask(self, ask: Callable[[], T]) -> T:
        from google.api_core.exceptions import GoogleAPICallError
        from requests import exceptions

        def attempt() -> T:
            try:
                return ask()
            except GoogleAPICallError as error:
                raise self._refusal(error) from None
            except exceptions.RequestException:
                raise TryAgain(_unreachable(self._where)) from None

        return patiently(attempt)


class _Default:
    def __init__(self, root: str, rest: Rest) -> None:
        self._root, self._rest, self._session = root, rest, _session()

    def sizes(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        folders = [self._root]
        while folders:
            for entry in self._entries(folders.pop()):
                if entry.get("is_directory"):
                    folders.append(entry["path"].rstrip("/"))
                else:
                    found[entry["path"].removeprefix(f"{self._root}/")] = int(entry.get("file_size", 0))
        return found

    def stored(self, path: str) -> Stored:
        whole = f"{self._root}/{path}"
        sizes = {entry["path"]: int(entry.get("file_size", 0)) for entry in self._entries(whole.rpartition("/")[0])}
        return Stored(sizes.get(whole, 0))

    def put(self, path: str, content: Content) -> None:
        self._by_signed_address("upload", "PUT", path, content)

    def get(self, path: str) -> bytes:
        return self._by_signed_address("download", "GET", path)

    def delete(self, path: str) -> None:
        try:
            self._rest.call("DELETE", f"/api/2.0/fs/files{quote(f'{self._root}/{path}')}")
        except Refused as refused:
            if refused.status != 404:
                raise

    def _entries(self, folder: str) -> Iterator[dict[str, Any]]:
        query: dict[str, str] = {}
        while True:
            try:
                page = self._rest.call("GET", f"/api/2.0/fs/directories{quote(folder)}", query=query)
            except Refused as refused:
                if refused.status != 404:
                    raise
                return
            yield from page.get("contents", [])
            if not page.get("next_page_token"):
                return
            query = {"page_token": page["next_page_token"]}

    def _by_signed_address(self, kind: str, method: str, path: str, content: Content | None = None) -> bytes:
        renewed = False

        def attempt() -> bytes:
            nonlocal renewed
            signed = self._rest.call("POST", f"/api/2.0/fs/create-{kind}-url", {"path": f"{self._root}/{path}"})
            response = _answered(self._root, lambda: self._follow(method, signed, content))
            if response.ok:
                return response.content
            refusal = _refused(self._root, response.status_code, response.text)
            if isinstance(refusal, AccessDenied) and not renewed:  # the address may have expired on the way
                renewed = True
                raise TryAgain(refusal, after=0)
            raise refusal

        return patiently(attempt)

    def _follow(self, method: str, signed: Mapping[str, Any], content: Content | None) -> Response:
        if content:
            content.seek(0)
        return self._session.request(
            method,
            signed["url"],
            data=content,
            headers={header["name"]: header["value"] for header in signed.get("headers", [])},
            auth=lambda request: request,  # nothing of ~/.netrc: the address is signed
            timeout=_TIMEOUT,
            allow_redirects=False,
        )


def _session() -> Session:
    import requests

    return requests.Session()


class _Patient:
    """Sends until there is an answer that will stay; stands in a session where requests' own adapter does."""

    def __init__(self, where: str) -> None:
        from requests.adapters import HTTPAdapter

        self._where, self._adapter = where, HTTPAdapter()

    def send(self, request: PreparedRequest, **settings: Any) -> Response:
        return patiently(lambda: _answered(self._where, lambda: self._adapter.send(request, **settings)))

    def close(self) -> None:
        self._adapter.close()


def _patient(session: Session, where: str) -> Session:
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Patient(where))  # type: ignore[arg-type]  # only these two methods are called
    return session


def _answered(where: str, send: Callable[[], Response]) -> Response:
    """An answer that will stay.

    What was caught is left out of the error: its text holds the signed address.
    """
    from requests import exceptions

    try:
        response = send()
    except (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError) as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise TryAgain(_unreachable(where)) from None
        raise NetworkUnreachable(
            f'The certificate of "{where}" does not verify.',
            "REQUESTS_CA_BUNDLE names the file of the authority that signed it.",
        ) from None
    if response.status_code in PASSING:
        failed = NetworkUnreachable(f'"{where}" answered {response.status_code} again and again.', _FIX_NETWORK)
        response.close()
        raise TryAgain(failed, asked_pause(response.headers.get("Retry-After")))
    return response


def _unreachable(where: str) -> NetworkUnreachable:
    return NetworkUnreachable(f'"{where}" cannot be reached, or does not answer in time.', _FIX_NETWORK)


def _refused(where: str, status: int | None, said: str) -> CataloggerError:
    """The error for an answer that will stay.  Of what was said only the code is told: the rest may hold secrets."""
    found = _CODE.search(said)
    code = next((group for group in found.groups() if group), "") if found else ""
    answered = f'"{where}" answered {f"{status} {code}".strip()}'
    if status == 507 or _FULL.search(said):
        return RegistryError(f"The storage is full: {answered}.", "Make room there, then run the same command again.")
    if status in (401, 403):
        return AccessDenied(f"{answered}.", "Ask the owner of the catalog for the right to write to its storage.")
    return RegistryError(f"{answered}.", "Run the same command again; if it stays so, ask whoever keeps the storage.")


def _digests(file: Sending, content: Content) -> dict[str, str]:
    sha256 = content.sha256()
    return {file.path: sha256} if sha256 else {}


def _azure_code(error: Any) -> str:
    """Azure's own code of an error; empty where what answered was not Azure."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code or ""))


def _missing(cloud: str) -> UsageError:
    return UsageError(
        f"The storage is {cloud}'s, whose client library is not installed.", "pip install 'catalogger[databricks]'"
    )
