"""The HTTP side of a loopback workspace: a threading server, bodies that are never held whole, and broken answers."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import parse_qs, unquote, urlsplit

from catalogger.testing.loopback import Loopback, Quiet
from catalogger.testing.orders import Fault, Record

_BLOCK = 1 << 18
_NO_LINGER = struct.pack("ii", 1, 0)  # closing sends a reset


@dataclass(frozen=True)
class Call:
    """One request to be answered. `path` is percent-encoded as it came; header names are in lower case."""

    method: str
    target: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Body

    @property
    def line(self) -> str:
        return f"{self.method} {unquote(self.target)}"

    def fields(self) -> dict[str, Any]:
        """What is asked, in the query or in the JSON of the body."""
        return {name: values[-1] for name, values in self.query.items()} | self.fields_of_body()

    def fields_of_body(self) -> dict[str, Any]:
        """The JSON object of a small body, which may be asked for more than once; none where it is another thing."""
        try:
            found = json.loads(self.body.whole())
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class Body:
    """A request's body, which is never read beyond its end; `counted` is told of every byte."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream, self.length, self.left = stream, length, length
        self.counted: Callable[[int], None] = lambda _: None
        self._kept = b""

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(self.left if size < 0 else min(size, self.left)) if self.left else b""
        if self.left and not block:
            raise ConnectionError("the client hung up")
        self.left -= len(block)
        self.counted(len(block))
        return block

    def whole(self) -> bytes:
        """The body of a small request, kept for the next caller."""
        if self.left:
            self._kept = self.read()
        return self._kept

    def drain(self) -> None:
        while self.left:
            self.read(_BLOCK)


class Reply(Protocol):
    """What goes back. `headers` are complete, but for a body whose length nobody knows: it is sent in chunks."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def blocks(self) -> Iterator[bytes]: ...


class Answering(Protocol):
    """What stands behind the server."""

    record: Record

    def begin(self, call: Call) -> tuple[int, Fault | None]:
        """Record the request; its index, and the fault that was ordered for it."""

    def answer(self, call: Call) -> Reply: ...


def server(answering: Answering, port: int = 0) -> Loopback:
    """The server, not started yet."""
    return Loopback(partial(_Handler, answering), port)


class _Handler(Quiet, BaseHTTPRequestHandler):
    wbufsize = -1  # head and small body leave in one write

    def __init__(self, answering: Answering, *args: object) -> None:
        self.answering = answering
        super().__init__(*args)  # type: ignore[arg-type]  # socketserver's three positional arguments

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = Body(cast(BinaryIO, self.rfile), int(headers.get("content-length") or 0))
        query = parse_qs(url.query, keep_blank_values=True)
        call = Call(self.command, self.path, url.path, query, headers, body)
        index, fault = self.answering.begin(call)
        body.counted = lambda count: self.answering.record.update(index, received=count)
        reply = self.answering.answer(call) if fault is None or fault.when == "after" else None
        body.drain()
        if fault and fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.close_connection = True
        elif fault and fault.kind == "stall":
            self.connection.recv(1)  # until the client or the server gives up
            self.close_connection = True
        else:
            self._send(fault.reply if fault and fault.reply else cast(Reply, reply), index, fault)

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  the names that http.server calls

    def _send(self, reply: Reply, index: int, fault: Fault | None) -> None:
        # Recorded before it is sent: a client that has its reply finds its request in the log.
        self.answering.record.update(index, status=reply.status)
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if _is_chunked(reply):
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        if _is_chunked(reply):
            self._send_chunks(reply, index, fault)
            return
        left = int(reply.headers.get("Content-Length", 0)) // 2 if fault and fault.kind == "truncate" else None
        for block in reply.blocks():
            part = block if left is None else block[:left]
            self.answering.record.update(index, sent=len(part))
            self.wfile.write(part)
            if left is not None:
                left -= len(part)
        if left is not None:
            self.close_connection = True
        self.wfile.flush()

    def _send_chunks(self, reply: Reply, index: int, fault: Fault | None) -> None:
        """Each block as it comes; a truncated answer has the first one only."""
        for block in filter(None, reply.blocks()):
            self.answering.record.update(index, sent=len(block))
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
            self.wfile.flush()
            if fault and fault.kind == "truncate":
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


def _is_chunked(reply: Reply) -> bool:
    return "Content-Length" not in reply.headers and reply.status != HTTPStatus.NO_CONTENT
