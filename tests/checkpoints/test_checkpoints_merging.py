"""Merged adapters against PEFT's own `merge_and_unload`; what cannot be merged is refused by its name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints.adapters import all_tensors, edit, model_of, peft_of, rewrite, tensors_of, train
from fakes import checkpoints
from fakes.hub import Hub

from catalogger import CataloggerError, convert

Q_V: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
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
    adapter = train(
        base, tmp_path / "adapter", r=4, lora_alpha=8, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True
    )
    convert(base, tmp_path / "merged", adapter=adapter)
    _assert_as_peft(base, adapter, tmp_path / "merged", units=1)


def test_fan_in_fan_out_over_a_square_of_another_kind(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", r=4, lora_alpha=8, target_modules=["q_proj"])
    edit(adapter, fan_in_fan_out=True)
    _refused(base, adapter, "fan_in_fan_out")


def test_a_resized_vocabulary(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", rows=308, **Q_V, modules_to_save=["embed_tokens", "lm_head"])
    convert(base, tmp_path / "merged", adapter=adapter)
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == 308
    _assert_as_peft(base, adapter, tmp_path / "merged", rows=308)


def test_half_of_a_resized_vocabulary(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", rows=308, **Q_V, modules_to_save=["embed_tokens", "lm_head"])
    edit(adapter, modules_to_save=["embed_tokens"])
    tensors = tensors_of(adapter / "adapter_model.safetensors")
    rewrite(adapter, {name: t for name, t in tensors.items() if "lm_head" not in name})
    _refused(base, adapter, "only one of its tables is there")


def _with_tokens(adapter: Path, base: Path, count: int) -> None:
    """The base's tokenizer and so many tokens more, in the adapter's folder."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (adapter / name).write_bytes((base / name).read_bytes())
    data = json.loads((adapter / "tokenizer.json").read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"] += [{"id": 300 + n, "content": f"<new{n}>", **plain} for n in range(count)]
    (adapter / "tokenizer.json").write_text(json.dumps(data))


def test_added_tokens(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", rows=304, **Q_V, modules_to_save=["embed_tokens", "lm_head"])
    _with_tokens(adapter, base, 4)
    convert(base, tmp_path / "merged", adapter=adapter)
    assert (tmp_path / "merged/tokenizer.json").read_bytes() == (adapter / "tokenizer.json").read_bytes()
    assert json.loads((tmp_path / "merged/config.json").read_text())["vocab_size"] == 304


def test_tokens_without_rows(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", **Q_V)
    _with_tokens(adapter, base, 4)
    _refused(base, adapter, "its tokenizer has token 303, the embedding has 300 rows")


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


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder: Path = checkpoints.llama(tmp_path / "base", hidden=64)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return train(base, tmp_path / "adapter", **Q_V)


def _refused(base: Path, adapter: Path, says: str) -> None:
    with pytest.raises(CataloggerError) as caught:
        convert(base, adapter.parent / "out", adapter=adapter)
    assert says in caught.value.message
    assert caught.value.exit_code == 2
    assert not list(adapter.parent.glob("out*")) + list(adapter.parent.glob(".out*"))


def _set(**settings: Any) -> Callable[[Path], None]:
    return lambda adapter: edit(adapter, **settings)


def _gone(name: str) -> Callable[[Path], None]:
    return lambda adapter: (adapter / name).unlink()


def _pickled(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")


def _no_json(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text("{")


def _cut_short(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _without(part: str) -> Callable[[Path], None]:
    def change(adapter: Path) -> None:
        tensors = tensors_of(adapter / "adapter_model.safetensors")
        left = {name: t for name, t in tensors.items() if part not in name}
        assert len(left) < len(tensors)
        rewrite(adapter, left)

    return change


def _renamed(adapter: Path) -> None:
    tensors = tensors_of(adapter / "adapter_model.safetensors")
    rewrite(adapter, {name.replace("layers.1", "layers.9"): t for name, t in tensors.items()})


def _magnitudes(adapter: Path) -> None:
    tensors = tensors_of(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight"
    rewrite(adapter, tensors | {name: ("F32", (64,), bytes(256))})


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "DoRA": (_set(use_dora=True), "cannot be merged exactly: DoRA"),
    "DoRA by its tensors": (_magnitudes, "cannot be merged exactly: DoRA"),
    "another kind": (_set(peft_type="LOHA"), "cannot be merged exactly: LOHA"),
    "a setting of the future": (_set(use_future_lora=True), 'sets "use_future_lora"'),
    "PiSSA": (_set(init_lora_weights="pissa_niter_4"), "cannot be merged exactly: pissa_niter_4"),
    "alpha missing": (_set(lora_alpha=None), "has no alpha"),
    "rank missing": (_set(r=None), "has no rank"),
    "rank and shapes": (_set(r=4), "rank and shapes that disagree"),
    "half a pair": (_without("layers.1.self_attn.q_proj.lora_B"), "half an adapter"),
    "half of the layers": (_without("layers.1."), 'no factors for "model.layers.1.self_attn.q_proj"'),
    "a module to save": (_set(modules_to_save=["lm_head"]), 'module_to_save "lm_head" has no weights'),
    "no config": (_gone("adapter_config.json"), 'it has no "adapter_config.json"'),
    "no weights": (_gone("adapter_model.safetensors"), 'it has no "adapter_model.safetensors"'),
    "pickled": (_pickled, 'pickled weights only ("adapter_model.bin")'),
    "other names": (_renamed, "is for another base: it changes"),
    "no JSON": (_no_json, "that is not JSON"),
    "cut short": (_cut_short, "were expected"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_refused_by_name(name: str, base: Path, adapter: Path) -> None:
    change, says = BROKEN[name]
    change(adapter)
    _refused(base, adapter, says)


def test_an_adapter_of_a_smaller_base(adapter: Path, tmp_path: Path) -> None:
    other = checkpoints.llama(tmp_path / "other", hidden=32)
    _refused(other, adapter, "is for another base")


def test_a_quantised_base(base: Path, adapter: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    _refused(base, adapter, 'is quantised ("bitsandbytes")')


def test_a_base_that_is_an_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    _refused(adapter, adapter, "itself an adapter")
    edit(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(CataloggerError, match="itself an adapter"):
        convert(adapter, tmp_path / "out")


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


def test_weights_that_become_infinite(base: Path, adapter: Path) -> None:
    """A product that is no number any more is refused, not written."""
    tensors = tensors_of(adapter / "adapter_model.safetensors")
    name = next(iter(tensors))
    code, shape, content = tensors[name]
    assert isinstance(content, bytes)
    rewrite(adapter, tensors | {name: (code, shape, b"\0\0\xc0\x7f" + content[4:])})
    _refused(base, adapter, "are NaN, or that became NaN")


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


def test_no_adapter_on_the_hub(hub: Hub, base: Path, tmp_path: Path) -> None:
    hub.add("org/base", base)
    with pytest.raises(CataloggerError, match=r'has no "adapter_config\.json"') as caught:
        convert(base, tmp_path / "out", adapter="org/base")
    assert caught.value.exit_code == 2
    with pytest.raises(CataloggerError, match="does not exist on the Hub"):
        convert(base, tmp_path / "out", adapter="org/none")
