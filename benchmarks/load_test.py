"""The load test against a simulated endpoint of a known law: `python -m benchmarks.load_test` writes `load_test.md`.

What it measures must be what the law says: throughput within 3 %, p95 of the latency within 5 %, from 1 to 64 streams;
at 64 streams the client adds less than 10 ms to the p95; and where the client is the limit, it says so.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click
from databricks.sdk import WorkspaceClient

from benchmarks.moment import moment
from catalogger.serving.bench.figures import Step, quantile
from catalogger.serving.bench.load_test import load_test
from catalogger.serving.deploying import Terms, deploy
from catalogger.testing import Build, Workspace
from catalogger.testing.law import Law, LawEndpoint, Told
from catalogger.testing.optimization import tokens

TOKEN = "dapi00000000000000000000000000000000"  # noqa: S105
LADDER = (1, 2, 4, 8, 16, 32, 64)
THROUGHPUT, P95, ADDED, REQUESTS = 0.03, 0.05, 0.010, 4
_MODEL = "system.ai.llama"
_SIMULATED = 2000  # requests of each client, where the law has no closed form

EQUAL = Law(servers=16, base=0.02, per_input=2e-5, per_output=0.008)
SPREAD = Law(servers=32, base=0.02, per_input=2e-5, per_output=0.016, spread=0.25)
WIDE = Law(servers=64, base=0.05, per_input=2e-5, per_output=0.02)
TOO_FAST = Law(servers=256, base=0.05, per_output=0.004)


@dataclass(frozen=True)
class Case:
    """One law, loaded by some streams with requests of one shape for some seconds a step."""

    title: str
    law: Law
    ladder: tuple[int, ...]
    inputs: int
    outputs: int
    seconds: float


CASES = (
    Case("Equal requests, 16 servers", EQUAL, LADDER, 2048, 64, 4.0),
    Case("Log-normal service times (deviation 0.25), 32 servers", SPREAD, (32, 64), 2048, 32, 15.0),
)
CLIENT = Case("64 streams at 50 tokens per second each", WIDE, (64,), 2048, 50, 12.0)
LIMIT = Case("256 streams at 250 tokens per second each", TOO_FAST, (256,), 256, 64, 5.0)


@click.command()
def main() -> None:
    """Measure every case and write the report."""
    began = moment()
    lines = [line for case in CASES for line in _against_law(case)]
    lines += [*_client(), *_limit(), *_as_asked()]
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("catalogger", "aiohttp"))
    head = [
        *("# The load test against a known law", ""),
        f"Began {began}, ended {moment()}. {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.",
        "The endpoint runs in a process of its own on the same machine. Ratios are measured / law.",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    click.echo(text)
    Path(__file__).with_suffix(".md").write_text(text)


def _against_law(case: Case) -> Iterator[str]:
    steps, told = _measured(case)
    yield from ("", f"## {case.title}", "", f"{case.inputs} + {case.outputs} tokens; {_late(told)}.", "")
    yield "| streams | requests | tokens/s | law | ratio (3 %) | p50 | law | p95 | law | ratio (5 %) | client late |"
    yield "|" + "---|" * 11
    for step in steps:
        rate, half, tail = _law(case, step.parallel)
        assert step.latency
        yield (
            f"| {step.parallel} | {step.answered} | {step.whole_rate:,.0f} | {rate:,.0f} "
            f"| {_ratio(step.whole_rate, rate, THROUGHPUT)} | {_ms(step.latency.p50)} | {_ms(half)} "
            f"| {_ms(step.latency.p95)} | {_ms(tail)} | {_ratio(step.latency.p95, tail, P95)} "
            f"| {_ms(step.client.lag_p95)} |"
        )


def _law(case: Case, streams: int) -> tuple[float, float, float]:
    """Tokens per second, p50 and p95 of the latency in seconds: in closed form, else event by event."""
    law, shape = case.law, (case.inputs, case.outputs)
    tokens = sum(shape)
    try:
        half, tail = (law.latency(streams, *shape, share) for share in (0.5, 0.95))
    except ValueError:
        simulated = law.simulate(streams, *shape, _SIMULATED)
        settled = sorted(simulated.latencies[streams:])
        return simulated.throughput * tokens, quantile(settled, 0.5), quantile(settled, 0.95)
    return law.throughput(streams, *shape) * tokens, half, tail


def _client() -> Iterator[str]:
    (step,), told = _measured(CLIENT)
    assert step.latency
    assert step.first_token
    law, shape = CLIENT.law, (CLIENT.inputs, CLIENT.outputs)
    added = step.latency.p95 - law.latency(64, *shape, 0.95)
    first = step.first_token.p95 - law.latency(64, CLIENT.inputs, 1, 0.95)
    yield from ("", f"## {CLIENT.title}", "")
    yield f"Added to the p95 of the latency: {_ms(added)}, {'met' if added < ADDED else '**not met**'} ({_ms(ADDED)});"
    yield f"to the p95 of the time to the first token: {_ms(first)}."
    yield f"{step.output_rate:,.0f} tokens per second took {step.client.cpu:.0%} of a core;"
    yield f"client late: p95 {_ms(step.client.lag_p95)}, most {_ms(step.client.lag_most)}; {_late(told)}."


def _limit() -> Iterator[str]:
    (step,), told = _measured(LIMIT)
    said = "says that the client is the limit: met" if step.client_limits else "does not say so: **not met**"
    asked = LIMIT.law.throughput(256, LIMIT.inputs, LIMIT.outputs) * LIMIT.outputs
    yield from ("", f"## {LIMIT.title}", "")
    yield f"{step.output_rate:,.0f} of {asked:,.0f} output tokens per second came, at {step.client.cpu:.0%} of a core"
    yield f"and {_ms(step.client.lag_p95)} late at the p95; it {said}. {_late(told)}."


def _as_asked() -> Iterator[str]:
    """What `deploy` sends to an endpoint that is as asked."""
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder), tokens={TOKEN: "me@example.org"}) as space:
        space.serving.add_base_model(_MODEL, tokens())
        space.serving.build = Build(looks=0)
        client, terms = WorkspaceClient(host=space.url, token=TOKEN), Terms(wait=False)
        deploy(client, f"{_MODEL}/1", endpoint="bench", terms=terms)
        before = len(space.requests)
        again = deploy(client, f"{_MODEL}/1", endpoint="bench", terms=terms)
        sent = space.requests[before:]
    if again.action != "unchanged":
        raise RuntimeError(f"it was to be unchanged, not {again.action}")
    writes = [request.line for request in sent if request.method != "GET"]
    yield from ("", "## `deploy` on an endpoint that is as asked", "")
    yield f"{len(sent)} requests, {'met' if len(sent) <= REQUESTS else '**not met**'} ({REQUESTS});"
    yield f"{len(writes)} writes, {'**not met**' if writes else 'met'} (0)."


def _measured(case: Case) -> tuple[tuple[Step, ...], Told]:
    with LawEndpoint(case.law) as endpoint:
        test = load_test(
            WorkspaceClient(host=endpoint.url, token=TOKEN),
            endpoint.name,
            parallel=case.ladder,
            input_tokens=case.inputs,
            output_tokens=case.outputs,
            seconds=case.seconds,
        )
        return test.steps, endpoint.end()


def _late(told: Told) -> str:
    return f"the endpoint itself was late by {_ms(told.late_p95)} at the p95"


def _ratio(measured: float, law: float, allowed: float) -> str:
    ratio = measured / law
    return f"{ratio:.3f} {'met' if abs(ratio - 1) <= allowed else '**not met**'}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    main()
