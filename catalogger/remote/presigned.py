"""Requests to the storage behind a workspace, by addresses that the workspace signs for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from catalogger.errors import CataloggerError
from catalogger.remote import cloud_http
from catalogger.remote.sessions import Body, plain_session

if TYPE_CHECKING:
    from requests import Response


@dataclass(frozen=True, repr=False)
class Address:
    """Where a request may go without credentials, and the headers that are signed with it."""

    url: str
    headers: Mapping[str, str]

    @property
    def server(self) -> str:
        """The part that may be told."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.netloc}"


def address(answer: Mapping[str, Any]) -> Address:
    """The address that a workspace's answer holds."""
    return Address(answer["url"], {header["name"]: header["value"] for header in answer.get("headers", ())})


class Presigned:
    """Sends to such addresses, from any thread; its connections are for all files.  `timeout` is that of `Rest`."""

    def __init__(self, timeout: tuple[float, float]) -> None:
        self._session = plain_session()
        self._timeout = timeout

    def send(self, method: str, to: Address, content: Body, headers: Mapping[str, str] | None = None) -> Response:
        """An answer that will stay, a refusal too.  It is sent once: what may pass is TryAgain."""
        return cloud_http.answered(
            to.server,
            lambda: self._session.request(
                method,
                to.url,
                data=content,
                headers={**to.headers, **(headers or {})},
                auth=lambda request: request,  # nothing of ~/.netrc: the address is signed
                timeout=self._timeout,
                allow_redirects=False,
            ),
        )


def refused(by: Address, response: Response) -> CataloggerError:
    """The error for a refusal."""
    return cloud_http.refused(by.server, response.status_code, response.text)
