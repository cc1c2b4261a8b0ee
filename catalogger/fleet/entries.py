"""One manifest file to its entries: variables, defaults, what each asks for, and everything that is wrong with it.

A manifest is untrusted: it reaches no file outside its folder but the sources that it names by absolute path, and no
variable of the environment but those that are meant for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, ValidationError

from catalogger.checkpoints.changing.adapter import is_adapter
from catalogger.errors import CataloggerError, NameInvalid, RecipeInvalid
from catalogger.fleet.manifest import SHORT, Entry, Manifest, Options
from catalogger.notebook import FROM_ENVIRONMENT
from catalogger.recipes import NamedRecipe, load_recipe
from catalogger.recipes.documents import Place, key_of, line_of, problems_of
from catalogger.recipes.lookup import library
from catalogger.validators import check_alias, check_name, default_name

_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)(?=\{)|\{(?P<name>[^{}]*)\})")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Wrong = tuple[str, int | None, str, str]
"""File, line, key, and what is wrong with it."""


@dataclass(frozen=True)
class Wanted:
    """One entry, checked as far as it can be without its source; `at` is its file and line."""

    name: str
    recipe: NamedRecipe
    asked: str | Mapping[str, Any]
    source: str
    entry: Entry
    at: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What is to be done to the weights: arguments of `log_model`."""

    @property
    def changed(self) -> bool:
        """Whether something is done to the weights, so that what the source holds is not what is registered."""
        return any(value is not None for value in self.changes.values()) or is_adapter(Path(self.source).expanduser())

    def options(self) -> dict[str, Any]:
        """The arguments of `log_model`."""
        entry = self.entry
        return {
            "recipe": self.asked,
            "source": self.source,
            "name": self.name,
            "tags": entry.tags,
            "weights": entry.weights,
            "overrides": list(entry.set),
            "trust_remote_code": entry.trust_remote_code,
            "allow_pickle": entry.allow_pickle,
            "ignore": list(entry.ignore),
            "rehash": entry.rehash,
            "prove": entry.prove,
            "upload": entry.upload,
            "tracking": entry.tracking,
            "stream": entry.stream,
            "written_for": entry.written_for,
            "normalize": entry.normalize,
            **self.changes,
        }


@dataclass(frozen=True)
class Consent:
    """What the command agrees to, and a manifest alone may not: it may come from somebody else."""

    remote_code: bool = False
    pickle: bool = False


