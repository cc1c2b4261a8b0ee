"""A load test's results: as data, as JSON and CSV, and read again from its JSON."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from catalogger.errors import UsageError
from catalogger.lines import as_block
from catalogger.serving.bench.figures import ClientLoad, Quantiles, Step
from catalogger.serving.bench.warming import WarmUp

FORMAT = 1
PLATEAU, WHOLE_LADDER, INTERRUPTED, GIVEN_UP = "plateau", "whole ladder", "interrupted", "endpoint gave up"
OUTPUT_RATE, WHOLE_RATE = "output tokens/s", "input + output tokens/s"


@dataclass(frozen=True)
class Served:
    """What an endpoint serves and what it is provisioned for; throughput in input and output tokens per second.

    None where the endpoint has no such figure: one of model units has no throughput.
    """

    entities: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    units: int | None = None


@dataclass(frozen=True)
class LoadTest:
    """What a load test measured.

    began: the moment, in ISO 8601.  ended: "plateau", "whole ladder", "interrupted" or "endpoint gave up"; of the last
    two, the last step is cut short.  seconds, requests: what measured a step.
    """

    endpoint: str
    task: str
    input_tokens: int
    output_tokens: int
    seconds: float
    requests: int | None
    served: Served
    warm_up: WarmUp
    began: str
    ended: str
    steps: tuple[Step, ...] = ()

    @property
    def best(self) -> Step | None:
        """The step of the highest throughput; None where nothing was answered."""
        return max((step for step in self.steps if step.answered), key=lambda step: step.whole_rate, default=None)

    @property
    def streamed(self) -> bool:
        """Answers came token by token."""
        return self.output_tokens > 0

    def document(self) -> dict[str, Any]:
        """All of it as JSON data.  Seconds and tokens everywhere."""
        best = self.best
        steps = [asdict(step) | {"client_limits": step.client_limits} for step in self.steps]
        own = {"format": FORMAT} | asdict(replace(self, steps=()))
        return own | {"steps": steps, "plateau": best.whole_rate if best else None}

    def csv(self) -> str:
        """One line a step; the columns name their units."""
        text = io.StringIO()
        rows = [_row(step) for step in self.steps]
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def text(self) -> str:
        """A table for people."""
        heads = ("parallel", "answered", "429", "failed", OUTPUT_RATE, WHOLE_RATE)
        times = ("latency p50", "p95", "p99", *(("first token p50", "p95", "per token p50") if self.streamed else ()))
        rows = [[*heads, *times]]
        for step in self.steps:
            rates = f"{step.output_rate:,.0f}", f"{step.whole_rate:,.0f}"
            counts = str(step.parallel), str(step.answered), str(step.too_many), str(step.failed)
            rows.append([*counts, *rates, *self._times(step)])
        if not self.streamed:
            rows = [row[:4] + row[5:] for row in rows]
        return table(rows)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from catalogger.serving.bench.picture import as_image

        drawn = importlib.util.find_spec("matplotlib") and self.best
        return (as_image(self) if drawn else "") + as_block(self.text())

    def _times(self, step: Step) -> list[str]:
        cells = [seconds_of(step.latency, name) for name in ("p50", "p95", "p99")]
        if self.streamed:
            first, per = step.first_token, step.per_token
            cells += [seconds_of(first, "p50"), seconds_of(first, "p95"), seconds_of(per, "p50")]
        return cells


_TIMES = ("latency", "first_token", "per_token")
_COLUMNS = [
    *("parallel", "measured_s", "requests", "answered", "refused_429", "failed", "input_tokens", "output_tokens"),
    *("requests_per_s", "output_tokens_per_s", "input_and_output_tokens_per_s"),
    *(f"{name}_{share}_s" for name in _TIMES for share in ("p50", "p95", "p99")),
    *("client_lag_p95_s", "client_cpu_cores", "client_limits"),
]


def _row(step: Step) -> dict[str, Any]:
    row = {
        "parallel": step.parallel,
        "measured_s": step.seconds,
        "requests": step.requests,
        "answered": step.answered,
        "refused_429": step.too_many,
        "failed": step.failed,
        "input_tokens": step.input_tokens,
        "output_tokens": step.output_tokens,
        "requests_per_s": step.request_rate,
        "output_tokens_per_s": step.output_rate,
        "input_and_output_tokens_per_s": step.whole_rate,
        "client_lag_p95_s": step.client.lag_p95,
        "client_cpu_cores": step.client.cpu,
        "client_limits": int(step.client_limits),
    }
    for name in _TIMES:
        times = getattr(step, name)
        row |= {f"{name}_{share}_s": value for share, value in (asdict(times) if times else {}).items()}
    return row


def read(file: Path) -> LoadTest:
    """The load test that was saved there as JSON.  Raises UsageError where there is none."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']}, not {FORMAT}")
        return _of_document(said)
    except OSError as error:
        raise UsageError(f'"{file}" cannot be read: {error.strerror}.', "Name the JSON of a load test.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f'"{file}" is no load test ({why}).', "Name the JSON that --save wrote.") from error


def _of_document(said: Mapping[str, Any]) -> LoadTest:
    own = {key: said[key] for key in LoadTest.__dataclass_fields__}
    served = Served(**{**said["served"], "entities": tuple(said["served"]["entities"])})
    warm_up = WarmUp(**{**said["warm_up"], "seen": tuple(said["warm_up"]["seen"])})
    return LoadTest(**{**own, "served": served, "warm_up": warm_up, "steps": tuple(map(_step, said["steps"]))})


def _step(said: Mapping[str, Any]) -> Step:
    own = {key: said[key] for key in Step.__dataclass_fields__}
    times = {name: Quantiles(**said[name]) if said[name] else None for name in _TIMES}
    return Step(**{**own, **times, "client": ClientLoad(**said["client"])})


def table(rows: list[list[str]]) -> str:
    """Right-aligned columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def seconds_of(quantiles: Quantiles | None, name: str) -> str:
    """A time as people read it: `31 ms`, `2.05 s`; - where there is none."""
    if quantiles is None:
        return "-"
    value: float = getattr(quantiles, name)
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
