"""Google Cloud storage by an OAuth token."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from catalogger.errors import CataloggerError
from catalogger.remote.cloud import PART, CloudStorage, Content, Stored
from catalogger.remote.cloud_http import missing, patient, refused, unreachable
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.rest import TIMEOUT

T = TypeVar("T")


def google_storage(location: str, token: Callable[[], str]) -> CloudStorage:
    """Files below `gs://bucket/path`.

    `token` gives an OAuth access token; it is asked for another one when that has expired.
    Raises UsageError where Google's client is not installed.
    """
    return CloudStorage(location, _Google(location, token))


class _Google:
    def __init__(self, location: str, token: Callable[[], str]) -> None:
        try:
            from google.auth.transport.requests import AuthorizedSession
            from google.cloud.storage import Client
            from google.oauth2.credentials import Credentials
        except ImportError as error:
            raise missing("Google Cloud") from error
        url = urlsplit(location)
        self._where = f"gs://{url.netloc}"
        self._folder = url.path.strip("/")

        def renew(*_: object, **__: object) -> tuple[str, datetime]:
            # how long it lives is not told: the time only has to be one to come, as an expired one is seen by its 401
            return token(), datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)

        session = AuthorizedSession(Credentials(token(), refresh_handler=renew))
        patient(session, self._where)
        self._bucket = Client(project="catalogger", credentials=session.credentials, _http=session).bucket(url.netloc)

    def sizes(self) -> Mapping[str, int]:
        prefix = f"{self._folder}/"
        found = self._ask(lambda: list(self._bucket.list_blobs(prefix=prefix, retry=None, timeout=TIMEOUT)))
        return {blob.name.removeprefix(prefix): blob.size for blob in found if not blob.name.endswith("/")}

    def stored(self, path: str) -> Stored:
        blob = self._blob(path)
        self._ask(lambda: blob.reload(retry=None, timeout=TIMEOUT))
        return Stored(blob.size, base64.b64decode(blob.md5_hash) if blob.md5_hash else None)

    def put(self, path: str, content: Content) -> None:
        from google.api_core.exceptions import GoogleAPICallError

        def ask() -> None:
            content.seek(0)
            blob = self._blob(path)
            blob.chunk_size = PART
            try:
                blob.upload_from_file(content, size=content.size, checksum=None, retry=None, timeout=TIMEOUT)
            except GoogleAPICallError as error:
                if error.code not in (404, 410):  # the upload was forgotten there: Google asks for another one then
                    raise
                raise TryAgain(self._refusal(error)) from None
            except ValueError:  # only some of a part was kept, from where the client cannot go on
                raise TryAgain(unreachable(self._where)) from None

        self._ask(ask)

    def get(self, path: str, span: tuple[int, int] | None = None) -> bytes:
        asked = {"start": span[0], "end": sum(span) - 1} if span else {}
        return self._ask(lambda: bytes(self._blob(path).download_as_bytes(**asked, retry=None, timeout=TIMEOUT)))

    def delete(self, path: str) -> None:
        from google.api_core.exceptions import NotFound

        def ask() -> None:
            with suppress(NotFound):
                self._blob(path).delete(retry=None, timeout=TIMEOUT)

        self._ask(ask)

    def _refusal(self, error: Any) -> CataloggerError:
        return refused(self._where, error.code, "" if error.response is None else error.response.text)

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
                raise TryAgain(unreachable(self._where)) from None

        return patiently(attempt)
