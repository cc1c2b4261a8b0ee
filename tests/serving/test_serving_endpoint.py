"""Queries to an endpoint that answers, refuses, is late, or is another one than was meant."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from remote.answering import answer, reset, said, stall
from serving.scripted import NAME, READY, chat, serving, vectors

from catalogger import Endpoint
from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    DeploymentFailed,
    DeploymentPending,
    NetworkUnreachable,
    RegistryError,
    UsageError,
)
from catalogger.remote.patience import VARIABLE
from catalogger.serving import endpoint as endpoints
from catalogger.serving.replies import TokenLogprob, Usage

EMBEDDINGS, COMPLETIONS = {"task": "llm/v1/embeddings"}, {"task": "llm/v1/completions"}
LIMITED = {
    "error": {"message": "Too many.", "type": "rate_limit_exceeded", "code": 429, "limit": 3, "retry_after": 0.01}
}


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "20")


def test_a_chat_is_asked_and_answered() -> None:
    with serving(said(200, chat("It is a catalog."))) as server:
        endpoint = Endpoint(server.workspace, NAME)
        answered = endpoint.chat("What is it?", max_tokens=5, temperature=0, stop=None)
        again = endpoint.chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "So?"}])
    assert server.queries == [
        {"messages": [{"role": "user", "content": "What is it?"}], "max_tokens": 5, "temperature": 0},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "So?"}]},
    ]
    assert (answered.text, answered.finish_reason, answered.logprobs) == ("It is a catalog.", "stop", ())
    assert answered.usage == Usage(5, 2, 7)
    assert answered.raw["object"] == "chat.completion"
    assert again == answered
    descriptions = [asked for asked in server.asked if asked.path.startswith("/api/2.0/serving-endpoints")]
    assert len(descriptions) == 1, "what the endpoint is, is asked once"


def test_log_probabilities_are_asked_for_and_read() -> None:
    other = {"token": "No", "logprob": -2.5, "bytes": [78, 111]}
    token = {"token": "Yes", "logprob": -0.25, "bytes": None, "top_logprobs": [other]}
    with serving(said(200, chat("Yes", logprobs={"content": [token]}))) as server:
        answered = Endpoint(server.workspace, NAME).chat("?", top_logprobs=1)
    assert (server.queries[0]["logprobs"], server.queries[0]["top_logprobs"]) == (True, 1)
    assert answered.logprobs == (TokenLogprob("Yes", -0.25, None, (TokenLogprob("No", -2.5, b"No"),)),)
    assert json.loads(json.dumps(answered.document()))["choices"][0]["logprobs"][0]["top_logprobs"] == [other]


def test_completions_take_several_prompts_in_one_request() -> None:
    choices = [{"index": n, "text": text, "finish_reason": "length"} for n, text in enumerate(["a", "b"])]
    with serving(said(200, {"choices": choices}), **COMPLETIONS) as server:
        answered = Endpoint(server.workspace, NAME).complete(["A", "B"], max_tokens=1)
    assert server.queries == [{"prompt": ["A", "B"], "max_tokens": 1}]
    assert (answered.texts, answered.usage) == (["a", "b"], None)


def test_a_text_that_is_no_unicode_or_comes_in_parts_is_text() -> None:
    document = chat()
    document["choices"][0]["message"]["content"] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    with serving(answer(200, json.dumps(chat("half \ud83d"))), said(200, document)) as server:
        endpoint = Endpoint(server.workspace, NAME)
        assert endpoint.chat("?").text == "half ?"
        assert endpoint.chat("?").text == "ab"


def test_vectors_come_in_the_order_of_the_texts() -> None:
    shuffled = vectors([3.0, 4.0], [0.0, 0.0])
    shuffled["data"].reverse()
    with serving(said(200, shuffled), **EMBEDDINGS) as server:
        endpoint = Endpoint(server.workspace, NAME)
        plain, scaled = endpoint.embed(["a", "b"]), endpoint.embed(["a", "b"], normalize=True)
    assert (plain.vectors, plain.dimension, plain.usage) == ([[3.0, 4.0], [0.0, 0.0]], 2, Usage(4, 0, 4))
    assert scaled.vectors == [[0.6, 0.8], [0.0, 0.0]]
    assert math.hypot(*scaled.vectors[0]) == pytest.approx(1)


def test_the_instruction_goes_along_with_queries() -> None:
    with serving(said(200, vectors([1.0])), **EMBEDDINGS) as server:
        endpoint = Endpoint(server.workspace, NAME)
        endpoint.embed("how", recipe="bge-large")
        endpoint.embed("how", recipe="bge-large", instruction="Query:")
        with pytest.raises(UsageError, match='"gte-large" has no instruction for queries'):
            endpoint.embed("how", recipe="gte-large")
        with pytest.raises(UsageError, match='Unknown recipe "bge-larg"'):
            endpoint.embed("how", recipe="bge-larg")
    instruction = "Represent this sentence for searching relevant passages:"
    assert [query["instruction"] for query in server.queries] == [instruction, "Query:"]


def test_many_texts_take_several_requests() -> None:
    answers = [said(200, vectors([0.0], [1.0], tokens=2)), said(200, vectors([2.0], [3.0])), said(200, vectors([4.0]))]
    with serving(*answers, **EMBEDDINGS) as server:
        embedded = Endpoint(server.workspace, NAME).embed(["a", "b", "c", "d", "e"], batch_size=2)
    assert [query["input"] for query in server.queries] == [["a", "b"], ["c", "d"], ["e"]]
    assert embedded.vectors == [[0.0], [1.0], [2.0], [3.0], [4.0]]
    assert embedded.usage == Usage(10, 0, 10)


def test_no_request_of_texts_is_larger_than_the_endpoint_takes() -> None:
    large = "ü" * 330_000  # 6 bytes each as JSON is sent
    with serving(said(200, vectors([0.0], [1.0])), said(200, vectors([2.0])), **EMBEDDINGS) as server:
        embedded = Endpoint(server.workspace, NAME).embed([large, large, large])
        sizes = [len(asked.body) for asked in server.asked if asked.path.endswith("/invocations")]
    assert len(embedded.vectors) == 3
    assert 3_900_000 < max(sizes) <= 4_000_000


def test_a_text_that_fits_in_no_request_is_refused_before_any_is_sent() -> None:
    with serving(said(200, vectors([0.0])), **EMBEDDINGS) as server:
        with pytest.raises(UsageError, match=r"Text 3 has 4\.0 MB, and a request has room for 4\.0 MB") as refused:
            Endpoint(server.workspace, NAME).embed(["a", "b", "x" * 3_999_999])
        assert server.queries == []
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("described", "limit"),
    [
        ({}, 4_000_000),
        ({"endpoint_type": "CUSTOM_MODEL"}, 4_000_000),
        (
            {"endpoint_type": "CUSTOM_MODEL", "config": {"served_entities": [{"workload_type": "GPU_SMALL"}]}},
            16_000_000,
        ),
        ({"endpoint_type": "EXTERNAL_MODEL", "config": {"served_entities": [{}]}}, 4_000_000),
    ],
)
def test_a_request_that_is_too_large_is_not_sent(described: dict[str, Any], limit: int) -> None:
    with serving(said(200, chat()), **described) as server:
        endpoint = Endpoint(server.workspace, NAME)
        assert endpoint.payload_limit == limit
        for stream in (True, False):
            with pytest.raises(UsageError, match=f"takes {limit // 10**6}.0 MB at the most"):
                endpoint.chat("x" * limit, stream=stream)
        assert server.queries == []


def test_what_is_no_json_is_not_sent() -> None:
    with serving(said(200, chat())) as server:
        with pytest.raises(UsageError, match="cannot be written as JSON"):
            Endpoint(server.workspace, NAME).chat("?", temperature=math.nan)
        assert server.queries == []


@pytest.mark.parametrize("task", ["llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"])
def test_another_task_than_the_endpoint_serves_is_not_asked(task: str) -> None:
    with serving(said(200, chat()), task=task) as server:
        endpoint = Endpoint(server.workspace, NAME)
        ways: dict[str, Any] = {
            "llm/v1/chat": endpoint.chat,
            "llm/v1/completions": endpoint.complete,
            "llm/v1/embeddings": endpoint.embed,
        }
        for asked in ways.keys() - {task}:
            with pytest.raises(UsageError, match=f'"bot" serves {task}, and this asks for {asked}'):
                ways[asked]("?")
        assert server.queries == []


def test_an_endpoint_that_names_no_task_is_asked() -> None:
    with serving(said(200, chat()), task=None) as server:
        endpoint = Endpoint(server.workspace, NAME)
        assert endpoint.task is None
        assert endpoint.chat("?").text == "Hello."


@pytest.mark.parametrize("body", [True, False])
def test_a_busy_endpoint_is_asked_again_after_as_long_as_it_says(body: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of no more than a second: another figure than the endpoint's would come after its end."""
    monkeypatch.setenv(VARIABLE, "1")
    busy = said(429, LIMITED) if body else said(503, {"message": "Scaling up."}, Retry_After="0.01")
    with serving(busy, said(200, chat())) as server:
        assert Endpoint(server.workspace, NAME).chat("?").text == "Hello."
        assert len(server.queries) == 2


