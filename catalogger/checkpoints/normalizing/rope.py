"""The rotary embedding's parameters in a config: `rope_theta` and `rope_scaling` to Transformers 4, `rope_parameters`
to 5.  Names and kinds: `transformers/modeling_rope_utils.py` of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FULL, SLIDING = "full_attention", "sliding_attention"
_THETA, _SHARE, _ORIGINAL = "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"
_KINDS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "mrope")
"""The kinds that 4 knows."""
_TWO_KEYS = ("linear", "dynamic")
"""Kinds that the oldest readers want as `type` and `factor`, and nothing else."""
_THREE_KEYS = ("phi3", "phi4_multimodal")
"""Families that want their longrope as `type` and two lists, and nothing else."""
_DBRX = "dbrx"


class Unsayable(ValueError):
    """What the other generation has no words for."""


@dataclass(frozen=True)
class _Names:
    """What a family of Transformers 4 calls the base and the share of the head that is rotated; `local` is the base of
    its sliding layers, whose kind is always the default one there.
    """

    theta: str = _THETA
    share: str = _SHARE
    local: str | None = None
    scales: bool = True


_GEMMA = _Names(local="rope_local_base_freq")
_MODERN = _Names(theta="global_rope_theta", local="local_rope_theta", scales=False)
_NEOX = _Names(theta="rotary_emb_base", share="rotary_pct")
_FAMILIES = {
    "gemma3": _GEMMA, "gemma3_text": _GEMMA, "gemma3n_text": _GEMMA,
    "modernbert": _MODERN, "modernbert-decoder": _MODERN,
    "gpt_neox": _NEOX, "gpt_neox_japanese": _NEOX,
}  # fmt: skip


def as_4(config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The config with what `rope_parameters` says in the words of Transformers 4.  Raises Unsayable."""
    said = config.get("rope_parameters")
    if config.get("model_type") == _DBRX:
        return _dbrx_of_4(config)
    if said is None:
        return {key: value for key, value in config.items() if key != "rope_parameters"}
    if not isinstance(said, dict):
        raise Unsayable("rope_parameters that are no object")
    names = _FAMILIES.get(str(config.get("model_type")), _Names())
    layers = {key: value for key, value in said.items() if isinstance(value, dict)}
    plain, local = _of_layers(layers, names) if layers else (said, None)
    words = _words(config, plain, names, notes)
    if local is not None and names.local:
        words[names.local] = local
    return _in_place(config, "rope_parameters", words)


