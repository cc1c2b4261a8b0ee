"""`log-model recipes`: what there is, and one recipe whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalogger.cli.output import emit
from catalogger.errors import human

if TYPE_CHECKING:
    from catalogger.recipes import NamedRecipe

_TITLES = {"llm/v1/chat": "Chat", "llm/v1/completions": "Completions", "llm/v1/embeddings": "Embeddings"}


@click.command("recipes")
@click.argument("name", required=False)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the result on stdout."
)
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
    width = max(len(r.name) for r in listed)
    sources = max(len(_source(r)) for r in listed)
    lines = []
    for task, title in _TITLES.items():
        lines += ["", f"{title} ({task})"]
        lines += [
            f"  {r.name:<{width}}  {_source(r):<{sources}}  {r.recipe.summary}" for r in listed if r.recipe.task == task
        ]
    return "\n".join(lines[1:])


def whole(one: NamedRecipe) -> str:
    """One recipe: its facts, its file, and the exact command."""
    recipe = one.recipe
    facts = [
        ("summary", recipe.summary),
        ("task", recipe.task),
        ("source", _source(one)),
        ("architecture", " or ".join(recipe.architectures)),
        ("parameters", f"{recipe.parameters:,}" if recipe.parameters else "any"),
        ("dtype", _dtype(one)),
        ("context", f"{recipe.context_length} tokens" if recipe.context_length else "as the checkpoint says"),
        ("licence", _licence(one)),
        ("metadata", ", ".join(f"{k}: {v}" for k, v in recipe.metadata.items())),
        ("remote code", f"{recipe.remote_code.repo}, needs --trust-remote-code" if recipe.remote_code else ""),
        ("file", str(Path(one.file) if Path(one.file).exists() else f"catalogger/recipes/library/…/{one.name}.yaml")),
    ]
    lines = [f"{label:<13} {text}" for label, text in facts if text]
    return "\n".join([f"{one.name}", "", *lines, "", "Run it:", f"  {example(one)}"])


def example(one: NamedRecipe) -> str:
    """The command that logs the recipe."""
    source = "" if one.recipe.source else " --source ./my-checkpoint"
    consent = " --trust-remote-code" if one.recipe.remote_code else ""
    model = one.name.replace("-", "_").replace(".", "_")
    recipe = one.name if one.file == one.name else one.file
    return f"log-model --recipe {recipe}{source}{consent} --name main.ml.{model}"


def _source(one: NamedRecipe) -> str:
    return one.recipe.source.repo if one.recipe.source else "your own checkpoint"


def _dtype(one: NamedRecipe) -> str:
    recipe = one.recipe
    if not recipe.dtype or not recipe.parameters:
        return recipe.dtype or "as the checkpoint says"
    return f"{recipe.dtype} ({human(recipe.parameters * (4 if recipe.dtype == 'float32' else 2))} of weights)"


def _licence(one: NamedRecipe) -> str:
    licence = one.recipe.licence
    if licence is None:
        return "of the checkpoint"
    gated = ", gated: accept it on the Hub and set HF_TOKEN" if licence.gated else ""
    return f"{licence.id}{gated}{f' {licence.url}' if licence.url else ''}"
