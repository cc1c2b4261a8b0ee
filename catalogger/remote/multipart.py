"""A file in parts that arrive in any order, each at an address of its own: S3's way, and Azure's.

Source: databricks-sdk's `mixins/files.py` (0.162), which holds each part in memory; here it is read while it is sent.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from catalogger.errors import CataloggerError, RegistryError
from catalogger.remote.parts import Span
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.presigned import Address, Presigned, address, refused
from catalogger.remote.rest import Rest
from catalogger.remote.sessions import Body

AT_ONCE = 10
"""Parts under way, as with the SDK."""
_LIFETIME = timedelta(hours=1)
_EXPIRED = re.compile(
    r"<Code>ExpiredToken</Code>|<Message>Request has expired</Message>|Signature not valid in the specified time frame"
)
"""As Google, AWS and Azure say it."""


class MultipartUpload:
    """An upload that was begun, in so many parts, to `file`, the REST path of the file at `path`."""

    at_once = AT_ONCE

    def __init__(self, rest: Rest, presigned: Presigned, file: str, path: str, token: str, parts: int) -> None:
        self._rest, self._presigned, self._file = rest, presigned, file
        self._path, self._token, self._parts = path, token, parts
        self._addresses: dict[int, Address] = {}
        self._asking = threading.Lock()
        self._etags: dict[int, str] = {}

    def put(self, span: Span, content: Callable[[Span], Body]) -> None:
        """Send one part, from any thread; `content` gives its bytes anew for each attempt."""
        patiently(lambda: self._attempt(span.number, content(span)))

    def complete(self) -> None:
        """Make the file of its parts.  Raises Refused with status 404 where the upload is not there any more."""
        parts = [{"part_number": number, "etag": etag} for number, etag in sorted(self._etags.items())]
        self._rest.call("POST", self._file, {"parts": parts}, query=self._query("complete-upload"))

    def abort(self) -> None:
        """Have what was sent forgotten; where that fails, the workspace forgets it in time."""
        with suppress(CataloggerError, TryAgain):
            self._rest.call("POST", self._file, query=self._query("abort-upload"), once=True)

    def _query(self, action: str) -> dict[str, str]:
        return {"action": action, "upload_type": "multipart", "session_token": self._token}

    def _attempt(self, number: int, content: Body) -> None:
        to = self._address(number)
        response = self._presigned.send("PUT", to, content)
        if response.ok:
            self._etags[number] = response.headers.get("ETag", "")
            return
        refusal = refused(to, response)
        if response.status_code in (400, 403) and _EXPIRED.search(response.text):
            self._addresses.pop(number, None)
            raise TryAgain(refusal, after=0)
        raise refusal

    def _address(self, number: int) -> Address:
        """Where to send the part; asked for together with those of the next ones, as all others wait meanwhile."""
        with self._asking:
            if number not in self._addresses:
                asked = {
                    "path": self._path,
                    "session_token": self._token,
                    "start_part_number": number,
                    "count": min(2 * AT_ONCE, self._parts - number + 1),
                    "expire_time": f"{datetime.now(UTC) + _LIFETIME:%Y-%m-%dT%H:%M:%SZ}",
                }
                answer = self._rest.call("POST", "/api/2.0/fs/create-upload-part-urls", asked)
                self._addresses |= {int(a["part_number"]): address(a) for a in answer.get("upload_part_urls", ())}
            if number not in self._addresses:
                raise RegistryError(f'"{self._rest.base}" gives no address for part {number} of "{self._path}".')
            return self._addresses[number]
