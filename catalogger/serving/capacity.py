"""How much is provisioned: a range of tokens per second, or a number of model units, in the workspace's steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from catalogger.errors import UsageError
from catalogger.serving.eligibility import Eligibility, Unit

MANY = 4
"""Chunks above which a person is asked first."""


@dataclass(frozen=True)
class Wish:
    """What was asked for; nothing at all is one chunk, the cheapest that serves.

    minimum, maximum: tokens per second, multiples of the chunk.
    tokens_per_second: at least so many, always there.
    units: model units, a multiple of the chunk.
    scale_to_zero: of tokens per second; no_burst: of model units.
    """

    minimum: int | None = None
    maximum: int | None = None
    tokens_per_second: float | None = None
    units: int | None = None
    scale_to_zero: bool = False
    no_burst: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for what contradicts itself, whatever the workspace says."""
        given = [self.minimum is not None or self.maximum is not None, self.tokens_per_second is not None]
        if sum([*given, self.units is not None]) > 1:
            raise UsageError(
                "The capacity is given in more than one way.",
                "Give one of --min-throughput with --max-throughput, --tokens-per-second, and --units.",
            )
        if self.minimum is not None and self.maximum is None:
            raise UsageError("--min-throughput was given without --max-throughput.", "The workspace takes both.")
        rate = self.tokens_per_second
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise UsageError(f"--tokens-per-second {rate:g} is no capacity.", "Give more than 0.")


@dataclass(frozen=True)
class Capacity:
    """What will be provisioned.  `minimum` and `maximum` in tokens per second, or both the number of model units."""

    unit: Unit
    chunk: int
    minimum: int
    maximum: int
    scale_to_zero: bool = False
    no_burst: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """Its fields of a served entity.  Nothing that was not asked for: some fields are refused even when zero."""
        if self.unit == "model_units":
            fixed = {"burst_scaling_enabled": False} if self.no_burst else {}
            return {"provisioned_model_units": self.maximum, **fixed}
        asleep = {"scale_to_zero_enabled": True} if self.scale_to_zero else {}
        return {"min_provisioned_throughput": self.minimum, "max_provisioned_throughput": self.maximum, **asleep}

    @property
    def chunks(self) -> int:
        """At the most."""
        return self.maximum // self.chunk

    def __str__(self) -> str:
        """What is billed by the hour."""
        if self.unit == "model_units":
            burst = "fixed" if self.no_burst else "more in bursts"
            return f"{self.maximum} model units ({self.chunks} x {self.chunk}; {burst})"
        between = f"{self.minimum} to {self.maximum}" if self.minimum < self.maximum else str(self.maximum)
        asleep = ", nothing while it is scaled to zero" if self.scale_to_zero or not self.minimum else ""
        return f"{between} tokens/s, input and output together ({self.chunks} x {self.chunk} at the most{asleep})"


def chunks_for(rate: float, chunk: int) -> int:
    """Whole chunks that hold a rate in tokens per second.

    4.9 requests of 200 tokens are one chunk of 980, though their product is 980.0000000000001.
    """
    return max(1, math.ceil(round(rate / chunk, 9)))


def capacity(eligibility: Eligibility, wish: Wish) -> Capacity:
    """The wish in the version's own unit and steps.

    Raises NotEligible, and UsageError where the wish is of the other unit, no multiple, zero, or a minimum above its
    maximum.
    """
    unit, chunk = eligibility.require()
    if unit == "model_units":
        return _units(str(eligibility.entity), chunk, wish)
    if wish.units is not None or wish.no_burst:
        raise UsageError(
            f'"{eligibility.entity}" is served by tokens per second, not by model units.',
            f"Give --min-throughput and --max-throughput, multiples of {chunk}.",
        )
    return _tokens(chunk, wish)


def _units(entity: str, chunk: int, wish: Wish) -> Capacity:
    if wish.maximum is not None or wish.tokens_per_second is not None or wish.scale_to_zero:
        raise UsageError(
            f'"{entity}" is served by model units: a fixed number, which has no fixed rate and no scale to zero.',
            f"Give --units, a multiple of {chunk}.",
        )
    units = chunk if wish.units is None else wish.units
    _require_multiple("--units", units, chunk)
    return Capacity("model_units", chunk, units, units, no_burst=wish.no_burst)


def _tokens(chunk: int, wish: Wish) -> Capacity:
    if wish.tokens_per_second is not None:
        enough = chunks_for(wish.tokens_per_second, chunk) * chunk
        return Capacity("tokens_per_second", chunk, enough, enough, wish.scale_to_zero)
    maximum = chunk if wish.maximum is None else wish.maximum
    minimum = maximum if wish.minimum is None else wish.minimum
    _require_multiple("--max-throughput", maximum, chunk)
    if minimum:
        _require_multiple("--min-throughput", minimum, chunk)
    if minimum > maximum:
        raise UsageError(f"--min-throughput {minimum} is above --max-throughput {maximum}.", "Exchange them.")
    return Capacity("tokens_per_second", chunk, minimum, maximum, wish.scale_to_zero)


def _require_multiple(option: str, value: int, chunk: int) -> None:
    if value <= 0:
        raise UsageError(f"{option} {value} is no capacity.", f"Give a multiple of {chunk}.")
    if value % chunk:
        below = value // chunk * chunk
        near = f"{below} or {below + chunk}" if below else str(chunk)
        raise UsageError(f"{option} {value} is no multiple of {chunk}.", f"Give {near}.")
