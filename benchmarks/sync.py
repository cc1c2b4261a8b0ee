"""Many models at once, against loopback servers: `python -m benchmarks.sync` writes `sync.md`.

50 entries that have not changed beside 50 single runs; 200 entries planned, new and unchanged; requests, bytes, memory.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

import click

from benchmarks.candidates import Usage, python, run
from benchmarks.moment import moment

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fakes.checkpoints import bert
from fakes.hub import Hub

from catalogger.testing.workspace import Workspace

TOKEN = "dapi00000000000000000000000000000000"  # noqa: S105
UNCHANGED, PLANNED = 50, 200
SHARE, SECONDS, MEMORY, REQUESTS = 0.2, 30.0, 250e6, 3


@dataclass
class Sides:
    """The two servers, and where the commands run."""

    hub: Hub
    space: Workspace
    place: Path
    environment: dict[str, str]

    def counts(self) -> tuple[int, int, int]:
        """Requests to the Hub and to the registry, and bytes that the Hub has sent."""
        return len(self.hub.requests), len(self.space.requests), self.hub.sent

    def manifest(self, count: int) -> Path:
        """So many entries, each for a repository of its own."""
        entries = [
            f"  - {{recipe: bge-embeddings, source: org/bert-{n}, name: main.ml.bert_{n}}}\n" for n in range(count)
        ]
        file = self.place / f"models-{count}.yaml"
        file.write_text("models:\n" + "".join(entries))
        return file


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Runs of each; medians are reported.")
def main(repeats: int) -> None:
    """Measure and write the report."""
    began = moment()
    with (
        tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd()) as temporary,
        _sides(Path(temporary)) as sides,
    ):
        lines = [*_new(sides), *_unchanged(sides, repeats), *_planned(sides, repeats)]
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("catalogger", "huggingface_hub", "mlflow"))
    head = [
        "# Many models at once",
        "",
        f"Began {began}, ended {moment()}. {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.",
        "The Hub and the workspace run on the same machine, in one process. Memory is the peak of the largest process:",
        "the command's own, or one of those in which entries are looked at more closely.",
        "",
    ]
    page = "\n".join([*head, *lines]) + "\n"
    Path(__file__).with_name("sync.md").write_text(page)
    click.echo(page)


def _new(sides: Sides) -> list[str]:
    """A plan of entries that are all new, with nothing in the cache; then they are registered for what follows."""
    file = sides.manifest(PLANNED)
    usage, told = _run(sides, "sync", str(file), "--dry-run", "--jobs", "2")
    _require(told, "planned", PLANNED)
    registering, told = _run(sides, "sync", str(sides.manifest(UNCHANGED)), "--jobs", "2")
    _require(told, "registered", UNCHANGED)
    said = f"{PLANNED} new entries planned, `--jobs 2`: {usage.wall:.1f} s, {_met(usage.wall, SECONDS, 's')}"
    done = f"{UNCHANGED} new entries registered, `--jobs 2`: {registering.wall:.1f} s"
    return [f"{said}; peak memory {_memory(usage)}.", f"{done}; peak memory {_memory(registering)}.", ""]


def _unchanged(sides: Sides, repeats: int) -> list[str]:
    together, single, hub, registry, sent = [], [], 0, 0, 0
    for _ in range(repeats):
        before = sides.counts()
        usage, told = _run(sides, "sync", str(sides.manifest(UNCHANGED)))
        _require(told, "unchanged", UNCHANGED)
        hub, registry, sent = (after - b for after, b in zip(sides.counts(), before, strict=True))
        together.append(usage)
        single.append(sum(_single(sides, n).wall for n in range(UNCHANGED)))
    wall, one = median(u.wall for u in together), median(single)
    of_hub, of_registry = hub / UNCHANGED, registry / UNCHANGED
    beside = f"{wall:.2f} s beside {one:.1f} s of single runs: {wall / one:.3f}x"
    return [
        f"| {UNCHANGED} unchanged entries | measured | budget |",
        "|---|---|---|",
        f"| wall | {beside} | {_met(wall / one, SHARE, 'x')} |",
        f"| requests to the Hub, an entry | {of_hub:.1f} | {_met(of_hub, REQUESTS)} |",
        f"| requests to the registry, an entry | {of_registry:.1f} | {_met(of_registry, REQUESTS)} |",
        f"| bytes from the Hub, all of them listings | {sent:,} | |",
        f"| peak memory | {_memory(max(together, key=lambda u: u.rss))} | |",
        "",
    ]


def _single(sides: Sides, number: int) -> Usage:
    name, source = f"main.ml.bert_{number}", f"org/bert-{number}"
    usage, told = _run(sides, "--recipe", "bge-embeddings", "--source", source, "--name", name)
    if told["action"] != "unchanged":
        raise RuntimeError(f"{name} was to be unchanged, not {told['action']}")
    return usage


def _planned(sides: Sides, repeats: int) -> list[str]:
    _, told = _run(sides, "sync", str(sides.manifest(PLANNED)), "--jobs", "2")
    _require(told, "registered", PLANNED - UNCHANGED)
    runs = [_run(sides, "sync", str(sides.manifest(PLANNED)), "--dry-run")[0] for _ in range(repeats)]
    wall = median(u.wall for u in runs)
    said = f"{PLANNED} unchanged entries planned: {wall:.1f} s, {_met(wall, SECONDS, 's')}"
    return [f"{said}; peak memory {_memory(max(runs, key=lambda u: u.rss))}."]


def _run(sides: Sides, *arguments: str) -> tuple[Usage, dict[str, object]]:
    command = python("catalogger", *arguments, "--registry-uri", "databricks-uc", "-o", "json")
    usage, output = run(command, sides.place, sides.environment)
    return usage, json.loads(output)


def _require(told: dict[str, object], action: str, count: int) -> None:
    ended = [e["action"] for e in told["entries"]]  # type: ignore[attr-defined]
    if ended.count(action) != count:
        raise RuntimeError(f"{count} {action} were to be measured, not {ended.count(action)} of {len(ended)}")


def _memory(usage: Usage) -> str:
    return f"{usage.rss / 1e6:.0f} MB, {_met(usage.rss / 1e6, MEMORY / 1e6, ' MB')}"


def _met(value: float, budget: float, unit: str = "") -> str:
    return f"{'met' if value <= budget else '**not met**'} ({budget:g}{unit})"


@contextmanager
def _sides(folder: Path) -> Iterator[Sides]:
    dropped = ("MLFLOW_", "HF_", "DATABRICKS_", "XDG_", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    place = folder / "run"
    place.mkdir()
    source = bert(folder / "bert")
    with ExitStack() as stack:
        hub = stack.enter_context(Hub())
        space = stack.enter_context(Workspace(folder / "space", tokens={TOKEN: "me@example.org"}, sdk_uploads=True))
        space.add_schema("main.ml")
        for number in range(PLANNED):
            hub.add(f"org/bert-{number}", source)
        environment = {
            "DATABRICKS_HOST": space.url,
            "DATABRICKS_TOKEN": TOKEN,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "huggingface"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        yield Sides(hub, space, place, kept | environment)
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
