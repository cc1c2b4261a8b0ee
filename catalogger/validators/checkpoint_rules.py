"""CK rules: the weights, the index and the config of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator

from catalogger.checkpoints import borrowed_repos
from catalogger.errors import human
from catalogger.validators.rules import Facts, Finding, NotChecked, firsts, rule

_LORA = re.compile(r"\.(base_layer|lora_[AB]|lora_embedding_[AB])\b")
_PICKLE = "Convert it to safetensors, or allow it by --allow-pickle if you trust whoever made it."


@rule("CK001", protects=True)
def architecture(facts: Facts) -> Iterator[Finding]:
    """The config's architecture is one that the recipe is for.

    Upstream logs a BERT as a chat model without a word; it fails when it is asked the first time.
    """
    found = facts.checkpoint.architecture
    wanted = " or ".join(facts.recipe.architectures)
    if found is None:
        yield Finding(
            "CK001",
            "error",
            "config.json",
            f"names no architecture; the recipe is for {wanted}",
            'Set "architectures" in config.json.',
        )
    elif found not in facts.recipe.architectures:
        yield Finding(
            "CK001", "error", "config.json", f'says architecture "{found}"; the recipe is for {wanted}',
            "Choose the recipe of this family: `log-model recipes` lists them.",
        )  # fmt: skip


@rule("CK002", protects=True)
def header(facts: Facts) -> Iterator[Finding]:
    """Every weight file has a readable safetensors header."""
    for shard in facts.checkpoint.shards:
        if shard.problem:
            yield Finding("CK002", "error", shard.file.path, shard.problem, "Fetch or save the file again.")


@rule("CK003", protects=True)
def size(facts: Facts) -> Iterator[Finding]:
    """Every weight file is as long as its header says: neither truncated nor grown.

    Upstream registers a truncated shard as READY.
    """
    for shard in facts.checkpoint.shards:
        if shard.expected is None or shard.expected == shard.file.size:
            continue
        short = shard.expected - shard.file.size
        what = f"{human(short)} are missing" if short > 0 else f"{human(-short)} too many"
        yield Finding(
            "CK003", "error", shard.file.path,
            f"is {shard.file.size} bytes long, its header promises {shard.expected}: {what}",
            "The copy or download broke off; fetch or save the file again.",
        )  # fmt: skip


@rule("CK004", protects=True)
def ghost_shard(facts: Facts) -> Iterator[Finding]:
    """Every shard that the index names is there."""
    index = facts.checkpoint.index
    if index is None:
        if len(facts.checkpoint.shards) > 1 and not facts.pickle_allowed:
            yield Finding(
                "CK004",
                "error",
                "model.safetensors.index.json",
                f"is missing beside {len(facts.checkpoint.shards)} shards",
                "Save the checkpoint again; Transformers writes the index.",
            )
        return
    there = {shard.file.path for shard in facts.checkpoint.shards}
    for path in sorted(set(index.values()) - there):
        yield Finding(
            "CK004", "error", path, "is named by the index but is not there", "Fetch or save the missing shard."
        )


@rule("CK005", protects=True)
def stray_shard(facts: Facts) -> Iterator[Finding]:
    """Every shard is named by the index.

    Transformers loads what the index names; a stray shard is either dead weight or the sign of two mixed checkpoints.
    """
    index = facts.checkpoint.index
    if index is None:
        return
    for shard in facts.checkpoint.shards:
        if shard.file.path not in index.values():
            yield Finding(
                "CK005",
                "error",
                shard.file.path,
                "is not named by the index",
                "Remove it, or save the checkpoint again into an empty folder.",
            )


@rule("CK006", protects=True)
def index_agrees(facts: Facts) -> Iterator[Finding]:
    """The index and the shards' headers name the same tensors."""
    index = facts.checkpoint.index
    if index is None:
        return
    for shard in facts.checkpoint.shards:
        if shard.problem or shard.file.path not in index.values():
            continue
        held = {t.name for t in shard.tensors}
        promised = {name for name, path in index.items() if path == shard.file.path}
        if missing := promised - held:
            yield Finding(
                "CK006",
                "error",
                shard.file.path,
                f"lacks what the index says it holds: {firsts(missing)}",
                "Save the checkpoint again.",
            )
        if extra := held - promised:
            yield Finding(
                "CK006",
                "error",
                shard.file.path,
                f"holds what the index says is elsewhere or nowhere: {firsts(extra)}",
                "Save the checkpoint again.",
            )


