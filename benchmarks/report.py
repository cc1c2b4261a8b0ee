"""Judge measurements by the budgets, and show both as a table and a picture. Must not measure or time anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.candidates import CANDIDATES, SIZELESS, Case, Results

_MB = 1e6
_SIZES = frozenset({2.0, 6.0})  # GB that the budgets are for
_DATABASES = ("existing", "fresh")


@dataclass(frozen=True)
class Verdict:
    """One line of the budget table. `met` is None where the size that the budget is for was not measured."""

    what: str
    where: str
    measured: str
    budget: str
    met: bool | None


@dataclass(frozen=True)
class Budget:
    """A row of the list of what must be measured: the candidates it needs, and its lines."""

    needs: frozenset[str]
    judge: Callable[[Results], Iterator[Verdict]]


@dataclass(frozen=True)
class _Wall:
    """Wall time of a candidate as at most `limit` times the sum of others on the same database, at a size in GB."""

    what: str
    candidate: str
    size: float
    limit: float
    against: tuple[str, ...]

    def seconds(self, results: Results, size: float, database: str) -> float:
        """What the others take."""
        return sum(results.median(_case(other, size, database), "wall") for other in self.against)

    def judge(self, results: Results) -> Iterator[Verdict]:
        size = results.nearest(self.size)
        for database in _DATABASES:
            own, others = (
                results.median(_case(self.candidate, size, database), "wall"),
                self.seconds(results, size, database),
            )
            met = own / others <= self.limit if size == self.size else None
            ratio = f"{own:.2f} s / {others:.2f} s = {own / others:.3f}x"
            yield Verdict(self.what, _where(size, database), ratio, f"at most {self.limit:g}x at {self.size:g} GB", met)

    def budget(self) -> Budget:
        return Budget(frozenset({self.candidate, *self.against}), self.judge)


def _case(candidate: str, size: float, database: str) -> Case:
    return Case(candidate, size, database if CANDIDATES[candidate].stores else None)


def _where(size: float, database: str) -> str:
    return f"{size:g} GB, {database}"


def _line(
    what: str, results: Results, database: str, budget: str, judged: Callable[[float], tuple[str, bool]]
) -> Verdict:
    """One line for all sizes, of each what was measured and whether that will do."""
    sizes = sorted(results.weights)
    texts, good = zip(*map(judged, sizes), strict=True)
    where = f"{' and '.join(f'{size:g}' for size in sizes)} GB, {database}"
    return Verdict(what, where, " and ".join(texts), budget, all(good) if _SIZES.issuperset(sizes) else None)


def _cpu(results: Results) -> Iterator[Verdict]:
    def beyond(candidate: str, hashing: bool, size: float) -> tuple[str, bool]:
        floor = results.median(Case("floor", size, "existing"), "user")
        limit = 0.8 + (results.median(Case("hash", size), "user") if hashing else 0)
        own = results.median(Case(candidate, size, "existing"), "user") - floor
        return f"{own:.2f} s" + (f" of {limit:.2f}" if hashing else ""), own <= limit

    for candidate, hashing in (("hub", False), ("again", False), ("link", True), ("copy", True)):
        budget = "at most 0.8 s" + (" and that of hashing once" if hashing else "")
        what = f"user CPU beyond the floor: {_short(candidate)}"
        yield _line(what, results, "existing", budget, partial(beyond, candidate, hashing))


def _memory(results: Results) -> Iterator[Verdict]:
    def peak(candidate: str, database: str, size: float) -> tuple[str, bool]:
        own = results.median(Case(candidate, size, database), "rss") / _MB
        least = min(results.median(Case(candidate, other, database), "rss") for other in results.weights) / _MB
        return f"{own:.1f} MB", own <= 250 and own <= least * 1.05

    for candidate, database in product(("hub", "link", "copy", "again"), _DATABASES):
        what, budget = f"peak RSS: {_short(candidate)}", "at most 250 MB, equal within 5 %"
        yield _line(what, results, database, budget, partial(peak, candidate, database))


def _beyond_floor(results: Results, candidate: str, database: str, size: float) -> float:
    """Bytes read that the floor does not read; catalogger's own code is among them."""
    cases = (Case(candidate, size, database), Case("floor", size, database))
    own, floor = (results.median(case, "read") for case in cases)
    return own - floor


def _read(results: Results) -> Iterator[Verdict]:
    def read(candidate: str, database: str, size: float) -> tuple[str, bool]:
        ratio = _beyond_floor(results, candidate, database, size) / results.weights[size]
        return f"{ratio:.4f}x", ratio <= 1.01

    for candidate, database in product(("link", "copy"), _DATABASES):
        what = f"bytes read beyond the floor: {_short(candidate)}"
        yield _line(what, results, database, "at most 1.01x, code among them", partial(read, candidate, database))


