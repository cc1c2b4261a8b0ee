"""The HTTP side of a loopback Unity Catalog: a threading server that keeps its port over a restart, broken answers."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Protocol, cast

from catalogger.testing.loopback import Loopback, Quiet
from catalogger.testing.orders import Fault, Record

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
        self._listener: Loopback | None = self._listening(0)
        self.port, self.url = self._listener.port, self._listener.url
        self.stopped = threading.Event()

    def start(self) -> None:
        self._listener = self._listener or self._listening(self.port)
        self.stopped.clear()
        self._listener.start()

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener:
            listener.stop(self.stopped.set)

    def _listening(self, port: int) -> Loopback:
        return Loopback(partial(_Handler, self._answering), port)


class _Handler(Quiet, BaseHTTPRequestHandler):
    wbufsize = -1  # head and small body leave in one write

    def __init__(self, answering: Answering, *args: object) -> None:
        self.answering = answering
        super().__init__(*args)  # type: ignore[arg-type]  # socketserver's three positional arguments

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
