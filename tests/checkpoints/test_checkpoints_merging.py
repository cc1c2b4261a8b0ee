"""Merged adapters against PEFT's own `merge_and_unload`, bit by bit or within one unit in the last place."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from checkpoints.adapters import Q_V, all_tensors, edit, model_of, peft_of, train, with_tokens
from fakes import checkpoints
from fakes.hub import Hub

from catalogger import CataloggerError, convert

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own advice


def _state(folder_or_model: Any) -> dict[str, Any]:
    return dict((model_of(folder_or_model) if isinstance(folder_or_model, Path) else folder_or_model).state_dict())


def _distance(ours: Any, theirs: Any) -> int:
    """The largest distance in units in the last place, between tensors of one dtype."""
    import torch

    kind = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}[ours.dtype]

    def line(values: Any) -> Any:
        bits = values.contiguous().view(kind).to(torch.int64)
        return torch.where(bits < 0, -(bits & torch.iinfo(kind).max), bits)

    return int((line(ours) - line(theirs)).abs().max())


def _assert_as_peft(base: Path, adapter: Path, merged: Path, *, rows: int | None = None, units: int = 0) -> None:
    ours, theirs = _state(merged), _state(peft_of(base, adapter, rows=rows).merge_and_unload())
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert tensor.shape == theirs[name].shape, name
        assert _distance(tensor, theirs[name]) <= units, name


CASES: dict[str, dict[str, Any]] = {
    "plain": Q_V,
    "every layer": {"r": 16, "lora_alpha": 32, "target_modules": ALL},
    "rslora": {**Q_V, "use_rslora": True},
    "patterns": {
        **Q_V,
        "rank_pattern": {"q_proj": 4, r"layers\.1\.self_attn\.v_proj": 2},
        "alpha_pattern": {"layers.0.self_attn.q_proj": 3},
    },
    "some layers": {**Q_V, "layers_to_transform": [1]},
    "excluded": {**Q_V, "exclude_modules": ["layers.0.self_attn.q_proj"]},
    "modules to save": {**Q_V, "modules_to_save": ["embed_tokens", "lm_head"]},
    "a norm to save": {**Q_V, "modules_to_save": ["input_layernorm"]},
    "a table": {**Q_V, "target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "tokens": {**Q_V, "trainable_token_indices": [3, 299, 17]},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_equal_to_peft(case: str, dtype: Any, tmp_path: Path) -> None:
    """PEFT computes in float32 too.  Where its matrix product adds in another order, one unit of the base's dtype may
    differ; a float32 base shows every last bit of that product.
    """
    base = checkpoints.llama(tmp_path / "base", dtype=dtype, shards=2)
    adapter = train(base, tmp_path / "adapter", **CASES[case])
    done = convert(base, tmp_path / "merged", adapter=adapter)
    assert done.merged > 0
    _assert_as_peft(base, adapter, tmp_path / "merged", units=0 if dtype != "float32" else 1)
    assert not done.overflowed
    assert (tmp_path / "merged/config.json").read_bytes() == (base / "config.json").read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_adapter_in_half_precision(dtype: str, tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", dtype=dtype, **Q_V)
    convert(base, tmp_path / "merged", adapter=adapter)
    _assert_as_peft(base, adapter, tmp_path / "merged")


def test_merged_then_cast(tmp_path: Path) -> None:
    """As PEFT merges into float32 weights and the result is cast: rounded once more, not merged in bfloat16."""
    import torch

    base = checkpoints.llama(tmp_path / "base", dtype="float32")
    adapter = train(base, tmp_path / "adapter", **Q_V)
    convert(base, tmp_path / "merged", adapter=adapter, dtype="bfloat16")
    theirs = _state(peft_of(base, adapter).merge_and_unload().to(torch.bfloat16))
    for name, tensor in _state(tmp_path / "merged").items():
        assert torch.equal(tensor, theirs[name]), name


def test_layers_that_keep_their_weight_turned(tmp_path: Path) -> None:
    """GPT-2's weights are (in, out), square ones too, whose shape does not show it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    base = tmp_path / "base"
    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=32)).save_pretrained(base)
    (base / "tokenizer.json").write_text("{}")
    adapter = train(
        base, tmp_path / "adapter", r=4, lora_alpha=8, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True
    )
    convert(base, tmp_path / "merged", adapter=adapter)
    _assert_as_peft(base, adapter, tmp_path / "merged", units=1)


