"""The command: measure every candidate in turn, repeat, then write `report.md` and `report.svg` beside this file."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterable
from pathlib import Path

import click

from benchmarks.candidates import CANDIDATES, HELPS, Candidate, Database, Usage, Workshop, workshop
from benchmarks.report import BUDGETS, Case, Machine, Results, draw, markdown, verdicts

_DATABASES: tuple[Database, ...] = ("existing", "fresh")
_WARM_UP = 0.02  # GB


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Runs of each candidate; medians are reported.")
@click.option("--sizes", default="2,6", show_default=True, help="Sizes of the checkpoint in GB.")
@click.option("--only", type=click.Choice(list(BUDGETS)), help="Measure and print one budget, write no report.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="Where to work; its disk needs four times the size.  [default: here]",
)
def main(repeats: int, sizes: str, only: str | None, folder: Path) -> None:
    """Measure catalogger side by side with MLflow's documented way."""
    wanted = BUDGETS[only].needs if only else frozenset(CANDIDATES | HELPS)
    before = Machine.now(folder)
    gigabytes = sorted(float(size) for size in sizes.split(","))
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder.absolute()) as temporary:
        results = _measure(Path(temporary), gigabytes, repeats, wanted)
    lines = verdicts(results, [only] if only else list(BUDGETS))
    text = markdown(results, lines, before, Machine.now(folder), repeats)
    print(text)
    if only is None:
        target = Path(__file__).parent
        (target / "report.md").write_text(text)
        draw(results, target / "report.svg")


def _measure(folder: Path, sizes: Iterable[float], repeats: int, wanted: frozenset[str]) -> Results:
    """Every wanted candidate at every size; `repeats` rounds, in each of which all take their turn."""
    samples: dict[Case, list[Usage]] = {}
    weights: dict[float, int] = {}
    with workshop(folder, _WARM_UP) as shop:
        _round(shop, None, wanted, {})  # compiles what is not compiled yet
        _require_bytecode()
        for _ in range(repeats):
            _helps(shop, wanted, samples)
    for size in sizes:
        with workshop(folder, size) as shop:
            weights[size] = shop.weights
            for _ in range(repeats):
                _round(shop, size, wanted, samples)
    return Results(samples, weights)


def _round(shop: Workshop, size: float | None, wanted: frozenset[str], samples: dict[Case, list[Usage]]) -> None:
    for candidate in (c for c in CANDIDATES.values() if c.key in wanted and not c.stores):
        _sample(shop, candidate, size, None, samples)
    for database in _DATABASES:
        for candidate in (c for c in CANDIDATES.values() if c.key in wanted and c.stores):
            _sample(shop, candidate, size, database, samples)


def _helps(shop: Workshop, wanted: frozenset[str], samples: dict[Case, list[Usage]]) -> None:
    for candidate in (c for c in HELPS.values() if c.key in wanted):
        _sample(shop, candidate, None, None, samples)


def _sample(
    shop: Workshop,
    candidate: Candidate,
    size: float | None,
    database: Database | None,
    samples: dict[Case, list[Usage]],
) -> None:
    usage = shop.measure(candidate, database or "existing")
    samples.setdefault(Case(candidate.key, size, database), []).append(usage)
    about = "warm-up or no size" if size is None else f"{size:g} GB"
    click.echo(f"{about:20} {database or '-':10} {candidate.label:42} {usage.wall:7.2f} s", err=True)


def _require_bytecode() -> None:
    for name in ("mlflow", "torch", "transformers", "sqlalchemy", "catalogger"):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and not Path(importlib.util.cache_from_source(spec.origin)).exists():
            raise SystemExit(f"{name} has no bytecode and its folder cannot be written; compile it, or ratios lie.")


if __name__ == "__main__":
    main()
