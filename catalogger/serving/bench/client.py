"""The client that measures: one request, read as it comes, with the moments of its tokens.

aiohttp carries it: the Databricks SDK and `requests`, which the rest of the house uses, need a thread for each request.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from catalogger.errors import CataloggerError, UsageError
from catalogger.remote.patience import asked_pause
from catalogger.remote.rest import EVENTS
from catalogger.serving.bench.figures import Sample
from catalogger.serving.replies import choice_of, usage_of
from catalogger.serving.streaming import Events

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_CONNECT = 10.0  # seconds
_RENEWED = 20.0  # seconds after which credentials are asked for again, which the SDK renews before they expire
_PAUSE = 1.0  # seconds that a stream waits after a failure, where the endpoint does not say how long
_DONE = "[DONE]"
TIMEOUT, UNREACHABLE, BROKEN, ANOTHER_FORM = "timeout", "unreachable", "broken stream", "another form"


@dataclass
class _Heard:
    """What has come of an answer so far."""

    first: float | None = None
    last: float | None = None
    pieces: int = 0
    finished: bool = False
    usage: tuple[int, int] | None = None
    error: str | None = None
    pause: float = 0.0
    begun: bool = field(default=False)


class Client:
    """Sends request bodies to one URL, with credentials that `headers` gives again and again from a thread."""

    def __init__(self, url: str, headers: Callable[[], dict[str, str]], timeout: float, input_tokens: int) -> None:
        self._url, self._headers, self._timeout, self._inputs = url, headers, timeout, input_tokens
        self._credentials: dict[str, str] = {}
        self._proxy = _proxy(url)
        self._session: ClientSession | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        aiohttp = require_aiohttp()
        self._credentials = await asyncio.to_thread(self._headers)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=_certificates()),
            timeout=aiohttp.ClientTimeout(total=self._timeout, connect=_CONNECT),
            headers={
                "Content-Type": "application/json",
                "Accept": f"{EVENTS}, application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"catalogger/{metadata.version('catalogger')}",
            },
        )
        self._renewal = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._renewal:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._session:
            await self._session.close()

    async def ask(self, body: bytes) -> tuple[Sample, float]:
        """One request, and the seconds for which its stream is to pause: none after an answer."""
        import aiohttp

        heard = _Heard()
        began = time.monotonic()
        try:
            async with self._open().post(
                self._url, data=body, headers=self._credentials, proxy=self._proxy
            ) as response:
                await _hear(response, heard)
        except TimeoutError:
            heard.error = TIMEOUT
        except (aiohttp.ClientError, OSError):
            heard.error = BROKEN if heard.begun else UNREACHABLE
        except (KeyError, TypeError, ValueError, AttributeError):
            heard.error = ANOTHER_FORM
        ended = time.monotonic()
        if heard.error:
            return Sample(began, ended, error=heard.error), heard.pause or _PAUSE
        inputs, outputs = heard.usage or (self._inputs, heard.pieces)
        return Sample(began, ended, inputs, outputs, heard.first, heard.last), 0.0

    def _open(self) -> ClientSession:
        if self._session is None:
            raise ValueError("the client is not open")
        return self._session

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEWED)
            with suppress(CataloggerError):  # what is sent without new ones is refused, and counted so
                self._credentials = await asyncio.to_thread(self._headers)


def require_aiohttp() -> Any:
    """The library.  Raises UsageError where it is not installed."""
    try:
        import aiohttp
    except ImportError as error:
        raise UsageError(
            "A load test needs aiohttp, which is not installed.", "pip install 'catalogger[bench]'"
        ) from error
    return aiohttp


async def _hear(response: ClientResponse, heard: _Heard) -> None:
    if response.status >= 300:
        heard.error = str(response.status) if response.status == 429 else f"HTTP {response.status}"
        heard.pause = asked_pause(response.headers.get("Retry-After")) or 0.0
        await response.read()
        return
    heard.begun = True
    if not response.content_type.startswith(EVENTS):
        document = json.loads(await response.read())
        if not document.get("data"):
            heard.error = ANOTHER_FORM
        _count(document, heard)
        return
    events = Events()
    async for block in response.content.iter_any():
        for data in events.feed(block):
            _take(data, heard, time.monotonic())
    for data in events.end():
        _take(data, heard, time.monotonic())
    if not heard.finished and heard.error is None:
        heard.error = BROKEN


def _take(data: str, heard: _Heard, now: float) -> None:
    if data == _DONE:
        return
    chunk = json.loads(data)
    if "error" in chunk or "error_code" in chunk:
        heard.error = BROKEN
    for said in chunk.get("choices") or ():
        choice = choice_of(said)
        if choice.text:
            heard.pieces += 1
            heard.last = now
            heard.first = heard.first or now
        heard.finished = heard.finished or choice.finish_reason is not None
    _count(chunk, heard)


def _count(document: dict[str, Any], heard: _Heard) -> None:
    usage = usage_of(document)
    if usage:
        heard.usage = usage.prompt_tokens, usage.completion_tokens


def _certificates() -> ssl.SSLContext:
    """The authorities that the other calls of the house trust."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return ssl.create_default_context(cafile=named or DEFAULT_CA_BUNDLE_PATH)


def _proxy(url: str) -> str | None:
    """The proxy that the other calls of the house would take to there, by the environment."""
    from requests.utils import get_environ_proxies, select_proxy

    proxy: str | None = select_proxy(url, get_environ_proxies(url))
    return proxy