@dataclass
class Page:
    """One file: its data, the line of every key, and what was found in it.

    given: variables of the command.  used: every variable that was put in, with its value.
    """

    file: Path
    data: dict[str, Any]
    lines: dict[Place, int]
    given: Mapping[str, str]
    consent: Consent
    found: list[Wanted] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)

    def fill(self, variables: Mapping[str, Any]) -> None:
        """Put the values of the variables in, everywhere but in their own table."""
        for key in self.data.keys() - {"variables"}:
            self.data[key] = self._filled(self.data[key], (key,), variables)

    def check(self) -> None:
        """Unknown keys of the file itself, and values that are no lists or mappings; entries are looked at later."""
        shell = {**self.data, "models": [], "defaults": {}}
        self._valid(Manifest, shell, lambda at: at)
        models = self.data.get("models", [])
        if not isinstance(models, list):
            self._say(("models",), "is no list of entries")
        elif not models and not self.data.get("include"):
            self._say(("models",), "holds no entry")

    def defaults(self, outer: Options) -> Options:
        """The options of every entry of this file: its own over those of the file that includes it."""
        own = self.data.get("defaults") or {}
        if not isinstance(own, dict):
            self._say(("defaults",), "is not a mapping of keys to values")
            return outer
        found = self._valid(Options, _over(outer, own), lambda at: ("defaults", *at))
        return found if isinstance(found, Options) else outer

    def entries(self, defaults: Options) -> None:
        """Look at every entry."""
        models = self.data.get("models")
        for index, data in enumerate(models if isinstance(models, list) else ()):
            if not isinstance(data, dict):
                self._say(("models", index), "is not a mapping of keys to values")
                continue
            entry = self._valid(Entry, _over(defaults, data), lambda at, index=index: ("models", index, *at))
            if isinstance(entry, Entry):
                self._add(entry, ("models", index))

    def included(self) -> list[Path]:
        """The files that this one includes, by name."""
        found: list[Path] = []
        said = self.data.get("include") or ()
        for index, pattern in enumerate((said,) if isinstance(said, str) else said):
            at: Place = ("include", index) if isinstance(said, list) else ("include",)
            if problem := _leaves(str(pattern)):
                self._say(at, problem)
                continue
            files = sorted(self.file.parent.glob(str(pattern)))
            if not files:
                self._say(at, f'"{pattern}" names no file')
            found += [f for f in files if self._inside(f, at)]
        return found

    def _add(self, entry: Entry, at: Place) -> None:
        """Look at what needs no source: recipe, name, aliases, consent."""
        before = len(self.wrong)
        asked = self._recipe(entry, at)
        name, recipe = entry.name, None
        source, adapter, base = (self._beside(getattr(entry, key), (*at, key)) for key in ("source", "adapter", "base"))
        if source is None and adapter not in (None, "none"):
            source, adapter = adapter, None  # whose own base is taken
        changes = {"adapter": adapter, "base": base, "checkpoint": entry.checkpoint, "dtype": entry.dtype}
        changes["max_shard_size"] = entry.max_shard_size
        try:
            recipe = load_recipe(asked, entry.set) if asked is not None else None
            if recipe is not None:
                name = check_name(name if name is not None else default_name(recipe.name))
                source = source if source is not None else recipe.published()
        except RecipeInvalid as error:
            for line, key, text in error.problems:
                self._say((*at, "recipe"), f"{f'line {line}: ' if line else ''}{key}{': ' if key else ''}{text}")
        except CataloggerError as error:
            key = "name" if isinstance(error, NameInvalid) else "recipe"
            self._say((*at, key), str(error).replace("\n", " "))
        self._check_aliases(entry, at)
        self._check_consent(entry, at)
        if recipe is not None and name is not None and asked is not None and len(self.wrong) == before:
            where = f"{self.file}:{line_of(self.lines, at)}"
            self.found.append(Wanted(name, recipe, asked, str(source), entry, where, changes))

    def _beside(self, source: str | None, at: Place) -> str | None:
        """A relative folder as it stands beside the manifest; everything else as it is."""
        if source is None or not source.startswith("."):
            return source
        if problem := _leaves(source):
            self._say(at, problem)
        return str(self.file.parent.absolute() / source)

    def _recipe(self, entry: Entry, at: Place) -> str | Mapping[str, Any] | None:
        """The recipe as `load_recipe` takes it; None where it cannot be looked for."""
        recipe = entry.recipe
        if not isinstance(recipe, str) or recipe in library() or not _is_path(recipe):
            return dict(recipe) if isinstance(recipe, dict) else str(recipe)
        if problem := _leaves(recipe):
            self._say((*at, "recipe"), problem)
            return None
        file = self.file.parent.absolute() / recipe
        return str(file) if self._inside(file, (*at, "recipe")) else None

    def _check_aliases(self, entry: Entry, at: Place) -> None:
        for alias in entry.aliases:
            try:
                check_alias(alias)
            except NameInvalid as error:
                self._say((*at, "alias"), str(error).replace("\n", " "))

    def _check_consent(self, entry: Entry, at: Place) -> None:
        consent = self.consent
        if entry.trust_remote_code and not consent.remote_code:
            self._say((*at, "trust_remote_code"), "the command has to consent too: --trust-remote-code")
        if entry.allow_pickle and not consent.pickle:
            self._say((*at, "allow_pickle"), "the command has to agree too: --allow-pickle")

    def _inside(self, file: Path, at: Place) -> bool:
        """Whether the file is below the manifest's folder, links followed."""
        if file.resolve().is_relative_to(self.file.parent.resolve()):
            return True
        self._say(at, f'"{file.name}" leads out of the manifest\'s folder')
        return False

    def _filled(self, value: Any, at: Place, variables: Mapping[str, Any]) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(one, (*at, key), variables) for key, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one, (*at, index), variables) for index, one in enumerate(value)]
        if not isinstance(value, str):
            return value

        def put(found: re.Match[str]) -> str:
            return "$" if found["escaped"] else self._value(found["name"], at, variables)

        return _VARIABLE.sub(put, value)

    def _value(self, name: str, at: Place, variables: Mapping[str, Any]) -> str:
        said = self.given.get(name, os.environ.get(f"{FROM_ENVIRONMENT}{name}", variables.get(name)))
        if said is None or not _IDENTIFIER.fullmatch(name):
            self._say(at, f"${{{name}}} is not set; --var {name}=… or {FROM_ENVIRONMENT}{name} set it")
            return ""
        text = str(said).lower() if isinstance(said, bool) else str(said)
        self.used[name] = text
        return text

    def _valid(self, model: type[BaseModel], data: dict[str, Any], placed: Any) -> BaseModel | None:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for at, text in problems_of(error, model):
                self._say(self._known(placed(at)), text)
            return None

    def _known(self, at: Place) -> Place:
        """The place in this file: what an entry does not say itself comes from the defaults."""
        own, shared = self._as_written(at), self._as_written(("defaults", *at[2:]))
        if at and at[0] == "models" and own[:3] not in self.lines and shared[:2] in self.lines:
            return shared
        return own

    def _as_written(self, at: Place) -> Place:
        """The place by the spelling of its key that this file has."""
        depth = 1 if at[:1] == ("defaults",) else 2
        shorter = ((*at[:depth], key) for key, name in SHORT.items() if at[depth : depth + 1] == (name,))
        return next(((*place, *at[depth + 1 :]) for place in shorter if place in self.lines), at)

    def _say(self, at: Place, text: str) -> None:
        wrong = (str(self.file), line_of(self.lines, at), key_of(at), text)
        if wrong not in self.wrong:
            self.wrong.append(wrong)


def _over(defaults: Options, own: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's own keys over the defaults; tags are joined."""
    spelled = {SHORT.get(key, key): value for key, value in own.items()}
    twice = len(spelled) < len(own)
    base = defaults.model_dump(exclude_unset=True, by_alias=False)
    tags = spelled.get("tags")
    if isinstance(tags, dict) and base.get("tags"):
        spelled["tags"] = {**base["tags"], **tags}
    return {**base, **(own if twice else spelled)}


def _is_path(recipe: str) -> bool:
    return "/" in recipe or recipe.endswith((".yaml", ".yml"))


def _leaves(path: str) -> str | None:
    """What is wrong with a path that is to stay beside the manifest."""
    if PurePath(path).is_absolute() or path.startswith("~"):
        return f'"{path}" is to be relative to the manifest'
    return f'"{path}" leads out of the manifest\'s folder' if ".." in PurePath(path).parts else None
