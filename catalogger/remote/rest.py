"""JSON over HTTP to one server: patient where it may pass, final where it will not, and silent about tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from catalogger.errors import AccessDenied, CataloggerError, NetworkUnreachable, Refused, RegistryError, UsageError
from catalogger.remote.patience import PASSING, TryAgain, asked_pause, patiently
from catalogger.remote.sessions import Body, plain_session

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

TIMEOUT = (10.0, 60.0)
EVENTS = "text/event-stream"
_FIX_NETWORK = "Check the address and the network, then run the same command again."


class Rest:
    """Calls to the server at `base`.  `headers` gives those of each request, credentials among them.

    `timeout` is in seconds: to connect, and between two bytes of an answer.
    """

    def __init__(
        self, base: str, headers: Callable[[], Mapping[str, str]] = dict, timeout: tuple[float, float] = TIMEOUT
    ) -> None:
        self.base = base.rstrip("/")
        self.timeout = timeout
        self._headers = headers
        self._session = plain_session()
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
        Raises AccessDenied (401), Refused, NetworkUnreachable, and UsageError where no such server answers.
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

    def content(self, path: str) -> bytes:
        """A small file, as it is."""

        def attempt() -> bytes:
            response = self._send("GET", path, None, None, self._credentials())
            if response.status_code >= 300 or _is_page(response):
                self._read(response)
            return response.content

        return patiently(attempt)

    def part(self, path: str, start: int, count: int) -> bytes:
        """So many bytes of a file, from `start` on.  Raises RegistryError where the server gives whole files only."""
        from requests import exceptions

        asked = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}

        def attempt() -> bytes:
            with self._send("GET", path, None, None, {**self._credentials(), **asked}, stream=True) as response:
                if response.status_code >= 300:
                    self._read(response)
                if response.status_code != 206 and response.headers.get("Content-Length") != str(count):
                    raise RegistryError(f'"{self.base}" gives no part of "{path}", but other bytes.')
                try:
                    return response.content
                except exceptions.RequestException as error:
                    raise self._unreachable() from error

        return patiently(attempt)

    def put(self, path: str, content: Body, *, query: Mapping[str, Any] | None = None) -> None:
        """Send a file, which `content` reads as requests wants it.  It is sent once: what may pass is TryAgain."""
        self._read(self._send("PUT", path, None, query, self._credentials(), content=content))

    def blocks(self, path: str, body: Mapping[str, Any]) -> Iterator[bytes]:
        """What a POST is answered with, as it comes: server-sent events, not taken apart.  It is sent once.

        Raises what `call` raises with `once`, and UsageError where the answer is no stream, before the first block;
        NetworkUnreachable where the answer breaks off.
        """
        headers = {**self._credentials(), "Accept": EVENTS}
        response = self._send("POST", path, body, None, headers, stream=True)
        if response.status_code >= 300:
            self._read(response)
        if not response.headers.get("Content-Type", "").startswith(EVENTS):
            response.close()
            raise UsageError(f'"{self.base}" does not answer this in a stream.', "Ask without streaming.")
        return self._arriving(response)

    def _arriving(self, response: Response) -> Iterator[bytes]:
        from requests import exceptions

        # Only of chunks it is known where what has come ends: elsewhere, to ask for more bytes is to wait for them.
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        with response:
            try:
                yield from response.iter_content(None if chunked else 1)
            except exceptions.RequestException as error:
                lost = f'The answer of "{self.base}" broke off.'
                raise NetworkUnreachable(lost, "Ask again.") from error

    def _credentials(self) -> dict[str, str]:
        headers = dict(self._headers())
        for value in headers.values():
            # Whatever requests refuses it quotes, the token too.
            if not (value.isascii() and value.isprintable()) or value.startswith(" "):
                raise UsageError(
                    "The token holds a line break, or what else no token has.", "Set it again, as one line."
                )
        return headers

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        *,
        content: Body | None = None,
        stream: bool = False,
    ) -> Response:
        from requests import exceptions

        try:
            response = self._session.request(
                method,
                f"{self.base}{path}",
                data=content,
                json=body,
                params=query,
                headers=dict(headers),
                auth=_as_given if "Authorization" in headers else None,
                timeout=self.timeout,
                allow_redirects=False,
                stream=stream,
            )
            if response.status_code >= 300:
                response.content  # noqa: B018  read here, where what may go wrong is understood
            return response
        except exceptions.SSLError as error:
            raise self._without_tls(error) from error
        except (exceptions.ContentDecodingError, exceptions.InvalidHeader) as error:
            raise TryAgain(NetworkUnreachable(f'"{self.base}" answered with broken HTTP.', _FIX_NETWORK)) from error
        except (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError) as error:
            raise self._unreachable() from error
        except (exceptions.RequestException, ValueError) as error:
            raise UsageError(f'"{self.base}" is no address of a server.', "Write http://HOST:PORT.") from error
        except OSError as error:
            raise UsageError(f"{error}.", "REQUESTS_CA_BUNDLE is to name a file that is there.") from error

    def _unreachable(self) -> TryAgain:
        return TryAgain(
            NetworkUnreachable(f'"{self.base}" cannot be reached, or does not answer in time.', _FIX_NETWORK)
        )

    def _without_tls(self, error: Exception) -> CataloggerError | TryAgain:
        if "CERTIFICATE_VERIFY_FAILED" in str(error) or "[X509:" in str(error):
            return NetworkUnreachable(
                f'The certificate of "{self.base}" does not verify.',
                "REQUESTS_CA_BUNDLE names the file of the authority that signed it.",
            )
        if "EOF" in str(error):  # said in more than one way, by when it comes
            return self._unreachable()
        return NetworkUnreachable(f'"{self.base}" speaks no TLS that is understood here.', "Is it an http:// address?")

    def _read(self, response: Response) -> dict[str, Any]:
        status, document = response.status_code, _json(response)
        if status < 300 and document is not None:
            return document
        code, said = _said(response, document)
        where = f'"{self.base}" answered {status}'
        if status == 401 or (status == 403 and code == "403"):  # a workspace's answer to a personal token that is none
            denied = f'"{self.base}" does not know the token, and says: {said}'
            raise AccessDenied(denied, "Set another token, or log in again.")
        if status in PASSING:
            after = asked_pause(response.headers.get("Retry-After") or _error(document).get("retry_after"))
            raise TryAgain(NetworkUnreachable(f"{where} again and again: {said}", _FIX_NETWORK), after)
        if status < 300 and _text(response)[:1] == "{":
            raise TryAgain(NetworkUnreachable(f"{where} with a broken document.", _FIX_NETWORK))
        if status < 400 or (document is None and _is_page(response)):
            raise UsageError(
                f"{where} with {_kind(response)}, not as a registry does.",
                "Is the address right, and is no login page or proxy in between?",
            )
        raise Refused(self.base, status, code, said)


def _as_given(request: PreparedRequest) -> PreparedRequest:
    """Keeps requests from putting what ~/.netrc says of the host in place of the token."""
    return request


def _text(response: Response) -> str:
    """JSON is UTF-8; `response.text` would believe any charset that the other side names."""
    return response.content.decode("utf-8-sig", "replace").strip()


def _json(response: Response) -> dict[str, Any] | None:
    """The object of the answer; None where there is another thing.  A deletion is answered by `200 OK` or nothing."""
    text = _text(response)
    if response.status_code < 300 and text in ("", "200 OK"):
        return {}
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _said(response: Response, document: Mapping[str, Any] | None) -> tuple[str, str]:
    """The server's code of the failure, and its text: one line, shortened, fit for a terminal."""
    reason = response.reason or "nothing more"
    if document is None:
        said = "a web page" if _is_page(response) else _text(response)
        return "", _printable((said.splitlines() or [reason])[0][:300])
    error = _error(document)
    code = document.get("error_code") or error.get("type") or ""
    message = document.get("message") or error.get("message") or reason
    return str(code)[:100], _printable(str(message)[:1000])


def _error(document: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What OpenAI's form of an error holds, in which queries may be refused; empty where it is another form."""
    error = (document or {}).get("error")
    return error if isinstance(error, dict) else {}


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _kind(response: Response) -> str:
    if 300 <= response.status_code < 400:
        return "a redirection"
    return "a web page" if _is_page(response) else "what is no JSON object"


def _is_page(response: Response) -> bool:
    return "html" in response.headers.get("Content-Type", "") or _text(response)[:1] == "<"
