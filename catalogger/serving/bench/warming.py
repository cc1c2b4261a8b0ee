"""Queries before anything is measured: they wake the endpoint, and tell how many tokens it sees in a prompt."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import fmean

from catalogger.errors import RegistryError, UsageError
from catalogger.progress import Progress
from catalogger.serving.bench.plan import Plan
from catalogger.serving.bench.prompts import Prompts
from catalogger.serving.invocations import Invocations
from catalogger.serving.replies import usage_of

QUERIES = 10
_CORRECTIONS = 5  # of a count that no tokenizer has told; one where a tokenizer did


@dataclass(frozen=True)
class WarmUp:
    """What the queries told.

    asked: tokens that a prompt is to have; `seen`: those that the endpoint counted last; least and most, where the
        prompts are not equally long for it.
    added: tokens that it counts beyond those of the prompt itself; None where no tokenizer told those.
    latency: mean seconds of one query alone.
    """

    queries: int
    asked: int
    seen: tuple[int, int]
    added: int | None
    latency: float

    @property
    def exact(self) -> bool:
        """Every prompt has as many tokens as were asked for."""
        return self.seen == (self.asked, self.asked)

    def sentence(self) -> str:
        """What was found, for people."""
        least, most = self.seen
        counted = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        added = "" if not self.added else f"; {self.added} of them it adds itself, and prompts are as much shorter"
        asked = "" if self.exact else f", {self.asked:,} were asked for"
        return f"The endpoint counts {counted} input tokens{asked}{added}."


def warm_up(
    invocations: Invocations, prompts: Prompts, plan: Plan, progress: Progress, *, by_tokenizer: bool
) -> WarmUp:
    """Ask one query after another, and give prompts the length at which the endpoint counts what is asked for.

    Raises what a query raises, and UsageError where no length of a prompt is counted so.
    """
    progress.say(f"{QUERIES} warm-up queries, one after another")
    began, left = prompts.words, 1 if by_tokenizer else _CORRECTIONS
    seen: list[int] = []
    latencies, before = [], 0
    for rest in reversed(range(QUERIES)):
        tokens, seconds = _asked(invocations, prompts)
        latencies.append(seconds)
        seen.append(tokens)
        if tokens == before != plan.input_tokens and len(seen) == 1:
            raise UsageError(
                f"The endpoint counts {tokens:,} input tokens, however long a prompt is.",
                f"Its window may end there: --input-tokens {tokens}.",
            )
        if tokens != plan.input_tokens and left and rest:
            prompts.words = _corrected(prompts.words, tokens, plan.input_tokens)
            before, left, seen = tokens, left - 1, []
    added = began - prompts.words if by_tokenizer else None
    return WarmUp(QUERIES, plan.input_tokens, (min(seen), max(seen)), added, fmean(latencies))


def _asked(invocations: Invocations, prompts: Prompts) -> tuple[int, float]:
    """The tokens that the endpoint counted in one prompt, and the seconds that it took."""
    asked = prompts.document(prompts.text(), stream=False)
    began = time.monotonic()
    usage = usage_of(invocations.ask(asked))
    if usage is None:
        raise RegistryError(
            f'The endpoint "{invocations.name}" does not say how many tokens it saw.',
            "A load test goes by that count: does the endpoint serve an llm/v1 task?",
        )
    return usage.prompt_tokens, time.monotonic() - began


def _corrected(words: int, seen: int, asked: int) -> int:
    corrected = words + asked - seen
    if corrected < 1:
        raise UsageError(
            f"The endpoint counts {seen:,} input tokens in a prompt of {words:,} words; {asked:,} were asked for.",
            f"Ask for more than {seen - words:,}: --input-tokens.",
        )
    return corrected
