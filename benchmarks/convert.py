"""Merging and casting, measured beside `cp -r` and PEFT's own way; writes `convert.md`: `python -m benchmarks.convert`.

All in one run, in turn, each a new process; what was written is compared before it counts.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from math import prod
from pathlib import Path
from statistics import median

import click

from benchmarks.candidates import Usage, python, run
from benchmarks.moment import moment

BUDGETS = {"merge": {"peft": 0.5, "copy": 3.0}, "cast": {"copy": 2.0}}
_BUDGETED = 6  # GB: the budgets are for this size, where starting a process no longer counts
_NOT_KEPT = "copy"
"""What it wrote goes at once: who comes next would else have memory that nobody has used before, which costs a virtual
machine more."""
_FLOOR = 250e6  # bytes of memory, beside four of the largest tensor
Runs = dict[str, list[Usage]]
Commands = dict[str, Callable[[Path], list[str]]]


@click.command()
@click.option("--repeats", default=3, show_default=True)
@click.option("--size", default=6.0, show_default=True, help="GB.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path())
def main(repeats: int, size: float, folder: Path) -> None:
    """Measure the merge of a rank-16 adapter into a bfloat16 checkpoint, and the cast of a float32 one of that size."""
    began = moment()
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder.absolute()) as temporary:
        place = Path(temporary)
        merged, largest = _merging(place, size, repeats)
        cast, largest_cast = _casting(place, size, repeats)
    text = _report(size, repeats, began, [("merge", merged, largest), ("cast", cast, largest_cast)])
    click.echo(text)
    if size >= _BUDGETED:
        (Path(__file__).parent / "convert.md").write_text(text)


def _merging(place: Path, size: float, repeats: int) -> tuple[Runs, int]:
    base, adapter, runs = place / "base", place / "adapter", Runs()
    run(python("checkpoint", base, size, max(3, round(size))), place, _environment(place))
    run(python("lora", base, adapter, 16), place, _environment(place))
    commands: Commands = {
        "copy": lambda out: ["cp", "-r", str(base), str(out)],
        "ours": lambda out: python("catalogger", "convert", base, "--adapter", adapter, "--to", out),
        "peft": lambda out: python("merge_with_peft", base, adapter, out),
    }
    for _ in range(repeats):
        for key, command in commands.items():
            _measure(key, command(place / key), place, base, runs)
        same, total = json.loads(run(python("compare", place / "ours", place / "peft"), place, _environment(place))[1])
        click.echo(f"{same} of {total} tensors are PEFT's bit by bit", err=True)
        _clean(place, commands)
    return runs, _largest(base)


def _casting(place: Path, size: float, repeats: int) -> tuple[Runs, int]:
    shutil.rmtree(place / "base")
    half, source, runs = place / "half", place / "float32", Runs()
    run(python("checkpoint", half, size / 2, max(3, round(size))), place, _environment(place))
    run(python("widen", half, source), place, _environment(place))
    shutil.rmtree(half)
    commands: Commands = {
        "copy": lambda out: ["cp", "-r", str(source), str(out)],
        "ours": lambda out: python("catalogger", "convert", source, "--dtype", "bfloat16", "--to", out),
    }
    for _ in range(repeats):
        for key, command in commands.items():
            _measure(key, command(place / key), place, source, runs)
        _clean(place, commands)
    return runs, _largest(source)


def _measure(key: str, command: list[str], place: Path, source: Path, runs: Runs) -> None:
    """One run, with its input in the page cache and nothing of earlier runs still to be written."""
    os.sync()
    for file in source.glob("*.safetensors"):
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass
    usage, _ = run(command, place, _environment(place))
    if key == _NOT_KEPT:
        shutil.rmtree(place / key)
    runs.setdefault(key, []).append(usage)
    click.echo(f"{source.name:10} {key:6} {usage.wall:7.2f} s {usage.rss / 1e6:6.0f} MB", err=True)


def _clean(place: Path, names: Iterable[str]) -> None:
    for name in names:
        if name != _NOT_KEPT:
            shutil.rmtree(place / name)


def _largest(source: Path) -> int:
    """Bytes of the largest tensor."""
    sizes = []
    for file in source.glob("*.safetensors"):
        with file.open("rb") as stream:
            table = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        width = {"BF16": 2, "F32": 4}
        sizes += [prod(t["shape"]) * width[t["dtype"]] for name, t in table.items() if name != "__metadata__"]
    return int(max(sizes))


def _environment(place: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MLFLOW_", "XDG_"))}
    return kept | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "hub"), "XDG_CACHE_HOME": str(place / "cache")}


def _report(size: float, repeats: int, began: str, results: list[tuple[str, Runs, int]]) -> str:
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("catalogger", "numpy", "peft", "torch", "transformers"))
    lines = [
        "# Merging and casting",
        "",
        f"{size:g} GB; medians of {repeats}, in turn in one run, each a new process, input in the page cache, bytecode",
        f"compiled; began {began}, ended {moment()}.",
        f"{os.cpu_count()} cores; {versions}.",
        "",
        "Copy: `cp -r` of the source. PEFT: load the base, `merge_and_unload`, `save_pretrained`. Memory: the largest",
        "tensor four times and 250 MB.",
        "",
        "| what | ours | copy | ratio | PEFT | ratio | RSS | PEFT's | CPU | PEFT's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for what, runs, largest in results:
        wall = {key: median(u.wall for u in held) for key, held in runs.items()}
        ratios = {key: _verdict(wall["ours"] / wall[key], most) for key, most in BUDGETS[what].items()}
        rss, most = max(u.rss for u in runs["ours"]), 4 * largest + _FLOOR
        peft = f"{wall['peft']:.2f} s | {ratios['peft']}" if "peft" in runs else "- | -"
        theirs = f"{max(u.rss for u in runs['peft']) / 1e6:,.0f} MB" if "peft" in runs else "-"
        memory = f"{rss / 1e6:.0f} MB of {most / 1e6:.0f} {'met' if rss <= most else 'missed'}"
        ours = f"{wall['ours']:.2f} s | {wall['copy']:.2f} s | {ratios['copy']}"
        spent = {key: f"{median(u.user + u.system for u in held):.2f} s" for key, held in runs.items()}
        cpu = f"{spent['ours']} | {spent.get('peft', '-')}"
        lines.append(f"| {what} | {ours} | {peft} | {memory} | {theirs} | {cpu} |")
    return "\n".join(lines) + "\n"


def _verdict(ratio: float, most: float) -> str:
    return f"{ratio:.2f}x {'met' if ratio <= most else 'missed'} ({most:g})"


if __name__ == "__main__":
    main()
