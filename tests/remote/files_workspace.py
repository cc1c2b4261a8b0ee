"""A server of the Files API that stumbles as it is told, and files to send to it."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from fakes.secrets import secret

from catalogger.errors import DiskError
from catalogger.remote.files_api import FilesStorage
from catalogger.remote.parts import PART
from catalogger.remote.rest import TIMEOUT, Rest
from catalogger.remote.storage import Sending
from catalogger.testing.files_api import PRESIGNED, FilesApi

TOKEN = secret("a user of the workspace", "databricks")
LOCATION = "/Models/main/ml/tiny model/1"
MIB = 1 << 20
LARGE = 4 * PART + 17  # five parts, the last one short


@dataclass
class Order:
    """What happens to the next `times` requests that match; `lost`: it is done, and the answer does not arrive."""

    pattern: str
    kind: Literal["answer", "reset", "stall", "lost"] = "answer"
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Workspace(ThreadingHTTPServer):
    """Nothing but the Files API, for one token; started by `with`."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.storage = self.url  # where presigned addresses are
        self.api = FilesApi(root, lambda: self.storage)
        self.requests: list[str] = []
        self.orders: list[Order] = []
        self.on_request: Callable[[str], None] = lambda _: None
        self._open: set[socket.socket] = set()
        self._ended = threading.Event()
        self._loop = threading.Thread(target=partial(self.serve_forever, 0.02))

    def __enter__(self) -> Workspace:
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._loop.join()
        self._ended.set()
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._open.discard(request)

    def order(self, pattern: str, **what: Any) -> None:
        self.orders.append(Order(pattern, **what))

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def take(self, request: str) -> Order | None:
        for order in self.orders:
            if order.times > 0 and re.search(order.pattern, request):
                order.times -= 1
                return order
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 18

    def do_GET(self) -> None:
        workspace, url = cast(Workspace, self.server), urlsplit(self.path)
        length = int(self.headers.get("Content-Length", "0"))
        request = f"{self.command} {self.path}"
        workspace.requests.append(request)
        workspace.on_request(request)
        order = workspace.take(request)
        if order and order.kind == "stall":
            workspace._ended.wait()
        if order and order.kind in ("stall", "reset"):
            return self._break()
        if order and order.kind == "answer":
            self._drain(length)
            return self._send(order.status, {"Content-Length": str(len(order.body)), **order.headers}, [order.body])
        if url.path.startswith("/.well-known/"):
            return self._send(404, {"Content-Length": "0"}, [])
        if not url.path.startswith(PRESIGNED) and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._drain(length)
            body = (
                b'{"error_code":"UNAUTHENTICATED","message":"Credential was not sent or was of an unsupported type."}'
            )
            return self._send(401, {"Content-Length": str(len(body)), "Content-Type": "application/json"}, [body])
        query, headers = parse_qs(url.query), dict(self.headers.items())
        reply = workspace.api.handle(self.command, url.path, query, headers, self.rfile, length)  # type: ignore[arg-type]
        if order:
            return self._break()
        return (
            self._send(reply.status, reply.headers, reply.blocks())
            if reply
            else self._send(404, {"Content-Length": "0"}, [])
        )

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _send(self, status: int, headers: Any, blocks: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for block in blocks if self.command != "HEAD" else ():
            self.wfile.write(block)

    def _drain(self, length: int) -> None:
        while length and (block := self.rfile.read(min(length, MIB))):
            length -= len(block)

    def _break(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Files:
    """Makes files to send."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ticks: list[int] = []

    def make(self, path: str, content: bytes | int, *, known: bool = False) -> Sending:
        data = os.urandom(content) if isinstance(content, int) else content
        source = self.folder / f"source-{path.replace('/', '-')}"
        source.write_bytes(data)
        return Sending(path, source, len(data), hashlib.sha256(data).hexdigest() if known else None)

    def tick(self, count: int) -> None:
        self.ticks.append(count)


def storage(workspace: Workspace, token: str = TOKEN, timeout: tuple[float, float] = TIMEOUT) -> FilesStorage:
    return FilesStorage(LOCATION, Rest(workspace.url, lambda: {"Authorization": f"Bearer {token}"}, timeout))


def there(workspace: Workspace, path: str) -> Path:
    return workspace.api.root / LOCATION[1:] / path


def arrived(workspace: Workspace, *sent: Sending) -> bool:
    return all(there(workspace, file.path).read_bytes() == file.source.read_bytes() for file in sent)


def assert_sent_once(workspace: Workspace, files: Files, file: Sending, send: FilesStorage) -> None:
    """Whatever happens on the way: the file arrives whole, and is hashed and counted once."""
    sent = send.send([file], files.tick)
    assert arrived(workspace, file)
    assert sum(files.ticks) == file.size
    assert sent.digests == {file.path: hashlib.sha256(file.source.read_bytes()).hexdigest()}
    assert workspace.api.unfinished == ()


def assert_a_cut_is_noticed(workspace: Workspace, files: Files, sending: str) -> None:
    """A file that becomes shorter with the first request of these is the disk's fault, and nothing of it stays."""
    file = files.make("large", LARGE)

    def cut(request: str) -> None:
        if request.startswith(sending):
            os.truncate(file.source, PART + MIB)

    workspace.on_request = cut
    with pytest.raises(DiskError, match=r"bytes now|changed"):
        storage(workspace).send([file], files.tick)
    assert not there(workspace, "large").exists()
    assert workspace.api.unfinished == ()


def error_body(code: str, message: str) -> bytes:
    return f'{{"error_code":"{code}","message":"{message}"}}'.encode()


def assert_no_secret(error: BaseException) -> None:
    for text in (str(error), repr(error)):
        assert not re.search("(?i)signature=|deadbeef|dapi[0-9a-f]{8}|expires=", text)
