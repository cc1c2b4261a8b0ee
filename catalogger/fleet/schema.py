"""The JSON Schemas of manifest and recipe, by which editors complete and check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from catalogger.fleet.manifest import SHORT, Manifest
from catalogger.recipes import Recipe, library

Subject = Literal["manifest", "recipe"]
SHIPPED = Path(__file__).parents[1] / "schemas"
"""The folder that holds both as files."""
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(subject: Subject) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a `manifest` or of a `recipe` file."""
    if subject == "recipe":
        return {"$schema": _DIALECT, **_recipe()}
    document = Manifest.model_json_schema(by_alias=False)
    recipe = _recipe()
    definitions = {**document.pop("$defs"), **recipe.pop("$defs"), "Recipe": recipe}
    for name in ("Options", "Entry"):
        _with_short_keys(definitions[name])
    definitions["Entry"]["properties"]["recipe"]["anyOf"] = [{"type": "string"}, {"$ref": "#/$defs/Recipe"}]
    return {"$schema": _DIALECT, **document, "$defs": dict(sorted(definitions.items()))}


def shipped(subject: Subject) -> Path:
    """The file of the schema in the distribution."""
    return SHIPPED / f"{subject}.schema.json"


def written(subject: Subject) -> str:
    """The schema as its file has it."""
    return json.dumps(schema(subject), indent=2, ensure_ascii=False) + "\n"


def _recipe() -> dict[str, Any]:
    """The schema of a recipe, which may extend one of catalogger's and then say only what differs."""
    document = Recipe.model_json_schema()
    required = document.pop("required")
    extends = {"enum": list(library()), "description": "A recipe of catalogger; this one says what differs."}
    document["properties"] = {"extends": extends, **document["properties"]}
    document["anyOf"] = [{"required": ["extends"]}, {"required": required}]
    return document


def _with_short_keys(options: dict[str, Any]) -> None:
    """The names of the options, as `alias` and `tag`, stand for `aliases` and `tags`; `deploy` may be true."""
    properties = options["properties"]
    properties |= {key: properties[name] for key, name in SHORT.items()}
    properties["deploy"] = {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/Deploy"}, {"type": "null"}]}
    properties["tags"]["additionalProperties"] = {"type": ["string", "number", "boolean"]}


if __name__ == "__main__":
    for one in get_args(Subject):
        shipped(one).write_text(written(one), encoding="utf-8")
