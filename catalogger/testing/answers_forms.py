"""The forms of answers: OpenAI's, as the Foundation Model API gives them."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass
class Choice:
    """One text while it comes: the events of a model's process, put together."""

    index: int
    text: str = ""
    finish_reason: str | None = None
    tokens: list[Mapping[str, Any]] = field(default_factory=list)

    def take(self, event: Mapping[str, Any]) -> None:
        self.text += event["text"]
        self.finish_reason = event.get("finish_reason")
        if "token" in event:
            self.tokens.append(event["token"])


class Form:
    """The documents that answer one chat or completion request; `model` is the name that they carry."""

    def __init__(self, model: str, *, chat: bool, logprobs: bool) -> None:
        self.chat, self._logprobs = chat, logprobs
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4()}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[Choice], usage: Mapping[str, int]) -> dict[str, Any]:
        said = [self._choice(choice, "message") for choice in choices]
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head, "object": kind, "choices": said, "usage": usage}

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of a choice, which names the role."""
        return self._chunk(self._choice(Choice(index), "delta"))

    def part(self, choice: Choice, usage: Mapping[str, int] | None = None) -> dict[str, Any]:
        """A chunk with what one event brought."""
        said = self._choice(choice, "delta")
        if self.chat:
            del said["delta"]["role"]
        return self._chunk(said, usage)

    def _chunk(self, choice: Mapping[str, Any], usage: Mapping[str, int] | None = None) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        chunk = {**self._head, "object": kind, "choices": [choice]}
        return chunk if usage is None else {**chunk, "usage": usage}

    def _choice(self, choice: Choice, key: str) -> dict[str, Any]:
        said: dict[str, Any] = {"index": choice.index, "finish_reason": choice.finish_reason}
        if not self.chat:
            return said | {"text": choice.text, "logprobs": None}
        logprobs = {"content": choice.tokens} if self._logprobs else None
        return said | {key: {"role": "assistant", "content": choice.text}, "logprobs": logprobs}


class Count:
    """The tokens of all choices.  A prompt counts once, however often it is answered."""

    def __init__(self) -> None:
        self.prompt = self.completion = 0

    def document(self) -> dict[str, int]:
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


def embeddings(model: str, vectors: Iterable[Sequence[float]], prompt_tokens: int) -> dict[str, Any]:
    """The answer to an embedding request."""
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def normalised(vector: Sequence[float]) -> list[float]:
    """The vector at length 1."""
    length = math.hypot(*vector)
    return [number / length for number in vector]


def server_sent(chunks: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """The chunks as server-sent events, with OpenAI's end behind them."""
    for chunk in chunks:
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
    yield DONE
