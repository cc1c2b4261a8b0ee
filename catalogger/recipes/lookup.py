"""Find a recipe by name or by path, resolve `extends`, apply overrides, and say everything that is wrong with it at
once.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from catalogger.errors import RecipeInvalid, RecipeNotFound, UsageError
from catalogger.recipes.documents import (
    NOT_YAML,
    Loader,
    NotADocument,
    Place,
    Problem,
    key_of,
    line_of,
    parse,
    problems_of,
)
from catalogger.recipes.schema import Recipe

INLINE = "inline"
"""Name of a recipe that came without one, as keys and values."""
LIBRARY = Path(__file__).with_name("library")
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


def load_recipe(recipe: str | Mapping[str, Any], overrides: Sequence[str] = ()) -> NamedRecipe:
    """The recipe of this name, of this file when the name is a path, or with these keys and values.

    `overrides` are `key=value` or `key.key=value`, the value read as YAML.
    Raises RecipeNotFound, or RecipeInvalid with every problem of the file.
    """
    if isinstance(recipe, str):
        name, path = recipe, _path_of(recipe)
        stem, (data, lines) = path.stem, _parsed(_text_of(path, name), name)
    else:
        name = stem = INLINE
        data, lines = copy.deepcopy(dict(recipe)), {}
    parent = data.pop("extends", None)
    if parent is not None:
        data = _merged(_parent(parent, name, lines), data)
    problems: list[Problem] = []
    for override in overrides:
        _override(data, override, problems)
    try:
        valid = Recipe.model_validate(data)
    except ValidationError as error:
        problems += [(line_of(lines, at), key_of(at), said) for at, said in problems_of(error, Recipe)]
        raise RecipeInvalid(name, sorted(problems, key=lambda p: p[0] or 0)) from None
    if problems:
        raise RecipeInvalid(name, problems)
    return NamedRecipe(stem, name, valid)


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


def _parsed(text: str, name: str) -> tuple[dict[str, Any], dict[Place, int]]:
    try:
        return parse(text)
    except NotADocument as error:
        raise RecipeInvalid(name, error.problems) from error


def _parent(parent: object, name: str, lines: Mapping[Place, int]) -> dict[str, Any]:
    line = lines.get(("extends",))
    if not isinstance(parent, str) or parent not in library():
        near = difflib.get_close_matches(str(parent), library(), n=1, cutoff=0.5)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise RecipeInvalid(name, [(line, "extends", f'"{parent}" is no recipe of catalogger{hint}')])
    data, _ = _parsed(library()[parent].read_text(encoding="utf-8"), parent)
    if "extends" in data:
        raise RecipeInvalid(name, [(line, "extends", f'"{parent}" extends another recipe itself; one level only')])
    return data


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _override(data: dict[str, Any], override: str, problems: list[Problem]) -> None:
    key, equals, text = override.partition("=")
    keys = key.split(".")
    if not equals or not all(keys):
        problems.append((None, override, "an override is written key=value or key.key=value"))
        return
    try:
        value = yaml.load(text, Loader)  # noqa: S506  a SafeLoader
    except NOT_YAML:
        problems.append((None, key, f'"{text}" is not YAML'))
        return
    for part in keys[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            problems.append((None, key, f'"{part}" holds a value, not keys'))
            return
    data[keys[-1]] = value
