"""The rules on config, dtypes, sizes and embeddings: each speaks where it should and is silent on near misses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import checkpoints
from validators.breaking import added, edit, rewrite
from validators.judge import Judge

from catalogger.checkpoints import File
from catalogger.recipes import Recipe, load_recipe
from catalogger.validators import Facts, Finding, run_rules

ONE = "model.safetensors"


@pytest.fixture
def llama(work: Path) -> Path:
    """A healthy Llama in one file, to be broken."""
    return checkpoints.llama(work / "model")


@pytest.fixture
def bert(made: Callable[[str], Path], work: Path) -> Path:
    """A healthy BGE-like model in one file, to be broken."""
    return Path(shutil.copytree(made("bert"), work / "bert"))


def _worst(facts: Facts, severity: str) -> Finding:
    """The only error or warning, which is of this severity; or the only note of a rule."""
    found = [f for f in run_rules(facts).findings if f.severity != "note"]
    assert [f.severity for f in found] == [severity], found
    return found[0]


def _clean(facts: Facts) -> None:
    assert [f for f in run_rules(facts).findings if f.severity != "note"] == []


def _metadata(value: dict[str, str] | None) -> Callable[[dict[str, Any], bytearray], None]:
    def change(header: dict[str, Any], _: bytearray) -> None:
        header.pop("__metadata__", None)
        if value is not None:
            header["__metadata__"] = value

    return change


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (None, "says no format in its header"),
        ({}, "says no format in its header"),
        ({"format": "np"}, 'says format "np" in its header; "pt" is needed'),
        ({"format": "pt", "more": "x"}, None),
    ],
)
def test_ck013_format(llama: Path, facts: Judge, metadata: dict[str, str] | None, says: str | None) -> None:
    rewrite(llama / ONE, _metadata(metadata))
    if says is None:
        _clean(facts(llama))
        return
    found = _worst(facts(llama), "error")
    assert (found.code, found.subject, found.message) == ("CK013", ONE, says)


@pytest.mark.parametrize(("over", "speaks"), [(0, False), (1, True)])
def test_ck014_file_above_one_put(llama: Path, facts: Judge, over: int, speaks: bool) -> None:
    seen = facts(llama)
    assert seen.checkpoint
    (shard,) = seen.checkpoint.shards
    size = 5 * 1024**3 + over
    large = replace(shard, file=File(shard.file.path, size), expected=size)
    seen = replace(seen, checkpoint=replace(seen.checkpoint, shards=(large,)))
    found = [f for f in run_rules(seen).findings if f.severity != "note"]
    assert [f.code for f in found] == (["CK014"] if speaks else [])
    for finding in found:
        assert "--max-shard-size 5GB" in finding.fix


def test_ck015_half_of_the_weights_in_another_dtype(work: Path, facts: Judge) -> None:
    folder = checkpoints.llama(work / "model", vocabulary=300)

    def change(header: dict[str, Any], data: bytearray) -> None:
        """Read the two bytes of each value of the head as a float32 of half as many columns."""
        head = header["lm_head.weight"]
        head["dtype"] = "F16"

    rewrite(folder / ONE, change)
    found = _worst(facts(folder), "warning")
    assert (found.code, found.subject) == ("CK015", "weights")
    assert "19.2 kB float16" in found.message


def test_ck015_a_small_tensor_in_float32_is_usual(work: Path, facts: Judge) -> None:
    folder = checkpoints.llama(work / "model", hidden=512)
    added(folder / ONE, "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", (64,))
    _clean(facts(folder))


@pytest.mark.parametrize(
    ("said", "by"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"bits": 4}, "a method that it does not name"),
        ("int8", "int8"),
    ],
)
def test_ck016_config_says_quantised(llama: Path, facts: Judge, said: Any, by: str) -> None:
    edit(llama / "config.json", quantization_config=said)
    found = _worst(facts(llama), "error")
    assert (found.code, found.message) == ("CK016", f"says that the weights are quantised by {by}")


@pytest.mark.parametrize(
    ("name", "dtype", "width"),
    [
        ("model.layers.0.mlp.up_proj.qweight", "I32", 4),
        ("model.layers.0.mlp.up_proj.weight.absmax", "U8", 1),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", "F32", 4),
        ("model.layers.0.mlp.extra_proj.weight", "F8_E4M3", 1),
    ],
)
def test_ck016_tensors_that_only_quantised_models_have(
    llama: Path, facts: Judge, name: str, dtype: str, width: int
) -> None:
    added(llama / ONE, name, dtype, (8,), width)
    found = _worst(facts(llama), "error")
    assert (found.code, found.subject) == ("CK016", "weights")
    assert name in found.message


def test_ck017_task_that_the_architecture_cannot_do(llama: Path, bert: Path, facts: Judge) -> None:
    chat = Recipe(summary="s", task="llm/v1/chat", architectures=("BertModel",))
    found = [f for f in run_rules(facts(bert, chat)).findings if f.code == "CK017"]
    assert [f.message for f in found] == [
        'says architecture "BertModel", which generates no text; the task is llm/v1/chat'
    ]
    vectors = Recipe(summary="s", task="llm/v1/embeddings", architectures=("LlamaForCausalLM",))
    found = [f for f in run_rules(facts(llama, vectors)).findings if f.code == "CK017"]
    assert [f.severity for f in found] == ["error"]


@pytest.mark.parametrize(("factor", "speaks"), [(0.94, True), (0.96, False), (1.0, False), (1.04, False), (1.07, True)])
def test_ck018_parameters_of_another_size(llama: Path, facts: Judge, factor: float, speaks: bool) -> None:
    checkpoint = facts(llama).checkpoint
    assert checkpoint
    recipe = load_recipe("llama-chat", [f"parameters={int(checkpoint.parameters * factor)}"]).recipe
    if not speaks:
        _clean(facts(llama, recipe))
        return
    found = _worst(facts(llama, recipe), "error")
    assert found.code == "CK018"
    assert f"{checkpoint.parameters:,}" in found.message


@pytest.mark.parametrize(
    ("changes", "speaks"),
    [
        ({"rope_theta": ..., "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0}}, True),
        ({"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, False),
        ({"rope_theta": 500000.0, "rope_parameters": {"rope_theta": 500000.0}}, False),
        ({"rope_theta": 500000.0}, False),
        ({"rope_theta": ..., "rope_parameters": [500000.0]}, False),
    ],
)
def test_ck019_rotary_base_of_transformers_5(llama: Path, facts: Judge, changes: Any, speaks: bool) -> None:
    edit(llama / "config.json", **changes)
    if not speaks:
        _clean(facts(llama))
        return
    found = _worst(facts(llama), "warning")
    assert (found.code, found.subject) == ("CK019", "config.json")
    assert '"rope_theta": 500000' in found.fix


@pytest.mark.parametrize(("limit", "speaks"), [(512, False), (256, False), (513, True), (10**30, True)])
def test_ck020_texts_longer_than_the_positions(bert: Path, facts: Judge, limit: int, speaks: bool) -> None:
    edit(bert / "tokenizer_config.json", model_max_length=limit)
    if not speaks:
        _clean(facts(bert, "bge-embeddings"))
        return
    found = _worst(facts(bert, "bge-embeddings"), "warning")
    assert (found.code, found.subject) == ("CK020", "tokenizer_config.json")
    assert "512 positions" in found.message


def test_ck020_texts_that_were_cut_earlier_in_training(bert: Path, facts: Judge) -> None:
    edit(bert / "sentence_bert_config.json", max_seq_length=256)
    notes = [f for f in run_rules(facts(bert, "bge-embeddings")).findings if f.code == "CK020"]
    assert [(f.severity, f.message) for f in notes] == [
        ("note", "says that texts are cut at 256 tokens; MLflow cuts at 512")
    ]


def test_ck021_text_before_queries(bert: Path, facts: Judge) -> None:
    def said(recipe: Recipe) -> list[str]:
        return [f.message for f in run_rules(facts(bert, recipe)).findings if f.code == "CK021"]

    silent = load_recipe("bge-embeddings", ["embedding.query_instruction="]).recipe
    assert said(silent) == []
    edit(bert / "config_sentence_transformers.json", prompts={"query": "query: ", "document": ""})
    assert said(silent) == ['were trained with "query: " before them']
    of_recipe = load_recipe("bge-embeddings", ["embedding.query_instruction='Find:'"]).recipe
    assert said(of_recipe) == ['were trained with "Find:" before them']


@pytest.mark.parametrize(
    "field", ["torch_dtype", "architectures", "rope_parameters", "quantization_config", "auto_map"]
)
@pytest.mark.parametrize("value", [None, [], {}, "", 0, -1, 1e308, True, ["x"], {"x": 1}, [None], "é"])
def test_no_value_of_a_field_ends_in_a_traceback(llama: Path, facts: Judge, field: str, value: Any) -> None:
    edit(llama / "config.json", **{field: value})
    json.dumps(run_rules(facts(llama)).document())
