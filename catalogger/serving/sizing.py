"""How much throughput a workload needs, and how long a batch takes: arithmetic over what Databricks documents.

Listed rates count input and output tokens together, at requests of 2048 and 256 tokens, many at the same time.
Source: https://docs.databricks.com/aws/en/machine-learning/foundation-models/prov-throughput-tokens.html
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from catalogger.errors import UsageError
from catalogger.serving.capacity import chunks_for

SHAPE = (2048, 256)
"""Input and output tokens of a request, at which rates are listed."""
QUERIES = 200.0
"""Requests per second that a workspace may have, until the limit is raised."""

Direction = Literal["as listed", "shorter", "longer", "undetermined"]
_WHY: dict[Direction, str] = {
    "as listed": "the requests are those of the listed rates",
    "shorter": f"requests below {SHAPE[0]} + {SHAPE[1]} tokens go faster than the listed rate",
    "longer": f"requests above {SHAPE[0]} + {SHAPE[1]} tokens go slower than the listed rate",
    "undetermined": "output tokens weigh more than input tokens, by how much is not documented",
}


@dataclass(frozen=True)
class Workload:
    """Requests of so many tokens on average; so many each second, or so many rows of a batch."""

    input_tokens: float
    output_tokens: float
    requests_per_second: float | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for what is no workload."""
        for name, value in asdict(self).items():
            least = 0 if name.endswith("_tokens") else None
            if value is not None and not (math.isfinite(value) and (value > 0 or value == least)):
                raise UsageError(f"--{name.replace('_', '-')} {value:g} is no workload.", "Give more than 0.")
        if not self.tokens:
            raise UsageError("A request has no tokens.", "Give --input-tokens and --output-tokens.")

    @property
    def tokens(self) -> float:
        """Of one request, input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def direction(self) -> Direction:
        """How its real figures lie against nominal ones."""
        differences = (self.input_tokens - SHAPE[0], self.output_tokens - SHAPE[1])
        if not any(differences):
            return "as listed"
        if max(differences) <= 0:
            return "shorter"
        return "longer" if min(differences) >= 0 else "undetermined"


@dataclass(frozen=True)
class Size:
    """What to provision.  Rates in tokens per second, input and output together.

    `minimum` are the chunks that hold `tokens_per_second`, `maximum` one chunk more, for peaks, as in the documented
    sample (1960 to 2940 by chunks of 980); both None while the chunk is not known.  `unit_chunk` is the step of a model
    that is served by model units: any multiple, and no known one for a rate.  `nominal_seconds` is how long the rows of
    a batch take at that rate.  `queries_left` is what the workspace's limit leaves for others, in requests per second.
    """

    tokens_per_second: float
    chunk: int | None = None
    minimum: int | None = None
    maximum: int | None = None
    unit_chunk: int | None = None
    workload: Workload | None = None
    nominal_seconds: float | None = None
    queries_left: float | None = None

    def document(self) -> dict[str, Any]:
        """The size as JSON data."""
        direction = self.workload.direction if self.workload else None
        return {**asdict(self), "direction": direction, "why": _WHY[direction] if direction else None}

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line that people read."""
        rows = [("rate", f"{self.tokens_per_second:,.0f} tokens/s, input and output together")]
        rows += self._capacity()
        if self.workload:
            one = self.workload
            rows.append(("a request", f"{one.input_tokens:,.0f} input and {one.output_tokens:,.0f} output tokens"))
        if self.workload and self.nominal_seconds is not None:
            seconds, direction = self.nominal_seconds, self.workload.direction
            rows.append(
                ("batch", f"{self.workload.rows:,} rows in {seconds:,.2f} s nominally; expect {_expect(direction)}")
            )
        elif self.workload:
            rows.append(("real figure", _expect(self.workload.direction)))
        if self.queries_left is not None:
            rows.append(("queries", _left(self.queries_left)))
        return rows

    def _capacity(self) -> list[tuple[str, str]]:
        if self.unit_chunk:
            known = f"a multiple of {self.unit_chunk}; which one holds a rate is not documented"
            return [("model units", f"{known}: deploy {self.unit_chunk}, then `log-model bench`")]
        if not (self.chunk and self.minimum and self.maximum):
            return [("chunks", "not known: name a registered version, or --chunk")]
        chunks = self.minimum // self.chunk
        return [
            ("chunks", f"{chunks} of {self.chunk}: --min-throughput {self.minimum} for that"),
            ("with peaks", f"{chunks + 1} of {self.chunk}: --max-throughput {self.maximum}"),
        ]

    def __str__(self) -> str:
        return "\n".join(f"{label:<12} {text}" for label, text in self.rows())


def size(
    *,
    tokens_per_second: float | None = None,
    workload: Workload | None = None,
    chunk: int | None = None,
    unit_chunk: int | None = None,
) -> Size:
    """What a rate, or a workload, needs.

    tokens_per_second: the rate; without it, the workload's requests per second make it.
    chunk: tokens per second that are provisioned at a time, as the workspace says of a version (`eligibility`).
    unit_chunk: or the model units that are.

    Raises UsageError where the rate is given twice or not at all, or is none, and for two kinds of chunks.
    """
    by_requests = workload.requests_per_second if workload else None
    if (tokens_per_second is None) == (by_requests is None):
        raise UsageError(
            "The rate is given twice, or not at all.",
            "Give --tokens-per-second, or --requests-per-second with --input-tokens and --output-tokens.",
        )
    rate = tokens_per_second
    if rate is None:
        rate = (by_requests or 0.0) * (workload.tokens if workload else 0.0)
    if not (math.isfinite(rate) and rate > 0):
        raise UsageError(f"--tokens-per-second {rate:g} is no rate.", "Give more than 0.")
    if chunk is not None and unit_chunk is not None:
        raise UsageError("A model has chunks of tokens per second, or of model units.", "Give one of the two.")
    for option, given in (("--chunk", chunk), ("--unit-chunk", unit_chunk)):
        if given is not None and given <= 0:
            raise UsageError(f"{option} {given} is none.", "The workspace says it of a registered version.")
    minimum = chunks_for(rate, chunk) * chunk if chunk else None
    seconds = workload.rows * workload.tokens / rate if workload and workload.rows else None
    queries = QUERIES - rate / workload.tokens if workload else None
    maximum = minimum + chunk if minimum and chunk else None
    return Size(rate, chunk, minimum, maximum, unit_chunk, workload, seconds, queries)


def _expect(direction: Direction) -> str:
    verdict = {"as listed": "about that", "undetermined": "either"}.get(direction, direction)
    return f"{verdict}: {_WHY[direction]}"


def _left(queries: float) -> str:
    if queries < 0:
        return f"{-queries:,.1f} a second more than the workspace's limit of {QUERIES:g}; it can be raised on request"
    return f"{queries:,.1f} a second are left of the workspace's limit of {QUERIES:g}"
