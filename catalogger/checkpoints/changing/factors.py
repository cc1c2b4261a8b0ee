"""What the tensors of an adapter are for: factors of a product, whole tensors in another's place, rows of a table.

By their names alone; the base is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from catalogger.checkpoints.changing.adapter import Adapter, named
from catalogger.checkpoints.changing.stored import Stored
from catalogger.errors import AdapterRefused

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<table>embedding_)?(?P<half>[AB])(\.default)?(\.weight)?")
_ROWS = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta(\.default)?")
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)")
_ORIGINAL = re.compile(r"\.original_module(?=\.)")
_PREFIX = "base_model.model."
_FOREIGN = ("lora_", "_adapter.", "lokr_", "hada_", "ia3_", "vera_", "oft_")


@dataclass
class Factors:
    """The two halves of one module's product; `table` where the module is an embedding."""

    module: str
    table: bool
    a: Stored
    b: Stored


@dataclass
class Parts:
    """All of an adapter: products and rows by their module, whole tensors by their name in the model."""

    factors: dict[str, Factors] = field(default_factory=dict)
    rows: dict[str, tuple[tuple[int, ...], Stored]] = field(default_factory=dict)
    whole: dict[str, Stored] = field(default_factory=dict)

    @property
    def modules(self) -> set[str]:
        """The modules that anything is for."""
        return {*self.factors, *self.rows, *(name.rpartition(".")[0] for name in self.whole)}


def parts_of(adapter: Adapter) -> Parts:
    """Sort the adapter's tensors.  Raises AdapterRefused where a half is missing, or a kind is not known."""
    parts, halves = Parts(), dict[tuple[str, bool], dict[str, Stored]]()
    for key, tensor in adapter.tensors.items():
        name = key.removeprefix(_PREFIX)
        if found := _FACTOR.fullmatch(name):
            halves.setdefault((found["module"], bool(found["table"])), {})[found["half"]] = tensor
        elif found := _ROWS.fullmatch(name):
            parts.rows[found["module"]] = (_indices(adapter, found["module"], tensor), tensor)
        elif any(sign in name for sign in _FOREIGN):
            raise AdapterRefused(adapter.location, f'holds a tensor of a kind that is not known: "{key}"')
        elif _ORIGINAL.search(name):  # the base's own table, saved where it was resized; a trained copy goes before it
            parts.whole.setdefault(_ORIGINAL.sub("", name), tensor)
        else:
            parts.whole[_WRAPPED.sub("", name)] = tensor
    lone = {f"{module}.lora_{'B' if 'A' in held else 'A'}" for (module, _), held in halves.items() if len(held) < 2}
    if lone:
        raise AdapterRefused(adapter.location, f"is half an adapter: it has no {named(lone)}")
    for (module, table), held in halves.items():
        parts.factors[module] = Factors(module, table, held["A"], held["B"])
        _require_rank(adapter, parts.factors[module])
    _require_saved(adapter, parts)
    return parts


def require_every_target(adapter: Adapter, parts: Parts, matrices: Iterable[str]) -> None:
    """Raises AdapterRefused where modules that the config names are in the base, and have no factors: half an adapter.

    `matrices` are the base's modules of two dimensions, named as the adapter names them.
    """
    targets = adapter.config.get("target_modules")
    missing = {m for m in matrices if _targeted(adapter, targets, m)} - set(parts.factors)
    if missing:
        raise AdapterRefused(adapter.location, f"is half an adapter: it has no factors for {named(missing)}")


def _targeted(adapter: Adapter, targets: object, module: str) -> bool:
    """PEFT's own rule, for the forms that name modules."""
    config = adapter.config
    if adapter.saves(module) or _matches(config.get("exclude_modules"), module) or not _matches(targets, module):
        return False
    if (chosen := config.get("layers_to_transform")) in (None, []) or isinstance(targets, str):
        return True
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if found := re.match(rf".*\.{pattern}\.(\d+)\.", module):
            return int(found[1]) in ([chosen] if isinstance(chosen, int) else chosen)
    return False


def _matches(names: object, module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return isinstance(names, list) and any(module == n or module.endswith(f".{n}") for n in names)


def _require_rank(adapter: Adapter, factors: Factors) -> None:
    a, b, rank = factors.a.shape, factors.b.shape, adapter.rank(factors.module)
    if len(a) != 2 or len(b) != 2 or not a[0] == b[1] == rank:
        raise AdapterRefused(
            adapter.location,
            f'has rank and shapes that disagree: "{factors.module}" has rank {rank}, A {list(a)} and B {list(b)}',
            "Is the config of another training beside the weights?",
        )


def _require_saved(adapter: Adapter, parts: Parts) -> None:
    saved = {name.rpartition(".")[0] for name in parts.whole}
    for wanted in adapter.config.get("modules_to_save") or ():
        if not any(f".{wanted}." in f".{module}." for module in saved):
            raise AdapterRefused(adapter.location, f'is half an adapter: its module_to_save "{wanted}" has no weights')


def _indices(adapter: Adapter, module: str, values: Stored) -> tuple[int, ...]:
    said = adapter.config.get("trainable_token_indices")
    if isinstance(said, dict):
        said = next((v for name, v in said.items() if module == name or module.endswith(f".{name}")), None)
    if not isinstance(said, list) or len(values.shape) != 2 or len(said) != values.shape[0]:
        raise AdapterRefused(adapter.location, f'does not say which tokens the rows of "{module}" are for')
    return tuple(int(n) for n in said)
