"""What was asked to be done with a checkpoint: opened, checked and planned before a byte is written.

A change is a fact; it is carried out by `writing`, and what comes of it is for others to place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from catalogger.checkpoints.changing.adapter import Adapter, is_adapter, named, open_adapter
from catalogger.checkpoints.changing.bases import base_of, holds_both, is_merged
from catalogger.checkpoints.changing.floats import FLOATS
from catalogger.checkpoints.changing.merging import Merged, merge
from catalogger.checkpoints.changing.outputs import Output
from catalogger.checkpoints.changing.plan import LARGEST_SHARD, Plan, cut, index_of
from catalogger.checkpoints.changing.small import small_files
from catalogger.checkpoints.changing.tokenizer import found_tokenizer
from catalogger.checkpoints.changing.trainer import chosen
from catalogger.checkpoints.changing.weights import is_pickled, require_plain, weights_of
from catalogger.checkpoints.facts import Checkpoint
from catalogger.checkpoints.source import open_source
from catalogger.errors import CheckpointError, UsageError, human
from catalogger.files.sizes import BINARY, DECIMAL, bytes_of

_CODES = {"bfloat16": "BF16"}


@dataclass(frozen=True)
class Wish:
    """What the user asked for, in the user's words; `convert` says what each is."""

    adapter: str | None = None
    base: str | None = None
    checkpoint: str | None = None
    dtype: str | None = None
    max_shard_size: str | None = None

    @classmethod
    def of(cls, *asked: object) -> Wish:
        """The wish in words, of paths and numbers too; in the order of the fields."""
        return cls(*(None if value is None else str(value) for value in asked))

    @property
    def empty(self) -> bool:
        """Whether nothing was asked for, so that only a source that is an adapter has to be changed."""
        return self == Wish()

    def sourced(self, source: object) -> tuple[str | None, Wish]:
        """Source and wish: an adapter without a source is the source, so that its own base is taken."""
        if source is None and self.adapter not in (None, "none"):
            return self.adapter, replace(self, adapter=None)
        return None if source is None else str(source), self

    def read(self) -> tuple[str | None, int | None]:
        """The dtype's code and the size in bytes.  Raises UsageError for what is neither."""
        dtype = self.dtype
        if dtype not in (None, *_CODES):
            raise UsageError(f'The dtype "{dtype}" is none that can be cast to.', "Give bfloat16, or leave it out.")
        return _CODES.get(dtype or ""), _size(self.max_shard_size)


@dataclass(frozen=True)
class Change:
    """A checkpoint and what is to be done to its weights.

    `dtype` is the code that safetensors has for it, `most` the bytes of a shard, `step` the name of the Trainer's
    folder that was chosen, `said` what is to be said of the choice.
    """

    source: Checkpoint
    adapter: Adapter | None
    dtype: str | None
    most: int | None
    step: str | None
    said: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """Whether a plan can be made: pickled weights on the Hub say what they hold only when they are here."""
        return self.source.root is not None or not is_pickled(self.source)

    @cached_property
    def plan(self) -> Plan:
        """Every file of the result.  Raises CheckpointError and AdapterRefused."""
        source = self.source
        if self.is_known and source.root is None:
            source = replace(source, root=Path(source.origin.location))  # headers are known; nothing is read there
        tokenizer, whose = found_tokenizer(self.source, self.adapter)
        source = replace(source, small={**source.small, **tokenizer})
        plan = plan_of(source, self.adapter, self.dtype, self.most)
        return replace(plan, said=(*self.said, *([whose] if whose else ()), *plan.said))

    @property
    def merged(self) -> int:
        """How many tensors of the result the adapter changes."""
        own = set(self.adapter.tensors.values()) if self.adapter else set()
        return sum(1 for o in self._outputs if o.delta or o.rows or o.source in own)

    @property
    def cast(self) -> int:
        """How many tensors of the result have another dtype than before."""
        return sum(1 for o in self._outputs if o.dtype != o.source.dtype)

    @property
    def _outputs(self) -> list[Output]:
        return [output for shard in self.plan.shards for output in shard.outputs]

    def of(self, source: Checkpoint) -> Change:
        """The same change of a source whose weights were fetched."""
        return replace(self, source=source)


def open_change(source: str, wish: Wish, *, allow_pickle: bool = False) -> Change:
    """Open what was asked for: metadata only, but that an adapter is fetched, and read where two tensors may be one.

    Raises AdapterRefused, CheckpointError, UsageError, and what opening a source raises.
    """
    dtype, most = wish.read()
    at = chosen(source, wish.checkpoint) if wish.checkpoint is not None else None
    opened, adapter, said = _opened(str(at or source), wish.adapter, wish.base, allow_pickle=allow_pickle)
    return Change(opened, adapter, dtype, most, at.name if at else None, tuple(said))


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


def _size(asked: int | str | None) -> int | None:
    if asked is None:
        return None
    size = int(bytes_of(str(asked).strip(), {**DECIMAL, **BINARY}) or 0)
    if size < 1:
        raise UsageError(f'"{asked}" is no size of a shard.', "Write it as 1GB or 500MB.")
    return size
