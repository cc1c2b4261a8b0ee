"""Synthetic Hugging Face checkpoints: tiny ones that work, large ones of random weights, and 810 GB of holes.

All files are in the form that transformers 4 wrote, which 5 reads too. Must not import torch or transformers, nor know
anything of catalogger. The same arguments give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Content = bytes | Iterator[bytes | memoryview] | None
"""A tensor's bytes, its bytes in blocks, or None for a hole in the file, which reads as zeros."""
Tensor = tuple[str, tuple[int, ...], Content]
"""A tensor's safetensors dtype ("BF16"), shape and content."""
Dtype = Literal["bfloat16", "float16", "float32"]

_WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}
_CODE = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_BLOCK = 16 << 20  # bytes of random weights made once and varied
_ROW = 4096  # values in one pattern that varies a block
_FREE_BITS = 0x80FF  # sign, mantissa and last bit of the exponent: whatever they are, with _FIXED_BITS
_FIXED_BITS = 0x3C00  # a bfloat16 is between 1/128 and 1/32 in size, and so never NaN or infinite
_TRANSFORMERS = "4.45.2"

_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] | trim + "
    "eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
_README = "---\nlicense: apache-2.0\n---\n\n# A synthetic checkpoint\n\nRandom weights in {architecture}, for tests.\n"
_LICENSE = "Synthetic weights, made by a test.\n\nSPDX-License-Identifier: Apache-2.0\n"
_CORPUS = """
A checkpoint is a folder of weights, a configuration and a tokenizer, and every one of them has to fit the others.
The registry keeps one version after another; an alias such as champion names the version that serves the requests.
Whoever trains a model tonight wants to find it tomorrow, with the metrics, the parameters and the data it came from.
Large models are cut into shards, and an index says which shard holds which tensor of which layer.
What is the capital of France? The capital of France is Paris. Write a short story about a lighthouse by the sea.
Experts are chosen by a router, attention looks back at what was said before, and embeddings place near what is alike.
You are a helpful assistant. Please answer questions briefly, quote your sources, and say so when you do not know.
""".strip().splitlines()


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file, its tensors in the order given; format: https://github.com/huggingface/safetensors.

    Without `metadata` it carries {"format": "pt"}, which transformers asks for. Raises ValueError where a content is
    not as long as its shape says.
    """
    table: dict[str, Any] = {"__metadata__": dict({"format": "pt"} if metadata is None else metadata)}
    end = 0
    for name, (code, shape, _) in tensors.items():
        start, end = end, end + _nbytes(code, shape)
        table[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name, (code, shape, content) in tensors.items():
            expected = file.tell() + _nbytes(code, shape)
            if content is None:
                file.seek(expected)
            else:
                file.writelines([content] if isinstance(content, bytes) else content)
            if file.tell() != expected:
                raise ValueError(f"{name!r} is {file.tell() - expected:+} bytes off the size that {shape} needs")
        file.truncate()  # the last tensor may be a hole


def _nbytes(code: str, shape: tuple[int, ...]) -> int:
    return _WIDTH[code] * math.prod(shape)


def _split(tensors: Mapping[str, Tensor], shards: int) -> list[dict[str, Tensor]]:
    """Cut into exactly `shards` groups of about the same size, none empty, the order kept."""
    if not 1 <= shards <= len(tensors):
        raise ValueError(f"cannot cut {len(tensors)} tensors into {shards} shards")
    total = sum(_nbytes(code, shape) for code, shape, _ in tensors.values())
    groups: list[dict[str, Tensor]] = [{}]
    done = 0
    for position, (name, tensor) in enumerate(tensors.items()):
        scarce = len(tensors) - position <= shards - len(groups)
        if groups[-1] and (scarce or done * shards >= total * len(groups)):
            groups.append({})
        groups[-1][name] = tensor
        done += _nbytes(tensor[0], tensor[1])
    return groups


def _write_weights(folder: Path, tensors: Mapping[str, Tensor], shards: int) -> None:
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    weight_map: dict[str, str] = {}
    for number, group in enumerate(_split(tensors, shards), 1):
        file = f"model-{number:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, group)
        weight_map |= dict.fromkeys(group, file)
    total = sum(_nbytes(code, shape) for code, shape, _ in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_json(file: Path, facts: Any) -> None:
    file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def _random(name: str, code: str, shape: tuple[int, ...], seed: int) -> bytes:
    """Weights as a fresh model has them: norms are ones, biases zeros, the rest normal with deviation 0.02."""
    if name.endswith("bias"):
        values = np.zeros(shape, "<f4")
    elif _is_norm(name):
        values = np.ones(shape, "<f4")
    else:
        values = np.random.default_rng([seed, crc32(name.encode())]).normal(0, 0.02, shape).astype("<f4")
    if code == "BF16":
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[code]).tobytes()


def _is_norm(name: str) -> bool:
    return "norm" in name.lower() and name.endswith("weight")


class _Bulk:
    """Random bfloat16 weights of any size out of two blocks of memory; no two stretches that it gives are the same."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._block = self._bits([seed], _BLOCK // 2).reshape(-1, _ROW)
        self._block |= _FIXED_BITS
        self._buffer = np.empty_like(self._block)

    def blocks(self, name: str, size: int) -> Iterator[memoryview]:
        """The `size` bytes of a tensor; each block is only good until the next is asked for."""
        for start in range(0, size, _BLOCK):
            np.bitwise_xor(self._block, self._bits([self._seed, crc32(name.encode()), start], _ROW), out=self._buffer)
            yield self._buffer.data.cast("B")[: size - start]

    @staticmethod
    def _bits(seed: list[int], count: int) -> npt.NDArray[np.uint16]:
        bits = np.random.default_rng(seed).integers(0, 1 << 16, count, np.uint16)
        bits &= _FREE_BITS
        return bits


