"""Queries of a loopback workspace's endpoints: who may ask, what is too much, and which served version answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from catalogger.testing.endpoints import CAN_QUERY, Endpoint
from catalogger.testing.refusal import RefusalError, document, missing
from catalogger.testing.servable import ServedVersion
from catalogger.testing.server import Call, Reply
from catalogger.testing.serving import Serving

PREFIX = "/serving-endpoints/"

_OPENAI = {
    "chat/completions": "llm/v1/chat",
    "completions": "llm/v1/completions",
    "embeddings": "llm/v1/embeddings",
}
_LARGEST = 4 << 20  # bytes, for foundation models
_MINUTE = 60.0
_NO_ANSWERS = "This loopback workspace was given no answers: Workspace(…, answers=ModelAnswers())."


class Answers(Protocol):
    """Who answers the queries: a status, headers, and blocks of bytes (server-sent events where a stream is asked)."""

    def answer(self, entity: ServedVersion, task: str, document: Mapping[str, Any], /) -> Reply: ...


@dataclass(frozen=True)
class Query:
    """A query that may be answered."""

    entity: ServedVersion
    task: str
    document: Mapping[str, Any]


class Invocations:
    """The way of a query to what answers it. What is too much for a minute is forgotten after it."""

    def __init__(self, serving: Serving, answers: Answers | None) -> None:
        self._serving, self._answers = serving, answers
        self._counted: dict[tuple[str, str], list[float]] = {}

    def answer(self, call: Call, user: str) -> Reply:
        """The answer, or the refusal, to a POST below `PREFIX`.  Answering does not hold the lock."""
        sent = _document(call)
        with self._serving.lock:
            self._serving.check_region()
            name, task = _asked(call, sent)
            endpoint = self._serving.find(user, name, CAN_QUERY)
            if task and task != endpoint.task:
                raise _bad(f"The endpoint '{name}' has the task {endpoint.task}, not {task}.")
            _check_awake(endpoint)
            if refused := self._over_limit(endpoint, user):
                return refused
            query = self._routed(endpoint, sent)
        if self._answers is None:
            raise RefusalError(501, "NOT_IMPLEMENTED", _NO_ANSWERS)
        return self._answers.answer(query.entity, query.task, query.document)

    def _routed(self, endpoint: Endpoint, sent: Mapping[str, Any]) -> Query:
        served = endpoint.route()
        if (entity := self._serving.servable.served(served.entity_name, served.entity_version)) is None:
            raise missing(f"Model version '{served.entity_version}' of '{served.entity_name}' does not exist.")
        return Query(entity, endpoint.task or "", sent)

    def _over_limit(self, endpoint: Endpoint, user: str) -> Reply | None:
        """The answer to who asks too often, by order or by the rate limits of the endpoint's AI gateway."""
        left, wait = endpoint.refused
        if left:
            endpoint.refused = (left - 1, wait)
            return _too_many(1, 2, wait)
        for limit in endpoint.gateway.get("rate_limits") or ():
            calls, now = limit.get("calls"), self._serving.clock()
            who = user if limit.get("key") == "user" else ""
            if calls is None or limit.get("principal", user) != user:
                continue
            times = self._counted.setdefault((endpoint.id, who), [])
            times[:] = [time for time in times if now - time < _MINUTE]
            if len(times) >= calls:
                return _too_many(calls, len(times), _MINUTE - (now - times[0]))
            times.append(now)
        return None


def _document(call: Call) -> Mapping[str, Any]:
    if call.body.length > _LARGEST:
        message = f"The request is {call.body.length} bytes; at most {_LARGEST} are accepted."
        raise RefusalError(413, "BAD_REQUEST", message)
    try:
        found = json.loads(call.body.whole())
    except ValueError as error:
        raise _bad(f"The request is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise _bad("The request must be a JSON object.")
    return found


def _asked(call: Call, sent: Mapping[str, Any]) -> tuple[str, str | None]:
    """The endpoint's name, and the task where the path tells it, as an OpenAI client's does."""
    below = call.path.removeprefix(PREFIX)
    if task := _OPENAI.get(below):
        return str(sent["model"]), task
    name, _, action = below.partition("/")
    if action != "invocations":
        raise missing(f"No API found for 'POST {call.path}'")
    return unquote(name), None


def _check_awake(endpoint: Endpoint) -> None:
    if endpoint.config is None:
        raise RefusalError(400, "INVALID_STATE", f"The endpoint '{endpoint.name}' is not ready.")
    if endpoint.asleep:
        endpoint.asleep -= 1
        raise _unavailable(f"The endpoint '{endpoint.name}' is scaling up from zero. Try again later.")
    if endpoint.recovering:
        raise _unavailable(f"The endpoint '{endpoint.name}' is recovering. Try again later.")


def _too_many(limit: int, current: int, wait: float) -> Reply:
    error = {
        "message": "Exceeded the rate limit of the endpoint. Try again later.",
        "type": "rate_limit_exceeded",
        "code": 429,
        "limit_type": "queries_per_minute",
        "limit": limit,
        "current": current,
        "retry_after": wait,
    }
    return document({"error": error}, 429)


def _bad(message: str) -> RefusalError:
    return RefusalError(400, "BAD_REQUEST", message)


def _unavailable(message: str) -> RefusalError:
    return RefusalError(503, "TEMPORARILY_UNAVAILABLE", message)
