"""Two load tests side by side: the same endpoint before and after, or two endpoints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from catalogger.serving.bench.figures import Quantiles, Step
from catalogger.serving.bench.results import WHOLE_RATE, LoadTest, seconds_of, table


@dataclass(frozen=True)
class Pair:
    """The steps of so many parallel requests in both tests.  Ratios are now / then; None where one has no figure."""

    parallel: int
    throughput: tuple[float, float]
    throughput_ratio: float | None
    latency_p50_ratio: float | None
    latency_p95_ratio: float | None
    first_token_p50_ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """A load test against an earlier one.  `remarks` say in what else the two differ."""

    now: LoadTest
    then: LoadTest
    pairs: tuple[Pair, ...]
    remarks: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The comparison as JSON data."""
        return {
            "endpoint": self.then.endpoint,
            "began": self.then.began,
            "remarks": list(self.remarks),
            "pairs": [asdict(pair) for pair in self.pairs],
        }

    def text(self) -> str:
        """A table for people."""
        head = f'Against "{self.then.endpoint}" of {self.then.began}; ratios are now / then'
        if not self.pairs:
            return "\n".join([head, *self.remarks, "No step has the same number of parallel requests."])
        rows = [
            ["parallel", WHOLE_RATE, "then", "ratio", "latency p50", "then", "ratio", "p95 ratio", "first token ratio"]
        ]
        rows += [self._row(pair) for pair in self.pairs]
        return "\n".join([head, *self.remarks, table(rows)])

    def _row(self, pair: Pair) -> list[str]:
        now, then = _at(self.now, pair.parallel), _at(self.then, pair.parallel)
        return [
            *(str(pair.parallel), f"{pair.throughput[0]:,.0f}", f"{pair.throughput[1]:,.0f}"),
            *(_ratio_text(pair.throughput_ratio), seconds_of(now.latency, "p50"), seconds_of(then.latency, "p50")),
            *map(_ratio_text, (pair.latency_p50_ratio, pair.latency_p95_ratio, pair.first_token_p50_ratio)),
        ]


def compare(now: LoadTest, then: LoadTest) -> Comparison:
    """Step by step, where both have it."""
    both = sorted({step.parallel for step in now.steps} & {step.parallel for step in then.steps})
    pairs = tuple(_pair(_at(now, parallel), _at(then, parallel)) for parallel in both)
    remarks = []
    for name in ("task", "input_tokens", "output_tokens"):
        own, other = getattr(now, name), getattr(then, name)
        if own != other:
            remarks.append(f"They differ in {name.replace('_', ' ')}: {own} now, {other} then.")
    if now.served != then.served:
        remarks.append(f"They differ in what is served: {_served(now)} now, {_served(then)} then.")
    return Comparison(now, then, pairs, tuple(remarks))


def _pair(now: Step, then: Step) -> Pair:
    return Pair(
        now.parallel,
        (now.whole_rate, then.whole_rate),
        now.whole_rate / then.whole_rate if then.whole_rate else None,
        _ratio(now.latency, then.latency, "p50"),
        _ratio(now.latency, then.latency, "p95"),
        _ratio(now.first_token, then.first_token, "p50"),
    )


def _at(test: LoadTest, parallel: int) -> Step:
    return next(step for step in test.steps if step.parallel == parallel)


def _ratio(now: Quantiles | None, then: Quantiles | None, name: str) -> float | None:
    if now is None or then is None or not getattr(then, name):
        return None
    ratio: float = getattr(now, name) / getattr(then, name)
    return ratio


def _ratio_text(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _served(test: LoadTest) -> str:
    served = test.served
    capacity = (
        f"{served.units} model units" if served.units else f"{served.least or 0:g} to {served.most or 0:g} tokens/s"
    )
    return f"{', '.join(served.entities) or 'nothing known'} ({capacity})"
