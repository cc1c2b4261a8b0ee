"""CK rules on files: the weight files, their headers, the index over them, and what is no safetensors."""

from __future__ import annotations

import re
from collections.abc import Iterator

from catalogger.errors import human
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.rules import Found, firsts, rule

LORA = re.compile(r"\.(base_layer|lora_[AB]|lora_embedding_[AB])\b")
_LARGEST_UPLOAD = 5 * 1024**3  # bytes; what object stores take in one PUT
_PICKLE = "Convert it to safetensors, or allow it by --allow-pickle if you trust whoever made it."
_INDEX = "model.safetensors.index.json"


@rule("CK002", "error", protects=True)
def header(facts: Facts) -> Iterator[Found]:
    """Every weight file has a readable safetensors header.

    A header gives each tensor's dtype, shape and place. One that is longer than its file, that overlaps itself or
    leaves gaps is refused when the weights are loaded, hours after it was uploaded.

    Fix: fetch or save the file again.
    """
    for shard in facts.weights.shards:
        if shard.problem:
            yield Found(shard.file.path, shard.problem, "Fetch or save the file again.")


@rule("CK003", "error", protects=True)
def size(facts: Facts) -> Iterator[Found]:
    """Every weight file is as long as its header says: neither truncated nor grown.

    A copy or download that broke off leaves such a file. MLflow registers it as READY.

    Fix: fetch or save the file again.
    """
    for shard in facts.weights.shards:
        if shard.expected is None or shard.expected == shard.file.size:
            continue
        short = shard.expected - shard.file.size
        what = f"{human(short)} are missing" if short > 0 else f"{human(-short)} too many"
        yield Found(
            shard.file.path,
            f"is {shard.file.size} bytes long, its header promises {shard.expected}: {what}",
            "The copy or download broke off; fetch or save the file again.",
        )


@rule("CK004", "error", protects=True)
def ghost_shard(facts: Facts) -> Iterator[Found]:
    """Every shard that the index names is there.

    Transformers opens each file that the index names; a missing one ends the load.

    Fix: fetch or save the missing shard; where the index itself is missing, save the checkpoint again.
    """
    index, shards = facts.weights.index, facts.weights.shards
    if index is None:
        if len(shards) > 1 and not facts.pickle_allowed:
            again = "Save the checkpoint again; Transformers writes the index."
            yield Found(_INDEX, f"is missing beside {len(shards)} shards", again)
        return
    if not shards:
        raise NotChecked("there is no weight file at all, as CK007 says")
    there = {shard.file.path for shard in shards}
    for path in sorted(set(index.values()) - there):
        yield Found(path, "is named by the index but is not there", "Fetch or save the missing shard.")


@rule("CK005", "error", protects=True)
def stray_shard(facts: Facts) -> Iterator[Found]:
    """Every shard is named by the index.

    Transformers loads what the index names; a stray shard is either dead weight or the sign of two mixed checkpoints.

    Fix: remove it, or save the checkpoint again into an empty folder.
    """
    index = facts.weights.index
    if index is None:
        return
    named = set(index.values())
    for shard in facts.weights.shards:
        if shard.file.path not in named:
            fix = "Remove it, or save the checkpoint again into an empty folder."
            yield Found(shard.file.path, "is not named by the index", fix)


@rule("CK006", "error", protects=True)
def index_agrees(facts: Facts) -> Iterator[Found]:
    """The index and the shards' headers name the same tensors.

    A tensor that is not where the index says it is becomes random weights.

    Fix: save the checkpoint again.
    """
    index = facts.weights.index
    if index is None:
        return
    by_shard: dict[str, set[str]] = {}
    for name, path in index.items():
        by_shard.setdefault(path, set()).add(name)
    for shard in facts.weights.shards:
        promised = by_shard.get(shard.file.path)
        if shard.problem or promised is None:
            continue
        held = {t.name for t in shard.tensors}
        if missing := promised - held:
            what = f"lacks what the index says it holds: {firsts(missing)}"
            yield Found(shard.file.path, what, "Save the checkpoint again.")
        if extra := held - promised:
            what = f"holds what the index says is elsewhere or nowhere: {firsts(extra)}"
            yield Found(shard.file.path, what, "Save the checkpoint again.")


