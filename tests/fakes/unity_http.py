"""The HTTP side of a loopback Unity Catalog: a threading server that keeps its port over a restart, broken answers."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol, cast

from fakes.workspace_orders import Fault, Record

_NO_LINGER = struct.pack("ii", 1, 0)  # closing sends a reset


@dataclass(frozen=True)
class Call:
    """One request to be answered. `target` is percent-encoded as it came; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Answering(Protocol):
    """What stands behind the server."""

    record: Record

    def begin(self, asked: Call) -> tuple[int, Fault | None]: ...

    def answer(self, asked: Call) -> Reply: ...


class Server:
    """On a free port of 127.0.0.1, which it keeps; it serves between `start` and `stop`, and may do so again."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._listener: _Listener | None = _Listener(answering, 0)
        self.port = self._listener.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.stopped = threading.Event()

    def start(self) -> None:
        self._listener = self._listener or _Listener(self._answering, self.port)
        self.stopped.clear()
        self._loop = threading.Thread(target=self._listener.serve_forever, args=(0.02,), name=self.url)
        self._loop.start()

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.shutdown()
        self._loop.join()
        listener.hang_up()
        self.stopped.set()
        listener.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # server_close() joins only threads that are not daemons
    request_queue_size = 128

    def __init__(self, answering: Answering, port: int) -> None:
        super().__init__(("127.0.0.1", port), partial(_Handler, answering))
        self._open: set[socket.socket] = set()

    def server_bind(self) -> None:
        # HTTPServer.server_bind asks a name server for the host's full name, which may take seconds.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        self._open.add(cast(socket.socket, request))
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        self.close_request(request)  # without a goodbye, so that a reset is one
        self._open.discard(cast(socket.socket, request))

    def hang_up(self) -> None:
        for connection in tuple(self._open):  # stalled and kept-alive ones would hold their threads for ever
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and small body leave in one write

    def __init__(self, answering: Answering, *args: object) -> None:
        self.answering = answering
        super().__init__(*args)  # type: ignore[arg-type]  # socketserver's three positional arguments

    def handle(self) -> None:
        with suppress(ConnectionError):  # clients hang up as they like
            super().handle()

    def log_message(self, *_: object) -> None:
        """Keep the test output clean; the record of requests is the log."""

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        asked = Call(self.command, self.path, headers, body)
        index, fault = self.answering.begin(asked)
        reply = self.answering.answer(asked) if fault is None or fault.when == "after" else None
        if fault and fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.close_connection = True
        elif fault and fault.kind == "stall":
            self.connection.recv(1)  # until the client or the server gives up
            self.close_connection = True
        elif fault and fault.reply:
            ordered = {n: v for n, v in fault.reply.headers.items() if n not in ("Content-Type", "Content-Length")}
            kind, content = fault.reply.headers["Content-Type"], cast(bytes, fault.reply.body)
            self._send(Reply(fault.reply.status, kind, content, ordered), index)
        else:
            self._send(cast(Reply, reply), index, half=fault is not None)

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  the names that http.server calls

    def _send(self, reply: Reply, index: int, *, half: bool = False) -> None:
        body = reply.body[: len(reply.body) // 2] if half else reply.body
        # Recorded before it is sent: a client that has its reply finds its request in the log.
        self.answering.record.update(index, status=reply.status, sent=len(body))
        self.send_response_only(reply.status)
        for name, value in {
            "Content-Type": reply.kind,
            "Content-Length": str(len(reply.body)),
            **reply.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = self.close_connection or half
