"""The load test against the simulated endpoint: what is counted is what happened, whatever goes wrong."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes.secrets import secret
from remote.answering import Answer, said
from serving.bench.given import QUICK, TOKEN, workspace
from serving.scripted import NAME, chat, chunk, events, in_chunks, serving

from catalogger import LoadTest, load_test
from catalogger.serving.bench.client import Client
from catalogger.serving.bench.figures import ClientLoad, Sample
from catalogger.serving.bench.stepping import Streams
from catalogger.testing.law import Faults, Law, LawEndpoint, Told


class Lines:
    """What was said, and what is to be done when something is."""

    def __init__(self, then: Callable[[str], None] = lambda _: None) -> None:
        self.said: list[str] = []
        self._then = then

    def say(self, text: str) -> None:
        self.said.append(text)
        self._then(text)

    def bar(self, label: str, total: int) -> Any:
        raise AssertionError("a load test has no bytes to show")


def measured(
    law: Law, faults: Faults | None = None, progress: Lines | None = None, **options: Any
) -> tuple[LoadTest, Told]:
    """A load test of small requests, and what the endpoint itself counted."""
    asked: dict[str, Any] = {"input_tokens": 40, "output_tokens": 6, "requests": 3, "parallel": [1, 4], **options}
    if law.task == "llm/v1/embeddings":
        del asked["output_tokens"]
    with LawEndpoint(law, faults) as endpoint:
        test = load_test(workspace(endpoint), endpoint.name, progress=progress, **asked)
        return test, endpoint.end()


@pytest.mark.parametrize("task", ["llm/v1/chat", "llm/v1/completions"])
def test_every_stream_has_its_requests_and_every_token_is_counted(task: str) -> None:
    test, told = measured(replace(QUICK, task=task, added=5))
    assert [(step.parallel, step.requests, step.answered) for step in test.steps] == [(1, 3, 3), (4, 12, 12)]
    assert {(step.input_tokens, step.output_tokens) for step in test.steps} == {(40.0, 6.0)}
    assert all(step.first_token and step.per_token and step.latency for step in test.steps)
    assert test.warm_up.exact
    assert told.largest == 45, "before the first correction"
    assert told.output_tokens == told.answered * 6
    assert test.ended == "whole ladder"


def test_embeddings_are_asked_for_without_a_stream() -> None:
    test, told = measured(replace(QUICK, task="llm/v1/embeddings"))
    assert [(step.answered, step.output_rate) for step in test.steps] == [(3, 0.0), (12, 0.0)]
    assert all(step.first_token is None and step.latency and step.whole_rate for step in test.steps)
    assert told.output_tokens == 0


def test_the_rates_are_those_of_the_times_that_were_measured() -> None:
    test, _ = measured(QUICK)
    for step in test.steps:
        assert step.output_rate == pytest.approx(step.request_rate * 6)
        assert step.whole_rate == pytest.approx(step.request_rate * 46)


def test_the_ladder_ends_at_the_plateau_and_not_before() -> None:
    law = Law(servers=2, base=0.02, per_output=0.0)
    test, _ = measured(law, parallel=None, plateau=40.0)
    assert test.ended == "plateau"
    assert [step.parallel for step in test.steps][:2] == [1, 2]
    assert len(test.steps) < 8


def test_named_steps_are_all_run() -> None:
    test, _ = measured(Law(servers=1, base=0.002, per_output=0.0), parallel=[1, 2, 3, 4], requests=1)
    assert [step.parallel for step in test.steps] == [1, 2, 3, 4]


def test_refusals_are_counted_and_are_no_latencies() -> None:
    test, told = measured(replace(QUICK, servers=1, base=0.05, queue=1), parallel=[4], requests=2)
    (step,) = test.steps
    assert 0 < step.too_many <= told.refused
    assert step.failed == 0
    assert step.answered + step.too_many == step.requests == 8
    assert step.latency is None or step.latency.p50 >= 0.05, "a refusal takes no time and would lower it"


def test_streams_that_break_off_are_counted_by_kind() -> None:
    test, told = measured(QUICK, Faults(broken=3), parallel=[2], requests=9)
    (step,) = test.steps
    assert set(step.errors) == {"broken stream"}
    assert step.answered + step.errors["broken stream"] == step.requests == 18
    assert told.output_tokens == told.answered * 6


def test_failures_of_the_endpoint_are_counted_by_their_status() -> None:
    test, _ = measured(QUICK, Faults(failing=4), parallel=[2], requests=4)
    (step,) = test.steps
    assert set(step.errors) == {"HTTP 500"}
    assert step.answered + step.failed == 8


def test_an_endpoint_that_vanishes_ends_the_test_and_leaves_what_was_measured() -> None:
    test, told = measured(QUICK, Faults(vanishes_after=10 + 4 + 3), parallel=[1, 2, 4], requests=3)
    assert told.answered >= 17
    assert test.ended == "endpoint gave up"
    assert (test.steps[0].parallel, test.steps[0].answered, test.steps[0].failed) == (1, 3, 0)
    assert set(test.steps[-1].errors) <= {"unreachable", "broken stream"}
    assert test.steps[-1].errors


def test_an_interrupt_keeps_what_was_measured() -> None:
    def interrupt(line: str) -> None:
        if line.startswith("2 parallel"):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    test, _ = measured(QUICK, progress=Lines(interrupt), parallel=[1, 2, 512], requests=1)
    assert test.ended == "interrupted"
    assert [(step.parallel, step.answered) for step in test.steps[:2]] == [(1, 1), (2, 2)]


def test_it_says_beforehand_how_long_it_takes_and_then_each_step() -> None:
    lines = Lines()
    measured(QUICK, progress=lines)
    first, count, plan, *steps = lines.said
    assert first == "10 warm-up queries, one after another"
    assert count == "The endpoint counts 40 input tokens."
    assert plan.startswith("Then 2 steps of 3 requests of each stream: from 0 s to ")
    assert [line.split(":")[0] for line in steps] == ["1 parallel", "4 parallel"]


def test_it_runs_where_an_event_loop_runs_already() -> None:
    """As in a notebook."""

    async def cell() -> LoadTest:
        return measured(QUICK, parallel=[1], requests=1)[0]

    assert asyncio.run(cell()).steps[0].answered == 1


def test_what_is_served_is_told() -> None:
    test, _ = measured(replace(QUICK, provisioned=(1960, 2940)), parallel=[1], requests=1)
    assert (test.served.least, test.served.most, test.served.entities) == (1960, 2940, ("main.ml.law/1",))


def asked_once(*answers: Answer) -> Sample:
    """One request of the client to an endpoint whose bytes are scripted."""

    async def one(url: str) -> Sample:
        async with Client(url, lambda: {"Authorization": f"Bearer {TOKEN}"}, 20, 7) as client:
            return (await client.ask(b'{"messages": [], "stream": true}'))[0]

    with serving(*answers) as server:
        sample = asyncio.run(one(f"{server.url}/serving-endpoints/{NAME}/invocations"))
        assert server.asked[-1].headers["authorization"] == f"Bearer {TOKEN}"
        return sample


def test_a_stream_without_counts_is_counted_by_its_pieces() -> None:
    sample = asked_once(in_chunks([events(chunk(""), chunk("a"), chunk("b"), chunk("", "stop"))]))
    assert (sample.error, sample.input_tokens, sample.output_tokens) == (None, 7, 2)


def test_the_count_of_the_endpoint_wins() -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
    sample = asked_once(in_chunks([events(chunk("all at once", "stop", usage=usage))]))
    assert (sample.error, sample.input_tokens, sample.output_tokens) == (None, 11, 3)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (in_chunks([events(chunk("a"), end="")], end=b""), "broken stream"),
        (in_chunks([events(chunk("a"))]), "broken stream"),
        (in_chunks([events({"error": {"message": "no room"}})]), "broken stream"),
        (in_chunks([events(chunk("a"), end="data: {\n\n")]), "another form"),
        (said(200, {"neither": "one"}), "another form"),
        (said(429, {"error_code": "RESOURCE_EXHAUSTED", "message": "later"}), "429"),
        (said(503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}), "HTTP 503"),
        (said(401, {"error_code": "401", "message": "token"}), "HTTP 401"),
        (b"", "unreachable"),
    ],
)
def test_each_way_to_fail_has_its_kind(answer: Answer, kind: str) -> None:
    assert asked_once(answer).error == kind


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))

        async def one() -> Sample:
            async with Client(f"http://127.0.0.1:{taken.getsockname()[1]}/", dict, 20, 7) as client:
                return (await client.ask(b"{}"))[0]

        assert asyncio.run(one()).error == "unreachable"


def test_a_netrc_file_does_not_take_the_token_s_place(monkeypatch: pytest.MonkeyPatch, work: Any) -> None:
    (work / "netrc").write_text(f"machine 127.0.0.1 login ann password {secret('netrc')}")
    monkeypatch.setenv("NETRC", str(work / "netrc"))
    assert asked_once(in_chunks([events(chunk("a", "stop"))])).error is None


def test_warm_up_and_steps_go_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(said(200, chat())) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)

        async def one() -> None:
            async with Client("http://workspace.example/serving-endpoints/x/invocations", dict, 20, 7) as client:
                await client.ask(b"{}")

        asyncio.run(one())
        assert proxy.asked[-1].path.startswith("http://workspace.example/")


class Given:
    """Requests that take no time at all and end as they are told."""

    def __init__(self, *errors: str | None) -> None:
        self._errors = list(errors)
        self.asked = 0

    async def ask(self) -> tuple[Sample, float]:
        await asyncio.sleep(0)
        error = self._errors[min(self.asked, len(self._errors) - 1)]
        self.asked += 1
        return Sample(float(self.asked), float(self.asked), 1, 1, error=error), 0.0


def test_an_endpoint_that_never_answers_is_given_up() -> None:
    given = Given("unreachable")
    ended = asyncio.run(_run(given, 5, None))
    assert ended.given_up
    assert 15 <= given.asked <= 20
    assert ended.step.errors["unreachable"] >= 10


def test_refusals_alone_do_not_give_an_endpoint_up() -> None:
    ended = asyncio.run(_run(Given(*["429"] * 50, None), 2, 60))
    assert not ended.given_up
    assert ended.step.answered > 0


def test_the_load_of_the_client_is_told() -> None:
    ended = asyncio.run(_run(Given(None), 1, 10))
    assert isinstance(ended.step.client, ClientLoad)


async def _run(given: Given, parallel: int, requests: int | None) -> Any:
    return await Streams(given.ask, parallel, 3600.0, requests, 0.0).run()
