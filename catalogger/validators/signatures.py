"""The signatures that MLflow writes for each task, as they were recorded: how another one differs, what fits them.

Which MLflow writes which of them is said in `mlflow_versions`.  Found signatures and payloads may be anything at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("signatures")
_PLAIN: Mapping[str, tuple[type, ...]] = {"string": (str,), "boolean": (bool,), "long": (int,), "double": (int, float)}

Columns = Sequence[Mapping[str, Any]]
"""One side of a signature: a mapping with `type`, mostly `name` and `required`, and what is inside of the type."""


@dataclass(frozen=True)
class Signature:
    """A recorded signature; `params` is always null."""

    inputs: Columns
    outputs: Columns


@cache
def recorded(name: str) -> Signature:
    """The recorded signature of this name, such as `CHAT-D`."""
    data = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Signature(data["inputs"], data["outputs"])


def columns(said: object) -> Columns | None:
    """One side of a signature as MLmodel says it, which is JSON in a string; None where it is no such thing."""
    if not isinstance(said, str):
        return None
    try:
        data = json.loads(said)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, list) and all(isinstance(column, dict) for column in data) else None


def differences(found: Columns, wanted: Columns) -> list[str]:
    """What is other in the columns that were found, field by field."""
    mine, theirs = _by_name(found), _by_name(wanted)
    lines = list(_unlike_fields(mine, theirs, ""))
    if not lines and len(mine) < len(found):
        lines.append("a field is there twice")
    if not lines and list(mine) != list(theirs):
        lines.append("the fields are in another order")
    return lines


def misfits(payload: Mapping[str, Any], inputs: Columns) -> Iterator[str]:
    """Why a request of this content would be refused."""
    yield from _misfit_fields(payload, {column["name"]: column for column in inputs}, "")


def _by_name(side: Columns) -> dict[str, Mapping[str, Any]]:
    """The columns by name; one without a name by its place."""
    names = [column.get("name") for column in side]
    return {
        name if isinstance(name, str) else f"#{place}": column
        for place, (name, column) in enumerate(zip(names, side, strict=True), 1)
    }


def _unlike_fields(mine: Mapping[str, Any], theirs: Mapping[str, Any], at: str) -> Iterator[str]:
    yield from (f'"{at}{name}" is missing' for name in theirs if name not in mine)
    extra = (json.dumps(f"{at}{name}"[:80]) for name in mine if name not in theirs)
    yield from (f"{name} is more than MLflow writes" for name in extra)
    for name, wanted in theirs.items():
        if name in mine:
            yield from _unlike(mine[name], wanted, f"{at}{name}")


def _unlike(found: object, wanted: Mapping[str, Any], at: str) -> Iterator[str]:
    """Goes no deeper than what is wanted."""
    kind = wanted["type"]
    if not isinstance(found, dict) or found.get("type") != kind:
        said = found.get("type") if isinstance(found, dict) else None
        yield f'"{at}" is {said if isinstance(said, str) and said.isalpha() else "of no type"} instead of {kind}'
        return
    if (required := found.get("required", True) is True) != _required(wanted):
        yield f'"{at}" is {"required" if required else "optional"} instead of {_need(wanted)}'
    if kind == "array":
        yield from _unlike(found.get("items"), wanted["items"], f"{at}[]")
    elif kind == "map":
        yield from _unlike(found.get("values"), wanted["values"], f"{at}{{}}")
    elif kind == "object":
        inner = found.get("properties")
        yield from _unlike_fields(inner if isinstance(inner, dict) else {}, wanted["properties"], f"{at}.")
    elif kind == "tensor" and found.get("tensor-spec") != wanted["tensor-spec"]:
        yield f'"{at}" is a tensor of another dtype or shape'


def _misfit_fields(payload: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]], at: str) -> Iterator[str]:
    for name, wanted in fields.items():
        if payload.get(name) is not None:
            yield from _misfit(payload[name], wanted, f"{at}{name}")
        elif _required(wanted):
            yield f'"{at}{name}" is missing'


def _misfit(value: object, wanted: Mapping[str, Any], at: str) -> Iterator[str]:
    """Goes no deeper than what is wanted."""
    kind = wanted["type"]
    if kind == "array" and isinstance(value, list):
        for place, item in enumerate(value):
            yield from _misfit(item, wanted["items"], f"{at}[{place}]")
    elif kind == "map" and isinstance(value, dict):
        for name, item in value.items():
            yield from _misfit(item, wanted["values"], f"{at}.{name}")
    elif kind == "object" and isinstance(value, dict):
        yield from _misfit_fields(value, wanted["properties"], f"{at}.")
    elif kind != "any" and not _is_plain(value, kind):
        yield f'"{at}" is {json.dumps(value)[:40]}, not {_words(wanted)}'


def _is_plain(value: object, kind: str) -> bool:
    return isinstance(value, _PLAIN.get(kind, ())) and (kind == "boolean" or not isinstance(value, bool))


def _words(wanted: Mapping[str, Any]) -> str:
    kind = str(wanted["type"])
    return f"array<{wanted['items']['type']}>" if kind == "array" else kind


def _required(wanted: Mapping[str, Any]) -> bool:
    return bool(wanted.get("required", True))


def _need(wanted: Mapping[str, Any]) -> str:
    return "required" if _required(wanted) else "optional"
