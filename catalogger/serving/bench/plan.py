"""What a load test is to do: the ladder of parallel requests, the shape of a request, how long, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalogger.errors import UsageError
from catalogger.serving.endpoint import EMBEDDINGS
from catalogger.serving.invocations import EXECUTION

LADDER = (1, 2, 4, 8, 16, 32, 64, 128)
_INPUT, _OUTPUT = 2048, 256  # the benchmark shape of a listed rate: retrieval-augmented summarisation
_INPUT_EMBEDDED = 512  # the window of BGE, which GTE's is larger than
_MOST_PARALLEL = 1024


@dataclass(frozen=True)
class Plan:
    """One load test, checked.

    parallel: requests at the same time, one number a step, rising.
    seconds: how long a step is measured; or `requests`: how many of each stream are measured.
    plateau: a step raises the throughput where it is more than so many percent above the best step before it; after
        two that do not, the ladder ends.  None to run every step.
    timeout: seconds that one answer may take.
    """

    input_tokens: int
    output_tokens: int
    parallel: tuple[int, ...] = LADDER
    seconds: float = 30.0
    requests: int | None = None
    plateau: float | None = 5.0
    timeout: float = EXECUTION

    def __post_init__(self) -> None:
        if not self.parallel or min(self.parallel) < 1 or max(self.parallel) > _MOST_PARALLEL:
            asked = ", ".join(map(str, self.parallel)) or "none"
            raise UsageError(
                f'The parallel requests are to be "{asked}".', f"Give numbers from 1 to {_MOST_PARALLEL}, as in 1,2,4."
            )
        if list(self.parallel) != sorted(set(self.parallel)):
            raise UsageError(
                f'The parallel requests "{", ".join(map(str, self.parallel))}" do not rise.',
                "Give each once, in order.",
            )
        _require("input tokens", self.input_tokens, 1)
        _require("output tokens", self.output_tokens, 0)
        if self.requests is not None:
            _require("requests of each stream", self.requests, 1)
        if not 0 < self.seconds <= 86_400:
            raise UsageError(f'A step is to last "{self.seconds:g}" s.', "Give more than 0 and at most a day.")
        if self.plateau is not None and not 0 <= self.plateau < 100:
            raise UsageError(f'The plateau is to be "{self.plateau:g}" percent.', "Give a number from 0 to below 100.")
        if not 0 < self.timeout <= EXECUTION:
            raise UsageError(
                f'An answer is to have "{self.timeout:g}" s.',
                f"An endpoint ends it after {EXECUTION:g} s: give it less.",
            )

    def announced(self, latency: float) -> str:
        """How long it takes at the most, in words; `latency` in seconds is that of one request alone."""
        steps = f"{len(self.parallel)} step{'s' if len(self.parallel) > 1 else ''}"
        at_most = "" if self.plateau is None else "at most "
        if self.requests is None:
            whole = len(self.parallel) * (self.seconds + 3 * latency)
            ends = "with the first and the last requests of each, and more where requests queue"
            return f"{at_most}{steps} of {self.seconds:g} s: {duration(whole)} {ends}"
        least = len(self.parallel) * (self.requests + 2) * latency
        most = sum(self.parallel) * (self.requests + 2) * latency
        each = f"{self.requests} request{'s' if self.requests > 1 else ''} of each stream"
        return f"{at_most}{steps} of {each}: from {duration(least)} to {duration(most)}, by how far they queue"


def planned(
    task: str,
    *,
    parallel: Sequence[int] | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    seconds: float = 30.0,
    requests: int | None = None,
    plateau: float = 5.0,
    timeout: float = EXECUTION,
) -> Plan:
    """The plan for an endpoint of this task.  Steps that are named are all run.  Raises UsageError."""
    embeds = task == EMBEDDINGS
    if embeds and output_tokens:
        raise UsageError("An embedding has no output tokens.", "Give input tokens only.")
    if not embeds and output_tokens is not None:
        _require("output tokens", output_tokens, 1)
    inputs = _INPUT_EMBEDDED if embeds else _INPUT
    return Plan(
        input_tokens=inputs if input_tokens is None else input_tokens,
        output_tokens=0 if embeds else (_OUTPUT if output_tokens is None else output_tokens),
        parallel=LADDER if parallel is None else tuple(parallel),
        seconds=seconds,
        requests=requests,
        plateau=plateau if parallel is None else None,
        timeout=timeout,
    )


def duration(seconds: float) -> str:
    """As people read it: `40 s`, `4.5 minutes`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} minutes"


def _require(what: str, number: int, least: int) -> None:
    if number < least:
        raise UsageError(f'The {what} are to be "{number}".', f"Give {least} or more.")
