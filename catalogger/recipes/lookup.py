"""Find a recipe by name or by path, resolve `extends`, apply overrides, and say everything that is wrong with it at
once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from catalogger.errors import RecipeInvalid, RecipeNotFound, UsageError
from catalogger.recipes.schema import Recipe

LIBRARY = Path(__file__).with_name("library")
NOT_YAML = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, RecursionError, OverflowError)
"""What PyYAML raises for text that is no YAML, or for a value that is not of the type that its tag says."""
_LARGEST = 64 * 1024  # bytes; a recipe is a page of text, anything larger is something else


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe with the name that it is called by and the file that it came from."""

    name: str
    file: str
    recipe: Recipe

    def published(self) -> str:
        """The recipe's own source, `ORG/REPO[@REVISION]`.  Raises UsageError where it is for anybody's checkpoint."""
        source = self.recipe.source
        if source is None:
            raise UsageError(
                f'The recipe "{self.name}" is for checkpoints of your own and names no source.',
                "Add --source ORG/REPO, or --source ./folder.",
            )
        return f"{source.repo}@{source.revision}" if source.revision else source.repo


@cache
def library() -> Mapping[str, Path]:
    """Every recipe that ships with catalogger: the list of recipes is the list of files."""
    return {path.stem: path for path in sorted(LIBRARY.rglob("*.yaml"), key=lambda path: path.stem)}


def load_recipe(name: str, overrides: Sequence[str] = ()) -> NamedRecipe:
    """The recipe of this name, or of this file when the name is a path.

    `overrides` are `key=value` or `key.key=value`, the value read as YAML.
    Raises RecipeNotFound, or RecipeInvalid with every problem of the file.
    """
    path = _path_of(name)
    text = _text_of(path, name)
    data, lines = _parse(text, name)
    parent = data.pop("extends", None)
    if parent is not None:
        data = _merged(_parent(parent, name, lines), data)
    problems: list[tuple[int | None, str, str]] = []
    for override in overrides:
        _override(data, override, problems)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += [(_line(lines, e["loc"]), _key(e["loc"]), _sentence(e)) for e in error.errors()]
        raise RecipeInvalid(name, sorted(problems, key=lambda p: p[0] or 0)) from None
    if problems:
        raise RecipeInvalid(name, problems)
    return NamedRecipe(path.stem, name, recipe)


def all_recipes() -> Iterator[NamedRecipe]:
    """Every recipe that ships with catalogger, by name."""
    return (load_recipe(name) for name in library())


def _path_of(name: str) -> Path:
    if name in library():
        return library()[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        with suppress(OSError):  # a name that the system takes for none
            if path.is_file():
                return path
        raise RecipeInvalid(name, [(None, "", "there is no such file")])
    raise RecipeNotFound(name, list(library()), difflib.get_close_matches(name.lower(), library(), n=3, cutoff=0.5))


def _text_of(path: Path, name: str) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise RecipeInvalid(name, [(None, "", f"is larger than {_LARGEST // 1024} KiB, so it is no recipe")])
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeInvalid(name, [(None, "", f"cannot be read: {error}")]) from error


class _Loader(yaml.SafeLoader):
    """Plain YAML data without aliases (a recipe needs none, and they can blow up a small file)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


def _parse(text: str, name: str) -> tuple[dict[str, Any], dict[tuple[str | int, ...], int]]:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise RecipeInvalid(name, [(1, "", "is not a mapping of keys to values")])
        lines: dict[tuple[str | int, ...], int] = {}
        twice: list[tuple[int | None, str, str]] = []
        _walk(node, (), lines, twice)
        if twice:
            raise RecipeInvalid(name, twice)
        data: dict[str, Any] = loader.construct_document(node)
        return data, lines
    except NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error)
        raise RecipeInvalid(name, [(mark.line + 1 if mark else None, "", f"is not YAML: {reason}")]) from error
    finally:
        if loader:
            loader.dispose()


def _walk(
    node: yaml.Node,
    at: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    twice: list[tuple[int | None, str, str]],
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*at, str(key.value))
            if where in lines:
                twice.append((key.start_mark.line + 1, _key(where), "is there twice"))
            lines[where] = key.start_mark.line + 1
            _walk(value, where, lines, twice)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*at, index)] = value.start_mark.line + 1
            _walk(value, (*at, index), lines, twice)


def _parent(parent: object, name: str, lines: Mapping[tuple[str | int, ...], int]) -> dict[str, Any]:
    line = lines.get(("extends",))
    if not isinstance(parent, str) or parent not in library():
        near = difflib.get_close_matches(str(parent), library(), n=1, cutoff=0.5)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise RecipeInvalid(name, [(line, "extends", f'"{parent}" is no recipe of catalogger{hint}')])
    data, _ = _parse(library()[parent].read_text(encoding="utf-8"), parent)
    if "extends" in data:
        raise RecipeInvalid(name, [(line, "extends", f'"{parent}" extends another recipe itself; one level only')])
    return data


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _override(data: dict[str, Any], override: str, problems: list[tuple[int | None, str, str]]) -> None:
    key, equals, text = override.partition("=")
    keys = key.split(".")
    if not equals or not all(keys):
        problems.append((None, override, "an override is written key=value or key.key=value"))
        return
    try:
        value = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except NOT_YAML:
        problems.append((None, key, f'"{text}" is not YAML'))
        return
    for part in keys[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            problems.append((None, key, f'"{part}" holds a value, not keys'))
            return
    data[keys[-1]] = value


def _line(lines: Mapping[tuple[str | int, ...], int], at: tuple[str | int, ...]) -> int | None:
    while at:
        if at in lines:
            return lines[at]
        at = at[:-1]
    return None


def _key(at: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in at)


def _sentence(error: Any) -> str:
    match error["type"]:
        case "extra_forbidden":
            *parents, key = (str(part) for part in error["loc"])
            near = difflib.get_close_matches(key, _fields(parents), n=1)
            return f'unknown key; did you mean "{near[0]}"?' if near else "unknown key"
        case "missing":
            return "is missing"
        case "value_error":
            return str(error["ctx"]["error"])
        case _:
            return f"{error['msg']}, not {_shown(error['input'])}"


def _fields(parents: Sequence[str]) -> list[str]:
    """The keys that the schema knows below these."""
    if not parents:
        return list(Recipe.model_fields)
    annotation = Recipe.model_fields[parents[0]].annotation
    return [name for part in get_args(annotation) for name in getattr(part, "model_fields", ())]


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in a list in a list
        return "a value too large to show"
    return text if len(text) <= 100 else f"{text[:100]}…"
