"""The load test itself: find the endpoint, warm it up, climb the ladder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogger.errors import UsageError
from catalogger.progress import Progress, Silent
from catalogger.remote.patience import patiently
from catalogger.remote.workspace import credentials
from catalogger.serving.bench.client import Client, require_aiohttp
from catalogger.serving.bench.figures import Sample, Step, at_plateau
from catalogger.serving.bench.plan import Plan, planned
from catalogger.serving.bench.prompts import Prompts
from catalogger.serving.bench.results import (
    GIVEN_UP,
    INTERRUPTED,
    OUTPUT_RATE,
    PLATEAU,
    WHOLE_LADDER,
    WHOLE_RATE,
    LoadTest,
    Served,
    seconds_of,
)
from catalogger.serving.bench.stepping import Streams
from catalogger.serving.bench.warming import warm_up
from catalogger.serving.endpoint import CHAT, COMPLETIONS, EMBEDDINGS
from catalogger.serving.invocations import EXECUTION, Invocations

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


def load_test(
    workspace: WorkspaceClient,
    endpoint: str,
    *,
    parallel: Sequence[int] | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    tokenizer: Path | str | None = None,
    seconds: float = 30.0,
    requests: int | None = None,
    plateau: float = 5.0,
    timeout: float = EXECUTION,
    progress: Progress | None = None,
) -> LoadTest:
    """Measure how fast the endpoint answers 1, 2, 4, 8, … requests at the same time, until its throughput ends.

    parallel: other numbers; all of them are measured then.
    input_tokens, output_tokens: of each request; without, 2048 and 256, the shape of listed rates, and 512 to embed.
    tokenizer: the model's repository or checkpoint folder, or its `tokenizer.json`, by which prompts get their exact
        length; without one, words are added or left out until the endpoint counts what was asked for.
    seconds: how long each step is measured; or `requests`: how many of each stream are.
    plateau: the ladder ends after two steps that raise the throughput by no more than so many percent.
    timeout: seconds that one answer may take.

    A KeyboardInterrupt ends it with what was measured until then.
    Raises what a query raises, while the endpoint is warmed up; after that, failed requests are counted.
    Method: https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/prov-throughput-run-benchmark
    """
    require_aiohttp()
    progress = progress or Silent()
    invocations = Invocations(workspace, endpoint, timeout)
    task = str(invocations.described.get("task"))
    if task not in (CHAT, COMPLETIONS, EMBEDDINGS):
        raise UsageError(f'The endpoint "{endpoint}" serves no llm/v1 task.', "Test one that does.")
    plan = planned(
        task,
        parallel=parallel,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        seconds=seconds,
        requests=requests,
        plateau=plateau,
        timeout=timeout,
    )
    prompts = Prompts(task, plan.input_tokens, plan.output_tokens, tokenizer)
    invocations.require_fits(prompts.document(prompts.text(), stream=True))
    began = datetime.now(UTC).isoformat(timespec="seconds")
    warmed = warm_up(invocations, prompts, plan, progress, by_tokenizer=tokenizer is not None)
    progress.say(warmed.sentence())
    progress.say(f"Then {plan.announced(warmed.latency)}")
    result = LoadTest(
        endpoint=endpoint,
        task=task,
        input_tokens=plan.input_tokens,
        output_tokens=plan.output_tokens,
        seconds=plan.seconds,
        requests=plan.requests,
        served=served(invocations.described),
        warm_up=warmed,
        began=began,
        ended=WHOLE_LADDER,
    )
    client = Client(invocations.query_url, lambda: _headers(workspace), plan.timeout, plan.input_tokens)
    ladder = Ladder(client, prompts, plan, warmed.latency, progress)
    ended = _in_thread(ladder.climb)
    return replace(result, ended=ended, steps=tuple(ladder.steps))


def served(described: Mapping[str, Any]) -> Served:
    """What the endpoint's document says of what it serves: the sum of its entities."""
    entities = (described.get("config") or {}).get("served_entities") or ()

    def total(key: str) -> int | None:
        values = [entity[key] for entity in entities if entity.get(key)]
        return sum(values) if values else None

    names = tuple(f"{entity.get('entity_name')}/{entity.get('entity_version')}" for entity in entities)
    least, most = total("min_provisioned_throughput"), total("max_provisioned_throughput")
    return Served(names, least, most, total("provisioned_model_units"))


class Ladder:
    """The steps, one after another; `steps` are the figures of those that were measured.

    latency: seconds of one request alone.
    """

    def __init__(self, client: Client, prompts: Prompts, plan: Plan, latency: float, progress: Progress) -> None:
        self._client, self._prompts, self._plan, self._progress = client, prompts, plan, progress
        self._latency = latency
        self.steps: list[Step] = []

    async def climb(self) -> str:
        """Why it ended."""
        async with self._client:
            for parallel in self._plan.parallel:
                streams = Streams(self._ask, parallel, self._plan.seconds, self._plan.requests, self._latency)
                try:
                    ended = await streams.run()
                except asyncio.CancelledError:
                    self._keep(streams.so_far())
                    return INTERRUPTED
                self._keep(ended.step)
                if ended.given_up:
                    return GIVEN_UP
                if self._plan.plateau is not None and at_plateau(
                    [s.whole_rate for s in self.steps], self._plan.plateau
                ):
                    return PLATEAU
        return WHOLE_LADDER

    async def _ask(self) -> tuple[Sample, float]:
        return await self._client.ask(self._prompts.body())

    def _keep(self, step: Step) -> None:
        if step.requests:
            self.steps.append(step)
            self._progress.say(said_of(step))


def said_of(step: Step) -> str:
    """The step in one line, for people."""
    rates = f"{step.whole_rate:,.0f} {WHOLE_RATE}"
    rates += f" ({step.output_rate:,.0f} {OUTPUT_RATE})" if step.output_rate else ""
    latency = f"latency p50 {seconds_of(step.latency, 'p50')}, p95 {seconds_of(step.latency, 'p95')}"
    failed = "".join(f", {count} x {kind}" for kind, count in step.errors.items())
    limit = ""
    if step.client_limits:
        lag, cpu = step.client.lag_p95 * 1000, step.client.cpu * 100
        limit = f"\n  The client, not the endpoint, is the limit here: {lag:.0f} ms late, at {cpu:.0f} % of a core."
    return f"{step.parallel} parallel: {rates}, {latency}, {step.answered} answered{failed}{limit}"


def _headers(workspace: WorkspaceClient) -> dict[str, str]:
    return patiently(lambda: credentials(workspace.config))


def _in_thread(work: Callable[[], Coroutine[Any, Any, str]]) -> str:
    """Run it in a thread with an event loop of its own, as a notebook has a loop that runs in this one.

    A KeyboardInterrupt that comes meanwhile cancels the work, and a second one leaves it.
    """
    begun: Future[Callable[[], object]] = Future()
    done: Future[str] = Future()

    async def cancellable() -> str:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        begun.set_result(lambda: task and loop.call_soon_threadsafe(task.cancel))
        return await work()

    def run() -> None:
        try:
            done.set_result(asyncio.run(cancellable()))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="load-test", daemon=True).start()
    try:
        return done.result()
    except KeyboardInterrupt:
        begun.result()()
        return done.result()
