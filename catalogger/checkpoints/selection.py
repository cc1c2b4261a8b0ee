"""Choose the files of a checkpoint that a logged model needs, and say of every other one why it is left out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from catalogger.checkpoints.facts import INDEX

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
TEMPLATES = "additional_chat_templates/"
"""The folder of the templates beside the default one, a `.jinja` each."""
CONFIG = ("config.json", "generation_config.json", INDEX)
SENTENCE = (
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json",
)  # fmt: skip
LICENCE = ("LICENSE*", "LICENCE*", "USE_POLICY*", "NOTICE*", "license*", "licence*")
CARD = ("README.md",)

_TWINS = (
    ("original/*", "the authors' own format beside the Transformers one"),
    ("consolidated*.safetensors", "the authors' own format beside the Transformers one"),
    ("*.gguf", "GGUF"),
    ("*.onnx*", "ONNX"), ("onnx/*", "ONNX"), ("openvino/*", "OpenVINO"), ("*.ot", "Rust twin"),
    ("*.h5", "TensorFlow twin"), ("*.msgpack", "Flax twin"), ("*.mlmodel", "Core ML"), ("coreml/*", "Core ML"),
    ("consolidated*.pth", "the authors' own format beside the Transformers one"),
    ("adapter_model.*", "an adapter, not whole weights"), ("adapter_[0-9]*.pt", "an adapter, not whole weights"),
    ("recipe_state*.pt", "training state"),
    ("optimizer*", "training state"), ("scheduler*", "training state"), ("rng_state*", "training state"),
    ("training_args.bin", "training state"), ("trainer_state.json", "training state"),
    ("*.safetensors", "not the checkpoint's own weights"),
)  # fmt: skip
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Selection:
    """Paths by their use; `left_out` maps every other path to the reason."""

    weights: tuple[str, ...]
    small: tuple[str, ...]
    code: tuple[str, ...]
    pickled: tuple[str, ...]
    left_out: dict[str, str]


def select(paths: Iterable[str]) -> Selection:
    """Safetensors at the root are the weights; never a second format, nor twins of the same weights."""
    weights, small, code, pickled, left_out = [], [], [], [], {}
    for path in sorted(paths):
        name = path.rsplit("/", 1)[-1]
        known = (*CONFIG, *TOKENIZER, *SENTENCE, *CARD)
        if path in known or is_template(path) or is_licence(path):
            small.append(path)
        elif "/" not in path and name.endswith(".safetensors") and not _twin(path):
            weights.append(path)
        elif "/" not in path and name.endswith(".py"):
            code.append(path)
        elif _matches(path, PICKLED) and not _twin(path):
            pickled.append(path)
            left_out[path] = "pickled weights"
        else:
            left_out[path] = _twin(path) or "not needed by the logged model"
    return Selection(tuple(weights), tuple(small), tuple(code), tuple(pickled), left_out)


def is_licence(path: str) -> bool:
    """Whether the path is a licence, use policy or notice at the root."""
    return _matches(path, LICENCE)


def is_template(path: str) -> bool:
    """Whether the path is a named chat template beside the default one."""
    return path.startswith(TEMPLATES) and path.endswith(".jinja")


def _twin(path: str) -> str | None:
    at_root = (
        "/" not in path
        and fnmatch.fnmatch(path, "*.safetensors")
        and not path.startswith(("consolidated", "adapter_model"))
    )
    return None if at_root else next((why for pattern, why in _TWINS if fnmatch.fnmatch(path, pattern)), None)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return "/" not in path and any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
