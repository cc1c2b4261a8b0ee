"""LoRA adapters for the tests: made by PEFT itself, with factors that are not zero, and files to break one by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakes.checkpoints import Tensor, write_safetensors

Q_V: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}


def model_of(folder: Path, dtype: str | None = None) -> Any:
    """The checkpoint as Transformers loads it, in the dtype that its config says."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype) if dtype else "auto")


def train(base: Path, folder: Path, *, rows: int | None = None, dtype: str | None = None, **settings: Any) -> Path:
    """Save an adapter of the base as a training would; `rows` resizes the vocabulary before."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    model = model_of(base)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    if dtype:
        tuned = tuned.to(getattr(torch, dtype))
    tuned.save_pretrained(folder)
    return folder


def peft_of(base: Path, adapter: Path, *, rows: int | None = None) -> Any:
    """The adapter on its base, as PEFT loads it."""
    from peft import PeftModel

    model = model_of(base)
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return PeftModel.from_pretrained(model, adapter)


def edit(adapter: Path, **settings: Any) -> None:
    """Change the adapter's config; None takes a setting out."""
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text()) | settings
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    table: Mapping[str, Any] = json.loads(raw[8 : 8 + length])
    return {
        name: (e["dtype"], tuple(e["shape"]), raw[8 + length :][slice(*e["data_offsets"])])
        for name, e in table.items()
        if name != "__metadata__"
    }


def all_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of every weight file of a checkpoint."""
    return {name: t for path in sorted(folder.glob("model*.safetensors")) for name, t in tensors_of(path).items()}


def rewrite(adapter: Path, tensors: Mapping[str, Tensor]) -> None:
    """Give the adapter other tensors."""
    write_safetensors(adapter / "adapter_model.safetensors", tensors)


def with_tokens(adapter: Path, base: Path, count: int) -> None:
    """The base's tokenizer and so many tokens more, in the adapter's folder."""
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (adapter / name).write_bytes((base / name).read_bytes())
    data = json.loads((adapter / "tokenizer.json").read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"] += [{"id": 300 + n, "content": f"<new{n}>", **plain} for n in range(count)]
    (adapter / "tokenizer.json").write_text(json.dumps(data))