@rule("CK007", protects=True)
def safetensors(facts: Facts) -> Iterator[Finding]:
    """The weights are safetensors; loading a pickle runs whatever code its maker put into it."""
    if facts.checkpoint.shards:
        return
    pickled = [path for path, why in facts.checkpoint.left_out.items() if why == "pickled weights"]
    adapter = [path for path in facts.checkpoint.left_out if path.startswith("adapter_model.")]
    if pickled:
        yield Finding("CK007", "error", pickled[0], "is pickled, and there are no safetensors beside it", _PICKLE)
    elif adapter:
        yield Finding(
            "CK007",
            "error",
            adapter[0],
            "is an adapter; the whole weights are not here",
            "Merge it into its base model and save the result.",
        )
    else:
        yield Finding(
            "CK007",
            "error",
            facts.checkpoint.origin.location,
            "holds no weights",
            "A checkpoint has model.safetensors, or shards with an index.",
        )


@rule("CK008", protects=True)
def adapter_keys(facts: Facts) -> Iterator[Finding]:
    """No tensor is wrapped by an adapter that was never merged.

    A model saved with LoRA layers around it reloads as random weights: the plain names are missing.
    """
    for shard in facts.checkpoint.shards:
        if wrapped := [t.name for t in shard.tensors if _LORA.search(t.name)]:
            yield Finding(
                "CK008",
                "error",
                shard.file.path,
                f"holds adapter-wrapped tensors: {firsts(wrapped)}",
                "Merge the adapter (merge_and_unload) and save again.",
            )


@rule("CK009", protects=True)
def remote_code(facts: Facts) -> Iterator[Finding]:
    """Code that a checkpoint brings is used only with consent."""
    mapped = facts.checkpoint.config.get("auto_map") or facts.checkpoint.tokenizer_config.get("auto_map")
    known = facts.recipe.remote_code and facts.recipe.remote_code.repo
    if strange := borrowed_repos(facts.checkpoint) - {known}:
        fix = "Use a recipe whose remote_code names that repository, after reading its code."
        yield Finding("CK009", "error", "config.json", f"takes code from {firsts(strange)}, unknown to the recipe", fix)
    if not mapped or facts.remote_code_consent:
        return
    classes = ", ".join(sorted({str(v) for v in mapped.values()})) if isinstance(mapped, dict) else str(mapped)
    yield Finding(
        "CK009",
        "error",
        "config.json",
        f"asks for code of its own: {classes}",
        "Read that code, then consent by --trust-remote-code.",
    )


@rule("CK010")
def dtype(facts: Facts) -> Iterator[Finding]:
    """The weights have the dtype that the recipe says."""
    wanted, found = facts.recipe.dtype, facts.checkpoint.dtype
    if wanted is None:
        return
    if found is None:
        raise NotChecked("no header of a weight file could be read")
    if found != wanted:
        times = {"float64": 8, "float32": 4}.get(found, 2) / {"float32": 4}.get(wanted, 2)
        more = f", {times:g} times the bytes to move and serve" if times > 1 else ""
        yield Finding(
            "CK010",
            "warning",
            "weights",
            f"are {found}; the recipe says {wanted}{more}",
            f"Save it with torch_dtype={wanted}.",
        )


@rule("CK011")
def pooling(facts: Facts) -> Iterator[Finding]:
    """The vectors that MLflow serves are pooled as the model was trained to.

    MLflow's `llm/v1/embeddings` takes the hidden state of the first token and does not normalise
    (mlflow.transformers.llm_inference_utils.postprocess_output_for_llm_v1_embedding_task).
    """
    if facts.recipe.task != "llm/v1/embeddings":
        return
    said = facts.checkpoint.pooling or (facts.recipe.embedding and facts.recipe.embedding.pooling)
    if said is None:
        raise NotChecked("the checkpoint has no 1_Pooling/config.json and the recipe does not say")
    if said != "cls":
        yield Finding(
            "CK011", "warning", "1_Pooling/config.json",
            f"pools by {said}; MLflow serves the first token's vector: other vectors than sentence-transformers gives,"
            " and worse ones for search",
            "Compare on your own data before you rely on it, or choose a model that pools the first token (GTE, BGE).",
        )  # fmt: skip


@rule("CK012")
def normalisation(facts: Facts) -> Iterator[Finding]:
    """Whether the served vectors have length 1 is said."""
    if facts.recipe.task != "llm/v1/embeddings":
        return
    known = facts.recipe.embedding and facts.recipe.embedding.normalised
    if facts.checkpoint.normalises or (facts.checkpoint.normalises is None and known):
        yield Finding(
            "CK012",
            "note",
            "modules.json",
            "normalises its vectors; MLflow's answers are not normalised",
            "Divide each vector by its length before comparing by dot product.",
        )