def _written(results: Results) -> Iterator[Verdict]:
    """By the larger of the two counts: through system calls, and pages dirtied."""

    def written(candidate: str, database: str, size: float) -> tuple[str, bool]:
        case = Case(candidate, size, database)
        count = max(results.median(case, "written"), results.median(case, "dirtied"))
        ratio = count / results.weights[size]
        return (f"{ratio:.4f}x", ratio <= 1.01) if candidate == "copy" else (f"{count / _MB:.1f} MB", count < 20 * _MB)

    for candidate, database in product(("hub", "link", "copy"), _DATABASES):
        budget = "at most 1.01x" if candidate == "copy" else "under 20 MB"
        what = f"bytes written: {_short(candidate)}"
        yield _line(what, results, database, budget, partial(written, candidate, database))


def _second(results: Results) -> Iterator[Verdict]:
    """The kernel does not say which file was read, so what is counted also holds catalogger's own code."""

    def read(database: str, size: float) -> tuple[str, bool]:
        beyond = _beyond_floor(results, "again", database, size)
        return f"{beyond / _MB:.1f} MB", beyond < 0.01 * results.weights[size]

    for database in _DATABASES:
        what = "bytes read beyond the floor, catalogger's code and file headers among them: second run"
        yield _line(what, results, database, "no weight: under 1 % of them", partial(read, database))


def _help(results: Results) -> Iterator[Verdict]:
    ours, theirs = (results.median(Case(candidate), "user") for candidate in ("help", "mlflow-help"))
    ratio = f"{ours:.3f} s / {theirs:.3f} s = {ours / theirs:.3f}x"
    yield Verdict("user CPU: log-model --help against mlflow --help", "-", ratio, "at most 0.1x", ours / theirs <= 0.1)


def _checks(results: Results) -> Iterator[Verdict]:
    case = Case("check")
    wall, fetched = results.median(case, "wall"), results.median(case, "fetched") / _MB
    said = f"{wall:.2f} s, {fetched:.1f} MB fetched"
    yield Verdict(SIZELESS["check"].label, "-", said, "at most 10 s and 40 MB", wall <= 10 and fetched <= 40)

    def lint(size: float) -> tuple[str, bool]:
        case = Case("lint", size, "existing")
        wall, rss = results.median(case, "wall"), results.median(case, "rss") / _MB
        return f"{wall:.2f} s, peak RSS {rss:.1f} MB", wall <= 3 and rss <= 250

    yield _line(CANDIDATES["lint"].label, results, "existing", "at most 3 s and 250 MB", lint)


_WALLS = {
    "wall-hub": _Wall("wall, linked from the Hub's cache, against upstream", "hub", 6, 0.15, ("upstream",)),
    "wall-link": _Wall("wall, linked from a folder, against upstream", "link", 6, 0.2, ("upstream",)),
    "wall-copy": _Wall("wall, copied from a folder, against upstream", "copy", 2, 0.3, ("upstream",)),
    "wall-limits": _Wall(
        "wall, copied, against cp -r plus importing mlflow and opening the store", "copy", 6, 1.2, ("cp", "floor")
    ),
}
BUDGETS: dict[str, Budget] = {
    **{key: wall.budget() for key, wall in _WALLS.items()},
    "cpu": Budget(frozenset({"floor", "hash", "hub", "link", "copy", "again"}), _cpu),
    "rss": Budget(frozenset({"hub", "link", "copy", "again"}), _memory),
    "read": Budget(frozenset({"floor", "link", "copy"}), _read),
    "written": Budget(frozenset({"hub", "link", "copy"}), _written),
    "second-run": Budget(frozenset({"floor", "copy", "again"}), _second),
    "help": Budget(frozenset({"help", "mlflow-help"}), _help),
    "checks": Budget(frozenset({"check", "lint", "copy", "again"}), _checks),
}


def _short(candidate: str) -> str:
    return CANDIDATES[candidate].label.removeprefix("catalogger, ")


def verdicts(results: Results, budgets: Iterable[str]) -> list[Verdict]:
    """The lines of these budgets."""
    return [line for key in budgets for line in BUDGETS[key].judge(results)]


