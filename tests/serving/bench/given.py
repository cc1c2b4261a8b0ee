"""Load tests of exact figures, and the simulated endpoint as a workspace of the SDK."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fakes.secrets import secret

from catalogger.serving.bench.figures import ClientLoad, Quantiles, Step
from catalogger.serving.bench.results import LoadTest, Served
from catalogger.serving.bench.warming import WarmUp
from catalogger.testing.law import Law, LawEndpoint

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

TOKEN = secret("a user of the workspace", "databricks")
QUICK = Law(servers=4, base=0.001, per_output=0.0002)


def workspace(endpoint: LawEndpoint) -> WorkspaceClient:
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient(host=endpoint.url, token=TOKEN)


def step(
    parallel: int, rate: float, latency: float = 1.0, *, cpu: float = 0.1, errors: dict[str, int] | None = None
) -> Step:
    """A step of 2048 + 256 tokens a request."""
    return Step(
        parallel=parallel,
        seconds=10.0,
        requests=20,
        answered=20 - sum((errors or {}).values()),
        input_tokens=2048.0,
        output_tokens=256.0,
        request_rate=rate / 2304,
        output_rate=rate / 9,
        whole_rate=rate,
        latency=Quantiles(latency, latency * 1.5, latency * 2),
        first_token=Quantiles(latency / 10, latency / 8, latency / 5),
        per_token=Quantiles(0.01, 0.012, 0.015),
        client=ClientLoad(0.001, 0.002, cpu),
        errors=errors or {},
    )


def load_test_of(
    steps: Iterable[Step], *, endpoint: str = "bot", least: float | None = 980, most: float | None = 1960
) -> LoadTest:
    return LoadTest(
        endpoint=endpoint,
        task="llm/v1/chat",
        input_tokens=2048,
        output_tokens=256,
        seconds=10.0,
        requests=None,
        served=Served(("main.ml.bot/3",), least, most),
        warm_up=WarmUp(10, 2048, (2048, 2048), 7, 0.5),
        began="2026-11-27T01:00:00+00:00",
        ended="plateau",
        steps=tuple(steps),
    )