@rule("CK007", "error", protects=True)
def safetensors(facts: Facts) -> Iterator[Found]:
    """The weights are safetensors.

    Loading a pickle runs whatever code its maker put into it; an adapter alone is no model.

    Fix: convert the weights to safetensors, merge an adapter into its base model, or allow a pickle that you trust by
    `--allow-pickle`.
    """
    checkpoint = facts.weights
    if checkpoint.shards:
        return
    pickled = [path for path, why in checkpoint.left_out.items() if why == "pickled weights"]
    adapter = [path for path in checkpoint.left_out if path.startswith("adapter_model.")]
    if pickled:
        yield Found(pickled[0], "is pickled, and there are no safetensors beside it", _PICKLE)
    elif adapter:
        fix = "Merge it into its base model and save the result."
        yield Found(adapter[0], "is an adapter; the whole weights are not here", fix)
    else:
        fix = "A checkpoint has model.safetensors, or shards with an index."
        yield Found(checkpoint.origin.location, "holds no weights", fix)


@rule("CK008", "error", protects=True)
def adapter_keys(facts: Facts) -> Iterator[Found]:
    """No tensor is wrapped by an adapter that was never merged.

    A model saved with LoRA layers around it reloads as random weights: the plain names are missing.

    Fix: merge the adapter (`merge_and_unload`) and save again.
    """
    for shard in facts.weights.shards:
        if wrapped := [t.name for t in shard.tensors if LORA.search(t.name)]:
            fix = "Merge the adapter (merge_and_unload) and save again."
            yield Found(shard.file.path, f"holds adapter-wrapped tensors: {firsts(wrapped)}", fix)


@rule("CK013", "error")
def written_by(facts: Facts) -> Iterator[Found]:
    """Every weight file says by its header's metadata that it holds PyTorch weights.

    Transformers 4 refuses a file without `format`, or with one that it does not know.

    Fix: save it by `save_pretrained`, or `safetensors.torch.save_file(…, metadata={"format": "pt"})`.
    """
    for shard in facts.weights.shards:
        if shard.expected is None:  # no header was read
            continue
        if (said := shard.metadata.get("format")) != "pt":
            what = f'says format "{said}" in its header; "pt" is needed' if said else "says no format in its header"
            fix = 'Save it again: safetensors.torch.save_file(…, metadata={"format": "pt"}).'
            yield Found(shard.file.path, what, fix)


@rule("CK014", "warning")
def uploadable(facts: Facts) -> Iterator[Found]:
    """No weight file is larger than an object store takes in one piece.

    5 GiB is the most that a single PUT may carry; above it an upload fails at its end where no multipart upload is
    used (EntityTooLarge), and any broken upload starts over with a large file.

    Fix: `--max-shard-size 5GB` cuts it on the way, in the main job as in `log-model convert`.
    """
    for shard in facts.weights.shards:
        if shard.file.size > _LARGEST_UPLOAD:
            what = f"has {human(shard.file.size)}; an object store takes {human(_LARGEST_UPLOAD)} in one piece"
            yield Found(shard.file.path, what, "Cut it on the way: --max-shard-size 5GB.")


def require_whole(facts: Facts) -> None:
    """Raises NotChecked where the tensors are not all known, or are no plain weights: another rule says so."""
    if not facts.weights.shards or any(s.expected is None for s in facts.weights.shards):
        raise NotChecked("the headers of the weight files are not all known")
    for code, check in (
        ("CK004", ghost_shard),
        ("CK005", stray_shard),
        ("CK006", index_agrees),
        ("CK008", adapter_keys),
    ):
        if any(check(facts)):
            raise NotChecked(f"the tensors are not those of a whole model, as {code} says")