def markdown(results: Results, lines: Sequence[Verdict], circumstances: Iterable[tuple[str, str]]) -> str:
    """The whole report; `circumstances` are what the figures depend on besides the programs."""
    missed = sum(line.met is False for line in lines)
    judged = sum(line.met is not None for line in lines)
    marks = {True: "met", False: "**not met**", None: "not judged: other size"}
    rows = [(line.what, line.where, line.measured, line.budget, marks[line.met]) for line in lines]
    return "\n".join(
        [
            "# catalogger against MLflow's documented way",
            "",
            _HEAD,
            "",
            "![wall time by candidate](report.svg)",
            "",
            f"## Budgets: {judged - missed} of {judged} lines met",
            "",
            *_table(("what", "checkpoint, database", "measured", "budget", ""), rows),
            "",
            "## Medians",
            "",
            _LEGEND,
            "",
            *_table(_COLUMNS, [_medians(results, case) for case in results.samples]),
            "",
            "## Where and when",
            "",
            *_table(("", ""), circumstances),
            "",
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


_HEAD = (
    "Made by `make bench`; every ratio is one of medians of this run. GB and MB are powers of ten. "
    "The floor is a process that imports mlflow and opens the same store."
)
_LEGEND = (
    "Read and written: through system calls; dirtied: pages that went towards the disk. A mapped file, as upstream "
    "reads it, is in neither of the first two, nor are the pages that catalogger hashes when the kernel has copied "
    "them. A process smaller than the measuring one shows that one's peak RSS."
)
_COLUMNS = (
    *("candidate", "checkpoint, database", "wall s", "least to most", "user s", "sys s"),
    *("peak RSS MB", "read MB", "written MB", "dirtied MB"),
)


def _medians(results: Results, case: Case) -> list[str]:
    size = "-" if case.size is None else f"{case.size:g} GB"
    where = size if case.database is None or case.size is None else f"{size}, {case.database}"
    times = [f"{results.median(case, figure):.2f}" for figure in ("user", "system")]
    counts = [f"{results.median(case, figure) / _MB:.1f}" for figure in ("rss", "read", "written", "dirtied")]
    wall = f"{results.median(case, 'wall'):.2f}"
    label = (CANDIDATES | SIZELESS)[case.candidate].label
    return [label, where, wall, results.spread(case, "wall"), *times, *counts]


_HEIGHT = 0.4
_KINDS = {
    "existing": ("existing database", -_HEIGHT / 2, "#2f6f9f", "white"),
    "fresh": ("fresh database", _HEIGHT / 2, "#9cc4de", "black"),
    None: ("no database", 0.0, "#b5b5b5", "black"),
}
"""By database: the legend, the place in the row, the colour of the bar and of a number in it."""


def draw(results: Results, target: Path) -> None:
    """The picture: wall seconds by candidate, a panel for each size, budgets as ticks."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "catalogger"
    sizes = sorted(results.weights)
    figure = Figure(figsize=(9, 0.7 + 3.1 * len(sizes)), layout="constrained")
    for axes, size in zip(figure.subplots(len(sizes), 1, squeeze=False)[:, 0], sizes, strict=True):
        _panel(axes, results, size)
    legend = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(target, dpi=150, metadata={"Date": None} if target.suffix == ".svg" else None)


def _panel(axes: Any, results: Results, size: float) -> None:
    longest = max(results.median(case, "wall") for case in results.samples if case.size == size)
    axes.vlines([], [], [], colors="#c0392b", linewidths=2, label="budget")
    for case in (case for case in results.samples if case.size == size):
        legend, offset, colour, inside = _KINDS[case.database]
        wall, place = results.median(case, "wall"), list(CANDIDATES).index(case.candidate) + offset
        axes.barh(place, wall, _HEIGHT, color=colour, label=legend)
        limits = _limits(results, case)
        axes.vlines(limits, place - _HEIGHT / 2, place + _HEIGHT / 2, colors="#c0392b", linewidths=2)
        # Inside the bar where a budget is drawn beyond it: there, the number would be taken for the budget's.
        gap, align, colour = (-1, "right", inside) if max(limits, default=0) > wall else (1, "left", "black")
        axes.text(wall + gap * longest * 0.01, place, f"{wall:.1f}", va="center", ha=align, color=colour, fontsize=7)
    axes.set_yticks(range(len(CANDIDATES)), [candidate.label for candidate in CANDIDATES.values()], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.08)
    axes.set_title(f"{size:g} GB of weights", loc="left", fontsize=10)
    axes.set_xlabel("wall seconds, median", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(results: Results, case: Case) -> list[float]:
    walls = [w for w in _WALLS.values() if (w.candidate, w.size) == (case.candidate, case.size)]
    return [wall.limit * wall.seconds(results, wall.size, case.database or "existing") for wall in walls]
