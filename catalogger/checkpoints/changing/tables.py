"""The two tables of the vocabulary, embedding and head: one tensor where they are tied, and of the same number of rows.

What an adapter does to one of a tied pair, it does to that one alone: then the result has both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from catalogger.checkpoints.changing.adapter import Adapter
from catalogger.checkpoints.changing.factors import Parts
from catalogger.checkpoints.changing.outputs import Output
from catalogger.checkpoints.changing.stored import Reader, Stored
from catalogger.errors import AdapterRefused

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
HEADS = ("lm_head.weight", "embed_out.weight")
_STEP = 1 << 20


def untied(
    adapter: Adapter,
    parts: Parts,
    outputs: dict[str, Output],
    base: Mapping[str, Stored],
    in_base: Callable[[str], str],
) -> bool:
    """Give the head a tensor of its own where the adapter makes the two differ; whether it did.

    PEFT trains a module on its own although its weight is tied, so that one of the pair stays as it was.
    """
    table = next((name for name in outputs if name.endswith(EMBEDDINGS)), None)
    if table is None:
        return False
    head = next((n for n in HEADS if n in parts.whole or n.removesuffix(".weight") in parts.modules), HEADS[0])
    whole = {in_base(name): tensor for name, tensor in parts.whole.items() if in_base(name) in (table, head)}
    copied = {in_base(n) for n in parts.whole if adapter.saves(n.rpartition(".")[0])} & {table, head}
    added = {in_base(f"{m}.weight") for m in parts.factors} & {table, head}
    own = {in_base(f"{m}.weight") for m in parts.rows} & {head}
    if len(whole) == 2 and not added | own and _equal(whole[table], whole[head]):
        return False
    if not (copied or added or own or len(whole) == 2):
        if head in whole:  # loaded into the one tensor that both are
            outputs[table] = replace(outputs[table], source=whole[head], between=outputs[table].dtype)
        return False
    held = outputs[table].dtype
    if head in whole:
        outputs[head] = Output(head, held, whole[head], between=held)
    else:
        before = base[table] if table in copied else outputs[table].source  # which may be the resized one
        outputs[head] = Output(head, held, before, between=held)
    return True


def require_same_rows(
    adapter: Adapter, outputs: Mapping[str, Output], base: Mapping[str, Stored], config: dict[str, Any]
) -> None:
    """Raises AdapterRefused where one table was resized and the other not, or the tokenizer has more tokens."""
    rows = {n: o.shape[0] for n, o in outputs.items() if (n.endswith(EMBEDDINGS) or n in HEADS) and len(o.shape) == 2}
    if len(set(rows.values())) > 1:
        sizes = ", ".join(f'"{name}" has {count} rows' for name, count in sorted(rows.items()))
        raise AdapterRefused(
            adapter.location,
            f"is half an adapter: the vocabulary was resized and only one of its tables is there ({sizes})",
            "Save it once more with save_embedding_layers=True, or name both tables in modules_to_save.",
        )
    if any(name in base and base[name].shape[0] != count for name, count in rows.items()):
        config["vocab_size"] = next(iter(rows.values()))


def _equal(one: Stored, other: Stored) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    held, against = bytearray(_STEP), bytearray(_STEP)
    with Reader([one.file, other.file]) as reader:
        for start in range(0, one.nbytes, _STEP):
            size = min(_STEP, one.nbytes - start)
            reader.read(one, start, memoryview(held)[:size])
            reader.read(other, start, memoryview(against)[:size])
            if held[:size] != against[:size]:
                return False
    return True
