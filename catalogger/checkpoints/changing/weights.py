"""The tensors of a checkpoint's weight files, safetensors or pickled; what cannot be changed exactly is refused here.

Headers alone are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from catalogger.checkpoints.changing.adapter import named
from catalogger.checkpoints.changing.bases import full_precision
from catalogger.checkpoints.changing.pickled import read_pickled, weights_among
from catalogger.checkpoints.changing.stored import Stored, stored_in
from catalogger.checkpoints.changing.tables import HEADS
from catalogger.checkpoints.facts import Checkpoint, Shard
from catalogger.errors import CheckpointError

_FOREIGN = (
    (re.compile(r"(tok_embeddings|output)\.weight|layers\.\d+\.(attn|sa_norm|mlp_norm)\..+|norm\.scale"), "torchtune"),
    (re.compile(r"layers\.\d+\.(attention|feed_forward|attention_norm|ffn_norm)\..+"), "Meta"),
)
_AS_HF = {
    "torchtune": "Save it with torchtune's FullModelHFCheckpointer, and give the epoch_N that it writes.",
    "Meta": "Turn it into a Transformers checkpoint first: transformers' convert_llama_weights_to_hf.py.",
}
_INSTEAD = (
    (
        "pytorch_model_fsdp*",
        "Join FSDP's pieces first: accelerate merge-weights, or axolotl merge-sharded-fsdp-weights.",
    ),
    ("global_step*", "Join DeepSpeed's pieces first: python zero_to_fp32.py . OUTPUT --safe_serialization."),
    ("checkpoint-*", "There are checkpoints in it: choose one by --checkpoint last."),
    ("epoch_*", "There are checkpoints in it: choose one by --checkpoint last."),
)
"""What a training leaves where there are no whole weights, and what to do with it."""


@dataclass(frozen=True)
class Weights:
    """The tensors of each weight file; the names of files that are pickled, and how their reader was kept apart."""

    groups: list[list[Stored]]
    pickled: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        return {t.name for group in self.groups for t in group}


def weights_of(checkpoint: Checkpoint) -> Weights:
    """Every tensor.  Raises CheckpointError where a file is not whole, holds what another holds, or is named otherwise
    than Transformers names tensors.
    """
    location = checkpoint.origin.location
    if checkpoint.root is None or not checkpoint.shards:
        _refuse_none(checkpoint)
    held = _unpickled(checkpoint, checkpoint.root) if is_pickled(checkpoint) else _plain(checkpoint, checkpoint.root)
    seen = dict[str, Path]()
    for tensor in (t for group in held.groups for t in group):
        if other := seen.get(tensor.name):
            raise CheckpointError(
                location,
                f'has "{tensor.name}" twice: in "{other.name}" and in "{tensor.file.name}"',
                "Keep the files of one of both.",
            )
        seen[tensor.name] = tensor.file
    if not held.pickled and (lost := {name for name in checkpoint.index or {} if name not in seen}):
        raise CheckpointError(location, f"has no {named(lost)}, which its index names", "Fetch or save it again.")
    _refuse_other_names(seen, location)
    return held


def is_pickled(checkpoint: Checkpoint) -> bool:
    """Whether the weights are pickled; they are among the shards only where that was allowed."""
    return all(not shard.file.path.endswith(".safetensors") for shard in checkpoint.shards)


def require_plain(checkpoint: Checkpoint, weights: Weights, *, merging: bool) -> None:
    """Raises CheckpointError for a base that is quantised, or that is an adapter around another one."""
    location = checkpoint.origin.location
    if method := checkpoint.config.get("quantization_config"):
        kind = method.get("quant_method") if isinstance(method, dict) else None
        full = full_precision(checkpoint.origin.asked) or full_precision(str(checkpoint.config.get("_name_or_path")))
        raise CheckpointError(
            location,
            f'is quantised ("{kind or "quantization_config"}"), so that nothing can be merged or cast exactly',
            f"Give the checkpoint as it was before: --base {full or 'ORG/REPO'}." if merging else "Leave --dtype out.",
        )
    if wrapped := {name for name in weights.names if ".lora_" in name or ".base_layer." in name}:
        raise CheckpointError(
            location, f"is itself an adapter around a base: it holds {named(wrapped)}", "Merge it in training first."
        )


def _refuse_none(checkpoint: Checkpoint) -> None:
    location = checkpoint.origin.location
    if found := [path for path, why in checkpoint.left_out.items() if why == "pickled weights"]:
        raise CheckpointError(
            location,
            f"has pickled weights only ({named(found)})",
            "Allow it by --allow-pickle: they are read by a process apart, as data; no code of theirs is run.",
        )
    folder = Path(location)
    fix = next((fix for pattern, fix in _INSTEAD if any(folder.glob(pattern))), "Save it with safe_serialization=True.")
    raise CheckpointError(location, "has no safetensors to convert", fix)


def _plain(checkpoint: Checkpoint, root: Path | None) -> Weights:
    groups = []
    for shard in checkpoint.shards:
        _require_whole(shard, checkpoint.origin.location)
        groups.append(stored_in(root or Path(), shard))
    return Weights(groups)


def _require_whole(shard: Shard, location: str) -> None:
    if shard.problem or shard.expected != shard.file.size:
        problem = shard.problem or f"is {shard.file.size} bytes long, {shard.expected} were expected"
        raise CheckpointError(location, f'has a "{shard.file.path}" that {problem}', "Fetch or save it again.")


def _unpickled(checkpoint: Checkpoint, root: Path | None) -> Weights:
    location = checkpoint.origin.location
    paths = weights_among((shard.file.path for shard in checkpoint.shards), location)
    read = [read_pickled((root or Path()) / path, location) for path in paths]
    tied = checkpoint.config.get("tie_word_embeddings") is True
    groups = [_without_twin(p.tensors) if tied else p.tensors for p in read]
    return Weights(groups, tuple(paths), read[0].apart if read else ())


def _without_twin(tensors: list[Stored]) -> list[Stored]:
    """Without the head where it is the embedding's own bytes, as Transformers saves the two; other tensors that share
    their bytes get them each.
    """
    places = [(t.start, t.shape, t.dtype) for t in tensors if t.name not in HEADS]
    return [t for t in tensors if t.name not in HEADS or (t.start, t.shape, t.dtype) not in places]


def _refuse_other_names(names: Iterable[str], location: str) -> None:
    for pattern, whose in _FOREIGN:
        if found := [name for name in names if pattern.fullmatch(name)]:
            raise CheckpointError(location, f"names its tensors as {whose} does: {named(found)}", _AS_HF[whose])
