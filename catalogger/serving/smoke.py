"""One query to an endpoint that is ready, and a look at the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from catalogger.errors import CataloggerError, DeploymentFailed, Refused, RegistryError
from catalogger.remote.rest import Rest
from catalogger.serving.replies import answer_of, embeddings_of

_TEXT = "What is Unity Catalog?"
_QUERIES: Mapping[str, Mapping[str, Any]] = {
    "llm/v1/chat": {"messages": [{"role": "user", "content": _TEXT}], "max_tokens": 16},
    "llm/v1/completions": {"prompt": _TEXT, "max_tokens": 16},
    "llm/v1/embeddings": {"input": _TEXT},
}


@dataclass(frozen=True)
class Smoke:
    """What an endpoint answered to one query.  Of embeddings, `norm` is the vector's length and `dimension` how many
    numbers it has; of texts, `logprobs` counts the tokens whose log probability was given.
    """

    task: str
    text: str | None = None
    finish_reason: str | None = None
    logprobs: int = 0
    dimension: int | None = None
    norm: float | None = None

    @property
    def normalised(self) -> bool | None:
        return None if self.norm is None else math.isclose(self.norm, 1, abs_tol=1e-2)

    def document(self) -> dict[str, Any]:
        """The answer as JSON data."""
        if self.dimension is not None:
            return {"task": self.task, "dimension": self.dimension, "norm": self.norm, "normalised": self.normalised}
        return {"task": self.task, "text": self.text, "finish_reason": self.finish_reason, "logprobs": self.logprobs}

    def __str__(self) -> str:
        if self.dimension is not None:
            return f"{self.dimension} finite numbers, {'' if self.normalised else 'not '}normalised"
        told = f", log probabilities of {self.logprobs} tokens" if self.logprobs else ""
        return f'"{self.text}" ({self.finish_reason}{told})'


def prove(
    rest: Rest, name: str, task: str | None, *, logprobs: bool = False, dimension: int | None = None
) -> Smoke | None:
    """Ask the endpoint something of its task; None where it names no task that is known here.

    logprobs: its answer has to have log probabilities.  dimension: and a vector so many numbers, where that is known.

    Raises DeploymentFailed where the answer is none.
    """
    if task is None or task not in _QUERIES:
        return None
    embeds = task == "llm/v1/embeddings"
    query = dict(_QUERIES[task]) | ({"logprobs": True} if logprobs else {})
    try:
        if embeds and logprobs:
            raise RegistryError("it serves embeddings, which have no log probabilities.")
        document = rest.call("POST", f"/serving-endpoints/{quote(name, safe='')}/invocations", query)
        return _embedding(task, document, dimension) if embeds else _text(task, document, logprobs=logprobs)
    except (Refused, RegistryError) as error:
        raise _wrong(name, error) from error


def _text(task: str, document: Mapping[str, Any], *, logprobs: bool) -> Smoke:
    answer = answer_of(document)
    if not answer.choices or answer.finish_reason not in ("stop", "length"):
        raise RegistryError(f'it finished by "{answer.finish_reason}" with {len(answer.choices)} texts.')
    if logprobs and not (answer.logprobs and all(math.isfinite(token.logprob) for token in answer.logprobs)):
        raise RegistryError("it gives no log probabilities.")
    return Smoke(task, answer.text, answer.finish_reason, len(answer.logprobs))


def _embedding(task: str, document: Mapping[str, Any], expected: int | None) -> Smoke:
    (vector,) = embeddings_of(document, 1).vectors
    if not vector or not all(map(math.isfinite, vector)) or not any(vector):
        raise RegistryError(f"its vector of {len(vector)} numbers is none.")
    if expected not in (None, len(vector)):
        raise RegistryError(f"its vector has {len(vector)} numbers, and the model's have {expected}.")
    return Smoke(task, dimension=len(vector), norm=math.hypot(*vector))


def _wrong(name: str, error: CataloggerError) -> DeploymentFailed:
    return DeploymentFailed(
        f'The endpoint "{name}" is ready, and does not answer as it should: {error.message}',
        "The endpoint's page has its logs; `log-model check --prove` looks at the model here.",
    )
