"""One serving endpoint on loopback whose answers to queries are scripted, byte by byte."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fakes.secrets import secret
from remote.answering import Answer, Answering, said

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

NAME = "bot"
TOKEN = secret("a user of the workspace", "databricks")
READY = {"ready": "READY", "config_update": "NOT_UPDATING"}
PROVISIONED = {"served_entities": [{"entity_name": "main.ml.bot", "max_provisioned_throughput": 980}]}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNKED = STREAM.replace(b"Connection: close", b"Connection: close\r\nTransfer-Encoding: chunked")


class Scripted(Answering):
    """Answers queries in turn, the last answer for ever; `status` and `document` are what it says of the endpoint."""

    def __init__(self, *answers: Answer, status: int = 200, **document: Any) -> None:
        super().__init__(self._route)
        self._queries = list(answers)
        self._status = status
        self._document = {"name": NAME, "task": "llm/v1/chat", "state": READY, "config": PROVISIONED, **document}

    @property
    def queries(self) -> list[dict[str, Any]]:
        """The documents that were sent to the endpoint."""
        return [json.loads(asked.body) for asked in self.asked if asked.path.endswith("/invocations")]

    @property
    def workspace(self) -> WorkspaceClient:
        from databricks.sdk import WorkspaceClient

        return WorkspaceClient(host=self.url, token=TOKEN)

    def _route(self, connection: socket.socket) -> None:
        path = self.asked[-1].path
        if path == f"/api/2.0/serving-endpoints/{NAME}":
            given: Answer = said(self._status, self._document)
        elif path == f"/serving-endpoints/{NAME}/invocations" and self._queries:
            given = self._queries.pop(0) if len(self._queries) > 1 else self._queries[0]
        else:
            given = said(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "There is none."})
        if isinstance(given, bytes):
            connection.sendall(given)
        else:
            given(connection)


@contextmanager
def serving(*answers: Answer, **options: Any) -> Iterator[Scripted]:
    """The server, while the block runs."""
    with Scripted(*answers, **options) as server:
        assert isinstance(server, Scripted)
        yield server


def chat(text: str = "Hello.", **choice: Any) -> dict[str, Any]:
    """A whole chat completion of one choice."""
    message = {"role": "assistant", "content": text}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def vectors(*rows: list[float], tokens: int = 4) -> dict[str, Any]:
    """An answer to an embedding request."""
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    return {"object": "list", "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def chunk(text: str = "", finish_reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """A chunk of a streamed chat completion."""
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish_reason}
    return {"object": "chat.completion.chunk", "choices": [choice], **more}


def events(*chunks: Mapping[str, Any], end: str = "data: [DONE]\n\n") -> bytes:
    """Server-sent events as an endpoint writes them."""
    return "".join(f"data: {json.dumps(c, ensure_ascii=False)}\n\n" for c in chunks).encode() + end.encode()


def in_chunks(blocks: Iterable[bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    """An answer in HTTP chunks; without the `end` it breaks off."""
    return CHUNKED + b"".join(f"{len(block):x}\r\n".encode() + block + b"\r\n" for block in blocks) + end
