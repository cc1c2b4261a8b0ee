"""The tensors that an architecture has by its config: names and shapes, as Transformers 5.19 writes and reads them.

A config comes from outside: every number in it is checked before it is reckoned with, and no table grows with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from catalogger.checkpoints import Checkpoint, Tensor
from catalogger.validators.facts import NotChecked

Shape = tuple[int, ...]
Block = tuple[int | None, int | None]
"""The layer and the expert that a tensor belongs to; None for what is there once, or once a layer."""

_MOST = 10**9
_MOST_LAYERS = 1000
_MOST_EXPERTS = 1024
_INDEX = "(0|[1-9][0-9]{0,5})"
_HEAD = "lm_head.weight"
_FUSED = ".mlp.experts.gate_up_proj"
_EMBEDDINGS = {
    "LlamaForCausalLM": "model.embed_tokens.weight",
    "MistralForCausalLM": "model.embed_tokens.weight",
    "MixtralForCausalLM": "model.embed_tokens.weight",
    "DbrxForCausalLM": "transformer.wte.weight",
}


@dataclass(frozen=True)
class Experts:
    """The experts of a layer: how many, which field of the config says so, and where they are seen.

    `router` has a row for each; `stacked` are the tensors whose rows are those of all experts; `stem` stands before
    the number of an expert that has tensors of its own, which `each` names.
    """

    count: int
    counted_by: str
    router: str
    stacked: frozenset[str] = frozenset()
    stem: str | None = None
    each: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """What an architecture has: `once`, the same in each `layer`, the same in each of its `experts`.

    The names of a layer's tensors are without `stem` and the layer's number. `vocabulary` names those whose rows are
    the `words`; `optional` those that nobody misses; `prefix` (a regular expression) is what names may begin with;
    `ignored` is found in what Transformers drops without harm. Not `complete`: only layers and vocabulary are known.
    """

    layers: int
    layers_field: str
    words: int
    stem: str
    vocabulary: tuple[str, ...]
    once: Mapping[str, Shape] = field(default_factory=dict)
    layer: Mapping[str, Shape] = field(default_factory=dict)
    experts: Experts | None = None
    tied: bool | None = None
    """Whether the head is the embedding; None for an architecture without a head."""
    optional: frozenset[str] = frozenset()
    prefix: str = ""
    ignored: str = r"\brotary_emb\.inv_freq$"
    complete: bool = True

    @property
    def head(self) -> str | None:
        """The name of the head."""
        return None if self.tied is None else _HEAD

    def blocks(self, tensors: Iterable[Tensor]) -> dict[Block, dict[str, Tensor]]:
        """The tensors, each by the rest of its name, sorted by what they belong to; without the ignored ones."""
        expert = self.experts.stem if self.experts else None
        inner = rf"(?:{re.escape(expert)}{_INDEX}\.)?" if expert else "()"
        place = re.compile(rf"(?:{self.prefix})?(?:{re.escape(self.stem)}{_INDEX}\.{inner})?(.+)", re.DOTALL)
        ignored = re.compile(self.ignored)
        held: dict[Block, dict[str, Tensor]] = {}
        for tensor in tensors:
            if ignored.search(tensor.name):
                continue
            found = place.fullmatch(tensor.name)
            layer, number, rest = found.groups() if found else (None, None, tensor.name)
            at = (int(layer) if layer else None, int(number) if number else None)
            block = held.setdefault(at, {})
            plain = _modern(rest)
            block[tensor.name if plain in block else plain] = tensor
        return held


def expected_tensors(architecture: str | None, config: Mapping[str, Any], names: Iterable[str] = ()) -> Expected:
    """What the architecture has by this config; `names` tell which of two forms a Mixtral is stored in.

    Raises NotChecked for an architecture that is not known here, and for a config that does not say what is needed.
    """
    if architecture == "MixtralForCausalLM":
        return _mixtral(config, any(name.endswith(_FUSED) for name in names))
    if (build := _BUILDERS.get(architecture or "")) is None:
        raise NotChecked(f"the tensors of {str(architecture)[:80]} are not known here")
    return build(config)


def counted_parameters(checkpoint: Checkpoint) -> int:
    """Number of scalar weights; a head that is tied to the embedding is not counted, also where it is stored."""
    embedding = _EMBEDDINGS.get(checkpoint.architecture or "")
    if embedding is None or checkpoint.config.get("tie_word_embeddings") is not True:
        return checkpoint.parameters
    ends = {t.name: t.elements for s in checkpoint.shards for t in s.tensors if t.name in (embedding, _HEAD)}
    return checkpoint.parameters - (ends.get(_HEAD, 0) if embedding in ends else 0)


def _llama(config: Mapping[str, Any]) -> Expected:
    bias = _flag(config, "mlp_bias")
    layer = _attention(config, None, _flag(config, "attention_bias")) | _feed_forward(config, bias)
    return _decoder("LlamaForCausalLM", config, layer)


def _mistral(config: Mapping[str, Any]) -> Expected:
    return _decoder("MistralForCausalLM", config, _attention(config, 8, False) | _feed_forward(config, False))


def _mixtral(config: Mapping[str, Any], fused: bool) -> Expected:
    """Transformers writes a tensor for each expert; 5 has them fused in memory, and stores them so where asked to."""
    hidden, inner = _number(config, "hidden_size"), _number(config, "intermediate_size")
    count = _number(config, "num_local_experts", 8, _MOST_EXPERTS)
    moe = "mlp" if fused else "block_sparse_moe"
    layer = _attention(config, 8, False) | {f"{moe}.gate.weight": (count, hidden)}
    router = f"{moe}.gate.weight"
    if fused:
        both = {"mlp.experts.gate_up_proj": (count, 2 * inner, hidden), "mlp.experts.down_proj": (count, hidden, inner)}
        experts = Experts(count, "num_local_experts", router, frozenset(both))
        return _decoder("MixtralForCausalLM", config, layer | both, experts)
    each = {"w1.weight": (inner, hidden), "w2.weight": (hidden, inner), "w3.weight": (inner, hidden)}
    experts = Experts(count, "num_local_experts", router, stem=f"{moe}.experts.", each=each)
    return _decoder("MixtralForCausalLM", config, layer, experts)


def _decoder(
    architecture: str, config: Mapping[str, Any], layer: Mapping[str, Shape], experts: Experts | None = None
) -> Expected:
    words, hidden = _number(config, "vocab_size"), _number(config, "hidden_size")
    embedding = _EMBEDDINGS[architecture]
    return Expected(
        layers=_number(config, "num_hidden_layers", most=_MOST_LAYERS),
        layers_field="num_hidden_layers",
        words=words,
        stem="model.layers.",
        vocabulary=(embedding, _HEAD),
        once={embedding: (words, hidden), "model.norm.weight": (hidden,), _HEAD: (words, hidden)},
        layer=layer,
        experts=experts,
        tied=_flag(config, "tie_word_embeddings"),
    )


def _dbrx(config: Mapping[str, Any]) -> Expected:
    words, hidden, heads = (_number(config, name) for name in ("vocab_size", "d_model", "n_heads"))
    attention, feed_forward = _part(config, "attn_config"), _part(config, "ffn_config")
    narrow = hidden // heads * _number(attention, "kv_n_heads", 1)
    count = _number(feed_forward, "moe_num_experts", 4, _MOST_EXPERTS)
    rows = count * _number(feed_forward, "ffn_hidden_size", 3584)
    stacked = {f"ffn.experts.mlp.{name}": (rows, hidden) for name in ("w1", "v1", "w2")}
    router, norms = "ffn.router.layer.weight", "norm_attn_norm"
    embedding = _EMBEDDINGS["DbrxForCausalLM"]
    return Expected(
        layers=_number(config, "n_layers", most=_MOST_LAYERS),
        layers_field="n_layers",
        words=words,
        stem="transformer.blocks.",
        vocabulary=(embedding, _HEAD),
        once={embedding: (words, hidden), "transformer.norm_f.weight": (hidden,), _HEAD: (words, hidden)},
        layer={
            f"{norms}.norm_1.weight": (hidden,),
            f"{norms}.norm_2.weight": (hidden,),
            f"{norms}.attn.Wqkv.weight": (hidden + 2 * narrow, hidden),
            f"{norms}.attn.out_proj.weight": (hidden, hidden),
            router: (count, hidden),
            **stacked,
        },
        experts=Experts(count, "moe_num_experts", router, frozenset(stacked)),
        tied=_flag(config, "tie_word_embeddings"),
    )


def _bert(config: Mapping[str, Any]) -> Expected:
    if _flag(config, "add_cross_attention"):
        raise NotChecked("the tensors of a BertModel with add_cross_attention are not known here")
    words, hidden, inner = (_number(config, name) for name in ("vocab_size", "hidden_size", "intermediate_size"))
    positions, types = _number(config, "max_position_embeddings", 512), _number(config, "type_vocab_size", 2)
    tables = {"word": words, "position": positions, "token_type": types}
    once: dict[str, Shape] = {f"embeddings.{name}_embeddings.weight": (rows, hidden) for name, rows in tables.items()}
    pooler = _linear("pooler.dense", hidden, hidden)
    layer: dict[str, Shape] = {}
    for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
        layer |= _linear(name, hidden, hidden)
    layer |= _norm("attention.output.LayerNorm", hidden) | _norm("output.LayerNorm", hidden)
    layer |= _linear("intermediate.dense", inner, hidden) | _linear("output.dense", hidden, inner)
    return Expected(
        layers=_number(config, "num_hidden_layers", most=_MOST_LAYERS),
        layers_field="num_hidden_layers",
        words=words,
        stem="encoder.layer.",
        vocabulary=("embeddings.word_embeddings.weight",),
        once=once | _norm("embeddings.LayerNorm", hidden) | pooler,
        layer=layer,
        optional=frozenset(pooler),
        prefix=r"bert\.",
        ignored=r"\bposition_ids$|^cls\.",
    )


def _new(config: Mapping[str, Any]) -> Expected:
    """Its code comes with the checkpoint; what is said here holds for every BERT-like form of it."""
    return Expected(
        layers=_number(config, "num_hidden_layers", most=_MOST_LAYERS),
        layers_field="num_hidden_layers",
        words=_number(config, "vocab_size"),
        stem="encoder.layer.",
        vocabulary=("embeddings.word_embeddings.weight",),
        prefix=r"\w+\.(?=embeddings\.|encoder\.)",
        complete=False,
    )


_BUILDERS: dict[str, Callable[[Mapping[str, Any]], Expected]] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "DbrxForCausalLM": _dbrx,
    "BertModel": _bert,
    "NewModel": _new,
}


def _attention(config: Mapping[str, Any], kv_heads: int | None, bias: bool) -> dict[str, Shape]:
    """`kv_heads` is what the architecture takes where the config says nothing; where it says null, it is the heads."""
    hidden, heads = _number(config, "hidden_size"), _number(config, "num_attention_heads")
    unsaid = kv_heads if kv_heads and "num_key_value_heads" not in config else heads
    size = _number(config, "head_dim", hidden // heads)
    wide, narrow = heads * size, _number(config, "num_key_value_heads", unsaid) * size
    shapes: dict[str, Shape] = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    for name, rows in (("q", wide), ("k", narrow), ("v", narrow)):
        shapes |= _linear(f"self_attn.{name}_proj", rows, hidden, bias)
    return shapes | _linear("self_attn.o_proj", hidden, wide, bias)


def _feed_forward(config: Mapping[str, Any], bias: bool) -> dict[str, Shape]:
    hidden, inner = _number(config, "hidden_size"), _number(config, "intermediate_size")
    up = _linear("mlp.gate_proj", inner, hidden, bias) | _linear("mlp.up_proj", inner, hidden, bias)
    return up | _linear("mlp.down_proj", hidden, inner, bias)


def _linear(name: str, rows: int, columns: int, bias: bool = True) -> dict[str, Shape]:
    weight: dict[str, Shape] = {f"{name}.weight": (rows, columns)}
    return weight | {f"{name}.bias": (rows,)} if bias else weight


def _norm(name: str, size: int) -> dict[str, Shape]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _modern(name: str) -> str:
    """The name as Transformers reads it: the first BERTs were converted from TensorFlow, which named norms so."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _number(config: Mapping[str, Any], name: str, default: int | None = None, most: int = _MOST) -> int:
    value = config.get(name)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 < value <= most:
        raise NotChecked(f"config.json says no {name} that is a whole number from 1 to {most}")
    return value


def _flag(config: Mapping[str, Any], name: str) -> bool:
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise NotChecked(f"config.json says neither true nor false as {name}")
    return bool(value)


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    if value is not None and not isinstance(value, dict):
        raise NotChecked(f"config.json says {name} in another form than Transformers writes it")
    return value or {}