@pytest.mark.parametrize("body", [True, False])
def test_an_endpoint_that_is_busy_for_longer_than_patience_lasts(body: bool) -> None:
    """Its own figure says so at once."""
    long = {"error": LIMITED["error"] | {"retry_after": 3600}}
    busy = said(429, long) if body else said(503, {"message": "Too many."}, Retry_After="3600")
    with serving(busy) as server:
        with pytest.raises(NetworkUnreachable, match=r"(429|503) again and again: Too many\.") as failed:
            Endpoint(server.workspace, NAME).chat("?")
        assert len(server.queries) == 1
    assert failed.value.exit_code == 5


def test_a_connection_that_breaks_is_made_again() -> None:
    with serving(reset, said(200, chat())) as server:
        assert Endpoint(server.workspace, NAME).chat("?").text == "Hello."


def test_an_answer_that_takes_too_long_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalogger.serving import invocations

    monkeypatch.setattr(invocations, "_ON_THE_WAY", 0)
    with serving(stall) as server:
        with pytest.raises(NetworkUnreachable, match=r"did not answer within 0\.05 s"):
            Endpoint(server.workspace, NAME, timeout=0.05).chat("?")
        assert len(server.queries) == 1


@pytest.mark.parametrize(
    ("status", "document", "kind", "says"),
    [
        (400, {"error_code": "BAD_REQUEST", "message": "n is 9."}, UsageError, 'refuses the request: n is 9.'),
        (413, {"message": "Too large."}, UsageError, "Too large."),
        (401, {"error_code": "UNAUTHENTICATED", "message": "Expired."}, AccessDenied, "does not know the token"),
        (403, {"error_code": 403, "message": "Invalid access token."}, AccessDenied, "does not know the token"),
        (403, {"error_code": "PERMISSION_DENIED", "message": "No."}, AccessDenied, 'not query the endpoint "bot": No.'),
        (404, {"error_code": "NOT_FOUND", "message": "No."}, UsageError, 'There is no endpoint "bot"'),
        (409, {"error": {"message": "Why", "type": "odd"}}, RegistryError, "answered 409: Why"),
    ],
)  # fmt: skip
def test_a_query_that_is_refused(status: int, document: Any, kind: type[CataloggerError], says: str) -> None:
    with serving(said(status, document)) as server:
        for stream in (True, False):
            with pytest.raises(kind) as refused:
                Endpoint(server.workspace, NAME).chat("?", stream=stream)
            assert says in str(refused.value)
            assert refused.value.exit_code == kind.exit_code
            assert "dapi" not in str(refused.value)
        assert len(server.queries) == 2


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (404, UsageError, 'There is no endpoint "bot".'),
        (403, AccessDenied, 'You may not query the endpoint "bot"'),
        (401, AccessDenied, "does not know the token"),
    ],
)
def test_an_endpoint_that_cannot_be_seen_is_not_asked(status: int, kind: type[CataloggerError], says: str) -> None:
    with serving(status=status, error_code="X", message="No.") as server:
        with pytest.raises(kind, match=says):
            Endpoint(server.workspace, NAME).chat("?")
        assert server.queries == []


