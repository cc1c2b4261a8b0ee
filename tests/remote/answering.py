"""A server on loopback that gives scripted answers, byte by byte: broken ones too.  It knows nothing of who asks."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TLS_GREETING = b"\x16\x03"
Answer = bytes | Callable[[socket.socket], object]


@dataclass(frozen=True)
class Asked:
    """One request as it came; names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def reset(connection: socket.socket) -> None:
    """Break the connection off without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def stall(connection: socket.socket) -> None:
    """Say nothing until the other side goes."""
    connection.recv(1)


def stall_after(start: bytes) -> Answer:
    """Begin an answer, and say nothing more until the other side goes."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        connection.recv(1)

    return answer


def answer(status: int, body: bytes | str = b"", reason: str = "Words", **headers: str) -> bytes:
    """A whole answer; a header's `_` stands for `-`."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": str(len(content)), "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {reason}\r\n{head}\r\n".encode() + content


def said(status: int, document: Any, **headers: str) -> bytes:
    """An answer in JSON."""
    return answer(status, json.dumps(document), Content_Type="application/json", **headers)


class Answering:
    """The server, started by `with`: answers in turn, the last one for ever.  `asked` holds every request."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self._answers = list(answers)
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: socket.socket | None = None
        self._ended = False
        self.address = self._listening.getsockname()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.address[1]}"
        self._loop = threading.Thread(target=self._serve, name=self.url)

    def __enter__(self) -> Answering:
        self._loop.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        if self._open:
            with suppress(OSError):
                self._open.shutdown(socket.SHUT_RDWR)
        with suppress(OSError), socket.create_connection(self.address):
            """Wakes the one that waits for a connection."""
        self._loop.join()
        self._listening.close()

    def give(self, *answers: Answer) -> None:
        """Other answers from now on."""
        self._answers = list(answers)

    def _serve(self) -> None:
        while not self._ended:
            self._open, _ = self._listening.accept()
            with suppress(OSError), self._open:
                self._one(self._tls.wrap_socket(self._open, server_side=True) if self._tls else self._open)

    def _one(self, connection: socket.socket) -> None:
        with connection:
            if not (asked := _read(connection)):
                return
            self.asked.append(asked)
            given = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if isinstance(given, bytes):
                connection.sendall(given)
            else:
                given(connection)


def _read(connection: socket.socket) -> Asked | None:
    received = b""
    while b"\r\n\r\n" not in received:
        if not (more := connection.recv(65536)):
            return None
        received += more
        if received.startswith(TLS_GREETING):
            return Asked("", "", {}, received)
    head, _, body = received.partition(b"\r\n\r\n")
    (method, path, _), *lines = (line.split(" ", 2) for line in head.decode("latin-1").split("\r\n"))
    headers = {name.rstrip(":").lower(): " ".join(rest) for name, *rest in lines}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    return Asked(method, path, headers, body)


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS, by a certificate for 127.0.0.1 that has signed itself, and the certificate's file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public
