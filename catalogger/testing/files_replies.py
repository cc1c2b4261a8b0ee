"""What the Files API of a loopback workspace reads and answers: calls and replies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK = 1 << 18


@dataclass(frozen=True)
class Reply:
    """What goes back: small bytes, or the bytes `start` to `stop` of a file.

    `headers` are complete (Content-Length too, which for HEAD is the file's), to be sent as they are.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | Path
    start: int = 0
    stop: int = 0

    def blocks(self) -> Iterator[bytes]:
        """The body, a little at a time."""
        if isinstance(self.body, bytes):
            yield self.body
            return
        with self.body.open("rb") as file:
            file.seek(self.start)
            left = self.stop - self.start
            while left and (block := file.read(min(_BLOCK, left))):
                left -= len(block)
                yield block


@dataclass(frozen=True)
class Call:
    method: str
    path: str  # still percent-encoded
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: Body

    def asked(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[-1]


class Body:
    """The request's body, which is never read beyond its end."""

    def __init__(self, stream: BinaryIO, length: int) -> None:
        self._stream, self.left = stream, length

    def blocks(self) -> Iterator[bytes]:
        while self.left and (block := self._stream.read(min(_BLOCK, self.left))):
            self.left -= len(block)
            yield block

    def document(self) -> dict[str, Any]:
        content = b"".join(self.blocks())
        return dict(json.loads(content)) if content else {}


def xml_reply(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error as S3 writes it."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    length = {"Content-Type": "application/xml", "Content-Length": str(len(body))}
    return Reply(status, {**length, **(headers or {})}, body.encode())


def empty_reply(status: int, headers: Mapping[str, str] | None = None) -> Reply:
    length = {} if status == 204 else {"Content-Length": "0"}
    return Reply(status, {**length, **(headers or {})}, b"")
