"""Tiny models and tokenizers, written and read by the Transformers that runs this file; it knows nothing of catalogger.

python generations_child.py write FOLDER           one folder a model, weights and all
python generations_child.py record FOLDER          only the small files (tests/checkpoints/written/VERSION)
python generations_child.py read OUT FOLDER...     logits, token ids and rendered templates of every model, as JSON
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import transformers
from fakes import checkpoints
from transformers import AutoTokenizer

FIVE = transformers.__version__.startswith("5")
EXTRA = "extra_special_tokens" if FIVE else "additional_special_tokens"
TEXT = "The registry keeps <|x|> versions.</s> \u00e9 \U0001f600"
CHAT = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": " Paris. "},
    {"role": "user", "content": "And why?"},
]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
SIZES = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
DECODER = {**SIZES, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "rope_theta": 500000.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
LONG = {"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.5, 3.0, 3.5]}
DBRX = {
    "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256, "vocab_size": 300,
    "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 500000.0},
    "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
}  # fmt: skip
NEOX = {**SIZES, "rotary_pct": 0.5, "rotary_emb_base": 20000}
LAYERS = {"head_dim": 8, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
PHI3 = {**DECODER, "pad_token_id": 0, "original_max_position_embeddings": 64}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", DECODER),
    "llama-llama3": ("LlamaForCausalLM", "LlamaConfig", {**DECODER, "rope_scaling": LLAMA3}),
    "llama-linear": ("LlamaForCausalLM", "LlamaConfig", {**DECODER, "rope_scaling": {"type": "linear", "factor": 2.0}}),
    "llama-dynamic": (
        "LlamaForCausalLM", "LlamaConfig", {**DECODER, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    ),
    "llama-yarn": ("LlamaForCausalLM", "LlamaConfig", {**DECODER, "rope_scaling": YARN}),
    "phi3-longrope": ("Phi3ForCausalLM", "Phi3Config", {**PHI3, "rope_scaling": LONG}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**DECODER, "num_local_experts": 4}),
    "bert": ("BertModel", "BertConfig", SIZES),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**DECODER, **LAYERS}),
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", NEOX),
    "dbrx": ("DbrxForCausalLM", "DbrxConfig", DBRX),
}  # fmt: skip


def write(folder: Path) -> None:
    """Every model that this Transformers has, with the same weights in every version."""
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        checkpoints.llama(base / "decoder")
        checkpoints.bert(base / "bert")
        for name, (model, config, settings) in MODELS.items():
            if hasattr(transformers, model):
                _model(model, config, settings).save_pretrained(folder / name)
                _tokenizer(base / ("bert" if name == "bert" else "decoder"), name).save_pretrained(folder / name)


def _model(model: str, config: str, settings: dict[str, Any]) -> Any:
    said = getattr(transformers, config)(**json.loads(json.dumps(settings)))
    if FIVE and config == "DbrxConfig":  # which takes its base from here, and not from the words of 4
        said.rope_parameters = {"rope_theta": 500000.0, "rope_type": "default"}
    made = getattr(transformers, model)(said)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in made.parameters():
            weights.copy_(torch.randn(weights.shape, generator=generator) * 0.2 + (1 if weights.dim() == 1 else 0))
    return made


def _tokenizer(base: Path, name: str) -> Any:
    made = AutoTokenizer.from_pretrained(base)
    if name != "bert":
        made.add_special_tokens({EXTRA: ["</s>"]})
    if name == "mixtral":
        made.chat_template = {"default": made.chat_template, "tool_use": "T" + made.chat_template}
    return made


def record(folder: Path) -> None:
    """The small files alone, without the vocabulary."""
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch))
        for file in sorted(Path(scratch).rglob("*")):
            if file.suffix in (".json", ".jinja") and file.name not in ("tokenizer.json", "vocab.json"):
                target = folder / file.relative_to(scratch)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


def read(folder: Path) -> dict[str, Any]:
    """What the model and the tokenizer in the folder make of the same text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    coded = tokenizer(TEXT, "two")
    found: dict[str, Any] = {"ids": coded["input_ids"], "types": coded.get("token_type_ids")}
    found["decoded"] = tokenizer.decode(coded["input_ids"])
    found["special"] = sorted(map(str, tokenizer.all_special_tokens))
    chats = folder.name != "bert"
    if chats:
        found["chat"] = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
        found["tools"] = tokenizer.apply_chat_template(CHAT, tokenize=False, tools=TOOLS)
    loader: Callable[..., Any] = (
        transformers.AutoModelForCausalLM if chats else transformers.AutoModel
    ).from_pretrained
    model = loader(folder, attn_implementation="eager", torch_dtype="auto").eval()
    found["dtype"] = str(model.dtype)
    text = torch.arange(3, 203)[None] % 290  # longer than the original length of the scaled ones
    with torch.no_grad():
        for name, part in (("long", text), ("short", text[:, :40])):
            answer = model(part)
            found[name] = (answer.logits if chats else answer.last_hidden_state)[0, -1].tolist()
    return found


def _read_all(folders: list[Path]) -> dict[str, Any]:
    every = [model for folder in folders for model in sorted(folder.iterdir())]
    return {f"{m.parent.name}/{m.name}": read(m) for m in every if hasattr(transformers, MODELS[m.name][0])}


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    verb, first, *others = sys.argv[1:]
    if verb == "read":
        Path(first).write_text(json.dumps(_read_all([Path(o) for o in others])))
    else:
        (write if verb == "write" else record)(Path(first))
