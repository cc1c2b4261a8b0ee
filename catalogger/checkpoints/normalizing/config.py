"""`config.json` in the words of one generation: the dtype's name, the rotary embedding, of every part of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalogger.checkpoints.normalizing import rope

_DTYPE = {4: ("dtype", "torch_dtype"), 5: ("torch_dtype", "dtype")}
"""The other generation's name, and this one's."""
_TIED = "tie_word_embeddings"
_NO_PART = ("quantization_config", "compression_config", "attn_config")


def as_said_by(generation: int, config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The config as that generation writes it.  Raises Unsayable.

    Code that a checkpoint brings was written for the keys that are there, so that those of its rotary embedding stay.
    """
    own_code = bool(config.get("auto_map"))
    by_5 = str(config.get("transformers_version", "")).startswith("5.")
    if generation == 4 and by_5 and _TIED not in config:
        config = {**config, _TIED: False}  # which 5 takes where nothing is said, and 4 does not
    return _part(generation, config, notes, own_code=own_code)


def _part(generation: int, config: Mapping[str, Any], notes: list[str], *, own_code: bool) -> dict[str, Any]:
    said = _named(config, *_DTYPE[generation])
    if generation == 4:
        said = rope.as_4(said, notes)
    elif not own_code:
        said = rope.as_5(said)
    return {
        key: _part(generation, value, notes, own_code=own_code) if _is_part(key, value) else value
        for key, value in said.items()
    }


def _named(config: Mapping[str, Any], other: str, name: str) -> dict[str, Any]:
    """The config with its dtype under one name.  Where both are there, `dtype` is what is read."""
    if other not in config:
        return dict(config)
    value = next((v for key in ("dtype", "torch_dtype") if (v := config.get(key)) is not None), None)
    first = next(key for key in config if key in (other, name))
    return {
        name if key == first else key: value if key == first else v
        for key, v in config.items()
        if key == first or key not in (other, name)
    }


def _is_part(key: str, value: object) -> bool:
    return (
        isinstance(value, dict) and key not in _NO_PART and (key.endswith("_config") or key in ("encoder", "decoder"))
    )
