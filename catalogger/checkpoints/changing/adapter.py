"""Open a PEFT adapter and say what it is; whatever cannot be merged exactly is refused here by its name.

Facts of the adapter alone: how it fits a base is for `merging` to say.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from catalogger.checkpoints.changing.pickled import Pickled, read_pickled
from catalogger.checkpoints.changing.stored import Stored, stored_in
from catalogger.checkpoints.facts import File
from catalogger.checkpoints.headers import read_shard
from catalogger.checkpoints.selection import TOKENIZER
from catalogger.checkpoints.source import hub_reference
from catalogger.errors import AdapterRefused, SourceInvalid

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_TORCHTUNE = ("adapter_model.pt", "adapter_[0-9]*.pt")
_HARMLESS = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save", "peft_type",
    "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "target_modules", "task_type",
    "trainable_token_indices", "use_rslora",
}  # fmt: skip
"""Settings that are understood, or change nothing that is stored."""
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal")
"""Ways to start the factors that leave the base's weights as they are; others (PiSSA, OLoRA, LoftQ) change them."""
_NAMES = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "lora_bias": "lora_bias",
    "target_parameters": "target_parameters",
}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.  `tensors` by their names in the file; `small` holds its tokenizer's files;
    `pickled` the name of a pickled file that was read, and `apart` how its reader was kept apart; `asked` the branch,
    tag or commit of the Hub.
    """

    location: str
    revision: str | None
    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Stored]
    small: Mapping[str, bytes]
    pickled: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    asked: str | None = None

    @property
    def base(self) -> str | None:
        """The source of the base that its own config names."""
        name, revision = self.config.get("base_model_name_or_path"), self.config.get("revision")
        return f"{name}@{revision}" if name and revision and not Path(name).exists() else name or None

    def rank(self, module: str) -> int:
        """The rank that the config gives a module."""
        return int(_by_pattern(self.config.get("rank_pattern"), module, self.config["r"]))

    def scale(self, module: str) -> float:
        """What the product is multiplied by: alpha over the rank, or over its root (rsLoRA)."""
        alpha, rank = (
            _by_pattern(self.config.get("alpha_pattern"), module, self.config["lora_alpha"]),
            self.rank(module),
        )
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def saves(self, module: str) -> bool:
        """Whether the module is one of `modules_to_save`, which PEFT trains as a whole copy."""
        return any(module == m or module.endswith(f".{m}") for m in self.config.get("modules_to_save") or ())


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, or half of one."""
    return any((folder / name).is_file() for name in (CONFIG, WEIGHTS, _PICKLED))


def open_adapter(asked: str, *, allow_pickle: bool = False) -> Adapter:
    """Open a folder or `ORG/REPO[@REVISION]`: config and tokenizer are read, of the weights the header.

    Raises AdapterRefused for what cannot be merged exactly, SourceInvalid, and what the Hub's client raises.
    """
    path = Path(asked).expanduser()
    if path.is_dir():
        return _opened(path.absolute(), str(path.absolute()), None, allow_pickle)
    hub = hub_reference(asked)
    if hub is None:
        raise SourceInvalid(asked, "is neither a folder nor ORG/REPO", "Give the folder or repository of an adapter.")
    from catalogger.checkpoints.hub import fetch_some

    commit, folder = fetch_some(*hub, (CONFIG, WEIGHTS, *([_PICKLED] if allow_pickle else ()), *TOKENIZER))
    return replace(_opened(folder, hub[0], commit, allow_pickle), asked=hub[1] or "main")


def _opened(folder: Path, location: str, revision: str | None, allow_pickle: bool) -> Adapter:
    config = _config(folder, location)
    _require_plain(config, location)
    _require_patterns(config, location)
    held = _tensors(folder, location, allow_pickle)
    tensors = {t.name: t for t in held.tensors}
    for name in tensors:
        if "lora_magnitude_vector" in name:
            raise _no(location, "DoRA", "holds magnitudes")
    small = {n: (folder / n).read_bytes() for n in TOKENIZER if (folder / n).is_file()}
    return Adapter(location, revision, folder, config, tensors, small, (_PICKLED,) if held.apart else (), held.apart)