@pytest.mark.parametrize(
    ("update", "kind", "code"),
    [
        ("IN_PROGRESS", DeploymentPending, 8),
        ("UPDATE_FAILED", DeploymentFailed, 9),
        ("UNHEARD_OF", DeploymentPending, 8),
    ],
)
def test_an_endpoint_that_is_not_ready_is_not_asked(update: str, kind: type[CataloggerError], code: int) -> None:
    with serving(said(200, chat()), state={"ready": "NOT_READY", "config_update": update}) as server:
        with pytest.raises(kind, match=f"not ready: NOT_READY, {update}") as pending:
            Endpoint(server.workspace, NAME).chat("?")
        assert server.queries == []
        assert f"{server.url}/ml/endpoints/bot" in str(pending.value)
    assert pending.value.exit_code == code


def test_an_endpoint_that_is_ready_while_it_is_updated_is_asked() -> None:
    with serving(said(200, chat()), state={**READY, "config_update": "IN_PROGRESS"}) as server:
        assert Endpoint(server.workspace, NAME).chat("?").text == "Hello."


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"choices": None},
        {"choices": [7]},
        {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{}]}}]},
    ],
)
def test_an_answer_of_another_form(document: Any) -> None:
    with serving(said(200, document)) as server, pytest.raises(RegistryError, match="holds no choices") as failed:
        Endpoint(server.workspace, NAME).chat("?")
    assert failed.value.exit_code == 7


