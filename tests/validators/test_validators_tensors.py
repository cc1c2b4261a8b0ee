"""The tensor rules: silent on what Transformers itself writes, and one code for each defect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints.shard_bytes import safetensors_bytes, table
from fakes import checkpoints
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from validators.judge import Judge

import catalogger.validators.tensor_rules  # noqa: F401  registers its rules
from catalogger.checkpoints import Checkpoint, Shard, Tensor, open_source
from catalogger.recipes import Recipe
from catalogger.validators import Environment, Facts, Finding, NotChecked, run_rules
from catalogger.validators.expected import counted_parameters, expected_tensors

CODES = tuple(f"CK0{number}" for number in range(22, 29))
RECIPES = {"llama": "llama-chat", "mistral": "mistral-chat", "mixtral": "mixtral-chat", "bert": "bge-embeddings"}
SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
DBRX = {
    "d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 300,
    "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0},
    "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 3},
}  # fmt: skip
LAYER = "model.layers.1."
Weights = dict[str, tuple[str, list[int]]]


@pytest.fixture
def copied(made: Callable[[str], Path], work: Path) -> Callable[[str], Path]:
    """A healthy checkpoint of a family, to be broken."""
    return lambda family: Path(shutil.copytree(made(family), work / family))


@pytest.fixture
def written(made: Callable[[str], Path], work: Path) -> Callable[..., Path]:
    """What `save_pretrained` of a fresh Transformers model writes, with a tokenizer beside it."""
    import torch
    import transformers

    def write(model: str, config: Mapping[str, Any], options: Mapping[str, Any] | None = None, **save: Any) -> Path:
        told = getattr(transformers, f"{model.split('For')[0].removesuffix('Model')}Config")(**config)
        folder = Path(shutil.copytree(made("bert" if model.startswith("Bert") else "llama"), work / "model"))
        for old in folder.glob("model*.safetensors*"):
            old.unlink()
        getattr(transformers, model)(told, **(options or {})).to(torch.bfloat16).save_pretrained(folder, **save)
        return folder

    return write


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))


def _rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    """The same tensors in one file of zeros, changed."""
    held = open_source(str(folder)).shards
    weights: Weights = {t.name: (t.dtype, list(t.shape)) for shard in held for t in shard.tensors}
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    header = table(change(weights)) | {"__metadata__": {"format": "pt"}}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header))


def _without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {n: t for n, t in weights.items() if not any(part in n for part in parts)}


def _renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {n.replace(old, new): t for n, t in weights.items()}


def _with(name: str, *shape: int) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: ("BF16", list(shape))}


def _speaks(facts: Facts) -> list[str]:
    """The codes of the tensor rules that speak, after it has been seen that every one ran."""
    report = run_rules(facts, only=CODES)
    assert report.not_checked == {}
    return [f.code for f in report.findings]


def _one(facts: Facts) -> Finding:
    """The only error or warning of all rules."""
    found = [f for f in run_rules(facts).findings if f.severity != "note"]
    assert len(found) == 1, found
    return found[0]


def _not_checked(facts: Facts) -> dict[str, str]:
    report = run_rules(facts, only=CODES)
    assert report.findings == ()
    return dict(report.not_checked)


# what Transformers writes


@pytest.mark.parametrize("fewer", [[], ["tie_word_embeddings", "attention_bias", "mlp_bias"]], ids=["whole", "fewer"])
@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("LlamaForCausalLM", HEADS),
        ("LlamaForCausalLM", {"num_attention_heads": 4}),
        ("LlamaForCausalLM", {**HEADS, "head_dim": 16}),
        ("MistralForCausalLM", HEADS),
        ("MistralForCausalLM", {**HEADS, "head_dim": 24}),
        ("MixtralForCausalLM", {**HEADS, "num_local_experts": 3}),
        ("MixtralForCausalLM", {**HEADS, "num_local_experts": 3, "head_dim": 16}),
        ("BertModel", {"num_attention_heads": 4, "type_vocab_size": 3, "max_position_embeddings": 64}),
    ],
)
def test_what_transformers_writes(
    model: str, config: dict[str, Any], fewer: list[str], written: Callable[..., Path], facts: Judge
) -> None:
    folder = written(model, {**SIZES, **config})
    _edit(folder, **dict.fromkeys(fewer, ...))
    assert _speaks(facts(folder, _recipe(model))) == []


@pytest.mark.parametrize("switches", [("attention_bias",), ("mlp_bias",), ("attention_bias", "mlp_bias")])
def test_biases_as_transformers_writes_them(
    switches: tuple[str, ...], written: Callable[..., Path], facts: Judge
) -> None:
    folder = written("LlamaForCausalLM", {**SIZES, **HEADS, "head_dim": 16, **dict.fromkeys(switches, True)})
    assert _speaks(facts(folder)) == []
    _edit(folder, **{switches[0]: False})
    assert _speaks(facts(folder)) == ["CK028"]


def test_tied_head_as_transformers_writes_it(written: Callable[..., Path], facts: Judge) -> None:
    folder = written("LlamaForCausalLM", {**SIZES, **HEADS, "tie_word_embeddings": True})
    assert _speaks(facts(folder)) == []
    _edit(folder, tie_word_embeddings=...)
    assert _speaks(facts(folder)) == ["CK027"]


@pytest.mark.parametrize(
    ("model", "fields", "heads"),
    [("MistralForCausalLM", ..., 8), ("MixtralForCausalLM", ..., 8), ("MistralForCausalLM", None, 16)],
)
def test_key_value_heads_that_the_config_does_not_say(
    model: str, fields: Any, heads: int, written: Callable[..., Path], facts: Judge
) -> None:
    """As the config classes have it: absent means 8, null means as many as there are heads."""
    folder = written(model, {**SIZES, "num_attention_heads": 16, "num_key_value_heads": heads})
    _edit(folder, num_key_value_heads=fields, num_local_experts=...)
    assert _speaks(facts(folder, _recipe(model))) == []


def test_fused_mixtral_as_transformers_writes_it_when_asked(written: Callable[..., Path], facts: Judge) -> None:
    config = {**SIZES, **HEADS, "num_local_experts": 3}
    folder = written("MixtralForCausalLM", config, save_original_format=False)
    recipe = _recipe("MixtralForCausalLM")
    assert _speaks(facts(folder, recipe)) == []
    for changes, code in (({"num_local_experts": 4}, "CK023"), ({"intermediate_size": 96}, "CK025")):
        _edit(folder, **{**config, **changes})
        assert _speaks(facts(folder, recipe)) == [code]


def test_dbrx_as_transformers_writes_it(written: Callable[..., Path], facts: Judge) -> None:
    assert _speaks(facts(written("DbrxForCausalLM", DBRX), _recipe("DbrxForCausalLM"))) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"vocab_size": 310}, "CK024"),
        ({"n_layers": 3}, "CK022"),
        ({"n_layers": 1}, "CK022"),
        ({"d_model": 64}, "CK025"),
        ({"attn_config": {"kv_n_heads": 4}}, "CK025"),
        ({"attn_config": {}}, "CK025"),
        ({"ffn_config": {"ffn_hidden_size": 8, "moe_num_experts": 3}}, "CK025"),
        ({"ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4}}, "CK023"),
        ({"ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 2}}, "CK023"),
    ],
)
def test_dbrx_with_another_config(
    changes: dict[str, Any], code: str, written: Callable[..., Path], facts: Judge
) -> None:
    folder = written("DbrxForCausalLM", DBRX)
    _edit(folder, **changes)
    assert _speaks(facts(folder, _recipe("DbrxForCausalLM"))) == [code]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_with("transformer.blocks.0.ffn.experts.mlp.w1", 32, 32), "CK025"),
        (_with("transformer.blocks.0.ffn.router.layer.weight", 2, 32), "CK023"),
        (_without("blocks.1.ffn.experts.mlp.v1"), "CK026"),
        (_without("lm_head"), "CK027"),
        (_with("transformer.blocks.0.norm_attn_norm.norm_1.bias", 32), "CK028"),
        (_with("transformer.blocks.0.norm_attn_norm.attn.rotary_emb.inv_freq", 4), ""),
    ],
)
def test_dbrx_with_other_weights(
    change: Callable[[Weights], Weights], code: str, written: Callable[..., Path], facts: Judge
) -> None:
    folder = written("DbrxForCausalLM", DBRX)
    _rewrite(folder, change)
    assert _speaks(facts(folder, _recipe("DbrxForCausalLM"))) == code.split()


def test_bert_without_a_pooler(written: Callable[..., Path], facts: Judge) -> None:
    folder = written("BertModel", {**SIZES, "num_attention_heads": 4}, {"add_pooling_layer": False})
    assert _speaks(facts(folder, "bge-embeddings")) == []


@pytest.mark.parametrize("model", ["BertForMaskedLM", "BertForPreTraining"])
def test_bert_inside_a_pretrained_one(model: str, written: Callable[..., Path], facts: Judge) -> None:
    """Its names begin with `bert.`, and the heads of the training are dropped."""
    folder = written(model, {**SIZES, "num_attention_heads": 4})
    _edit(folder, architectures=["BertModel"])
    assert _speaks(facts(folder, "bge-embeddings")) == []
    _rewrite(folder, _without("encoder.layer.1.output.dense.bias"))
    assert _speaks(facts(folder, "bge-embeddings")) == ["CK026"]


def test_names_that_transformers_still_reads(copied: Callable[[str], Path], facts: Judge) -> None:
    bert = copied("bert")
    _rewrite(bert, _renamed("LayerNorm.weight", "LayerNorm.gamma"))
    _rewrite(bert, _renamed("LayerNorm.bias", "LayerNorm.beta"))
    _rewrite(bert, _with("embeddings.position_ids", 1, 512))
    llama = copied("llama")
    _rewrite(llama, _with(f"{LAYER}self_attn.rotary_emb.inv_freq", 4))
    assert (_speaks(facts(bert, "bge-embeddings")), _speaks(facts(llama))) == ([], [])


def test_llama_405b(work: Path, facts: Judge) -> None:
    checkpoints.sparse_llama_405b(work / "model")
    assert _speaks(facts(work / "model")) == []
    _edit(work / "model", num_hidden_layers=130)
    assert _one(facts(work / "model")).message == (
        "have 126 layers, config.json says num_hidden_layers 130; missing: 126-129"
    )


# a config that is not that of the weights


@pytest.mark.parametrize(
    ("family", "changes", "code", "text"),
    [
        ("llama", {"vocab_size": 310}, "CK024", 'says vocab_size 310; "model.embed_tokens.weight" has 300 rows, "lm_'),
        ("llama", {"num_hidden_layers": 4}, "CK022", "have 2 layers, config.json says num_hidden_layers 4; missing: 2"),
        ("llama", {"num_hidden_layers": 1}, "CK022", "have 2 layers, config.json says num_hidden_layers 1; too many: "),
        ("llama", {"hidden_size": 64}, "CK025", 'hold "lm_head.weight" of shape [300, 32], config.json makes it [300,'),
        ("llama", {"intermediate_size": 96}, "CK025", 'hold "model.layers.0.mlp.down_proj.weight" of shape [32, 64]'),
        ("llama", {"num_key_value_heads": 4}, "CK025", "config.json makes it [32, 32]; more tensors that differ: 3"),
        ("llama", {"num_attention_heads": 2}, "CK025", "self_attn.k_proj"),
        ("llama", {"head_dim": 16}, "CK025", "self_attn.k_proj"),
        ("llama", {"attention_bias": True}, "CK026", 'lack "model.layers.0.self_attn.k_proj.bias"'),
        ("llama", {"mlp_bias": True}, "CK026", 'lack "model.layers.0.mlp.down_proj.bias"'),
        ("mistral", {"vocab_size": 301}, "CK024", ""),
        ("mistral", {"num_hidden_layers": 3}, "CK022", ""),
        ("mistral", {"num_key_value_heads": ...}, "CK025", ""),
        ("mixtral", {"num_local_experts": 8}, "CK023", "layer 0 lacks 4-7, has a router of 4 rows; more layers that"),
        ("mixtral", {"num_local_experts": 2}, "CK023", "layer 0 has in excess 2-3, has a router of 4 rows"),
        ("mixtral", {"num_local_experts": ...}, "CK023", "(num_local_experts 8)"),
        ("mixtral", {"num_hidden_layers": 3}, "CK022", ""),
        ("mixtral", {"intermediate_size": 96}, "CK025", "experts.0.w1.weight"),
        ("mixtral", {"vocab_size": 310}, "CK024", ""),
        ("bert", {"vocab_size": 310}, "CK024", 'says vocab_size 310; "embeddings.word_embeddings.weight" has 300 rows'),
        ("bert", {"num_hidden_layers": 3}, "CK022", "missing: 2"),
        ("bert", {"intermediate_size": 96}, "CK025", "encoder.layer.0.intermediate.dense.bias"),
        ("bert", {"max_position_embeddings": 1024}, "CK025", '"embeddings.position_embeddings.weight"'),
        ("bert", {"type_vocab_size": 1}, "CK025", '"embeddings.token_type_embeddings.weight"'),
    ],
)
def test_another_config(
    family: str, changes: dict[str, Any], code: str, text: str, copied: Callable[[str], Path], facts: Judge
) -> None:
    folder = copied(family)
    _edit(folder, **changes)
    found = _one(facts(folder, RECIPES[family]))
    assert (found.code, found.severity) == (code, "error")
    assert text in found.message


def test_head_that_is_missing(work: Path, facts: Judge) -> None:
    checkpoints.llama(work / "model", tie=True)
    assert _speaks(facts(work / "model")) == []
    _edit(work / "model", tie_word_embeddings=False)
    found = _one(facts(work / "model"))
    assert (found.code, found.subject, found.severity) == ("CK027", "lm_head.weight", "error")
    assert found.message.endswith("the head would be random numbers")


def test_head_that_is_stored_twice(copied: Callable[[str], Path], facts: Judge) -> None:
    folder = copied("llama")
    _edit(folder, tie_word_embeddings=True)
    report = run_rules(facts(folder))
    assert not report.failed(strict=True)
    assert [(f.severity, f.subject, f.message) for f in report.findings if f.code == "CK027"] == [
        ("note", "lm_head.weight", "is stored beside the embedding that it is tied to: 19.2 kB more than are needed")
    ]


# weights that are not those of the config


@pytest.mark.parametrize(
    ("family", "change", "code", "text"),
    [
        ("llama", _without("layers.1."), "CK022", "have 1 layers, config.json says num_hidden_layers 2; missing: 1"),
        (
            "llama",
            _renamed("layers.1.", "layers.2."),
            "CK022",
            "have 2 layers, config.json says num_hidden_layers 2; m",
        ),
        ("llama", _renamed("layers.1.", "layers.01."), "CK022", 'instead: "model.layers.01.input_layernorm.weight"'),
        ("llama", _with("model.layers.2.input_layernorm.weight", 32), "CK022", "too many: 2"),
        ("llama", _without(f"{LAYER}mlp.up_proj"), "CK026", 'lack "model.layers.1.mlp.up_proj.weight", which Llama'),
        ("llama", _without("embed_tokens"), "CK026", 'lack "model.embed_tokens.weight"'),
        ("llama", _without("model.norm"), "CK026", 'lack "model.norm.weight"'),
        ("llama", _without("model.layers."), "CK026", 'lack "model.layers.0.input_layernorm.weight"'),
        ("llama", _renamed(f"{LAYER}mlp.up", f"{LAYER}mlp.mid"), "CK026", 'instead: "model.layers.1.mlp.mid_proj.w'),
        ("llama", lambda w: {f"module.{n}": t for n, t in w.items()}, "CK026", '"module.lm_head.weight"'),
        ("llama", _without("lm_head"), "CK027", "is missing, and tie_word_embeddings is not true in config.json"),
        ("llama", _renamed("lm_head", "output"), "CK027", 'unknown ones are there instead: "output.weight"'),
        ("llama", _with("lm_head.weight", 310, 32), "CK024", '"model.embed_tokens.weight" has 300 rows, "lm_head.wei'),
        ("llama", _with("model.embed_tokens.weight", 310, 32), "CK024", '"model.embed_tokens.weight" has 310 rows'),
        ("llama", _with("lm_head.weight", 300, 64), "CK025", '"lm_head.weight" of shape [300, 64]'),
        ("llama", _with("model.embed_tokens.weight", 9600), "CK025", "of shape [9600], config.json makes it [300, 32]"),
        ("llama", _with("model.norm.weight", 33), "CK025", '"model.norm.weight" of shape [33], config.json makes it'),
        ("llama", _with(f"{LAYER}mlp.up_proj.weight"), "CK025", "of shape [], config.json makes it [64, 32]"),
        ("llama", _with(f"{LAYER}self_attn.q_proj.bias", 32), "CK028", "does not know with this config: dropped on"),
        ("llama", _with("extra", 1), "CK028", 'hold "extra", which LlamaForCausalLM does not know'),
        ("mistral", _with("vision_tower.weight", 1), "CK028", '"vision_tower.weight"'),
        ("mixtral", _without("layers.1.block_sparse_moe.experts.3."), "CK023", "layer 1 lacks 3"),
        ("mixtral", _with(f"{LAYER}block_sparse_moe.experts.4.w1.weight", 64, 32), "CK023", "layer 1 has in excess 4"),
        ("mixtral", _with(f"{LAYER}block_sparse_moe.gate.weight", 3, 32), "CK023", "layer 1 has a router of 3 rows"),
        ("mixtral", _with(f"{LAYER}block_sparse_moe.gate.weight", 4, 33), "CK025", "gate.weight"),
        ("mixtral", _without(f"{LAYER}block_sparse_moe.gate"), "CK026", "gate.weight"),
        ("mixtral", _without(f"{LAYER}block_sparse_moe.experts.2.w2"), "CK026", "experts.2.w2.weight"),
        ("mixtral", _renamed(f"{LAYER}block_sparse_moe.experts.2.", f"{LAYER}x."), "CK023", "instead: "),
        ("mixtral", _renamed("block_sparse_moe", "mlp"), "CK026", "experts.0.w1.weight"),
        ("mixtral", _without("layers.0."), "CK022", "missing: 0"),
        ("bert", _without("encoder.layer.0."), "CK022", "missing: 0"),
        ("bert", _without("pooler"), "", ""),
        ("bert", _without("token_type_embeddings"), "CK026", "embeddings.token_type_embeddings.weight"),
        ("bert", _with("classifier.weight", 2, 32), "CK028", '"classifier.weight"'),
        ("bert", _with("cls.predictions.bias", 300), "", ""),
        ("bert", _with("pooler.dense.weight", 16, 32), "CK025", '"pooler.dense.weight"'),
        ("bert", _with("embeddings.word_embeddings.weight", 299, 32), "CK024", "has 299 rows"),
    ],
)
def test_other_weights(
    family: str,
    change: Callable[[Weights], Weights],
    code: str,
    text: str,
    copied: Callable[[str], Path],
    facts: Judge,
) -> None:
    folder = copied(family)
    dtype = "F32" if family == "bert" else "BF16"
    _rewrite(folder, lambda weights: {n: (dtype, shape) for n, (_, shape) in change(weights).items()})
    seen = facts(folder, RECIPES[family])
    if not code:
        assert _speaks(seen) == []
        return
    found = _one(seen)
    assert (found.code, found.severity) == (code, "warning" if code == "CK028" else "error")
    assert text in found.message


def test_config_of_a_dense_model_around_experts_and_the_other_way(copied: Callable[[str], Path], facts: Judge) -> None:
    dense, sparse = copied("mistral"), copied("mixtral")
    _edit(dense, architectures=["MixtralForCausalLM"], num_local_experts=4)
    _edit(sparse, architectures=["MistralForCausalLM"])
    for folder, recipe in ((dense, "mixtral-chat"), (sparse, "mistral-chat")):
        assert _one(facts(folder, recipe)).code == "CK026"


def test_two_defects_give_two_codes(copied: Callable[[str], Path], facts: Judge) -> None:
    folder = copied("llama")
    _edit(folder, vocab_size=310, num_hidden_layers=3)
    _rewrite(folder, _with("model.norm.weight", 33))
    assert _speaks(facts(folder)) == ["CK022", "CK024", "CK025"]


# not checked


def _replaced(opened: Checkpoint, **config: Any) -> Checkpoint:
    return replace(opened, small={**opened.small, "config.json": json.dumps({**opened.config, **config}).encode()})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "the weights are quantised, as CK016 says"),
        ({"architectures": ["MistralForCausalLM"]}, "the architecture is not the recipe's, as CK001 says"),
        ({"architectures": None}, "the architecture is not the recipe's, as CK001 says"),
    ],
)
def test_not_checked_where_another_rule_speaks(
    changes: dict[str, Any], why: str, copied: Callable[[str], Path], facts: Judge
) -> None:
    folder = copied("llama")
    _edit(folder, **changes, num_hidden_layers=9, vocab_size=7)
    assert _not_checked(facts(folder)) == dict.fromkeys(CODES, why)


def test_not_checked_without_whole_weights(copied: Callable[[str], Path], facts: Judge) -> None:
    folder = copied("llama")
    (folder / "model-00001-of-00003.safetensors").unlink()
    why = "the tensors are not those of a whole model, as CK004 says"
    assert _not_checked(facts(folder)) == dict.fromkeys(CODES, why)
    assert _one(facts(folder)).code == "CK004"


@pytest.mark.parametrize("architecture", ["MPTForCausalLM", "x" * 100])
def test_not_checked_where_the_tensors_are_not_known(
    architecture: str, copied: Callable[[str], Path], facts: Judge
) -> None:
    folder = copied("llama")
    _edit(folder, architectures=[architecture])
    recipe = Recipe(summary="s", task="llm/v1/chat", architectures=(architecture,))
    why = f"the tensors of {architecture[:80]} are not known here"
    assert _not_checked(facts(folder, recipe)) == dict.fromkeys(CODES, why)


def test_checked_without_a_recipe(copied: Callable[[str], Path], facts: Judge) -> None:
    folder = copied("llama")
    _edit(folder, vocab_size=310)
    assert _speaks(replace(facts(folder), recipe=None)) == ["CK024"]


@pytest.mark.parametrize("value", [None, ..., True, 0, -1, 2.0, "2", [2], {"a": 2}, 10**9 + 1, 10**400])
@pytest.mark.parametrize(
    ("family", "field"),
    [("llama", "hidden_size"), ("mistral", "num_attention_heads"), ("mixtral", "intermediate_size"),
     ("bert", "vocab_size"), ("bert", "num_hidden_layers")],
)  # fmt: skip
def test_not_checked_where_the_config_says_no_number(
    family: str, field: str, value: Any, made: Callable[[str], Path]
) -> None:
    opened = open_source(str(made(family)))
    config = {k: v for k, v in {**opened.config, field: value}.items() if v is not ...}
    with pytest.raises(NotChecked, match=f"config.json says no {field} that is a whole number from 1 to 10+$"):
        expected_tensors(opened.architecture, config)


@pytest.mark.parametrize(
    ("architecture", "changes", "field"),
    [
        ("LlamaForCausalLM", {"num_hidden_layers": 1001}, "num_hidden_layers"),
        ("MixtralForCausalLM", {"num_local_experts": 1025}, "num_local_experts"),
        ("MixtralForCausalLM", {"num_key_value_heads": "2"}, "num_key_value_heads"),
        ("LlamaForCausalLM", {"head_dim": 0}, "head_dim"),
        ("LlamaForCausalLM", {"attention_bias": "yes"}, "attention_bias"),
        ("LlamaForCausalLM", {"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ("DbrxForCausalLM", {"attn_config": []}, "attn_config"),
        ("DbrxForCausalLM", {"ffn_config": {"moe_num_experts": 1025}}, "moe_num_experts"),
        ("BertModel", {"type_vocab_size": False}, "type_vocab_size"),
        ("BertModel", {"add_cross_attention": True}, "add_cross_attention"),
        ("NewModel", {"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_field_that_is_no_use_is_named(architecture: str, changes: dict[str, Any], field: str) -> None:
    config: dict[str, Any] = {**SIZES, **HEADS, **DBRX}
    expected_tensors(architecture, config)
    with pytest.raises(NotChecked, match=field):
        expected_tensors(architecture, {**config, **changes})


# GTE, whose code is not here


@pytest.mark.parametrize("prefix", ["", "new."])
@pytest.mark.parametrize(
    ("changes", "codes"),
    [({}, []), ({"vocab_size": 310}, ["CK024"]), ({"num_hidden_layers": 3}, ["CK022"]), ({"hidden_size": 64}, [])],
)
def test_only_layers_and_vocabulary_of_gte(
    prefix: str, changes: dict[str, Any], codes: list[str], copied: Callable[[str], Path], facts: Judge
) -> None:
    folder = copied("bert")
    _edit(folder, architectures=["NewModel"], **changes)
    _rewrite(folder, lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()})
    report = run_rules(facts(folder, "gte-embeddings"), only=CODES)
    assert [f.code for f in report.findings] == codes
    assert report.ran == ("CK022", "CK024")
    assert set(report.not_checked.values()) == {"the tensors of NewModel are not known here"}


def test_gte_of_unknown_names_is_not_checked(copied: Callable[[str], Path], facts: Judge) -> None:
    folder = copied("bert")
    _edit(folder, architectures=["NewModel"])
    _rewrite(folder, lambda weights: {"w": ("F32", [2])})
    assert _not_checked(facts(folder, "gte-embeddings")).keys() == set(CODES)


# whatever a config or a header says

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-1, 9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = sorted({*SIZES, *HEADS, *DBRX, "head_dim", "num_local_experts", "attention_bias", "mlp_bias"})
FIELDS += ["tie_word_embeddings", "type_vocab_size", "max_position_embeddings", "add_cross_attention"]
PARTS = st.dictionaries(st.sampled_from(["kv_n_heads", "ffn_hidden_size", "moe_num_experts"]), JSON)
PATIENT = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)  # whatever else this machine does
ARCHITECTURES = ["LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "DbrxForCausalLM", "BertModel"]
NAMES = st.lists(
    st.sampled_from(
        ["model", "layers", "transformer", "blocks", "bert", "encoder", "layer", "0", "1", "07", "9" * 30, "²", "",
         "block_sparse_moe", "experts", "gate", "mlp", "w1", "weight", "lm_head", "embed_tokens", "ffn", "router"]
    ),
    min_size=1,
    max_size=8,
).map(".".join)  # fmt: skip


@PATIENT
@given(
    st.sampled_from([*ARCHITECTURES, "NewModel"]), st.dictionaries(st.sampled_from(FIELDS), JSON | PARTS, max_size=4)
)
def test_any_config_is_answered(architecture: str, changes: dict[str, Any]) -> None:
    with suppress(NotChecked):
        assert expected_tensors(architecture, {**SIZES, **HEADS, **DBRX, **changes}).layers <= 1000


@settings(PATIENT, max_examples=200)
@given(
    architecture=st.sampled_from([*ARCHITECTURES, "NewModel"]),
    changes=st.dictionaries(st.sampled_from(FIELDS), JSON | PARTS, max_size=2),
    tensors=st.dictionaries(NAMES | st.text(max_size=9), st.lists(st.integers(0, 40), max_size=3), max_size=9),
)
def test_any_header_is_answered(
    made: Callable[[str], Path], architecture: str, changes: dict[str, Any], tensors: dict[str, list[int]]
) -> None:
    opened = open_source(str(made("bert")))
    shard = opened.shards[0]
    held = tuple(Tensor(name, "BF16", tuple(shape), 0, 0) for name, shape in tensors.items())
    more = Shard(shard.file, shard.tensors + held, shard.metadata, shard.expected)
    config = {**SIZES, **HEADS, **DBRX, "architectures": [architecture], **changes}
    report = run_rules(Facts(Environment("3.17.2"), replace(_replaced(opened, **config), shards=(more,))), only=CODES)
    assert {*report.ran, *report.not_checked} == set(CODES)


def test_large_numbers_in_a_config_cost_nothing(made: Callable[[str], Path]) -> None:
    """A million experts are promised; only what is there is looked at."""
    huge = {"num_hidden_layers": 1000, "num_local_experts": 1024, "vocab_size": 10**9, "hidden_size": 10**9}
    opened = _replaced(open_source(str(made("mixtral"))), **huge)
    report = run_rules(Facts(Environment("3.17.2"), opened), only=CODES)
    assert [f.code for f in report.findings] == ["CK022", "CK023", "CK024", "CK025"]
    assert all(len(f.message) < 300 for f in report.findings)


# the number of parameters


def test_tied_head_is_counted_once(copied: Callable[[str], Path], work: Path) -> None:
    folder = copied("llama")
    untied = counted_parameters(open_source(str(folder)))
    _edit(folder, tie_word_embeddings=True)
    checkpoints.llama(work / "tied", tie=True)
    tied = open_source(str(work / "tied"))
    assert counted_parameters(open_source(str(folder))) == counted_parameters(tied) == tied.parameters
    assert untied == tied.parameters + 300 * 32


def test_only_a_head_beside_an_embedding_is_not_counted(copied: Callable[[str], Path]) -> None:
    llama, bert = open_source(str(copied("llama"))), open_source(str(copied("bert")))
    for opened in (bert, _replaced(bert, tie_word_embeddings=True), _replaced(llama, tie_word_embeddings="yes")):
        assert counted_parameters(opened) == opened.parameters


def _recipe(model: str) -> Recipe:
    return Recipe(
        summary="s", task="llm/v1/embeddings" if model == "BertModel" else "llm/v1/chat", architectures=(model,)
    )
