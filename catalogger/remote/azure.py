"""Azure Data Lake storage by a shared access signature."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from catalogger.remote.cloud import PART, CloudStorage, Content, Stored
from catalogger.remote.cloud_http import missing, patient, refused, unreachable
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.rest import TIMEOUT
from catalogger.remote.sessions import plain_session

T = TypeVar("T")


def azure_storage(location: str, sas: Callable[[], str]) -> CloudStorage:
    """Files below `abfss://container@account.dfs.core.windows.net/path`.

    `sas` gives a shared access signature; it is asked for another one when that has expired.
    Raises UsageError where Azure's client is not installed.
    """
    return CloudStorage(location, _Azure(location, sas))


class _Azure:
    def __init__(self, location: str, sas: Callable[[], str]) -> None:
        try:
            from azure.core.credentials import AzureSasCredential
            from azure.core.pipeline.transport import RequestsTransport
            from azure.storage.filedatalake import DataLakeServiceClient
        except ImportError as error:
            raise missing("Azure") from error
        url = urlsplit(location)
        container, _, self._host = url.netloc.partition("@")
        self._folder = unquote(url.path).strip("/")
        self._sas, self._renewing = sas, threading.Lock()
        self._credential = AzureSasCredential(sas())
        self._client = DataLakeServiceClient(
            f"https://{self._host}",
            self._credential,
            transport=RequestsTransport(session=patient(plain_session(), self._host), session_owner=False),
            retry_total=0,
            connection_timeout=TIMEOUT[0],
            read_timeout=TIMEOUT[1],
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
            part = content.read(PART)
            self._ask(partial(file.append_data, part, sent, len(part)))
            del part  # or two parts would be held while the next one is read
        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(content.md5()))
        if sent:
            self._ask(lambda: file.flush_data(sent, content_settings=settings))

    def get(self, path: str, span: tuple[int, int] | None = None) -> bytes:
        start, count = span or (None, None)
        return self._ask(lambda: bytes(self._file(path).download_file(offset=start, length=count).readall()))

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
                raise TryAgain(unreachable(self._host)) from None
            except HttpResponseError as error:
                raise refused(self._host, error.status_code, f"ErrorCode:{_azure_code(error)}") from None
            except AzureError:
                raise TryAgain(unreachable(self._host)) from None

        return patiently(translated)

    def _renew(self, used: str) -> None:
        """Put another signature in the place of the one that was used, unless another thread has."""
        with self._renewing:
            if self._credential.signature == used:
                self._credential.update(self._sas())


def _azure_code(error: Any) -> str:
    """Azure's own code of an error; empty where what answered was not Azure."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code or ""))