@dataclass(frozen=True)
class _Decoder:
    """What the tensors of a decoder follow from; `experts` is 0 in a dense one."""

    family: Literal["llama", "mistral", "mixtral"]
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    experts: int = 0
    tie: bool = False
    dtype: Dtype = "bfloat16"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape, in the order of a forward pass."""
        table = (self.vocabulary, self.hidden)
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": table}
        for layer in range(self.layers):
            shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in self._layer().items()}
        shapes["model.norm.weight"] = (self.hidden,)
        return shapes if self.tie else shapes | {"lm_head.weight": table}

    def nbytes(self) -> int:
        return sum(_nbytes(_CODE[self.dtype], shape) for shape in self.shapes().values())

    def _layer(self) -> dict[str, tuple[int, ...]]:
        wide, narrow = (self.hidden, self.hidden), (self.hidden // self.heads * self.kv_heads, self.hidden)
        return {
            "input_layernorm": (self.hidden,),
            **{f"self_attn.{p}_proj": shape for p, shape in zip("qkvo", (wide, narrow, narrow, wide), strict=True)},
            "post_attention_layernorm": (self.hidden,),
            **self._feed_forward(),
        }

    def _feed_forward(self) -> dict[str, tuple[int, ...]]:
        up, down = (self.intermediate, self.hidden), (self.hidden, self.intermediate)
        if not self.experts:
            return {"mlp.gate_proj": up, "mlp.up_proj": up, "mlp.down_proj": down}
        shapes: dict[str, tuple[int, ...]] = {"block_sparse_moe.gate": (self.experts, self.hidden)}
        for expert in range(self.experts):
            shapes |= {f"block_sparse_moe.experts.{expert}.{w}": s for w, s in {"w1": up, "w2": down, "w3": up}.items()}
        return shapes

    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        config = {
            "architectures": [f"{self.family.capitalize()}ForCausalLM"], "model_type": self.family,
            "torch_dtype": self.dtype, "transformers_version": _TRANSFORMERS, "bos_token_id": 1, "eos_token_id": 2,
            "vocab_size": self.vocabulary, "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "tie_word_embeddings": self.tie, "rope_theta": 10000.0, "rms_norm_eps": 1e-05, "hidden_act": "silu",
            "initializer_range": 0.02, "max_position_embeddings": 2048, "attention_dropout": 0.0, "use_cache": True,
        }  # fmt: skip
        own: dict[str, dict[str, Any]] = {
            "llama": {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, "rope_scaling": None},
            "mistral": {"sliding_window": None},
            "mixtral": {
                "sliding_window": None, "num_local_experts": self.experts, "num_experts_per_tok": 2,
                "output_router_logits": False, "router_aux_loss_coef": 0.02,
            },
        }  # fmt: skip
        return config | own[self.family]


def _decoder(
    family: Literal["llama", "mistral", "mixtral"],
    folder: Path,
    *,
    task_template: bool = True,
    dtype: Dtype = "bfloat16",
    shards: int = 1,
    seed: int = 0,
    vocabulary: int = 300,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    tie: bool = False,
) -> Path:
    experts = 4 if family == "mixtral" else 0
    plan = _Decoder(family, vocabulary, hidden, 2 * hidden, layers, heads, kv_heads, experts, tie, dtype)
    code = _CODE[dtype]
    _write_decoder(folder, plan.config(), vocabulary=vocabulary, task_template=task_template)
    tensors = {n: (code, shape, _random(n, code, shape, seed)) for n, shape in plan.shapes().items()}
    _write_weights(folder, tensors, shards)
    return folder


llama = partial(_decoder, "llama")
"""Write a tiny LlamaForCausalLM that loads, with a chat template unless `task_template` is false."""
mistral = partial(_decoder, "mistral")
"""Write a tiny MistralForCausalLM that loads."""
mixtral = partial(_decoder, "mixtral")
"""Write a tiny MixtralForCausalLM that loads, four experts a layer, named as transformers 4 names them."""


def big_llama(folder: Path, gigabytes: float, *, shards: int, seed: int = 0, sparse: bool = False) -> Path:
    """Write a Llama of about `gigabytes` (10^9 bytes) of bfloat16 weights in little memory; `sparse` leaves holes.

    Raises ValueError below 0.003 or so, and for more shards than tensors.
    """
    plan = _plan(gigabytes * 1e9)
    _write_decoder(folder, plan.config())
    bulk = _Bulk(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in plan.shapes().items():
        content = _random(name, "BF16", shape, seed) if _is_norm(name) else bulk.blocks(name, _nbytes("BF16", shape))
        tensors[name] = ("BF16", shape, None if sparse else content)
    _write_weights(folder, tensors, shards)
    return folder


def _plan(nbytes: float) -> _Decoder:
    """The widest Llama of 16 or more layers, as real ones are, that comes within half a layer of `nbytes`."""
    for hidden in (16384, 8192, 4096, 2048, 1024, 512, 256, 128, 64):
        heads = max(4, hidden // 128)
        small, large = (
            _Decoder("llama", 4096, hidden, hidden * 7 // 2, layers, heads, min(8, heads // 4)) for layers in (0, 1)
        )
        layers = round((nbytes - small.nbytes()) / (large.nbytes() - small.nbytes()))
        if layers >= 16:
            return replace(small, layers=layers)
    raise ValueError(f"no Llama is as small as {nbytes / 1e9} GB; ask for 0.003 or more")


def sparse_llama_405b(folder: Path) -> Path:
    """Write Llama 3.1 405B as holes: real shapes and headers, 191 shards, 812 GB on paper and a few MB of disk."""
    plan = _Decoder("llama", 128256, 16384, 53248, 126, 128, 8)
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    long = {"rope_theta": 500000.0, "rope_scaling": scaling, "max_position_embeddings": 131072}
    _write_decoder(folder, plan.config() | long)
    _write_weights(folder, {name: ("BF16", shape, None) for name, shape in plan.shapes().items()}, 191)
    return folder


def _write_decoder(folder: Path, config: dict[str, Any], *, vocabulary: int = 300, task_template: bool = True) -> None:
    """Everything but the weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    _write_common(folder, config)
    _write_json(
        folder / "generation_config.json",
        {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "transformers_version": _TRANSFORMERS},
    )
    special = ["<unk>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocabulary < len(special) + len(alphabet):
        raise ValueError(f"a byte-level vocabulary has at least {len(special) + len(alphabet)} tokens")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048}
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    _write_tokenizer(folder, tokenizer, roles, settings | ({"chat_template": _CHAT_TEMPLATE} if task_template else {}))


