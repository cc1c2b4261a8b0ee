"""The servers of a simulated endpoint and the queue before them: every answer, at its moment.

Every deadline is computed from the moment when a request was taken up, so that lateness never adds up.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from catalogger.testing.answers_forms import DONE, Choice, Count, Form, embeddings
from catalogger.testing.law import Faults, Law, Told

_EMBEDDINGS, _CHAT = "llm/v1/embeddings", "llm/v1/chat"
_OUTPUTS = 256  # tokens of an answer where a request sets no limit
_VECTOR = [0.6, 0.8]
_WORD = " token"
_LAST = b"0\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """A query: tokens in and out, and whether the answer is to come token by token."""

    inputs: int
    outputs: int
    stream: bool


class Line:
    """The servers and the queue before them.  All its times are those of the event loop."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self._chance = law.factors()
        self._free = law.servers
        self._waiting: deque[Service] = deque()

    def take(self, service: Service, now: float) -> bool:
        """Begin, or wait; False where the queue is full."""
        if self._free:
            self._free -= 1
            service.begin(now, self._law.factor(self._chance))
        elif self._law.queue is not None and len(self._waiting) >= self._law.queue:
            return False
        else:
            self._waiting.append(service)
        return True

    def leave(self, service: Service, at: float) -> None:
        """It has ended, or whoever asked has gone; the next one begins at the moment at which this one had to end."""
        if service.ended:
            return
        service.ended = True
        if service.began is None:
            self._waiting.remove(service)
        elif self._waiting:
            self._waiting.popleft().begin(at, self._law.factor(self._chance))
        else:
            self._free += 1


class Service:
    """One request while it waits and is served."""

    def __init__(self, endpoint: Endpoint, asked: Asked, write: Callable[[bytes], None], number: int) -> None:
        self.began: float | None = None
        self.ended = False
        self._endpoint, self._asked, self._write, self._number = endpoint, asked, write, number
        self._factor, self._sent = 1.0, 0
        self._timer: asyncio.TimerHandle | None = None
        self._chunk = b""

    def begin(self, at: float, factor: float) -> None:
        self.began, self._factor = at, factor
        if self._asked.stream:
            self._chunk = _framed(self._endpoint.form.part(Choice(0, _WORD)))
            self._write(_STREAM_HEAD)
            self._next(1)
        else:
            self._next(self._asked.outputs)

    def gone(self) -> None:
        """Whoever asked has hung up."""
        if self._timer:
            self._timer.cancel()
        self._endpoint.line.leave(self, asyncio.get_running_loop().time())

    def _next(self, token: int) -> None:
        due = cast(float, self.began) + self._endpoint.law.service(self._asked.inputs, token, self._factor)
        self._timer = asyncio.get_running_loop().call_at(due, self._due, token, due)

    def _due(self, token: int, due: float) -> None:
        endpoint, last = self._endpoint, self._asked.outputs
        endpoint.late.append(asyncio.get_running_loop().time() - due)
        if self._asked.stream and endpoint.breaks(self._number) and token > last // 2:
            endpoint.line.leave(self, due)
            self._write(b"")
        elif token < last:
            self._write(self._chunk)
            self._next(token + 1)
        else:
            endpoint.line.leave(self, due)
            self._write(self._end() if self._asked.stream else as_json(endpoint.whole(self._asked)))
            endpoint.count(self._asked)

    def _end(self) -> bytes:
        """The last token, the usage, and OpenAI's end."""
        form = self._endpoint.form
        last = Choice(0, _WORD, "length")
        return _framed(form.part(last, usage(self._asked))) + _in_chunk(DONE) + _LAST


class Endpoint:
    """What all connections share."""

    def __init__(self, name: str, law: Law, faults: Faults) -> None:
        self.name, self.law, self.faults = name, law, faults
        self.line = Line(law)
        self.form = Form(name, chat=law.task == _CHAT, logprobs=False)
        self.late: list[float] = []
        self.vanish: Callable[[], None] = lambda: None
        self._tokens = _counter(law.tokenizer)
        self._asked = self._answered = self._refused = self._inputs = self._outputs = self._largest = 0

    def breaks(self, number: int) -> bool:
        return bool(self.faults.broken) and number % self.faults.broken == 0

    def query(self, document: Mapping[str, Any], write: Callable[[bytes], None]) -> Service | None:
        """Take the query up; None where it is refused."""
        if self.faults.forbidden:
            write(
                as_json({"error_code": "PERMISSION_DENIED", "message": "no CAN_QUERY on the endpoint"}, "403 Forbidden")
            )
            return None
        self._asked += 1
        if self.faults.failing and self._asked % self.faults.failing == 0:
            said = {"error_code": "INTERNAL_ERROR", "message": "an order of the test"}
            write(as_json(said, "500 Internal Server Error"))
            return None
        asked = self._read(document)
        service = Service(self, asked, write, self._asked)
        if not self.line.take(service, asyncio.get_running_loop().time()):
            self._refused += 1
            said = {"error_code": "RESOURCE_EXHAUSTED", "message": "Exceeded max number of parallel requests"}
            write(as_json(said, "429 Too Many Requests"))
            return None
        return service

    def count(self, asked: Asked) -> None:
        self._answered += 1
        self._inputs += asked.inputs
        self._outputs += asked.outputs
        self._largest = max(self._largest, asked.inputs)
        if self._answered == self.faults.vanishes_after:
            self.vanish()

    def whole(self, asked: Asked) -> dict[str, Any]:
        if self.law.task == _EMBEDDINGS:
            return embeddings(self.name, [_VECTOR], asked.inputs)
        return self.form.whole([Choice(0, _WORD * asked.outputs, "length")], usage(asked))

    def described(self) -> dict[str, Any]:
        least, most = self.law.provisioned
        served = {
            "name": f"{self.name}-1",
            "entity_name": f"main.ml.{self.name}",
            "entity_version": "1",
            "min_provisioned_throughput": least,
            "max_provisioned_throughput": most,
        }
        ready = "READY" if self.faults.ready else "NOT_READY"
        update = "NOT_UPDATING" if self.faults.ready else "IN_PROGRESS"
        return {
            "name": self.name,
            "task": self.law.task,
            "state": {"ready": ready, "config_update": update},
            "config": {"served_entities": [served]},
        }

    def told(self) -> Told:
        late = sorted(self.late) or [0.0]
        counted = (self._answered, self._refused, self._inputs, self._outputs)
        return Told(*counted, late[int(0.95 * (len(late) - 1))], late[-1], self._largest)

    def _read(self, document: Mapping[str, Any]) -> Asked:
        if self.law.task == _EMBEDDINGS:
            texts = document["input"]
            said = [texts] if isinstance(texts, str) else texts
            return Asked(sum(self._tokens(text) + self.law.added for text in said), 0, stream=False)
        if self.law.task == _CHAT:
            text = "\n".join(message["content"] for message in document["messages"])
        else:
            text = document["prompt"]
        outputs = document.get("max_tokens") or _OUTPUTS
        return Asked(self._tokens(text) + self.law.added, outputs, bool(document.get("stream")))


def usage(asked: Asked) -> dict[str, int]:
    """The counts of an answer."""
    count = Count()
    count.prompt, count.completion = asked.inputs, asked.outputs
    return count.document()


def _counter(tokenizer: str | None) -> Callable[[str], int]:
    if tokenizer is None:
        return lambda text: len(text.split())
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    loaded.no_truncation()
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


def as_json(document: Mapping[str, Any], status: str = "200 OK") -> bytes:
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _framed(chunk: Mapping[str, Any]) -> bytes:
    return _in_chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n")


def _in_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
