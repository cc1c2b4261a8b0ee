"""The process of a simulated endpoint: orders come as its argument, and it ends when its standard input does."""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, cast
from urllib.parse import unquote

from catalogger.testing.law import of_orders
from catalogger.testing.law_line import Endpoint, Service, as_json


class Connection(asyncio.Protocol):
    """One client's connection: HTTP/1.1 requests with a Content-Length, one after another."""

    def __init__(self, endpoint: Endpoint, all_connections: set[Connection]) -> None:
        self._endpoint, self._all = endpoint, all_connections
        self._received = b""
        self._service: Service | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        if self._service:
            self._service.gone()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self._received = rest[length:]
        method, path, _ = line.split(" ")
        self._answer(method, unquote(path), rest[:length])

    def _answer(self, method: str, path: str, body: bytes) -> None:
        name = self._endpoint.name
        if (method, path) == ("POST", f"/serving-endpoints/{name}/invocations"):
            self._service = self._endpoint.query(json.loads(body), self._write)
        elif (method, path) == ("GET", f"/api/2.0/serving-endpoints/{name}"):
            self._write(as_json(self._endpoint.described()))
        else:
            said = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Not found: {path}"}
            self._write(as_json(said, "404 Not Found"))

    def _write(self, data: bytes) -> None:
        """Send it; nothing at all means to hang up."""
        if self.transport is None:
            return
        if data:
            self.transport.write(data)
        else:
            self.transport.abort()


async def _serve(endpoint: Endpoint) -> None:
    loop = asyncio.get_running_loop()
    connections: set[Connection] = set()
    server = await loop.create_server(lambda: Connection(endpoint, connections), "127.0.0.1", 0, backlog=512)

    def vanish() -> None:
        server.close()
        for connection in list(connections):
            if connection.transport:
                connection.transport.abort()

    endpoint.vanish = vanish
    ended = asyncio.Event()
    threading.Thread(target=_wait_for_end, args=(loop, ended), daemon=True).start()
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)  # noqa: T201  whoever began it reads this
    await ended.wait()
    vanish()


def _wait_for_end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    sys.stdin.read()
    with suppress(RuntimeError):  # the loop is closed: it has ended already
        loop.call_soon_threadsafe(ended.set)


def _events() -> asyncio.AbstractEventLoop:
    """A loop that sleeps to the microsecond: epoll, the usual one, does so to the millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main(orders: Mapping[str, Any]) -> None:
    endpoint = Endpoint(*of_orders(dict(orders)))
    with asyncio.Runner(loop_factory=_events) as runner:
        runner.run(_serve(endpoint))
    print(json.dumps(asdict(endpoint.told())), flush=True)  # noqa: T201  whoever began it reads this


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
