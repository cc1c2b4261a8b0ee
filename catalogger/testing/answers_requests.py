"""What a query asks for, read from the document that was sent; what is not right is refused before a model is asked.

Fields and their bounds are those of the Foundation Model API's reference (chat, completion and embedding requests).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalogger.testing.generation import Sampling

CHAT, COMPLETIONS, EMBEDDINGS = "llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"
_TOKENS = 256  # where a request sets no limit; a real endpoint goes to the end of the model's window
_ROLES = ("system", "user", "assistant", "tool")
_SHARED = {
    *("max_tokens", "temperature", "top_p", "top_k", "stop", "n", "stream", "stream_options", "seed", "model", "user"),
    *("usage_context", "client_request_id"),
}
_FIELDS = {
    CHAT: {*_SHARED, "messages", "logprobs", "top_logprobs"},
    COMPLETIONS: {*_SHARED, "prompt", "echo"},
    EMBEDDINGS: {"input", "instruction", "model", "user", "encoding_format", "usage_context", "client_request_id"},
}


class WrongRequestError(ValueError):
    """The request is not one of its task."""


@dataclass(frozen=True)
class Generation:
    """What a chat or completion request asks for.

    `prompts` are the orders of the prompts, `{"messages": [...]}` or `{"text": ...}`; each is answered `n` times.
    `top_logprobs` is None where no log probabilities are asked for.
    """

    prompts: tuple[Mapping[str, Any], ...]
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    n: int
    stream: bool
    top_logprobs: int | None
    echo: bool


def texts_of(document: Mapping[str, Any]) -> list[str]:
    """The texts to embed, each behind the instruction where there is one.  Raises WrongRequestError."""
    _require_known(EMBEDDINGS, document)
    texts = _texts(document, "input")
    instruction = document.get("instruction")
    if instruction is None:
        return texts
    if not isinstance(instruction, str):
        raise WrongRequestError("instruction is no text")
    return [f"{instruction.rstrip()} {text}" for text in texts]


def generation_of(task: str, document: Mapping[str, Any], seed: int) -> Generation:
    """What is asked for; `seed` holds where the request names none.  Raises WrongRequestError."""
    _require_known(task, document)
    temperature = _number(document, "temperature", 0.0, 2.0, 0.0)
    top_p = _number(document, "top_p", 0.0, 1.0, 1.0)
    if top_p == 0:
        raise WrongRequestError("top_p is 0, and is to be above")
    top_k = _whole(document, "top_k", 1, None, None)
    own_seed = _whole(document, "seed", 0, None, seed)
    return Generation(
        prompts=_prompts(task, document),
        max_tokens=_whole(document, "max_tokens", 1, None, _TOKENS) or _TOKENS,
        sampling=Sampling(temperature, top_p, top_k, own_seed or 0),
        stop=_stops(document),
        n=_whole(document, "n", 1, 5, 1) or 1,
        stream=_flag(document, "stream"),
        top_logprobs=_top_logprobs(document),
        echo=_flag(document, "echo"),
    )


def _require_known(task: str, document: Mapping[str, Any]) -> None:
    unknown = sorted(key for key, value in document.items() if key not in _FIELDS[task] and value not in (None, [], ""))
    if unknown:
        raise WrongRequestError(f"{', '.join(unknown)}: not among what {task} is answered with here")


def _prompts(task: str, document: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    if task == CHAT:
        return ({"messages": _messages(document.get("messages"))},)
    return tuple({"text": text} for text in _texts(document, "prompt"))


def _messages(messages: Any) -> list[Mapping[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise WrongRequestError("messages is to be a list with at least one message")
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise WrongRequestError(f"messages[{position}].role is to be one of {', '.join(_ROLES)}")
        if message["role"] == "system" and position:
            raise WrongRequestError("a system message comes once, and first")
        if not isinstance(message.get("content"), str):
            raise WrongRequestError(f"messages[{position}].content is no text")
    return messages


def _texts(document: Mapping[str, Any], key: str) -> list[str]:
    said = document.get(key)
    texts = [said] if isinstance(said, str) else said
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise WrongRequestError(f"{key} is to be a text or a list of texts")
    return texts


def _stops(document: Mapping[str, Any]) -> tuple[str, ...]:
    stops = tuple(_texts(document, "stop")) if document.get("stop") else ()
    if "" in stops:
        raise WrongRequestError("stop has an empty text")
    return stops


def _top_logprobs(document: Mapping[str, Any]) -> int | None:
    count = _whole(document, "top_logprobs", 0, 20, None)
    if _flag(document, "logprobs"):
        return count or 0
    if count is not None:
        raise WrongRequestError("top_logprobs needs logprobs: true")
    return None


def _flag(document: Mapping[str, Any], key: str) -> bool:
    said = document.get(key, False)
    if said is None or isinstance(said, bool):
        return bool(said)
    raise WrongRequestError(f"{key} is to be true or false")


def _number(document: Mapping[str, Any], key: str, low: float, high: float, default: float) -> float:
    said = document.get(key)
    if said is None:
        return default
    if isinstance(said, bool) or not isinstance(said, int | float) or not low <= said <= high:
        raise WrongRequestError(f"{key} is to be a number from {low:g} to {high:g}")
    return float(said)


def _whole(document: Mapping[str, Any], key: str, low: int, high: int | None, default: int | None) -> int | None:
    said = document.get(key)
    if said is None:
        return default
    if isinstance(said, bool) or not isinstance(said, int) or said < low or (high is not None and said > high):
        raise WrongRequestError(f"{key} is to be a whole number from {low}{f' to {high}' if high else ''}")
    return said
