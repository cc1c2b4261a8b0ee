"""The folders that trainers leave, file for file as their documentation and sources say, around tiny checkpoints.

torchtune: https://docs.pytorch.org/torchtune/main/deep_dives/checkpointer.html; Unsloth: `unsloth/save.py`; Axolotl:
`axolotl/train.py` and `axolotl/cli/merge_lora.py`.  Pickled files are PyTorch's own.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

QUANTISED = {
    "_load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True, "load_in_4bit": True, "quant_method": "bitsandbytes",
}  # fmt: skip
_WEIGHTS = ("*.safetensors", "*.bin", "model.safetensors.index.json")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_TUNE = {
    "model.embed_tokens.weight": "tok_embeddings.weight", "model.norm.weight": "norm.scale",
    "lm_head.weight": "output.weight",
    "model.layers.{}.self_attn.q_proj.weight": "layers.{}.attn.q_proj.weight",
    "model.layers.{}.self_attn.k_proj.weight": "layers.{}.attn.k_proj.weight",
    "model.layers.{}.self_attn.v_proj.weight": "layers.{}.attn.v_proj.weight",
    "model.layers.{}.self_attn.o_proj.weight": "layers.{}.attn.output_proj.weight",
    "model.layers.{}.mlp.gate_proj.weight": "layers.{}.mlp.w1.weight",
    "model.layers.{}.mlp.up_proj.weight": "layers.{}.mlp.w3.weight",
    "model.layers.{}.mlp.down_proj.weight": "layers.{}.mlp.w2.weight",
    "model.layers.{}.input_layernorm.weight": "layers.{}.sa_norm.scale",
    "model.layers.{}.post_attention_layernorm.weight": "layers.{}.mlp_norm.scale",
}  # fmt: skip


def tensors(folder: Path) -> dict[str, Any]:
    """Every tensor of a checkpoint's safetensors."""
    from safetensors.torch import load_file

    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def without_weights(source: Path, folder: Path) -> Path:
    """A copy of everything else."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*_WEIGHTS))
    return folder


def without_tokenizer(folder: Path) -> Path:
    """The folder, its tokenizer removed."""
    for name in _TOKENIZER:
        (folder / name).unlink(missing_ok=True)
    return folder


def pickled(source: Path, folder: Path, *, files: int = 1, state: Mapping[str, Any] | None = None) -> Path:
    """The checkpoint as `save_pretrained(safe_serialization=False)` wrote it; `state` goes before its own tensors."""
    import torch

    held = dict(state or tensors(source))
    names = sorted(held)
    without_weights(source, folder)
    index: dict[str, str] = {}
    for number in range(files):
        part = held if files == 1 else {name: held[name] for name in names[number::files]}
        file = "pytorch_model.bin" if files == 1 else f"pytorch_model-{number + 1:05}-of-{files:05}.bin"
        torch.save(_as_a_module_gives(part), folder / file)
        index |= dict.fromkeys(part, file)
    if files > 1:
        content = {"metadata": {}, "weight_map": index}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(content))
    return folder


def _as_a_module_gives(held: Mapping[str, Any]) -> Any:
    """A `state_dict`: an OrderedDict with an attribute that says the versions of the modules."""
    from collections import OrderedDict

    state: Any = OrderedDict(held)
    state._metadata = OrderedDict({"": {"version": 1}, "model.norm": {"version": 1}})
    return state


def pickled_adapter(adapter: Path) -> Path:
    """The adapter as PEFT saves it with safe_serialization=False."""
    import torch

    torch.save(tensors(adapter), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    return adapter


def torchtune(base: Path, merged: Path, adapter: Path, folder: Path, *, epochs: int = 2) -> Path:
    """The output of a LoRA recipe: in each `epoch_N` the whole weights, merged already, and the adapter twice."""
    import torch

    for epoch in range(epochs):
        place = without_weights(base, folder / f"epoch_{epoch}")
        for file in merged.glob("model*"):
            shutil.copy(file, place / file.name)
        shutil.copy(adapter / "adapter_model.safetensors", place / "adapter_model.safetensors")
        torch.save(tune(tensors(adapter)), place / "adapter_model.pt")
        (place / "adapter_model").mkdir()  # torchtune makes it on the way
        config = json.loads((adapter / "adapter_config.json").read_text())
        kept = {key: config[key] for key in ("r", "lora_alpha", "target_modules", "peft_type")}
        text = json.dumps({**kept, "base_model_name_or_path": "org/base"})
        (place / "adapter_config.json").write_text(text)
        (place / "original_repo_id.json").write_text(json.dumps({"repo_id": "org/base"}))
    for name in ("recipe_state", "logs"):
        (folder / name).mkdir()
    torch.save({"optimizer": {}, "epochs_run": epochs}, folder / "recipe_state/recipe_state.pt")
    return folder


def old_torchtune(source: Path, folder: Path, *, epochs: int = 1, tuned: bool = False) -> Path:
    """The output of older torchtune: one folder, the epoch at the end of the names; `tuned` in its own form."""
    import torch

    held = tensors(source)
    without_weights(source, folder)
    names = sorted(held)
    for epoch in range(epochs):
        if tuned:
            torch.save(tune(held), folder / f"torchtune_model_{epoch}.pt")
            continue
        for number in (1, 2):
            part = {name: held[name] for name in names[number - 1 :: 2]}
            torch.save(part, folder / f"hf_model_{number:04}_{epoch}.pt")
    torch.save({"optimizer": {}, "epochs_run": epochs}, folder / "recipe_state.pt")
    return folder


def tune(held: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by torchtune's own names, whole or an adapter's (which it also turns, which names do not show)."""
    return {_tune_name(name): tensor for name, tensor in held.items()}


def _tune_name(name: str) -> str:
    plain = name.removeprefix("base_model.model.")
    for theirs, own in _TUNE.items():
        stem = re.escape(theirs.removesuffix(".weight")).replace(r"\{\}", r"(\d+)")
        if found := re.fullmatch(rf"{stem}(?:\.lora_([AB]))?\.weight", plain):
            layer = found[1] if "{}" in theirs else ""
            half = found[found.re.groups]
            text = own.format(layer)
            return text.replace(".weight", f".lora_{half.lower()}.weight") if half else text
    raise ValueError(name)


def unsloth_lora(adapter: Path, base: str = "unsloth/llama-3-8b-Instruct-bnb-4bit") -> Path:
    """An adapter of QLoRA, `save_pretrained_merged(…, save_method="lora")`: its base is a quantised repository."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    return adapter


def unsloth_4bit(source: Path) -> Path:
    """What `save_method="merged_4bit_forced"` says of its weights."""
    path = source / "config.json"
    own = {
        "quantization_config": QUANTISED,
        "_name_or_path": "unsloth/llama-3-8b-bnb-4bit",
        "unsloth_version": "2024.9",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    return source


def axolotl(base: Path, adapter: Path, folder: Path, *, merged: Path | None = None) -> Path:
    """An `output_dir`: tokenizer, config and adapter at the top, checkpoints and what `merge-lora` made below."""
    shutil.copytree(adapter, folder)
    for name in ("config.json", *_TOKENIZER):
        shutil.copy(base / name, folder / name)
    for step in (5, 10):
        checkpoint = shutil.copytree(adapter, folder / f"checkpoint-{step}")
        state = {"best_model_checkpoint": None, "global_step": step}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (checkpoint / name).write_bytes(b"\0" * 100)
    if merged:
        shutil.copytree(merged, folder / "merged")
    return folder
