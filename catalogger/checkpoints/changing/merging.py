"""Fit an adapter to its base: which tensor of the base gets which change.  An adapter of another base is refused here.

Headers alone decide; no weight is read, but to compare two tables that may be one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from catalogger.checkpoints.changing.adapter import Adapter, named
from catalogger.checkpoints.changing.factors import Factors, Parts, parts_of, require_every_target
from catalogger.checkpoints.changing.floats import FLOATS
from catalogger.checkpoints.changing.outputs import Delta, Output, Rows
from catalogger.checkpoints.changing.stored import Stored
from catalogger.checkpoints.changing.tables import EMBEDDINGS, HEADS, require_same_rows, untied
from catalogger.errors import AdapterRefused

_TURNED = {
    "gpt2": {"c_attn", "q_attn", "c_proj", "c_fc"},
    "decision_transformer": {"c_attn", "q_attn", "c_proj", "c_fc"},
    "imagegpt": {"c_attn", "q_attn", "c_proj", "c_fc"},
    "openai-gpt": {"c_attn", "c_proj", "c_fc"},
}
"""Model types whose layers of these names keep their weight as (in, out)."""


@dataclass
class Merged:
    """The outputs, grouped as the base's shards are; changes to the config; sentences for the user."""

    groups: list[list[Output]]
    config: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def merge(adapter: Adapter, groups: list[list[Stored]], config: Mapping[str, Any]) -> Merged:
    """The base's tensors with the adapter's changes.

    Raises AdapterRefused where names, shapes, ranks or the vocabulary do not fit the base.
    """
    parts = parts_of(adapter)
    base = {t.name: t for group in groups for t in group}
    tied = bool(config.get("tie_word_embeddings", not _head(base)))
    if tied and (head := _head(base)):  # a copy that Transformers does not read
        groups = [[t for t in group if t.name != head] for group in groups]
        del base[head]
    names = _Names(adapter, base, tied)
    _require_complete(adapter, parts, names)
    outputs = {t.name: Output(t.name, t.dtype, t) for t in base.values()}
    for name, whole in parts.whole.items():
        _put_whole(adapter, outputs, names, name, whole)
    merged = Merged([])
    if tied and untied(adapter, parts, outputs, base, names.of):
        merged.config["tie_word_embeddings"] = False
        merged.said.append("The adapter makes embedding and head differ, which were tied: the result has both.")
    for factors in parts.factors.values():
        _add(adapter, outputs, names.of(f"{factors.module}.weight"), factors, config)
    for module, (indices, values) in parts.rows.items():
        _put_rows(adapter, outputs, names.of(f"{module}.weight"), Rows(indices, values))
    require_same_rows(adapter, outputs, base, merged.config)
    merged.groups = [[outputs.pop(t.name) for t in group] for group in groups]
    merged.groups[-1] += outputs.values()
    return merged


class _Names:
    """Names of the adapter's model as names in the base's files, which may lack the first word, or have one more."""

    def __init__(self, adapter: Adapter, base: Mapping[str, Stored], tied: bool) -> None:
        self._adapter, self.base, self._tied = adapter, base, tied
        self._words = {name.partition(".")[0] for name in base}

    def of(self, name: str) -> str:
        """The name in the base.  Raises AdapterRefused where the base has no such tensor."""
        candidates = [name, name.partition(".")[2], *(f"{word}.{name}" for word in self._words)]
        if found := [c for c in candidates if c in self.base]:
            return found[0]
        if self._tied and name in HEADS:
            return name
        raise AdapterRefused(
            self._adapter.location,
            f'is for another base: it changes "{name}", which the base does not have',
            f'Its own config names "{self._adapter.config.get("base_model_name_or_path")}" as its base.',
        )


