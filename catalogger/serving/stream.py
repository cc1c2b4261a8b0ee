"""An answer that comes piece by piece."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Self

from catalogger.errors import NetworkUnreachable, RegistryError, StreamBroken
from catalogger.serving.replies import Answer, Choice, TokenLogprob, Usage, another_form, choice_of, usage_of

_DONE = "[DONE]"


@dataclass(frozen=True)
class Piece:
    """Some more text of the choice `index`, with its tokens where log probabilities were asked for."""

    text: str
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class Stream(Iterator[Piece]):
    """The pieces of an answer, as they come.

        for piece in endpoint.chat("Tell me a story.", stream=True):
            print(piece.text, end="", flush=True)

    Raises StreamBroken where the connection is lost before the end: `answer` still holds what has come.  Who reads no
    further calls `close`.
    """

    def __init__(self, data: Generator[str]) -> None:
        self._choices: dict[int, Choice] = {}
        self._usage: Usage | None = None
        self._pieces = self._read(data)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def answer(self) -> Answer:
        """All that has come so far, put together; the whole answer once the pieces have ended."""
        return Answer(tuple(self._choices[index] for index in sorted(self._choices)), self._usage)

    def whole(self) -> Answer:
        """Wait for the end, then give the answer."""
        for _ in self:
            """What comes is kept."""
        return self.answer

    def close(self) -> None:
        """Hang up."""
        self._pieces.close()

    def _read(self, data: Generator[str]) -> Generator[Piece]:
        try:
            with closing(data):
                for said in data:
                    if said == _DONE:
                        return
                    yield from self._pieces_of(said)
        except NetworkUnreachable as error:
            raise StreamBroken(self.answer.text, error.message) from error
        if not self._choices or any(choice.finish_reason is None for choice in self._choices.values()):
            raise StreamBroken(self.answer.text, "The endpoint ended its answer before the end.")

    def _pieces_of(self, said: str) -> Iterator[Piece]:
        try:
            chunk = json.loads(said)
            _raise_said(chunk)
            self._usage = usage_of(chunk) or self._usage
            came = [choice_of(choice) for choice in chunk.get("choices") or ()]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise another_form("chunks", error) from error
        for choice in came:
            before = self._choices.get(choice.index, Choice("", choice.index))
            self._choices[choice.index] = replace(
                before,
                text=before.text + choice.text,
                finish_reason=choice.finish_reason or before.finish_reason,
                logprobs=before.logprobs + choice.logprobs,
            )
            if choice.text or choice.logprobs:
                yield Piece(choice.text, choice.index, choice.logprobs)


def _raise_said(chunk: Mapping[str, Any]) -> None:
    """Raises RegistryError where the endpoint tells of a failure in place of going on."""
    error = chunk.get("error") or (chunk if "error_code" in chunk else None)
    if error:
        said = error.get("message") if isinstance(error, dict) else error
        raise RegistryError(f"The endpoint broke off its answer and says: {said}", "Ask again.")