def as_5(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with base and scaling as `rope_parameters`."""
    family = str(config.get("model_type"))
    if family == _DBRX:
        return _dbrx_of_5(config)
    names = _FAMILIES.get(family, _Names())
    theta, scaling = config.get(names.theta), config.get("rope_scaling")
    if "rope_parameters" in config or (theta is None and not isinstance(scaling, dict)):
        return dict(config)
    said = dict(scaling) if isinstance(scaling, dict) else {}
    said = {"rope_type": said.get("rope_type", said.get("type", "default"))} | said
    if theta is not None:
        said[_THETA] = theta
    gone = {names.theta, _THETA, "rope_scaling"}
    if names.share != _SHARE and (share := config.get(names.share)) is not None:
        said[_SHARE] = share
        gone |= {names.share, _SHARE}
    if names.local:
        local = {"rope_type": "default"}
        if config.get(names.local) is not None:
            local |= {_THETA: config[names.local]}
        said = {FULL: said, SLIDING: local}
        gone.add(names.local)
    first = next(key for key in config if key in gone)
    return {k: v for k, v in _in_place(config, first, {"rope_parameters": said}).items() if k not in gone}


def _dbrx_of_4(config: Mapping[str, Any]) -> dict[str, Any]:
    """DBRX has its base in `attn_config`, where 4 reads it; the model of 5 reads both places: it stays in both."""
    said, attention, experts = (config.get(key) or {} for key in ("rope_parameters", "attn_config", "ffn_config"))
    if said and _kind(said) != "default":
        raise Unsayable(f'rope kind "{_kind(said)}" for DBRX, where Transformers 4 has the default only')
    changed = dict(config)
    if said.get(_THETA) is not None:
        changed["attn_config"] = {**attention, _THETA: said[_THETA]}
    if "hidden_size" in experts:
        changed["ffn_config"] = {key: value for key, value in experts.items() if key != "hidden_size"}
    return changed


def _dbrx_of_5(config: Mapping[str, Any]) -> dict[str, Any]:
    theta = (config.get("attn_config") or {}).get(_THETA)
    if theta is None or "rope_parameters" in config:
        return dict(config)
    return {**config, "rope_parameters": {"rope_theta": theta, "rope_type": "default"}}


def _of_layers(layers: Mapping[str, Mapping[str, Any]], names: _Names) -> tuple[Mapping[str, Any], Any]:
    """One set of parameters for all layers, and the base of the sliding ones where the family has such a key."""
    full, sliding = layers.get(FULL, {}), layers.get(SLIDING, {})
    if names.local and set(layers) <= {FULL, SLIDING}:
        for said, may in ((full, names.scales), (sliding, False)):
            kind = _kind(said)
            if kind != "default" and not may:
                raise Unsayable(f'rope kind "{kind}" for one kind of layer, where Transformers 4 has the default only')
        return full, sliding.get(_THETA)
    first = next(iter(layers.values()))
    if any(other != first for other in layers.values()):
        kinds = ", ".join(layers)
        raise Unsayable(f"rope_parameters by kind of layer ({kinds}), which Transformers 4 cannot say of this family")
    return first, None


def _words(config: Mapping[str, Any], said: Mapping[str, Any], names: _Names, notes: list[str]) -> dict[str, Any]:
    """The keys that stand in place of `rope_parameters`."""
    kind = _kind(said)
    if kind not in _KINDS:
        raise Unsayable(f'rope kind "{kind}", which Transformers 4 does not have')
    words = {}
    if said.get(_THETA) is not None:
        words[names.theta] = said[_THETA]
    if said.get(_SHARE) is not None:
        words[names.share] = said[_SHARE]
    rest = {k: v for k, v in said.items() if k not in (_THETA, _SHARE, "type", "rope_type")}
    if kind == "default":
        return words | ({"rope_scaling": None} if names.scales else {})
    if kind in _TWO_KEYS:
        return words | {"rope_scaling": {"type": kind, "factor": rest.get("factor")}}
    if kind == "longrope":
        return words | _longrope(config, rest)
    _say_yarn(kind, config, rest, notes)
    return words | {"rope_scaling": {"rope_type": kind, **rest}}


def _longrope(config: Mapping[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """4 has the original length beside `rope_scaling`, and takes the factor from it."""
    length, original = config.get("max_position_embeddings"), config.get(_ORIGINAL) or rest.pop(_ORIGINAL, None)
    rest.pop(_ORIGINAL, None)
    beside = {_ORIGINAL: original} if original is not None else {}
    factor = rest.get("factor")
    if factor is not None and original and rest.get("attention_factor") is None and factor * original != length:
        raise Unsayable(f"a longrope factor {factor}; Transformers 4 takes {length} / {original} instead")
    if config.get("model_type") in _THREE_KEYS:
        rest.pop("factor", None)
        if strange := set(rest) - {"short_factor", "long_factor"}:
            raise Unsayable(
                f"longrope with {', '.join(sorted(strange))}, which Transformers 4 cannot say of this family"
            )
        return {"rope_scaling": {"type": "longrope", **rest}} | beside
    return {"rope_scaling": {"rope_type": "longrope", "type": "longrope", **rest}} | beside


def _say_yarn(kind: str, config: Mapping[str, Any], rest: Mapping[str, Any], notes: list[str]) -> None:
    original, length = rest.get(_ORIGINAL), config.get("max_position_embeddings")
    if kind == "yarn" and original not in (None, length):
        notes.append(
            f"early Transformers 4 (4.44 among them) take max_position_embeddings {length} for yarn's original length"
            f" {original}: the rotary embedding is another one there"
        )


def _kind(said: Mapping[str, Any]) -> str:
    return str(said.get("rope_type", said.get("type", "default")) or "default")


def _in_place(config: Mapping[str, Any], key: str, words: Mapping[str, Any]) -> dict[str, Any]:
    """The config with these keys where `key` stood."""
    changed: dict[str, Any] = {}
    for name, value in config.items():
        changed |= words if name == key else {} if name in words else {name: value}
    return changed
