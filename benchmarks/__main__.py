"""The command: measure every candidate in turn, repeat, then write `report.md` and `report.svg` beside this file."""

from __future__ import annotations

import importlib.util
import os
import platform
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import click

from benchmarks.candidates import CANDIDATES, SIZELESS, Candidate, Case, Database, Results, Usage, Workshop, workshop
from benchmarks.moment import moment
from benchmarks.report import BUDGETS, draw, markdown, verdicts

_DATABASES: tuple[Database, ...] = ("existing", "fresh")
_WARM_UP = 0.02  # GB
_PACKAGES = ("catalogger", "mlflow", "transformers", "torch", "huggingface_hub", "sqlalchemy")


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
    wanted = BUDGETS[only].needs if only else frozenset(CANDIDATES | SIZELESS)
    began = moment()
    gigabytes = sorted(float(size) for size in sizes.split(","))
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder.absolute()) as temporary:
        results = _measure(Path(temporary), gigabytes, repeats, wanted)
    lines = verdicts(results, [only] if only else list(BUDGETS))
    turns = f"{repeats} of each, in turn, each a new process; bytecode compiled, input in the page cache"
    weights = ", ".join(f"{size:g} GB: {exact:,} bytes" for size, exact in results.weights.items())
    moments = [("began", began), ("ended", moment()), ("runs", turns), ("weights", weights)]
    text = markdown(results, lines, [*_machine(folder), *moments])
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
        _require_bytecode(wanted)
        for _ in range(repeats):
            _sizeless(shop, wanted, samples)
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


def _sizeless(shop: Workshop, wanted: frozenset[str], samples: dict[Case, list[Usage]]) -> None:
    for candidate in (c for c in SIZELESS.values() if c.key in wanted):
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


def _require_bytecode(wanted: frozenset[str]) -> None:
    packages = ["mlflow", "sqlalchemy", "catalogger", *(["torch", "transformers"] if "upstream" in wanted else [])]
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and not Path(importlib.util.cache_from_source(spec.origin)).exists():
            raise SystemExit(f"{name} has no bytecode and its folder cannot be written; compile it, or ratios lie.")


def _machine(folder: Path) -> list[tuple[str, str]]:
    """This machine, the file system of `folder`, and the versions of what was measured."""
    memory = int(_field("/proc/meminfo", "MemTotal").split()[0]) * 1024
    versions = [f"{package} {metadata.version(package)}" for package in _PACKAGES]
    return [
        ("processor", f"{_field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores"),
        ("RAM", f"{memory / 1e9:.0f} GB"),
        ("file system", _file_system(folder.resolve())),
        ("system", f"{platform.system()} {platform.release()}"),
        ("versions", ", ".join([f"Python {platform.python_version()}", *versions])),
    ]


def _field(file: str, name: str) -> str:
    lines = Path(file).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def _file_system(folder: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((len(Path(where).parts), kind) for where, kind in mounts if folder.is_relative_to(where))[1]


if __name__ == "__main__":
    main()
