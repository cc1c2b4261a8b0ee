"""Change a checkpoint, to a folder: what was asked for becomes a plan, the plan a folder that opens like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalogger.checkpoints.changing.adapter import Adapter, is_adapter, named, open_adapter
from catalogger.checkpoints.changing.bases import base_of, holds_both, is_merged
from catalogger.checkpoints.changing.floats import FLOATS
from catalogger.checkpoints.changing.merging import Merged, merge
from catalogger.checkpoints.changing.outputs import Output
from catalogger.checkpoints.changing.plan import LARGEST_SHARD, Plan, cut, index_of
from catalogger.checkpoints.changing.small import small_files
from catalogger.checkpoints.changing.tokenizer import found_tokenizer
from catalogger.checkpoints.changing.trainer import chosen
from catalogger.checkpoints.changing.weights import require_plain, weights_of
from catalogger.checkpoints.changing.writing import Written, write
from catalogger.checkpoints.facts import Checkpoint, Origin
from catalogger.checkpoints.folder import open_folder
from catalogger.checkpoints.hub import fetch
from catalogger.checkpoints.normalizing.normalizing import put
from catalogger.checkpoints.source import open_source
from catalogger.errors import CheckpointError, UsageError, human
from catalogger.files.digests import DigestMemory
from catalogger.files.sizes import BINARY, DECIMAL, bytes_of
from catalogger.lines import as_text
from catalogger.progress import Progress, Silent

_CODES = {"bfloat16": "BF16"}


@dataclass(frozen=True)
class Converted:
    """What was done.  `base` and `adapter` as LOCATION or LOCATION@REVISION; sizes in bytes; `digests` are SHA-256 of
    the weight files; `overflowed`, `infinite` and `nan` count numbers, by the tensor.  `pickled`
    names the files that were not safetensors, and `apart` says how the process that read them was kept apart.
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

    def document(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        lists = {"said": list(self.said), "pickled": list(self.pickled), "apart": list(self.apart)}
        return {"action": "converted", **vars(self), **lists}

    def __str__(self) -> str:
        rows = [
            ("converted", self.folder),
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
    progress = progress or Silent()
    most, target = _size(max_shard_size), _target(to)
    if dtype not in (None, *_CODES):
        raise UsageError(f'The dtype "{dtype}" is none that can be cast to.', "Give bfloat16, or leave it out.")
    asked = str(source) if checkpoint is None else str(chosen(str(source), str(checkpoint)))
    opened, merging, said = _opened(asked, _text(adapter), _text(base), allow_pickle=allow_pickle)
    if opened.root is None:
        progress.say(f"Fetching {human(opened.weight_bytes)} of {opened.origin.location}")
        opened = fetch(opened, DigestMemory())
    tokenizer, whose = found_tokenizer(opened, merging)
    opened = replace(opened, small={**opened.small, **tokenizer})
    plan = plan_of(opened, merging, _CODES.get(dtype or ""), most)
    plan = replace(plan, said=(*said, *([whose] if whose else ()), *plan.said))
    if normalize is not None:
        small, made = put(plan.small, normalize, opened.origin.location)
        plan = replace(plan, small=small, said=(*plan.said, *(f"{label} {text}" for label, text in made.rows())))
    for sentence in plan.said:
        progress.say(sentence)
    with progress.bar("Converting", plan.size) as tick:
        written = write(plan, target, tick)
    open_folder(target, Origin("folder", str(target), None, str(to)))
    done = _converted(plan, written, opened, merging, target)
    if done.nan:
        progress.say(f"Warning: {sum(done.nan.values())} numbers are NaN, in {named(done.nan)}, as they were before.")
    return done


def plan_of(checkpoint: Checkpoint, adapter: Adapter | None, dtype: str | None, most: int | None) -> Plan:
    """The plan for a checkpoint whose files are here.  `dtype` is the code that safetensors has for it.

    Raises CheckpointError for weights that cannot be read or changed, AdapterRefused for an adapter that does not fit.
    """
    weights = weights_of(checkpoint)
    groups = weights.groups
    if dtype or adapter:
        require_plain(checkpoint, weights, merging=adapter is not None)
    config = checkpoint.config
    merged = (
        merge(adapter, groups, config) if adapter else Merged([[Output(t.name, t.dtype, t) for t in g] for g in groups])
    )
    outputs = [[_to(o, dtype) for o in group] for group in merged.groups]
    if most is None and any(sum(o.nbytes for o in group) > LARGEST_SHARD for group in outputs):
        merged.said.append(f"A weight file is larger than {human(LARGEST_SHARD)}: it is cut into smaller ones.")
    shards = cut(outputs, most)
    small = small_files(checkpoint.small, shards, merged.config, adapter) | index_of(shards)
    pickled = (*weights.pickled, *(adapter.pickled if adapter else ()))
    apart = weights.apart or (adapter.apart if adapter else ())
    if pickled:
        merged.said.append(f"Pickled: {named(pickled)} was read as data by a process apart ({', '.join(apart)}).")
    return Plan(shards, small, tuple(merged.said), pickled, apart)


def _to(output: Output, dtype: str | None) -> Output:
    """The output in another dtype, where it is one of floating-point numbers."""
    if dtype is None or output.dtype not in FLOATS:
        return output
    return Output(output.name, dtype, output.source, output.delta, output.rows, output.between or output.dtype)


def _opened(
    source: str, adapter: str | None, base: str | None, *, allow_pickle: bool
) -> tuple[Checkpoint, Adapter | None, list[str]]:
    """The base, the adapter to merge into it, and what is to be said of the choice."""
    folder = Path(source).expanduser()
    both, said = holds_both(folder), []
    if is_merged(folder) and adapter in (None, source):
        if adapter is not None:
            raise UsageError(
                f'The adapter in "{source}" is in the whole weights beside it already: torchtune has merged it.',
                "Leave --adapter out to take the whole weights.",
            )
        adapter = "none"
        said = ["torchtune has merged the adapter into the whole weights beside it: they are taken."]
    if both and adapter is None:
        raise UsageError(
            f'The folder "{source}" holds whole weights and an adapter.',
            f"Take one of both: --adapter none for the whole weights, or --adapter {source} to merge it into them.",
        )
    opened = _either(source, folder, allow_pickle) if adapter is None else None
    if isinstance(opened, Adapter):
        return base_of(opened, base, allow_pickle=allow_pickle), opened, said
    if base is not None:
        raise UsageError(f'--base was given, but "{source}" is no adapter.', "Leave --base out, or give the adapter.")
    if opened is not None:
        return opened, None, said
    if folder.is_dir() and is_adapter(folder) and not both:
        raise CheckpointError(
            source, "is a base that is itself an adapter", "Give the base of that adapter as the source."
        )
    merging = open_adapter(adapter, allow_pickle=allow_pickle) if adapter and adapter != "none" else None
    return open_source(source, allow_pickle=allow_pickle), merging, said


def _either(source: str, folder: Path, allow_pickle: bool) -> Checkpoint | Adapter:
    """The source as what it is."""
    if folder.is_dir() and is_adapter(folder):
        return open_adapter(source, allow_pickle=allow_pickle)
    try:
        return open_source(source, allow_pickle=allow_pickle)
    except CheckpointError as error:
        if folder.is_dir() or "no config.json" not in error.reason:
            raise
        return open_adapter(source, allow_pickle=allow_pickle)


def _target(to: str | Path) -> Path:
    target = Path(to).expanduser().absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f'"{to}" exists and is no empty folder.', "Choose a folder that does not exist.")
    return target


def _size(asked: int | str | None) -> int | None:
    if asked is None:
        return None
    size = int(bytes_of(str(asked).strip(), {**DECIMAL, **BINARY}) or 0)
    if size < 1:
        raise UsageError(f'"{asked}" is no size of a shard.', "Write it as 1GB or 500MB.")
    return size


def _text(value: str | Path | None) -> str | None:
    return None if value is None else str(value)


def _converted(
    plan: Plan, written: Written, checkpoint: Checkpoint, adapter: Adapter | None, target: Path
) -> Converted:
    outputs = [o for s in plan.shards for o in s.outputs]
    own = set(adapter.tensors.values()) if adapter else set()
    return Converted(
        folder=str(target),
        base=_at(checkpoint.origin.location, checkpoint.origin.revision),
        adapter=_at(adapter.location, adapter.revision) if adapter else None,
        shards=len(plan.shards),
        size=sum(s.size for s in plan.shards),
        read=written.read,
        written=written.written,
        taken_up=written.taken_up,
        merged=sum(1 for o in outputs if o.delta or o.rows or o.source in own),
        cast=sum(1 for o in outputs if o.dtype != o.source.dtype),
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
