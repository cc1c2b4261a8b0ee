"""Queries of a loopback workspace's endpoints, on their way to what answers them."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from testing.asking import ANN, ENDPOINTS, LLAMA, TOKENS, Echo, ask, asked_for, create, done, ranged, refused, register

from catalogger.testing import Build, Workspace
from catalogger.testing.optimization import described, tokens

QUERY = "/serving-endpoints/ep/invocations"
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}


def test_a_query_reaches_the_served_version_with_its_files(serving: Workspace, echo: Echo) -> None:
    number = register(serving, "main.ml.x", described("llm/v1/completions"))
    create(serving, ranged("main.ml.x", number))
    assert done(serving, "POST", QUERY, {"prompt": "Hello"})["version"] == 1
    ((entity, task, document),) = echo.asked
    assert (entity.name, entity.number, entity.model_type) == ("main.ml.x", 1, "llama")
    assert (task, document) == ("llm/v1/completions", {"prompt": "Hello"})
    assert entity.mlmodel["metadata"] == {"task": "llm/v1/completions"}
    assert (entity.folder / "MLmodel").is_file()


def test_a_model_without_files_is_asked_too(serving: Workspace, echo: Echo) -> None:
    create(serving)
    done(serving, "POST", QUERY, CHAT)
    ((entity, task, _),) = echo.asked
    assert (entity.name, entity.model_type, task) == (LLAMA, "llama", "llm/v1/chat")
    assert not entity.folder.exists()


def test_a_stream_comes_in_chunks_as_it_is_made(serving: Workspace) -> None:
    create(serving)
    connection = http.client.HTTPConnection(urlsplit(serving.url).netloc, timeout=30)
    headers = {"Authorization": f"Bearer {ANN}"}
    connection.request("POST", QUERY, b'{"stream": true}', headers)
    answer = connection.getresponse()
    assert (answer.getheader("Transfer-Encoding"), answer.getheader("Content-Length")) == ("chunked", None)
    assert answer.read() == b'data: {"part": 1}\n\ndata: {"part": 2}\n\ndata: [DONE]\n\n'
    connection.request("GET", f"{ENDPOINTS}/ep", headers=headers)
    assert connection.getresponse().status == 200, "the connection serves on"
    connection.close()
    assert serving.matching("invocations")[0].sent == 52


def test_a_truncated_stream_ends_in_the_middle(serving: Workspace) -> None:
    create(serving)
    serving.order.truncate("invocations")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        ask(serving, "POST", QUERY, {"stream": True})


def test_traffic_is_split_exactly_and_evenly(serving: Workspace, echo: Echo) -> None:
    document = asked_for(ranged(), ranged(version="2"), ranged(version="3"))
    shares = {"llama-1": 75, "llama-2": 25, "llama-3": 0}
    routes = [{"served_entity_name": name, "traffic_percentage": share} for name, share in shares.items()]
    document["config"]["traffic_config"] = {"routes": routes}
    done(serving, "POST", ENDPOINTS, document)
    serving.serving.advance("ep")
    asked = [done(serving, "POST", QUERY, CHAT)["version"] for _ in range(100)]
    assert [asked.count(number) for number in (1, 2, 3)] == [75, 25, 0]
    assert all(asked[start : start + 4].count(2) == 1 for start in range(0, 100, 4))


def test_while_it_is_updated_the_old_version_answers(serving: Workspace) -> None:
    create(serving)
    serving.serving.order("ep", Build(looks=1))
    done(serving, "PUT", f"{ENDPOINTS}/ep/config", {"served_entities": [ranged(version="2")]})
    assert done(serving, "POST", QUERY, CHAT)["version"] == 1
    serving.serving.advance("ep")
    assert done(serving, "POST", QUERY, CHAT)["version"] == 2


def test_what_does_not_serve_yet_answers_nothing(serving: Workspace, echo: Echo) -> None:
    done(serving, "POST", ENDPOINTS, asked_for())
    refused(ask(serving, "POST", QUERY, CHAT), 400, "INVALID_STATE", "not ready")
    assert echo.asked == []


def test_scaled_to_zero_the_first_queries_find_nobody(serving: Workspace, echo: Echo) -> None:
    create(serving)
    serving.serving.sleep("ep", queries=2)
    (entity,) = done(serving, "GET", f"{ENDPOINTS}/ep")["config"]["served_entities"]
    assert entity["state"] == {"deployment": "DEPLOYMENT_READY", "deployment_state_message": "Scaled to zero"}
    for _ in range(2):
        refused(ask(serving, "POST", QUERY, CHAT), 503, "TEMPORARILY_UNAVAILABLE", "scaling up from zero")
    assert echo.asked == []
    done(serving, "POST", QUERY, CHAT)


def test_a_recovering_endpoint_answers_503(serving: Workspace) -> None:
    create(serving)
    serving.serving.recover("ep")
    refused(ask(serving, "POST", QUERY, CHAT), 503, "TEMPORARILY_UNAVAILABLE", "recovering")
    serving.serving.advance("ep")
    done(serving, "POST", QUERY, CHAT)


def test_queries_over_the_limit_are_told_when_to_come_again(serving: Workspace) -> None:
    create(serving)
    serving.serving.throttle("ep", queries=1, retry_after=7)
    answer = ask(serving, "POST", QUERY, CHAT)
    error = answer.json()["error"]
    assert answer.status_code == 429
    assert (error["type"], error["code"], error["retry_after"]) == ("rate_limit_exceeded", 429, 7)
    assert set(error) == {"message", "type", "code", "limit_type", "limit", "current", "retry_after"}
    done(serving, "POST", QUERY, CHAT)


def test_the_gateways_rate_limits_hold_for_a_minute(serving: Workspace) -> None:
    create(serving, ai_gateway={"rate_limits": [{"calls": 2, "renewal_period": "minute", "key": "user"}]})
    time = 0.0
    serving.serving.clock = lambda: time

    def asked_at(seconds: float) -> int:
        nonlocal time
        time = seconds
        return ask(serving, "POST", QUERY, CHAT).status_code

    statuses = [asked_at(seconds) for seconds in (0, 10, 20, 59.9, 60, 61)]
    assert statuses == [200, 200, 429, 429, 200, 429]
    assert ask(serving, "POST", QUERY, CHAT).json()["error"]["retry_after"] == 9


@pytest.mark.parametrize(("size", "status"), [(4 << 20, 200), ((4 << 20) + 1, 413)])
def test_a_request_has_at_most_four_megabytes(serving: Workspace, size: int, status: int) -> None:
    create(serving)
    body = b'{"input": "' + b"x" * (size - 13) + b'"}'
    assert len(body) == size
    headers = {"Authorization": f"Bearer {ANN}"}
    assert requests.post(serving.url + QUERY, body, headers=headers, timeout=30).status_code == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
def test_a_request_is_a_json_object(serving: Workspace, body: bytes) -> None:
    create(serving)
    answer = requests.post(serving.url + QUERY, body, headers={"Authorization": f"Bearer {ANN}"}, timeout=30)
    refused(answer, 400, "BAD_REQUEST", "JSON")


@pytest.mark.parametrize(
    ("path", "task"),
    [("chat/completions", "llm/v1/chat"), ("completions", "llm/v1/completions"), ("embeddings", "llm/v1/embeddings")],
)
def test_the_paths_of_openai_clients_name_the_endpoint_in_the_request(serving: Workspace, path: str, task: str) -> None:
    serving.serving.add_base_model("system.ai.other", tokens(), task=task)
    create(serving, ranged("system.ai.other"))
    assert done(serving, "POST", f"/serving-endpoints/{path}", {"model": "ep"})["task"] == task
    refused(ask(serving, "POST", f"/serving-endpoints/{path}", {"model": "no"}), 404, "RESOURCE_DOES_NOT_EXIST", "'no'")
    refused(ask(serving, "POST", f"/serving-endpoints/{path}", {}), 400, "INVALID_PARAMETER_VALUE", "model")


def test_an_endpoint_of_another_task_refuses_the_path(serving: Workspace) -> None:
    create(serving)
    answer = ask(serving, "POST", "/serving-endpoints/embeddings", {"model": "ep", "input": "x"})
    refused(answer, 400, "BAD_REQUEST", "llm/v1/chat", "llm/v1/embeddings")


def test_other_paths_and_endpoints_are_not_there(serving: Workspace) -> None:
    create(serving)
    refused(ask(serving, "POST", "/serving-endpoints/ep/explain", CHAT), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(ask(serving, "POST", "/serving-endpoints/no/invocations", CHAT), 404, "RESOURCE_DOES_NOT_EXIST", "'no'")


def test_a_version_that_was_deleted_answers_nothing(serving: Workspace) -> None:
    number = register(serving, "main.ml.x", described("llm/v1/chat"))
    create(serving, ranged("main.ml.x", number))
    done(serving, "DELETE", f"/api/2.1/unity-catalog/models/main.ml.x/versions/{number}")
    refused(ask(serving, "POST", QUERY, CHAT), 404, "RESOURCE_DOES_NOT_EXIST", "main.ml.x")


def test_faults_can_be_ordered_for_queries_too(serving: Workspace) -> None:
    create(serving)
    serving.order.fail("invocations", 503, headers={"Retry-After": "1"})
    assert ask(serving, "POST", QUERY, CHAT).status_code == 503
    done(serving, "POST", QUERY, CHAT)
    assert [request.document for request in serving.matching("invocations")] == [CHAT, CHAT]


def test_without_answers_a_workspace_says_so(tmp_path: Path) -> None:
    with Workspace(tmp_path, tokens=TOKENS) as workspace:
        workspace.serving.add_base_model(LLAMA, tokens())
        create(workspace)
        refused(ask(workspace, "POST", QUERY, CHAT), 501, "NOT_IMPLEMENTED", "answers=ModelAnswers()")


def test_answers_are_asked_at_the_same_time(serving: Workspace, echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queries wait for each other, and the workspace serves on meanwhile."""
    from threading import Barrier, Thread

    create(serving)
    both, answer = Barrier(2, timeout=30), echo.answer

    def together(*asked: Any) -> Any:
        both.wait()
        return answer(*asked)

    monkeypatch.setattr(echo, "answer", together)
    statuses: list[int] = []
    threads = [Thread(target=lambda: statuses.append(ask(serving, "POST", QUERY, CHAT).status_code)) for _ in range(2)]
    threads[0].start()
    assert done(serving, "GET", f"{ENDPOINTS}/ep")["name"] == "ep"
    threads[1].start()
    for thread in threads:
        thread.join()
    assert statuses == [200, 200]
