"""What cannot be merged exactly, or does not fit, is refused by its name, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints.adapters import Q_V, edit, rewrite, tensors_of, train, with_tokens
from fakes import checkpoints
from fakes.checkpoints import write_safetensors
from fakes.hub import Hub

from catalogger import CataloggerError, convert

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own advice


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
    "rank and shapes of one module": (_set(rank_pattern={"v_proj": 4}), '"model.layers.0.self_attn.v_proj" has rank 4'),
    "alpha in words": (_set(lora_alpha="sixteen"), "has no alpha"),
    "alphas in words": (_set(alpha_pattern={"q_proj": "x"}), '"alpha_pattern" that is no table of numbers'),
    "ranks of nothing": (_set(rank_pattern={"q_proj": 0}), '"rank_pattern" that is no table of numbers'),
    "a pattern that is none": (_set(target_modules="(q_proj"), 'has the pattern "(q_proj"'),
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


def test_a_base_that_wraps_its_layers(base: Path, adapter: Path) -> None:
    """Saved in training, with the adapter's layers around its own."""
    tensors = tensors_of(base / "model.safetensors")
    wrapped = {name.replace(".q_proj.", ".q_proj.base_layer."): t for name, t in tensors.items()}
    write_safetensors(base / "model.safetensors", wrapped)
    _refused(base, adapter, "is itself an adapter around a base")


def test_a_base_of_integers(base: Path, adapter: Path) -> None:
    """Quantised weights whose config does not say so."""
    tensors = tensors_of(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    write_safetensors(base / "model.safetensors", tensors | {name: ("I8", tensors[name][1], bytes(64 * 64))})
    _refused(base, adapter, f'the weights are quantised ("{name}" is "I8")')


def test_two_files_of_a_base_that_hold_one_tensor(base: Path, adapter: Path) -> None:
    shutil.copy(base / "model.safetensors", base / "model-more.safetensors")
    _refused(base, adapter, "twice: in")


def test_nan_that_the_base_had_is_a_warning(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Only those that the adapter makes end the work; also in a tensor that it changes."""
    tensors = tensors_of(base / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    code, shape, content = tensors[name]
    assert isinstance(content, bytes)
    write_safetensors(base / "model.safetensors", tensors | {name: (code, shape, b"\xc0\x7f" * 2 + content[4:])})
    assert convert(base, tmp_path / "out", adapter=adapter).nan == {name: 2}


def test_weights_that_become_infinite(base: Path, adapter: Path) -> None:
    """A product that is no number any more is refused, not written."""
    tensors = tensors_of(adapter / "adapter_model.safetensors")
    name = next(iter(tensors))
    code, shape, content = tensors[name]
    assert isinstance(content, bytes)
    rewrite(adapter, tensors | {name: (code, shape, b"\0\0\xc0\x7f" + content[4:])})
    _refused(base, adapter, "that became NaN by the change")


def test_fan_in_fan_out_over_a_square_of_another_kind(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", r=4, lora_alpha=8, target_modules=["q_proj"])
    edit(adapter, fan_in_fan_out=True)
    _refused(base, adapter, "fan_in_fan_out")


def test_half_of_a_resized_vocabulary(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", rows=308, **Q_V, modules_to_save=["embed_tokens", "lm_head"])
    edit(adapter, modules_to_save=["embed_tokens"])
    tensors = tensors_of(adapter / "adapter_model.safetensors")
    rewrite(adapter, {name: t for name, t in tensors.items() if "lm_head" not in name})
    _refused(base, adapter, "only one of its tables is there")


def test_tokens_without_rows(tmp_path: Path) -> None:
    base = checkpoints.llama(tmp_path / "base")
    adapter = train(base, tmp_path / "adapter", **Q_V)
    with_tokens(adapter, base, 4)
    _refused(base, adapter, "its tokenizer has token 303, the embedding has 300 rows")


def test_no_adapter_on_the_hub(hub: Hub, base: Path, tmp_path: Path) -> None:
    hub.add("org/base", base)
    with pytest.raises(CataloggerError, match=r'has no "adapter_config\.json"') as caught:
        convert(base, tmp_path / "out", adapter="org/base")
    assert caught.value.exit_code == 2
    with pytest.raises(CataloggerError, match="does not exist on the Hub"):
        convert(base, tmp_path / "out", adapter="org/none")
