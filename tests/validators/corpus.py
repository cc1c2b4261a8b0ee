"""A corpus of broken checkpoints, one defect each, with the one code that it must be given.

`row` is the number of the report in docs/failure-reports.md that the defect is taken from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fakes import checkpoints
from validators.breaking import added, dropped, edit, renamed, rewrite, tensors

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"
ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
Break = Callable[[Path], object]


@dataclass(frozen=True)
class Defect:
    """What is made (`family`, with `made` as its arguments), how it is broken, and what must be said of it."""

    name: str
    family: str
    breaking: Break
    code: str
    severity: str = "error"
    recipe: str | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    row: int | None = None


RECIPES = {"llama": "llama-chat", "mistral": "mistral-chat", "mixtral": "mixtral-chat", "bert": "bge-embeddings"}
MAKERS: Mapping[str, Callable[..., Path]] = {
    "llama": checkpoints.llama,
    "mistral": checkpoints.mistral,
    "mixtral": checkpoints.mixtral,
    "bert": partial(checkpoints.bert, pooling="cls"),
}


def config(**changes: Any) -> Break:
    return lambda folder: edit(folder / CONFIG, **changes)


def tokenizer(**changes: Any) -> Break:
    return lambda folder: edit(folder / TOKENIZER, **changes)


def generation(**changes: Any) -> Break:
    return lambda folder: edit(folder / GENERATION, **changes)


def cut(name: str, count: int) -> Break:
    def breaking(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:count] if count < 0 else content + bytes(count))

    return breaking


def remove(*names: str) -> Break:
    def breaking(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return breaking


def move(old: str, new: str) -> Break:
    return lambda folder: (folder / old).rename(folder / new)


def write(name: str, content: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content)


def header(change: Callable[[dict[str, Any]], object]) -> Break:
    return lambda folder: rewrite(folder / ONE, lambda table, _: change(table))


def drop(name: str) -> Break:
    return lambda folder: dropped(folder / ONE, name)


def rename(old: str, new: str) -> Break:
    return lambda folder: renamed(folder / ONE, old, new)


def add(name: str, dtype: str = "BF16", shape: tuple[int, ...] = (4,), width: int = 2) -> Break:
    return lambda folder: added(folder / ONE, name, dtype, shape, width)


def reshape(name: str, shape: list[int]) -> Break:
    return header(lambda table: table[name].update(shape=shape))


def both(*steps: Break) -> Break:
    return lambda folder: [step(folder) for step in steps]


def wrap(folder: Path) -> None:
    """Save as if a LoRA layer stood around one projection."""
    renamed(folder / ONE, "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.base_layer.weight")


def weight_map(change: Callable[[dict[str, str]], object]) -> Break:
    def breaking(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index["weight_map"])
        (folder / INDEX).write_text(json.dumps(index))

    return breaking


def all_to_float16(folder: Path) -> None:
    names = tensors(folder / ONE)
    header(lambda table: [table[name].update(dtype="F16") for name in names])(folder)


def another_template(text: str) -> Break:
    return tokenizer(chat_template=text)


def token(**changes: Any) -> Break:
    """Change tokenizer.json."""
    return lambda folder: edit(folder / "tokenizer.json", **changes)


def far_token(folder: Path) -> None:
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"]["far away"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(data))


_Q = "model.layers.0.self_attn.q_proj.weight"
_SHARDED = {"shards": 3}
_TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
_TURNS = _TEMPLATE + "{% if add_generation_prompt %}[assistant]{% endif %}"

DEFECTS = (
    # Files and headers
    Defect("truncated shard", "llama", cut(SHARDS[1], -1), "CK003", made=_SHARDED, row=30),
    Defect("grown file", "llama", cut(ONE, 10), "CK003"),
    Defect("file cut inside its header", "llama", write(ONE, b"\x00\x10\0\0\0\0\0\0{"), "CK002", row=36),
    Defect("header that is not JSON", "bert", write(ONE, b"\x08\0\0\0\0\0\0\0nonsense"), "CK002", row=36),
    Defect("header longer than the file", "llama", write(ONE, b"\xff\xff\xff\xff\0\0\0\0{}"), "CK002"),
    Defect("empty weight file", "llama", write(ONE, b""), "CK002"),
    Defect("overlapping tensors", "llama", header(lambda t: t[_Q].update(data_offsets=[0, 2048])), "CK002"),
    Defect("shape that does not fit its bytes", "llama", reshape(_Q, [33, 32]), "CK002"),
    Defect("unknown dtype in the header", "llama", header(lambda t: t[_Q].update(dtype="X9")), "CK002"),
    Defect("shard that is not there", "llama", remove(SHARDS[2]), "CK004", made=_SHARDED),
    Defect("no index beside shards", "llama", remove(INDEX), "CK004", made=_SHARDED),
    Defect("stray shard", "llama",
           lambda folder: checkpoints.write_safetensors(
               folder / "model-00009-of-00009.safetensors", {"x": ("BF16", (1,), b"\0\0")}),
           "CK005", made=_SHARDED),
    Defect("tensor in another shard than the index says", "llama",
           weight_map(lambda m: m.update({next(n for n, s in m.items() if s == SHARDS[0]): "moved"}) or m.update(
               {n: SHARDS[1] for n, s in m.items() if s == "moved"})), "CK006", made=_SHARDED),
    Defect("tensor that the index does not know", "llama", weight_map(lambda m: m.pop(_Q)), "CK006", made=_SHARDED),
    Defect("only pickled weights", "llama", move(ONE, "pytorch_model.bin"), "CK007"),
    Defect("only an adapter", "llama", move(ONE, "adapter_model.safetensors"), "CK007"),
    Defect("no weights", "bert", remove(ONE), "CK007"),
    Defect("unmerged LoRA", "llama", wrap, "CK008", row=7),
    Defect("no format in the header", "bert", header(lambda t: t.pop("__metadata__")), "CK013", row=40),
    # Config
    Defect("another family", "bert", config(), "CK001", recipe="llama-completions", row=41),
    Defect("no architecture", "llama", config(architectures=...), "CK001"),
    Defect("code of its own", "llama", config(auto_map={"AutoModel": "modeling_x.X"}), "CK009", row=22),
    Defect("code of another repository", "bert", config(auto_map={"AutoModel": "who/knows--x.X"}), "CK009", row=35,
           facts={"remote_code_consent": True}),
    Defect("code of the tokenizer", "llama", tokenizer(auto_map={"AutoTokenizer": ["t.T", None]}), "CK009"),
    Defect("merged in float32", "llama", config(), "CK010", "warning", made={"dtype": "float32"}, row=39),
    Defect("float16 where bfloat16 is meant", "llama", all_to_float16, "CK010", "warning"),
    Defect("half of it float16", "llama", header(lambda t: t["lm_head.weight"].update(dtype="F16")), "CK015",
           "warning"),
    Defect("GPTQ", "llama", config(quantization_config={"quant_method": "gptq"}), "CK016"),
    Defect("AWQ tensors", "llama", rename(_Q, "model.layers.0.self_attn.q_proj.qweight"), "CK016"),
    Defect("FP8", "llama", header(lambda t: t["model.norm.weight"].update(dtype="F8_E4M3", shape=[64])), "CK016"),
    Defect("bitsandbytes", "llama", add("model.layers.0.mlp.up_proj.weight.quant_map", "F32", (16,), 4), "CK016"),
    Defect("another size than the recipe's", "llama", config(), "CK018", recipe="llama-3.1-8b-instruct"),
    Defect("rotary base where only Transformers 5 looks", "llama",
           config(rope_theta=..., rope_parameters={"rope_type": "default", "rope_theta": 500000.0}),
           "CK019", "warning", row=32),
    # Tensors
    Defect("a layer fewer than the config says", "llama", config(num_hidden_layers=3), "CK022"),
    Defect("a layer more than the config says", "mistral", config(num_hidden_layers=1), "CK022"),
    Defect("fewer experts than the config says", "mixtral", config(num_local_experts=8), "CK023"),
    Defect("vocabulary resized", "llama", config(vocab_size=310), "CK024", row=38),
    Defect("rows of the embedding of a BERT", "bert", config(vocab_size=301), "CK024"),
    Defect("another width", "llama", config(intermediate_size=65), "CK025"),
    Defect("another number of heads", "mistral", config(num_key_value_heads=4), "CK025"),
    Defect("positions of a BERT", "bert", both(
        config(max_position_embeddings=513), tokenizer(model_max_length=512)), "CK025"),
    Defect("a projection is missing", "llama", drop(_Q), "CK026"),
    Defect("a norm is missing", "bert", drop("embeddings.LayerNorm.weight"), "CK026"),
    Defect("names of a wrapper", "llama", rename(_Q, "_orig_mod." + _Q), "CK026"),
    Defect("no head, and not tied", "llama", drop("lm_head.weight"), "CK027", row=37),
    Defect("a tensor of another architecture", "llama", add("model.layers.0.self_attn.q_norm.weight"), "CK028",
           "warning"),
    # Embeddings
    Defect("pools by mean", "bert", config(), "CK011", "warning", made={"pooling": "mean"}),
    Defect("no limit of a text", "bert", tokenizer(model_max_length=10**30), "CK020", "warning"),
    # Tokenizer and template
    Defect("no tokenizer", "llama", remove("tokenizer.json"), "TK001"),
    Defect("slow tokenizer only", "bert", remove("tokenizer.json"), "TK001", "warning"),
    Defect("no chat template", "llama", config(), "TK002", made={"task_template": False}, row=23),
    Defect("template of a wrong syntax", "llama", another_template("{% for m in messages %}"), "TK003"),
    Defect("template that asks for what it is not given", "llama",
           another_template("{{ raise_exception('conversations must alternate') }}"), "TK003"),
    Defect("template that never ends", "llama", another_template(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
        "{% endfor %}" + _TURNS), "TK003"),
    Defect("template that drops what was said", "llama", another_template(
        "{% for m in messages %}[{{ m['role'] }}]{% endfor %}{% if add_generation_prompt %}x{% endif %}"), "TK003"),
    Defect("template without system messages", "llama", another_template(
        "{% for m in messages %}{% if m['role'] != 'system' %}[{{ m['role'] }}] {{ m['content'] }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"), "TK004", "warning"),
    Defect("no generation prompt", "llama", another_template(_TEMPLATE), "TK005", "warning"),
    Defect("template of another family", "llama", another_template(
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"), "TK006", "warning"),
    Defect("token beyond the embedding", "llama", far_token, "TK008", row=38),
    Defect("eos outside of the vocabulary", "llama", both(config(eos_token_id=[2, 300]),
           generation(eos_token_id=[2, 300])), "TK009"),
    Defect("pad outside of the vocabulary", "llama", config(pad_token_id=-1), "TK009"),
    Defect("eos is no stop", "llama", both(config(eos_token_id=5), generation(eos_token_id=5)), "TK010", "warning"),
    Defect("two ids of bos", "llama", config(bos_token_id=4), "TK011", "warning"),
    Defect("tokenizer of Transformers 5", "llama", tokenizer(tokenizer_class="TokenizersBackend"), "TK012", "warning",
           row=31),
    Defect("merges beside the fast tokenizer", "llama", write("merges.txt", b"#version: 0.2\n"), "TK013", "warning"),
    Defect("model_input_names left out", "llama", tokenizer(model_input_names=...), "TK013", "warning"),
    Defect("tokenizer.json that is none", "llama", write("tokenizer.json", b"{ broken }"), "TK014"),
)  # fmt: skip


def make(defect: Defect, folder: Path) -> Path:
    """The broken checkpoint."""
    MAKERS[defect.family](folder, **defect.made)
    defect.breaking(folder)
    return folder