def _require_complete(adapter: Adapter, parts: Parts, names: _Names) -> None:
    known = {names.of(f"{m}.weight"): m for m in parts.factors}
    matrices = {n: known.get(n, n.removesuffix(".weight")) for n, t in names.base.items() if len(t.shape) == 2}
    require_every_target(adapter, parts, [m for n, m in matrices.items() if n.endswith(".weight")])


def _head(base: Mapping[str, Stored]) -> str | None:
    return next((name for name in HEADS if name in base), None)


def _put_whole(adapter: Adapter, outputs: dict[str, Output], names: _Names, name: str, whole: Stored) -> None:
    """A tensor in the place of another: of the same shape, but that tables may have another number of rows."""
    place = names.of(name)
    if place not in names.base:
        return  # a head that was tied: `untied` says what becomes of it
    was = names.base[place]
    resizable = place in HEADS or place.endswith(EMBEDDINGS)
    if was.shape != whole.shape and not (resizable and was.shape[1:] == whole.shape[1:]):
        raise _other_base(adapter, place, was.shape, f"the adapter's own is {list(whole.shape)}")
    _require_floats(adapter, was, whole)
    outputs[place] = Output(place, was.dtype, whole, between=was.dtype)


def _add(adapter: Adapter, outputs: dict[str, Output], name: str, factors: Factors, config: Mapping[str, Any]) -> None:
    output = outputs[name]
    _require_floats(adapter, output.source, factors.a, factors.b)
    inner, outer = factors.a.shape[1], factors.b.shape[0]
    turned = factors.table or _is_turned(adapter, factors, output.shape, config)
    if output.shape != ((inner, outer) if turned else (outer, inner)):
        raise _other_base(adapter, name, output.shape, f"the adapter's is {[outer, inner]}")
    delta = Delta(factors.a, factors.b, adapter.scale(factors.module), turned, rounded=factors.table)
    outputs[name] = replace(output, delta=delta)


def _is_turned(adapter: Adapter, factors: Factors, shape: tuple[int, ...], config: Mapping[str, Any]) -> bool:
    """Whether the weight is kept as (in, out), `fan_in_fan_out`: shapes and the model's type say it, not the setting,
    which PEFT mends too.
    """
    if factors.module.rpartition(".")[2] in _TURNED.get(str(config.get("model_type")), ()):
        return True
    said = bool(adapter.config.get("fan_in_fan_out"))
    if said and len(set(shape)) == 1:
        raise AdapterRefused(
            adapter.location,
            f'cannot be merged exactly: fan_in_fan_out over the square "{factors.module}" of a '
            f'"{config.get("model_type")}", which may be kept either way',
            "Merge it with PEFT, and give the merged model as the source.",
        )
    return said and shape == (factors.a.shape[1], factors.b.shape[0])


def _put_rows(adapter: Adapter, outputs: dict[str, Output], name: str, rows: Rows) -> None:
    output = outputs[name]
    _require_floats(adapter, output.source, rows.values)
    if output.shape[1:] != rows.values.shape[1:] or max(rows.indices, default=0) >= output.shape[0]:
        raise _other_base(adapter, name, output.shape, f"it has rows for tokens up to {max(rows.indices, default=0)}")
    outputs[name] = replace(output, rows=rows)


def _require_floats(adapter: Adapter, *tensors: Stored) -> None:
    if quantised := {t.name for t in tensors if t.dtype not in FLOATS}:
        kinds = named({t.dtype for t in tensors if t.dtype not in FLOATS})
        raise AdapterRefused(
            adapter.location,
            f"cannot be merged exactly: the weights are quantised ({named(quantised)} is {kinds})",
            "Give the base as it was before it was quantised: --base ORG/REPO.",
        )


def _other_base(adapter: Adapter, name: str, shape: tuple[int, ...], but: str) -> AdapterRefused:
    return AdapterRefused(
        adapter.location,
        f'is for another base: "{name}" is {list(shape)}, {but}',
        f'Its own config names "{adapter.config.get("base_model_name_or_path")}" as its base.',
    )