def test_a_resized_vocabulary(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", rows=308, **Q_V, modules_to_save=["embed_tokens", "lm_head"])
    convert(base, tmp_path / "merged", adapter=adapter)
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == 308
    _assert_as_peft(base, adapter, tmp_path / "merged", rows=308)


def test_added_tokens(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", rows=304, **Q_V, modules_to_save=["embed_tokens", "lm_head"])
    with_tokens(adapter, base, 4)
    convert(base, tmp_path / "merged", adapter=adapter)
    assert (tmp_path / "merged/tokenizer.json").read_bytes() == (adapter / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == 304
    _assert_as_peft(base, adapter, tmp_path / "merged", rows=304)


@pytest.mark.parametrize(
    ("settings", "apart"),
    [
        (Q_V, False),
        ({**Q_V, "modules_to_save": ["embed_tokens"]}, True),
        ({**Q_V, "modules_to_save": ["lm_head"]}, True),
        ({**Q_V, "trainable_token_indices": [3, 299]}, False),
        ({**Q_V, "target_modules": ["q_proj", "lm_head"]}, True),
        ({**Q_V, "target_modules": ["q_proj", "embed_tokens"]}, True),
    ],
)
def test_tied_tables_answer_as_the_adapter_does(settings: dict[str, Any], apart: bool, tmp_path: Path) -> None:
    """PEFT adds a product for one of the pair to the tensor that both are, of which it warns: the merged model then
    answers otherwise than the adapter did.  Here it answers as the adapter did.
    """
    import torch

    base = checkpoints.llama(tmp_path / "base", tie=True, dtype="float32")
    adapter = train(base, tmp_path / "adapter", **settings)
    done = convert(base, tmp_path / "merged", adapter=adapter)
    assert bool(done.said) == apart
    assert json.loads((tmp_path / "merged/config.json").read_text())["tie_word_embeddings"] is not apart
    assert ("lm_head.weight" in all_tensors(tmp_path / "merged")) == apart
    ids = torch.tensor([[1, 3, 299, 42, 7]])
    with torch.no_grad():
        ours, theirs = model_of(tmp_path / "merged")(ids).logits, peft_of(base, adapter)(ids).logits
        before = model_of(base)(ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(before, theirs, atol=1e-3), "the adapter does something"


def test_the_base_that_the_adapter_names(base: Path, adapter: Path, tmp_path: Path) -> None:
    done = convert(adapter, tmp_path / "merged")
    assert (done.base, done.adapter) == (str(base), str(adapter))
    convert(base, tmp_path / "same", adapter=adapter)
    assert all_tensors(tmp_path / "merged") == all_tensors(tmp_path / "same")
    base.rename(tmp_path / "moved")
    with pytest.raises(CataloggerError, match="which is not here"):
        convert(adapter, tmp_path / "lost")
    convert(adapter, tmp_path / "found", base=tmp_path / "moved")
    assert all_tensors(tmp_path / "merged") == all_tensors(tmp_path / "found")


def test_whole_weights_beside_an_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    for file in adapter.iterdir():
        (base / file.name).write_bytes(file.read_bytes()) if file.name != "README.md" else None
    with pytest.raises(CataloggerError, match="holds whole weights and an adapter") as caught:
        convert(base, tmp_path / "out")
    assert "--adapter none" in caught.value.fix
    assert convert(base, tmp_path / "whole", adapter="none").merged == 0
    assert convert(base, tmp_path / "merged", adapter=base).merged == 4


def test_no_warning_of_ours(base: Path, adapter: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(base, tmp_path / "merged", adapter=adapter, dtype="bfloat16")


def test_base_and_adapter_on_the_hub(hub: Hub, base: Path, adapter: Path, tmp_path: Path) -> None:
    """Both at a commit that is said; an adapter alone finds its base by its config."""
    commits = [hub.add("org/base", base), hub.add("org/adapter", adapter)]
    done = convert("org/base", tmp_path / "merged", adapter="org/adapter")
    assert [done.base, done.adapter] == [f"org/{n}@{c}" for n, c in zip(("base", "adapter"), commits, strict=True)]
    convert(base, tmp_path / "local", adapter=adapter)
    assert all_tensors(tmp_path / "merged") == all_tensors(tmp_path / "local")
    edit(adapter, base_model_name_or_path="org/base")
    hub.add("org/named", adapter)
    assert convert("org/named", tmp_path / "found").base == done.base
    assert all_tensors(tmp_path / "found") == all_tensors(tmp_path / "local")