def _write_common(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config)
    (folder / "LICENSE").write_text(_LICENSE)
    (folder / "README.md").write_text(_README.format(architecture=config["architectures"][0]))


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, roles: dict[str, str], settings: dict[str, Any]) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "special_tokens_map.json", roles)
    added = {
        str(number): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                      "special": True}
        for number, token in enumerate(roles.values())
    }  # fmt: skip
    _write_json(
        folder / "tokenizer_config.json",
        roles | settings | {"added_tokens_decoder": added, "clean_up_tokenization_spaces": False},
    )


def bert(
    folder: Path,
    *,
    pooling: Literal["cls", "mean"] | None = "mean",
    normalise: bool = True,
    dtype: Dtype = "float32",
    shards: int = 1,
    seed: int = 0,
    vocabulary: int = 300,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
) -> Path:
    """Write a tiny BertModel as embedding models are published; no `pooling`, no sentence-transformers files."""
    code = _CODE[dtype]
    _write_common(folder, _bert_config(dtype, vocabulary, hidden, layers, heads))
    _write_wordpiece(folder, vocabulary)
    if pooling is not None:
        _write_sentence_transformers(folder, pooling, normalise, hidden)
    shapes = _bert_shapes(vocabulary, hidden, layers)
    _write_weights(folder, {n: (code, shape, _random(n, code, shape, seed)) for n, shape in shapes.items()}, shards)
    return folder


