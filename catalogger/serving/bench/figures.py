"""From the times of single requests to the figures of a step.  Pure: given the same times, the same figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

TOO_MANY = "429"
_LAG = 0.01  # seconds by which the client itself may be late, in 19 of 20 looks
_SHARE = 0.05  # of a request's latency that it may be late, where that is more
_BUSY = 0.9  # of one core


@dataclass(frozen=True)
class Sample:
    """One request.  Moments in seconds of one clock, counts in tokens.

    first, last: when the first and the last token came; None where the answer did not come token by token.
    error: the kind of failure; None where the whole answer came.
    counted: it was begun while the step was measured.
    """

    began: float
    ended: float
    input_tokens: int = 0
    output_tokens: int = 0
    first: float | None = None
    last: float | None = None
    error: str | None = None
    counted: bool = True

    @property
    def latency(self) -> float:
        """From before it was sent to the end of its answer."""
        return self.ended - self.began

    @property
    def per_token(self) -> float | None:
        """Seconds for each output token after the first one."""
        if self.first is None or self.last is None or self.output_tokens < 2:
            return None
        return (self.last - self.first) / (self.output_tokens - 1)


@dataclass(frozen=True)
class Quantiles:
    """Of so many seconds, half, 95 and 99 of a hundred are below."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class ClientLoad:
    """How the client itself did while it measured: how late it looked (seconds), and its share of one core."""

    lag_p95: float = 0.0
    lag_most: float = 0.0
    cpu: float = 0.0

    def limits(self, latency: float) -> bool:
        """The client, not the endpoint, is the limit of what was measured, where a request takes so many seconds."""
        return self.lag_p95 > max(_LAG, _SHARE * latency) or self.cpu > _BUSY


@dataclass(frozen=True)
class Step:
    """The figures of so many parallel requests.

    seconds: how long it was measured, with every stream at work.
    requests: begun in that time; `answered` of them whole.  `errors` counts the others by kind.
    input_tokens, output_tokens: the mean of an answered request, as the endpoint counted them.
    output_rate, whole_rate: output tokens per second, and input and output tokens per second, over all streams.
    latency, first_token, per_token: of answered requests, in seconds; None where there is nothing to tell of.
    """

    parallel: int
    seconds: float
    requests: int
    answered: int
    input_tokens: float
    output_tokens: float
    request_rate: float
    output_rate: float
    whole_rate: float
    latency: Quantiles | None
    first_token: Quantiles | None
    per_token: Quantiles | None
    client: ClientLoad
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def too_many(self) -> int:
        """Requests that were refused with 429."""
        return self.errors.get(TOO_MANY, 0)

    @property
    def client_limits(self) -> bool:
        """The client, not the endpoint, is the limit of what was measured."""
        return self.client.limits(self.latency.p50 if self.latency else 0.0)

    @property
    def failed(self) -> int:
        """Requests that failed in any other way."""
        return sum(self.errors.values()) - self.too_many


def figures(parallel: int, samples: Sequence[Sample], opened: float, closed: float, client: ClientLoad) -> Step:
    """The figures of what was measured from `opened` to `closed`, by requests of before and after too.

    A request adds to the throughput by the part of its time that lies between the two, so that requests which are long
    against the time that is measured neither raise nor lower it.  A latency counts where the request was begun between
    the two, and is waited for: to take those that have ended would favour short ones.
    """
    counted = [sample for sample in samples if sample.counted]
    whole = [sample for sample in counted if sample.error is None]
    answered = [sample for sample in samples if sample.error is None]
    seconds = closed - opened
    parts = [(sample, _part(sample, opened, closed)) for sample in answered]
    outputs = sum(part * sample.output_tokens for sample, part in parts)
    inputs = sum(part * sample.input_tokens for sample, part in parts)
    rate = 1 / seconds if seconds > 0 else 0.0
    return Step(
        parallel=parallel,
        seconds=seconds,
        requests=len(counted),
        answered=len(whole),
        input_tokens=fmean(sample.input_tokens for sample in whole) if whole else 0.0,
        output_tokens=fmean(sample.output_tokens for sample in whole) if whole else 0.0,
        request_rate=sum(part for _, part in parts) * rate,
        output_rate=outputs * rate,
        whole_rate=(inputs + outputs) * rate,
        latency=quantiles([sample.latency for sample in whole]),
        first_token=quantiles([sample.first - sample.began for sample in whole if sample.first is not None]),
        per_token=quantiles([sample.per_token for sample in whole if sample.per_token is not None]),
        client=client,
        errors=dict(Counter(sample.error for sample in counted if sample.error is not None)),
    )


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """The quantiles that are told of; None where there are no values."""
    if not values:
        return None
    ordered = sorted(values)
    return Quantiles(*(quantile(ordered, share) for share in (0.5, 0.95, 0.99)))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the rising values lies, between two of them in a straight line."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _part(sample: Sample, opened: float, closed: float) -> float:
    overlap = min(sample.ended, closed) - max(sample.began, opened)
    return max(overlap, 0.0) / sample.latency if sample.latency > 0 else float(opened <= sample.ended <= closed)


def at_plateau(rates: Sequence[float], percent: float) -> bool:
    """Whether each of the last two steps raised the throughput by no more than so many percent above all before it."""
    if len(rates) < 3:
        return False
    return all(rates[place] <= max(rates[:place]) * (1 + percent / 100) for place in (len(rates) - 2, len(rates) - 1))
