"""The HTTP server that the loopback servers share: on a free port of 127.0.0.1, ended with all its connections."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from typing import Any, cast


class Loopback(ThreadingHTTPServer):
    """Serves between `start` and `stop`.  With a `goodbye` connections are shut down before they are closed; without
    one, closing may be a reset.
    """

    daemon_threads = False  # server_close() joins only threads that are not daemons
    request_queue_size = 128

    def __init__(self, handler: Callable[..., Any], port: int = 0, *, goodbye: bool = False) -> None:
        super().__init__(("127.0.0.1", port), cast(type[BaseHTTPRequestHandler], handler))
        self.port = int(self.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._goodbye = goodbye
        self._open: set[socket] = set()
        self._loop = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, name=self.url)

    def server_bind(self) -> None:
        # HTTPServer.server_bind asks a name server for the host's full name, which may take seconds.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        self.hold(cast(socket, request))
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket | tuple[bytes, socket]) -> None:
        if self._goodbye:
            super().shutdown_request(request)
        else:
            self.close_request(request)
        self._open.discard(cast(socket, request))

    def hold(self, connection: socket) -> None:
        """A socket to hang up in the end."""
        self._open.add(connection)

    def start(self) -> None:
        self._loop.start()

    def stop(self, hung_up: Callable[[], object] = lambda: None) -> None:
        """Hang up on everybody; `hung_up` is called before the handlers are waited for."""
        self.shutdown()
        self._loop.join()
        for connection in tuple(self._open):  # stalled and kept-alive ones would hold their threads for ever
            with suppress(OSError):
                connection.shutdown(SHUT_RDWR)
        hung_up()
        self.server_close()


class Quiet(BaseHTTPRequestHandler):
    """A handler that leaves the test output clean, and lets clients hang up as they like."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """The servers' records of requests are the log."""
