"""JSON over HTTP to one server: patient where it may pass, final where it will not, and silent about tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from catalogger.errors import AccessDenied, NetworkUnreachable, Refused, UsageError
from catalogger.remote.patience import PASSING, TryAgain, asked_pause, patiently

if TYPE_CHECKING:
    from requests import Response

_TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two bytes of an answer
_FIX_NETWORK = "Check the address and the network, then run the same command again."


class Rest:
    """Calls to the server at `base`.  `headers` gives those of each request, credentials among them."""

    def __init__(self, base: str, headers: Callable[[], Mapping[str, str]] = dict) -> None:
        import requests

        self.base = base.rstrip("/")
        self._headers = headers
        self._session = requests.Session()
        self._session.trust_env = True
        self._session.headers["User-Agent"] = f"catalogger/{metadata.version('catalogger')}"

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> dict[str, Any]:
        """The answer's JSON object; an empty answer is an empty one.

        `once` says that a request which may have arrived must not be sent again: it raises TryAgain instead.
        Raises Refused, AccessDenied (401 and 403), NetworkUnreachable, and UsageError where no such server answers.
        """
        return self.answer(method, path, body, query=query, headers=headers, once=once)[0]

    def answer(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """As `call`, with the answer's headers."""

        def attempt() -> tuple[dict[str, Any], Mapping[str, str]]:
            response = self._send(method, path, body, query, {**self._credentials(), **(headers or {})})
            return self._read(response), response.headers

        return attempt() if once else patiently(attempt)

    def _credentials(self) -> dict[str, str]:
        headers = dict(self._headers())
        if any(c in value for value in headers.values() for c in "\r\n\0"):
            raise UsageError("The token holds a line break.", "Set it again, as one line.")
        return headers

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str],
    ) -> Response:
        from requests import exceptions

        try:
            return self._session.request(
                method,
                f"{self.base}{path}",
                json=body,
                params=query,
                headers=dict(headers),
                timeout=_TIMEOUT,
                allow_redirects=False,
            )
        except exceptions.SSLError as error:
            raise NetworkUnreachable(
                f'The certificate of "{self.base}" does not verify.',
                "REQUESTS_CA_BUNDLE names the file of the authority that signed it.",
            ) from error
        except (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError) as error:
            unreachable = f'"{self.base}" cannot be reached, or does not answer in time.'
            raise TryAgain(NetworkUnreachable(unreachable, _FIX_NETWORK)) from error
        except (exceptions.RequestException, ValueError) as error:
            raise UsageError(f'"{self.base}" is no address of a server.', "Write http://HOST:PORT.") from error

    def _read(self, response: Response) -> dict[str, Any]:
        document = _json(response)
        if response.ok and document is not None and response.status_code < 300:
            return document
        code, said = _said(response, document)
        where = f'"{self.base}" answered {response.status_code}'
        if response.status_code == 401:
            raise AccessDenied(f'"{self.base}" does not know the token: {said}', "Set another token, or log in again.")
        if response.status_code in PASSING:
            after = asked_pause(response.headers.get("Retry-After"))
            failed = NetworkUnreachable(f"{where} again and again: {said}", _FIX_NETWORK)
            raise TryAgain(failed, after)
        if response.ok and document is None and not _is_page(response):
            raise TryAgain(NetworkUnreachable(f"{where} with a broken document.", _FIX_NETWORK))
        if document is None and (response.status_code < 400 or _is_page(response)):
            raise UsageError(
                f"{where} with a web page, not as a registry does.",
                "Is the address right, and is no login page or proxy in between?",
            )
        raise Refused(self.base, response.status_code, code, said)


def _json(response: Response) -> dict[str, Any] | None:
    """The object of the answer; None where there is another thing.  A deletion is answered by `200 OK` or nothing."""
    text = response.text.strip()
    if response.ok and text in ("", "200 OK"):
        return {}
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _said(response: Response, document: Mapping[str, Any] | None) -> tuple[str, str]:
    if document is None:
        said = "a web page" if _is_page(response) else response.text.strip()
        return "", (said.splitlines() or [str(response.reason)])[0][:300]
    return str(document.get("error_code", "")), str(document.get("message", response.reason))[:1000]


def _is_page(response: Response) -> bool:
    return "html" in response.headers.get("Content-Type", "") or response.text.lstrip()[:1] == "<"
