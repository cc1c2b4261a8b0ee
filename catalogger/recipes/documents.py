"""YAML that a person writes: plain data, the line of every key, and a sentence for everything that is wrong with it.

No aliases (a page of text needs none, and they can blow up a small file), and no key twice.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""
Problem = tuple[int | None, str, str]
"""Line, key, and what is wrong with it."""
NOT_YAML = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, RecursionError, OverflowError)
"""What PyYAML raises for text that is no YAML, or for a value that is not of the type that its tag says."""


class NotADocument(ValueError):
    """Text that holds no mapping of keys to values."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(text for _, _, text in problems))


class Loader(yaml.SafeLoader):
    """Plain YAML data without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


def parse(text: str) -> tuple[dict[str, Any], dict[Place, int]]:
    """The mapping that the text holds, and the line of every key and item.  Raises NotADocument."""
    loader = None
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise NotADocument([(1, "", "is not a mapping of keys to values")])
        lines: dict[Place, int] = {}
        twice: list[Problem] = []
        _walk(node, (), lines, twice)
        if twice:
            raise NotADocument(twice)
        data: dict[str, Any] = loader.construct_document(node)
        return data, lines
    except NotADocument:
        raise
    except NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise NotADocument([(mark.line + 1 if mark else None, "", f"is not YAML: {reason}")]) from error
    finally:
        if loader:
            loader.dispose()


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[tuple[Place, str]]:
    """Where each problem is, and a sentence about it."""
    return [(e["loc"], _sentence(e, model)) for e in error.errors()]


def line_of(lines: Mapping[Place, int], at: Place) -> int | None:
    """The line of the value, or of the nearest that holds it."""
    while at:
        if at in lines:
            return lines[at]
        at = at[:-1]
    return None


def key_of(at: Place) -> str:
    """The keys with dots between them."""
    return ".".join(str(part) for part in at)


def _walk(node: yaml.Node, at: Place, lines: dict[Place, int], twice: list[Problem]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*at, str(key.value))
            if where in lines:
                twice.append((key.start_mark.line + 1, key_of(where), "is there twice"))
            lines[where] = key.start_mark.line + 1
            _walk(value, where, lines, twice)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*at, index)] = value.start_mark.line + 1
            _walk(value, (*at, index), lines, twice)


def _sentence(error: Any, model: type[BaseModel]) -> str:
    match error["type"]:
        case "extra_forbidden":
            *parents, key = error["loc"]
            near = difflib.get_close_matches(str(key), _fields(model, parents), n=1)
            return f'unknown key; did you mean "{near[0]}"?' if near else "unknown key"
        case "missing":
            return "is missing"
        case "value_error":
            return str(error["ctx"]["error"])
        case _:
            return f"{error['msg']}, not {_shown(error['input'])}"


def _fields(model: type[BaseModel], parents: Sequence[str | int]) -> list[str]:
    """The keys that the schema knows below these."""
    for part in parents:
        if part in model.model_fields:
            below = list(_models(model.model_fields[str(part)].annotation))
            if not below:
                return []
            model = below[0]
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list
        return "a value too large to show"
    return text if len(text) <= 100 else f"{text[:100]}…"
