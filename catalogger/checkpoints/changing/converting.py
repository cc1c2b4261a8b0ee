"""Change a checkpoint, to a folder: what was asked for becomes a plan, the plan a folder that opens like any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from catalogger.checkpoints.changing.adapter import named
from catalogger.checkpoints.changing.change import Change, Wish, open_change
from catalogger.checkpoints.changing.plan import Plan
from catalogger.checkpoints.changing.writing import Written, is_unreported, reported, write, written_before
from catalogger.checkpoints.facts import Origin
from catalogger.checkpoints.folder import open_folder
from catalogger.checkpoints.hub import fetch
from catalogger.checkpoints.normalizing.normalizing import put
from catalogger.errors import UsageError, human
from catalogger.files.digests import DigestMemory
from catalogger.lines import as_text
from catalogger.progress import Progress, Silent


@dataclass(frozen=True)
class Converted:
    """What was done; `unchanged` where an earlier run had done it, and ended before it could say so.

    `base` and `adapter` as LOCATION or LOCATION@REVISION; sizes in bytes; `digests` are SHA-256 of the weight files;
    `overflowed`, `infinite` and `nan` count numbers, by the tensor.  `pickled` names the files that were not
    safetensors, and `apart` says how the process that read them was kept apart.
    """

    folder: str
    base: str
    adapter: str | None
    shards: int
    size: int
    read: int
    written: int
    taken_up: int
    merged: int
    cast: int
    overflowed: dict[str, int]
    infinite: dict[str, int]
    nan: dict[str, int]
    digests: dict[str, str]
    said: tuple[str, ...]
    pickled: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    action: Literal["converted", "unchanged"] = "converted"

    def document(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        lists = {"said": list(self.said), "pickled": list(self.pickled), "apart": list(self.apart)}
        return {"action": self.action, **vars(self), **lists}

    def __str__(self) -> str:
        rows = [
            (self.action, self.folder),
            ("base", self.base),
            ("weights", f"{human(self.size)} in {self.shards} files"),
        ]
        rows += [("adapter", f"{self.adapter}, merged into {self.merged} tensors")] if self.adapter else []
        rows += [("cast", f"{self.cast} tensors to bfloat16")] if self.cast else []
        rows += [("taken up", f"{self.taken_up} files of an earlier run")] if self.taken_up else []
        for what, counts in (("overflow", self.overflowed), ("infinite", self.infinite), ("NaN", self.nan)):
            rows += [(what, f"{sum(counts.values())} numbers, in {named(counts)}")] if counts else []
        return as_text(rows)


def convert(
    source: str | Path,
    to: str | Path,
    *,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    checkpoint: str | int | None = None,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    allow_pickle: bool = False,
    normalize: int | None = None,
    progress: Progress | None = None,
) -> Converted:
    """Merge an adapter, cast to bfloat16, cut the shards anew: into a folder, in flat memory, without loading a model.

    `source` is a checkpoint, or an adapter whose base its own config or `base` names.  `adapter` may be "none" where a
    folder holds both.  `checkpoint` chooses from a Trainer's folder: "best", "last" or a step.  `max_shard_size` is in
    bytes, or "1GB".  `allow_pickle` takes weights that are not safetensors: read as data, by a process apart.
    `normalize` is the generation of Transformers, 4 or 5, whose words the small files are put in.

    Raises AdapterRefused, CheckpointError, UsageError, DiskError, and what opening a source raises;
    nothing is left behind then, but files that are finished where the disk was full: the next run takes them up.
    """
    wish = Wish.of(adapter, base, checkpoint, dtype, max_shard_size)
    with converting(source, to, wish, allow_pickle=allow_pickle, normalize=normalize, progress=progress) as done:
        return done


@contextmanager
def converting(
    source: str | Path,
    to: str | Path,
    wish: Wish,
    *,
    allow_pickle: bool = False,
    normalize: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Converted]:
    """As `convert`, for who has to tell of it: what is not told by the end of the block, the same call tells again."""
    progress = progress or Silent()
    wish.read()
    target = _target(to)
    change = open_change(str(source), wish, allow_pickle=allow_pickle)
    if change.source.root is None:
        if change.is_known:
            change.plan  # noqa: B018  an adapter that does not fit is refused before the base is fetched
        progress.say(f"Fetching {human(change.source.weight_bytes)} of {change.source.origin.location}")
        change = change.of(fetch(change.source, DigestMemory()))
    plan = change.plan
    if normalize is not None:
        small, made = put(plan.small, normalize, change.source.origin.location)
        plan = replace(plan, small=small, said=(*plan.said, *(f"{label} {text}" for label, text in made.rows())))
    for sentence in plan.said:
        progress.say(sentence)
    before = _before(plan, target, to, progress)
    written = before or _write(plan, target, progress)
    open_folder(target, Origin("folder", str(target), None, str(to)))
    done = replace(_converted(change, written, target), action="unchanged" if before else "converted")
    if done.nan:
        progress.say(f"Warning: {sum(done.nan.values())} numbers are NaN, in {named(done.nan)}, as they were before.")
    yield done
    reported(target)


def _target(to: str | Path) -> Path:
    target = Path(to).expanduser().absolute()
    if _is_taken(target) and not is_unreported(target):
        raise _taken(to)
    return target


def _before(plan: Plan, target: Path, to: str | Path, progress: Progress) -> Written | None:
    """What an earlier run has written there, and not told.  Raises UsageError where it is something else."""
    if not _is_taken(target):
        return None
    with progress.bar("Hashing", plan.size) as tick:
        written = written_before(plan, target, tick)
    if written is None:
        raise _taken(to)
    progress.say("An earlier run has made all of it, and ended before it could say so; every file was hashed again.")
    return written


def _write(plan: Plan, target: Path, progress: Progress) -> Written:
    with progress.bar("Converting", plan.size) as tick:
        return write(plan, target, tick)


def _is_taken(target: Path) -> bool:
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def _taken(to: str | Path) -> UsageError:
    return UsageError(f'"{to}" exists and is no empty folder.', "Choose a folder that does not exist.")


def _converted(change: Change, written: Written, target: Path) -> Converted:
    plan, origin, adapter = change.plan, change.source.origin, change.adapter
    return Converted(
        folder=str(target),
        base=_at(origin.location, origin.revision),
        adapter=_at(adapter.location, adapter.revision) if adapter else None,
        shards=len(plan.shards),
        size=sum(s.size for s in plan.shards),
        read=written.read,
        written=written.written,
        taken_up=written.taken_up,
        merged=change.merged,
        cast=change.cast,
        overflowed={n: c.overflowed for n, c in written.counts.items() if c.overflowed},
        infinite={n: c.infinite for n, c in written.counts.items() if c.infinite},
        nan={n: c.nan for n, c in written.counts.items() if c.nan},
        digests=written.digests,
        said=plan.said,
        pickled=plan.pickled,
        apart=plan.apart,
    )


def _at(location: str, revision: str | None) -> str:
    return f"{location}@{revision}" if revision else location
