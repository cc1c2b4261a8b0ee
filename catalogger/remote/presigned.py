"""A file in parts to a workspace's storage, by addresses that the workspace signs for each part.

Source: databricks-sdk's `mixins/files.py` (0.162), which holds each part in memory; here it is read while it is sent.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from catalogger.errors import CataloggerError, RegistryError
from catalogger.remote.cloud_http import answered, refused
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.rest import Rest
from catalogger.remote.sessions import Body, plain_session

if TYPE_CHECKING:
    from requests import Response

FILES = "/api/2.0/fs/files"
AT_ONCE = 6  # parts on their way
_LIFETIME = timedelta(hours=1)
_EXPIRED = re.compile(
    r"<Code>ExpiredToken</Code>|<Message>Request has expired</Message>|Signature not valid in the specified time frame"
)
"""As Google, AWS and Azure say it."""


class NotInParts(Exception):
    """The workspace takes no parts."""


class PresignedUpload:
    """An upload in so many parts that was begun; it is ended by `complete` or `abort`.

    Raises NotInParts where the workspace takes none, and what `Rest.call` raises.
    """

    def __init__(self, rest: Rest, path: str, parts: int) -> None:
        begun = rest.call("POST", f"{FILES}{quote(path)}", query={"action": "initiate-upload", "overwrite": "true"})
        token = (begun.get("multipart_upload") or {}).get("session_token")
        if not token:
            raise NotInParts
        self._rest, self._path, self._parts, self._token = rest, path, parts, str(token)
        self._session = plain_session()
        self._addresses: dict[int, Mapping[str, Any]] = {}
        self._asking = threading.Lock()
        self._etags: dict[int, str] = {}

    def put(self, number: int, content: Callable[[], Body]) -> None:
        """Send one part, counted from 1; `content` gives its bytes anew for each attempt.  From any thread."""
        patiently(lambda: self._attempt(number, content()))

    def complete(self) -> None:
        """Make the file of its parts.  Raises Refused with status 404 where the upload is not there any more."""
        parts = [{"part_number": number, "etag": etag} for number, etag in sorted(self._etags.items())]
        self._end("complete-upload", {"parts": parts})

    def abort(self) -> None:
        """Have what was sent forgotten; where that fails, the workspace forgets it in time."""
        with suppress(CataloggerError, TryAgain):
            self._end("abort-upload", None, once=True)

    def _end(self, action: str, body: Mapping[str, Any] | None, *, once: bool = False) -> None:
        query = {"action": action, "upload_type": "multipart", "session_token": self._token}
        self._rest.call("POST", f"{FILES}{quote(self._path)}", body, query=query, once=once)

    def _attempt(self, number: int, content: Body) -> None:
        address = self._address(number)
        url = urlsplit(address["url"])
        where = f"{url.scheme}://{url.netloc}"
        response = answered(where, lambda: self._send(address, content))
        if response.ok:
            self._etags[number] = response.headers.get("ETag", "")
            return
        refusal = refused(where, response.status_code, response.text)
        if response.status_code in (400, 403) and _EXPIRED.search(response.text):
            self._addresses.pop(number, None)
            raise TryAgain(refusal, after=0)
        raise refusal

    def _send(self, address: Mapping[str, Any], content: Body) -> Response:
        return self._session.put(
            address["url"],
            data=content,
            headers={header["name"]: header["value"] for header in address.get("headers", ())},
            auth=lambda request: request,  # nothing of ~/.netrc: the address is signed
            timeout=self._rest.timeout,
            allow_redirects=False,
        )

    def _address(self, number: int) -> Mapping[str, Any]:
        """Where to send the part; asked for together with those of the next ones."""
        with self._asking:
            if number not in self._addresses:
                asked = {
                    "path": self._path,
                    "session_token": self._token,
                    "start_part_number": number,
                    "count": min(AT_ONCE, self._parts - number + 1),
                    "expire_time": f"{datetime.now(UTC) + _LIFETIME:%Y-%m-%dT%H:%M:%SZ}",
                }
                answer = self._rest.call("POST", "/api/2.0/fs/create-upload-part-urls", asked)
                self._addresses |= {int(a["part_number"]): a for a in answer.get("upload_part_urls", ())}
            if number not in self._addresses:
                raise RegistryError(f'"{self._rest.base}" gives no address for part {number} of "{self._path}".')
            return self._addresses[number]