@pytest.mark.parametrize(
    "document",
    [{}, vectors(), vectors([1.0], [2.0], [3.0]), vectors([1.0], [2.0, 3.0]), vectors([1.0], ["x"])],  # type: ignore[list-item]
)
def test_other_vectors_than_were_asked_for(document: Any) -> None:
    with serving(said(200, document), **EMBEDDINGS) as server, pytest.raises(RegistryError):
        Endpoint(server.workspace, NAME).embed(["a", "b"])


@pytest.mark.parametrize("texts", [[], ()])
def test_nothing_to_embed(texts: Any) -> None:
    with serving(**EMBEDDINGS) as server, pytest.raises(UsageError, match="nothing to embed"):
        Endpoint(server.workspace, NAME).embed(texts)


@pytest.mark.parametrize("timeout", [0, -1, 121, math.nan])
def test_more_time_than_an_endpoint_gives(timeout: float) -> None:
    with serving() as server, pytest.raises(UsageError, match=f"is to have {timeout:g} s"):
        Endpoint(server.workspace, NAME, timeout=timeout)


def test_an_endpoint_shows_where_it_is() -> None:
    with serving() as server:
        endpoint = Endpoint(server.workspace, "my bot")
        assert (repr(endpoint), endpoint.url) == ("Endpoint('my bot')", f"{server.url}/ml/endpoints/my%20bot")
        with pytest.raises(UsageError, match="has no name"):
            Endpoint(server.workspace, "")


def test_a_batch_of_the_usual_size_stays_within_the_time_that_an_endpoint_has() -> None:
    """BGE reads 512 tokens of each text, the smallest endpoint 980 tokens a second (facts of both)."""
    assert endpoints._BATCH * 512 / 980 < 120
