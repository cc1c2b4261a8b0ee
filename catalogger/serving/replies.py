"""What an endpoint answered, as small immutable values, and how its documents are read into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from catalogger.errors import RegistryError


@dataclass(frozen=True)
class Usage:
    """Tokens as the endpoint counts them; embeddings have no completion."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
        )


@dataclass(frozen=True)
class TokenLogprob:
    """A token's natural log probability.  `content` are its bytes, where the endpoint gives them: a token may be a part
    of a character.  `top` holds the likeliest tokens at its place.
    """

    token: str
    logprob: float
    content: bytes | None = None
    top: tuple[TokenLogprob, ...] = ()

    def document(self) -> dict[str, Any]:
        own = {"token": self.token, "logprob": self.logprob, "bytes": list(self.content) if self.content else None}
        return own | ({"top_logprobs": [other.document() for other in self.top]} if self.top else {})


@dataclass(frozen=True)
class Choice:
    """One text.  `finish_reason` is "stop" or "length", as the endpoint says it; None where the text broke off."""

    text: str
    index: int = 0
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()

    def document(self) -> dict[str, Any]:
        own = {"index": self.index, "text": self.text, "finish_reason": self.finish_reason}
        return own | ({"logprobs": [token.document() for token in self.logprobs]} if self.logprobs else {})


@dataclass(frozen=True)
class Answer:
    """The texts that answer a chat or a completion; `raw` is the endpoint's own document, where there is one."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The first text."""
        return self.choices[0].text if self.choices else ""

    @property
    def texts(self) -> list[str]:
        """All texts: with `n` of a prompt, those of each prompt follow each other."""
        return [choice.text for choice in self.choices]

    @property
    def finish_reason(self) -> str | None:
        return self.choices[0].finish_reason if self.choices else None

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """Of the first text; empty where none were asked for."""
        return self.choices[0].logprobs if self.choices else ()

    def document(self) -> dict[str, Any]:
        """The answer as JSON data."""
        usage = asdict(self.usage) if self.usage else None
        return {"choices": [choice.document() for choice in self.choices], "usage": usage}


@dataclass(frozen=True)
class Embeddings:
    """One vector for each text, in the order of the texts."""

    vectors: list[list[float]] = field(repr=False)
    usage: Usage

    @property
    def dimension(self) -> int:
        return len(self.vectors[0])

    def document(self) -> dict[str, Any]:
        """The vectors as JSON data."""
        counted = {"prompt_tokens": self.usage.prompt_tokens, "total_tokens": self.usage.total_tokens}
        return {"embeddings": self.vectors, "dimension": self.dimension, "usage": counted}


def answer_of(document: Mapping[str, Any]) -> Answer:
    """The answer that a whole document is.  Raises RegistryError where it has another form."""
    try:
        choices = tuple(choice_of(choice) for choice in document["choices"])
        return Answer(choices, usage_of(document), document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise another_form("choices", error) from error


def embeddings_of(document: Mapping[str, Any], count: int) -> Embeddings:
    """The vectors of so many texts.  Raises RegistryError where it has another form, or another number of vectors."""
    try:
        rows = sorted(document["data"], key=lambda row: int(row["index"]))
        vectors = [[float(number) for number in row["embedding"]] for row in rows]
        usage = usage_of(document) or Usage()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise another_form("embeddings", error) from error
    if len(vectors) != count or len({len(vector) for vector in vectors}) > 1:
        raise RegistryError(
            f"The endpoint answered {count} texts with {len(vectors)} vectors, or with vectors of several lengths.",
            "Ask again; with --debug, where it happened is shown.",
        )
    return Embeddings(vectors, usage)


def choice_of(said: Mapping[str, Any]) -> Choice:
    """A choice of a whole answer or of a chunk of a stream, of a chat or a completion."""
    message = said.get("message") or said.get("delta") or said
    text = message.get("content") if message is not said else said.get("text")
    logprobs = (said.get("logprobs") or {}).get("content") or ()
    return Choice(_text(text), int(said.get("index", 0)), said.get("finish_reason"), _tokens(logprobs))


def usage_of(document: Mapping[str, Any]) -> Usage | None:
    """The counts, where the document has some."""
    if not (said := document.get("usage")):
        return None
    return Usage(*(int(said.get(key) or 0) for key in ("prompt_tokens", "completion_tokens", "total_tokens")))


def another_form(what: str, error: Exception) -> RegistryError:
    """The error for an answer that is not read here."""
    text = f"The endpoint's answer holds no {what} as are known here ({type(error).__name__}: {error})."
    return RegistryError(text, "Does the endpoint serve an llm/v1 task?")


def _text(content: Any) -> str:
    """Plain text, or the text of the parts that some models answer with."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    # Half of a surrogate pair is no character, and cannot be printed.
    return "" if content is None else str(content).encode(errors="replace").decode()


def _tokens(said: Sequence[Mapping[str, Any]]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            str(token["token"]),
            float(token["logprob"]),
            bytes(token["bytes"]) if token.get("bytes") is not None else None,
            _tokens(token.get("top_logprobs") or ()),
        )
        for token in said
    )
