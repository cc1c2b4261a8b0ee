"""`log-model recipes`: what there is, and one recipe whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalogger.cli.options import OUTPUT
from catalogger.cli.output import emit
from catalogger.errors import human

if TYPE_CHECKING:
    from catalogger.recipes import NamedRecipe

_TITLES = {"llm/v1/chat": "Chat", "llm/v1/completions": "Completions", "llm/v1/embeddings": "Embeddings"}


@click.command("recipes")
@click.argument("name", required=False)
@OUTPUT
def command(name: str | None, output: str) -> None:
    """List the recipes by task, or show NAME whole with the command to run."""
    from catalogger.recipes import all_recipes, load_recipe

    if name is None:
        listed = sorted(all_recipes(), key=lambda r: (list(_TITLES).index(r.recipe.task), r.name))
        if output == "json":
            emit({"recipes": [{"name": r.name, **r.recipe.model_dump(mode="json", exclude_none=True)} for r in listed]})
        else:
            click.echo(table(listed))
        return
    one = load_recipe(name)
    if output == "json":
        emit({"name": one.name, **one.recipe.model_dump(mode="json", exclude_none=True)})
    else:
        click.echo(whole(one))


def table(listed: Sequence[NamedRecipe]) -> str:
    """The recipes as text, a block for each task."""
    rows = [(r.name, _source(r), _size(r), _licence_id(r), _needs(r)) for r in listed]
    head = ("recipe", "source", "weights", "licence", "needs")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for task, title in _TITLES.items():
        lines += ["", f"{title} ({task})", _line(head, widths)]
        lines += [_line(row, widths) for row, r in zip(rows, listed, strict=True) if r.recipe.task == task]
    return "\n".join(lines[1:])


def whole(one: NamedRecipe) -> str:
    """One recipe: its facts, its file, and the exact command."""
    recipe, embedding = one.recipe, one.recipe.embedding
    facts = [
        ("summary", recipe.summary),
        ("task", recipe.task),
        ("source", _source(one)),
        ("architecture", " or ".join(recipe.architectures)),
        ("parameters", f"{recipe.parameters:,}" if recipe.parameters else ""),
        ("dtype", recipe.dtype or ""),
        ("weights", _size(one)),
        ("context", f"{recipe.context_length} tokens" if recipe.context_length else ""),
        ("vocabulary", f"{recipe.vocabulary} tokens" if recipe.vocabulary else ""),
        ("licence", _licence(one)),
        ("vectors", _pairs(embedding.model_dump(exclude_none=True)) if embedding else ""),
        ("metadata", _pairs(recipe.metadata)),
        ("serving", _pairs(recipe.serving.model_dump(exclude_none=True)) if recipe.serving else ""),
        ("transformers", recipe.transformers or ""),
        ("needs", _needs(one)),
        ("file", one.file if Path(one.file).exists() else f"catalogger/recipes/library/…/{one.name}.yaml"),
    ]
    lines = [f"{label:<13} {text}" for label, text in facts if text]
    return "\n".join([f"{one.name}, version {recipe.version}", "", *lines, "", "Run it:", f"  {example(one)}"])


def example(one: NamedRecipe) -> str:
    """The command that logs the recipe."""
    source = "" if one.recipe.source else " --source ./my-checkpoint"
    consent = " --trust-remote-code" if one.recipe.remote_code else ""
    model = one.name.replace("-", "_").replace(".", "_")
    recipe = one.name if one.file == one.name else one.file
    return f"log-model --recipe {recipe}{source}{consent} --name main.ml.{model}"


def _source(one: NamedRecipe) -> str:
    return one.recipe.source.repo if one.recipe.source else "your own checkpoint"


def _size(one: NamedRecipe) -> str:
    parameters, dtype = one.recipe.parameters, one.recipe.dtype
    return human(parameters * (4 if dtype == "float32" else 2)) if parameters and dtype else ""


def _licence_id(one: NamedRecipe) -> str:
    return one.recipe.licence.id if one.recipe.licence else ""


def _licence(one: NamedRecipe) -> str:
    licence = one.recipe.licence
    return " ".join(filter(None, (licence.id, licence.url))) if licence else ""


def _needs(one: NamedRecipe) -> str:
    """What a user must bring."""
    recipe = one.recipe
    needs = ["--source"] if recipe.source is None else []
    needs += ["HF_TOKEN (gated)"] if recipe.licence and recipe.licence.gated else []
    needs += ["--trust-remote-code"] if recipe.remote_code else []
    return ", ".join(needs)


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
