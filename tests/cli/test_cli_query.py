"""`log-model query`: the answer and nothing else on stdout, and the exit codes of what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli.command import START, Done, run
from remote.answering import said
from serving.scripted import NAME, TOKEN, Scripted, chat, chunk, events, in_chunks, serving, vectors

COMPLETIONS, EMBEDDINGS = {"task": "llm/v1/completions"}, {"task": "llm/v1/embeddings"}


def _query(server: Scripted, *arguments: str, stdin: bytes = b"", **environment: str) -> Done:
    """The command, with the credentials that the environment gives."""
    done = subprocess.run(
        [*START, "query", NAME, *arguments],
        env={**os.environ, "DATABRICKS_HOST": server.url, "DATABRICKS_TOKEN": TOKEN, **environment},
        input=stdin,
        capture_output=True,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    assert TOKEN.encode() not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_stdout_is_the_answer() -> None:
    options = ["--system", "Be brief.", "--max-tokens", "9", "--temperature", "0", "--stop", "x", "--stop", "y"]
    with serving(said(200, chat("Grüße 🙂"))) as server:
        done = _query(server, "Hello?", *options)
    assert (done.code, done.out) == (0, "Grüße 🙂\n")
    assert done.err == f"Asking {NAME} (llm/v1/chat): 4.0 MB and 120 s a request at the most\n"
    assert server.queries == [
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
            "max_tokens": 9,
            "temperature": 0.0,
            "stop": ["x", "y"],
        }
    ]


def test_the_document_of_a_chat() -> None:
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    with serving(said(200, chat("Hi", logprobs={"content": [token]}))) as server:
        done = _query(server, "Hello?", "--top-logprobs", "0", "-o", "json")
    assert done.document == {
        "endpoint": NAME,
        "task": "llm/v1/chat",
        "answers": [
            {
                "index": 0,
                "text": "Hi",
                "finish_reason": "stop",
                "logprobs": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}],
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    assert (server.queries[0]["logprobs"], server.queries[0]["top_logprobs"]) == (True, 0)


def test_log_probabilities_stand_beside_the_answer() -> None:
    other = {"token": "\n", "logprob": -2.0, "bytes": None}
    token = {"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": [other]}
    with serving(said(200, chat("Hi", finish_reason="length", logprobs={"content": [token]}))) as server:
        done = _query(server, "Hello?", "--logprobs")
    assert done.out == "Hi\n"
    assert '  -0.5000 "Hi"          -2.0000 "\\n"\n' in done.err
    assert "The answer was cut off at its limit of tokens; --max-tokens sets another." in done.err


def test_a_text_from_stdin_and_texts_from_a_file(work: Path) -> None:
    (work / "questions.txt").write_text("First?\n\nSecond?\n")
    with serving(said(200, chat("One.")), said(200, chat("Two.")), said(200, chat("Three."))) as server:
        done = _query(server, "-", "--input", "questions.txt", stdin="A letter,\nof two lines: ü\n".encode())
    assert done.out == "One.\nTwo.\nThree.\n"
    asked = [query["messages"][0]["content"] for query in server.queries]
    assert asked == ["A letter,\nof two lines: ü\n", "First?", "Second?"]


def test_completions_of_several_texts_are_one_request() -> None:
    choices = [{"index": n, "text": text, "finish_reason": "length"} for n, text in enumerate(["a", "b"])]
    usage = {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    with serving(said(200, {"choices": choices, "usage": usage}), **COMPLETIONS) as server:
        shown = _query(server, "A", "B")
        told = _query(server, "A", "B", "-o", "json")
    assert shown.out == "a\nb\n"
    assert "2 of 2 answers were cut off" in shown.err
    assert [answer["text"] for answer in told.document["answers"]] == ["a", "b"]
    assert server.queries == [{"prompt": ["A", "B"]}] * 2


@pytest.mark.parametrize("described", [{}, COMPLETIONS])
def test_an_answer_is_printed_as_it_comes(described: dict[str, Any]) -> None:
    told = [{"choices": [{"index": 0, "text": t, "finish_reason": r}]} for t, r in [("Hel", None), ("lo.", "stop")]]
    whole = in_chunks([events(*(told if described else [chunk("Hel"), chunk("lo.", "stop")]))])
    with serving(whole, **described) as server:
        assert _query(server, "?", "--stream").out == "Hello.\n"
        assert [a["text"] for a in _query(server, "?", "--stream", "-o", "json").document["answers"]] == ["Hello."]
        assert all(query["stream"] is True for query in server.queries)


def test_what_has_come_of_a_broken_stream_is_printed() -> None:
    with serving(in_chunks([events(chunk("So far"), end="")], end=b"")) as server:
        done = _query(server, "?", "--stream")
    assert (done.code, done.out) == (5, "So far\n")
    assert "broke off" in done.err


def test_vectors_are_a_line_each() -> None:
    with serving(said(200, vectors([3.0, 4.0], [0.0, 2.0])), **EMBEDDINGS) as server:
        plain = _query(server, "a", "b")
        scaled = _query(server, "a", "b", "--normalize", "--recipe", "bge-large", "-o", "json")
    assert [json.loads(line) for line in plain.out.splitlines()] == [[3.0, 4.0], [0.0, 2.0]]
    assert scaled.document == {
        "endpoint": NAME,
        "task": "llm/v1/embeddings",
        "embeddings": [[0.6, 0.8], [0.0, 1.0]],
        "dimension": 2,
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert "instruction" not in server.queries[0]
    assert server.queries[1]["instruction"] == "Represent this sentence for searching relevant passages:"


@pytest.mark.parametrize(
    ("arguments", "described", "says"),
    [
        ([], {}, "There is nothing to ask."),
        (["-"], {}, "There is nothing to ask."),
        (["?", "--input", "nowhere.txt"], {}, '"nowhere.txt" cannot be read as text'),
        (["?", "--normalize"], {}, '--normalize is for llm/v1/embeddings; the endpoint "bot" serves llm/v1/chat.'),
        (["?", "--system", "x"], COMPLETIONS, "--system is for llm/v1/chat;"),
        (["?", "--max-tokens", "4"], EMBEDDINGS, "--max-tokens is for llm/v1/chat and llm/v1/completions;"),
        (["?", "--stop", "x"], EMBEDDINGS, "--stop is for"),
        (["?", "--temperature", "0"], EMBEDDINGS, "--temperature is for"),
        (["?"], {"task": "llm/v2/other"}, 'The endpoint "bot" serves llm/v2/other.'),
        (["?"], {"task": None}, 'The endpoint "bot" names no task.'),
        (["?", "!", "--stream"], {}, "2 texts cannot be answered in one stream."),
        (["?", "--timeout", "121"], {}, "An endpoint ends it after 120 s"),
        (["?", "--temperature", "3"], {}, "3.0 is not in the range"),
        (["?", "--top-logprobs", "21"], {}, "21 is not in the range"),
        (["?", "--recipe", "gte-large"], EMBEDDINGS, 'The recipe "gte-large" has no instruction'),
    ],
)
def test_what_is_not_asked(arguments: list[str], described: dict[str, Any], says: str) -> None:
    with serving(said(200, chat()), **described) as server:
        done = _query(server, *arguments)
        assert server.queries == []
    assert (done.code, done.out) == (2, "")
    assert says in done.err


@pytest.mark.parametrize(
    ("status", "document", "code", "says"),
    [
        (404, {}, 2, 'There is no endpoint "bot".'),
        (403, {"error_code": "PERMISSION_DENIED", "message": "No."}, 4, "CAN_QUERY"),
        (401, {"error_code": "UNAUTHENTICATED", "message": "The token has expired."}, 4, "Set another token"),
        (200, {"state": {"ready": "NOT_READY", "config_update": "IN_PROGRESS"}}, 8, "/ml/endpoints/bot"),
        (200, {"state": {"ready": "NOT_READY", "config_update": "UPDATE_FAILED"}}, 9, "Its page says why."),
    ],
)
def test_endpoints_that_do_not_answer(status: int, document: dict[str, Any], code: int, says: str) -> None:
    with serving(said(200, chat()), status=status, **document) as server:
        done = _query(server, "?", "-o", "json")
        assert server.queries == []
    assert (done.code, done.document["error"]["exit_code"]) == (code, code)
    assert says in done.err


def test_an_endpoint_that_stays_busy() -> None:
    busy = said(429, {"error": {"message": "Too many.", "type": "rate_limit_exceeded", "retry_after": 60}})
    with serving(busy) as server:
        done = _query(server, "?", CATALOGGER_RETRY_SECONDS="1")
    assert (done.code, done.out) == (5, "")
    assert "again and again: Too many." in done.err


def test_without_credentials_nobody_is_asked() -> None:
    done = run("query", NAME, "?")
    assert done.code == 4
    assert "No Databricks credentials were found" in done.err