def _config(folder: Path, location: str) -> Mapping[str, Any]:
    if not (folder / CONFIG).is_file():
        raise AdapterRefused(
            location, f'is half an adapter: it has no "{CONFIG}"', "Take it from where it was trained."
        )
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (ValueError, RecursionError) as error:
        raise AdapterRefused(location, f'has an "{CONFIG}" that is not JSON: {error}') from error
    if not isinstance(config, dict):
        raise AdapterRefused(location, f'has an "{CONFIG}" that is no JSON object')
    return config


def _tensors(folder: Path, location: str, allow_pickle: bool) -> Pickled:
    path, pickled = folder / WEIGHTS, folder / _PICKLED
    if not path.is_file():
        if pickled.is_file() and allow_pickle:
            return read_pickled(pickled, location)
        raise _no_weights(folder, location)
    with path.open("rb") as stream:
        file = File(WEIGHTS, path.stat().st_size)
        shard = read_shard(file, lambda start, end: os.pread(stream.fileno(), end - start, start))
    if shard.problem or shard.expected != file.size:
        problem = shard.problem or f"is {file.size} bytes long, {shard.expected} were expected"
        raise AdapterRefused(location, f'has an "{WEIGHTS}" that {problem}', "Fetch or save it again.")
    if not shard.tensors:
        raise AdapterRefused(location, f'is half an adapter: "{WEIGHTS}" holds no tensor')
    return Pickled(stored_in(folder, shard), ())


def _no_weights(folder: Path, location: str) -> AdapterRefused:
    if (folder / _PICKLED).is_file():
        what = f'has pickled weights only ("{_PICKLED}")'
        return AdapterRefused(
            location, what, "Save it as safetensors: model.save_pretrained(folder); or allow it by --allow-pickle."
        )
    if own := [file.name for pattern in _TORCHTUNE for file in folder.glob(pattern)]:
        return AdapterRefused(
            location,
            f'holds torchtune\'s own form of an adapter only ("{own[0]}")',
            'Save it as PEFT does too: FullModelHFCheckpointer writes "adapter_model.safetensors" beside it.',
        )
    return AdapterRefused(
        location, f'is half an adapter: it has no "{WEIGHTS}"', "Save it once more: model.save_pretrained(folder)."
    )


def _require_plain(config: Mapping[str, Any], location: str) -> None:
    """Raises AdapterRefused for every kind and setting that is not known to be merged right."""
    if (kind := config.get("peft_type")) != "LORA":
        raise _no(location, str(kind), f'says peft_type "{kind}"')
    for name, value in config.items():
        if value and name not in _HARMLESS:
            raise _no(location, _NAMES.get(name, name), f'sets "{name}"')
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start not in _PLAIN_STARTS:
        raise _no(location, start, "was trained on a base whose weights were changed at the start")
    for name, meaning in (("r", "rank"), ("lora_alpha", "alpha")):
        value = config.get(name)
        if not _is_number(value) or (name == "r" and value < 1):
            raise AdapterRefused(
                location,
                f'has no {meaning}: "{name}" is {json.dumps(value)} in "{CONFIG}"',
                "Put in the value it was trained with.",
            )


def _require_patterns(config: Mapping[str, Any], location: str) -> None:
    """Raises AdapterRefused for names of modules, ranks and alphas in a form that PEFT does not write."""
    texts = [text for key in ("target_modules", "exclude_modules", "layers_pattern") if (text := config.get(key))]
    for key in ("rank_pattern", "alpha_pattern"):
        held = config.get(key) or {}
        if not isinstance(held, dict) or not all(_is_number(n) and n > 0 for n in held.values()):
            raise AdapterRefused(location, f'has a "{key}" that is no table of numbers in "{CONFIG}"')
        texts += held
    for text in texts:
        try:
            re.compile(text if isinstance(text, str) else "")
        except re.error as error:
            raise AdapterRefused(location, f'has the pattern "{text}" in "{CONFIG}", which is none: {error}') from error


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """PEFT's own look-up: the first pattern that ends the module's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _no(location: str, name: str, why: str) -> AdapterRefused:
    return AdapterRefused(
        location,
        f"cannot be merged exactly: {name} ({why})",
        "Merge it with PEFT, and give the merged model as the source.",
    )


def named(tensors: Iterable[str], most: int = 3) -> str:
    """A few names in quotes, and how many more there are."""
    names = sorted(tensors)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f'"{n}"' for n in names[:most]) + more
