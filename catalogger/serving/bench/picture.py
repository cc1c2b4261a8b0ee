"""The picture of a load test: latency against throughput, a point for each step, and what is provisioned."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogger.errors import DiskError, UsageError
from catalogger.serving.bench.figures import Step
from catalogger.serving.bench.results import LoadTest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = (".png", ".svg")
_NOW, _TAIL, _THEN, _LINE = "#1f6fb4", "#d1622b", "#8a8a8a", "#2e7d32"


def require_matplotlib() -> None:
    """Raises UsageError where it is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "A picture needs matplotlib, which is not installed.", "pip install 'catalogger[plot]'"
        ) from error


def draw(test: LoadTest, file: Path, against: LoadTest | None = None) -> None:
    """Write the picture as PNG or SVG, by the file's ending.  Raises UsageError where there is nothing to draw."""
    figure = _figure(test, against)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise DiskError(f'"{file}" cannot be written: {error.strerror}.', "Name another file.") from error


def as_image(test: LoadTest) -> str:
    """The picture as an HTML image that needs no file.  Raises what `draw` raises."""
    content = io.BytesIO()
    _figure(test, None).savefig(content, format="png", dpi=110)
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="latency against throughput" style="max-width:100%" src="data:image/png;base64,{encoded}">'


def _figure(test: LoadTest, against: LoadTest | None) -> Figure:
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not _points(test):
        raise UsageError(f'The load test of "{test.endpoint}" has no step to draw.', "Measure at least one.")
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if against:
        _curve(axes, against, "p50", _THEN, f"then, {against.began[:16].replace('T', ' ')}: p50", dashed=True)
    _curve(axes, test, "p95", _TAIL, "latency p95", dashed=False)
    _curve(axes, test, "p50", _NOW, "latency p50", dashed=False, labelled=True)
    _provisioned(axes, test)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("throughput: input + output tokens per second")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("latency of a request (s)")
    _output_axis(axes, test)
    axes.set_title(_title(test), loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper left")
    return figure


def _points(test: LoadTest) -> list[Step]:
    return [step for step in test.steps if step.latency]


def _curve(
    axes: Axes, test: LoadTest, share: str, colour: str, label: str, *, dashed: bool, labelled: bool = False
) -> None:
    steps = _points(test)
    rates = [step.whole_rate for step in steps]
    latencies = [getattr(step.latency, share) for step in steps]
    style: dict[str, Any] = {"linestyle": "--" if dashed else "-", "linewidth": 1.6, "marker": "o", "markersize": 5}
    if share == "p95":  # where all requests took the same time, it lies below the other curve and is to be seen still
        style |= {"linewidth": 1.2, "markersize": 9, "markerfacecolor": "none"}
    axes.plot(rates, latencies, color=colour, label=label, **style)
    if labelled:
        _label(axes, steps, rates, latencies)


def _label(axes: Axes, steps: Sequence[Step], rates: Sequence[float], latencies: Sequence[float]) -> None:
    """How many requests were parallel, at each point; where the client was the limit, marked so."""
    for step, rate, latency in zip(steps, rates, latencies, strict=True):
        text = f"{step.parallel}*" if step.client_limits else str(step.parallel)
        axes.annotate(text, (rate, latency), xytext=(6, -12), textcoords="offset points", color=_NOW, fontsize=9)
    axes.plot([], [], " ", label="numbers: parallel requests")
    if any(step.client_limits for step in steps):
        axes.plot([], [], " ", label="*: the client was the limit")


def _provisioned(axes: Axes, test: LoadTest) -> None:
    least, most = test.served.least, test.served.most
    lines = [(most, "-", "provisioned maximum")] if most else []
    if least and least != most:
        lines.append((least, ":", "provisioned minimum"))
    for rate, style, label in lines:
        axes.axvline(rate, color=_LINE, linestyle=style, linewidth=1.4, label=f"{label}: {rate:,.0f} tokens/s")


def _output_axis(axes: Axes, test: LoadTest) -> None:
    """The other throughput, which counts output tokens only; both are in use, and are mistaken for each other."""
    best = test.best
    if not test.streamed or best is None or not best.output_tokens:
        return
    share = best.output_tokens / (best.input_tokens + best.output_tokens)

    def down(rate: Any) -> Any:
        return rate * share

    def up(rate: Any) -> Any:
        return rate / share

    other = axes.secondary_xaxis("top", functions=(down, up))
    other.xaxis.set_major_formatter("{x:,.0f}")
    other.set_xlabel("throughput: output tokens per second")


def _title(test: LoadTest) -> str:
    shape = f"{test.input_tokens:,} input" + (
        f" + {test.output_tokens:,} output tokens" if test.streamed else " tokens"
    )
    units = f", {test.served.units} model units" if test.served.units else ""
    return f"{test.endpoint}: {shape} a request{units}, {test.began[:16].replace('T', ' ')} UTC"