def _bert_config(dtype: Dtype, vocabulary: int, hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"], "model_type": "bert", "torch_dtype": dtype,
        "transformers_version": _TRANSFORMERS, "vocab_size": vocabulary, "hidden_size": hidden,
        "intermediate_size": 2 * hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "max_position_embeddings": 512, "type_vocab_size": 2, "pad_token_id": 0, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "initializer_range": 0.02, "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "position_embedding_type": "absolute", "use_cache": True,
    }  # fmt: skip


def _bert_shapes(vocabulary: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    tables = {"word": vocabulary, "position": 512, "token_type": 2}
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.{name}_embeddings.weight": (rows, hidden) for name, rows in tables.items()
    }
    shapes |= _affine("embeddings.LayerNorm", hidden)
    for layer in range(layers):
        block = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes |= _affine(f"{block}.attention.self.{name}", hidden, hidden)
        shapes |= _affine(f"{block}.attention.output.dense", hidden, hidden)
        shapes |= _affine(f"{block}.attention.output.LayerNorm", hidden)
        shapes |= _affine(f"{block}.intermediate.dense", 2 * hidden, hidden)
        shapes |= _affine(f"{block}.output.dense", hidden, 2 * hidden)
        shapes |= _affine(f"{block}.output.LayerNorm", hidden)
    return shapes | _affine("pooler.dense", hidden, hidden)


def _affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _write_wordpiece(folder: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    split = (pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line)) for line in _CORPUS)
    roles = {f"{word.lower()}_token": f"[{word}]" for word in ("PAD", "UNK", "CLS", "SEP", "MASK")}
    words = _wordpieces(Counter(word for line in split for word, _ in line), [*roles.values()], vocabulary)
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens([*roles.values()])
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 512, "do_lower_case": True}
    _write_tokenizer(folder, tokenizer, roles, settings | {"tokenize_chinese_chars": True, "strip_accents": None})


def _wordpieces(counts: Counter[str], special: list[str], vocabulary: int) -> list[str]:
    """The special tokens, every character, then the commonest words and endings, as far as they fit.

    The WordPieceTrainer of tokenizers 0.23 follows a hash map and gives another vocabulary in each process.
    """
    characters = sorted(set("".join(counts)))
    least = special + characters + [f"##{character}" for character in characters]
    if vocabulary < len(least):
        raise ValueError(f"this WordPiece vocabulary has at least {len(least)} tokens")
    pieces: Counter[str] = Counter()
    for word, count in counts.items():
        pieces[word] += count
        pieces.update({f"##{word[-size:]}": count for size in (2, 3) if len(word) > size})
    common = sorted(pieces.keys() - {*least}, key=lambda piece: (-pieces[piece], piece))
    return (least + common)[:vocabulary]


def _write_sentence_transformers(folder: Path, pooling: str, normalise: bool, hidden: int) -> None:
    """The files that sentence-transformers reads beside a BertModel; its Normalize module has no folder."""
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")][: 3 if normalise else 2]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(steps)
    ]
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    _write_json(
        folder / "config_sentence_transformers.json",
        {"__version__": {"sentence_transformers": "3.0.1", "transformers": _TRANSFORMERS, "pytorch": "2.2.0"}},
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len"}
    flags = {f"pooling_mode_{mode}": pooling == name for mode, name in modes.items()}
    _write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden} | flags)
