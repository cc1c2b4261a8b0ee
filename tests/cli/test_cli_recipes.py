"""`log-model recipes`: the whole library, each recipe with a command that works, and the README's table."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from cli.command import run
from fakes import checkpoints

from catalogger.cli.main import cli
from catalogger.cli.recipes import whole
from catalogger.recipes import all_recipes, load_recipe
from catalogger.recipes.lookup import library
from catalogger.validators import check_name

ROOT = Path(__file__).parents[2]
TITLES = {
    "llm/v1/chat": "Chat (llm/v1/chat)",
    "llm/v1/completions": "Completions (llm/v1/completions)",
    "llm/v1/embeddings": "Embeddings (llm/v1/embeddings)",
}
CODE = re.compile(r"`([^`]+)`")


def _shown_command(text: str) -> list[str]:
    """The command below "Run it:"."""
    return shlex.split(text.partition("Run it:\n")[2])


def test_the_list_has_a_block_for_each_task_and_each_recipe_once() -> None:
    done = run("recipes")
    assert (done.code, done.err) == (0, "")
    blocks = {block.splitlines()[0]: block.splitlines()[1:] for block in done.out.split("\n\n")}
    assert list(blocks) == list(TITLES.values())
    listed = []
    for task, title in TITLES.items():
        head, *lines = blocks[title]
        assert head.split() == ["recipe", "source", "weights", "licence", "needs"]
        names = [line.split()[0] for line in lines]
        assert names == sorted(names)
        assert {load_recipe(name).recipe.task for name in names} == {task}
        listed += names
    assert sorted(listed) == sorted(library())


def test_the_list_as_json() -> None:
    done = run("recipes", "-o", "json")
    assert (done.code, done.err) == (0, "")
    listed = done.document["recipes"]
    assert sorted(r["name"] for r in listed) == sorted(library())
    for facts in listed:
        recipe = load_recipe(facts["name"]).recipe
        assert (facts["task"], facts["architectures"]) == (recipe.task, list(recipe.architectures))


@pytest.mark.parametrize("name", sorted(library()))
def test_the_shown_command_parses(name: str) -> None:
    one = load_recipe(name)
    text = whole(one)
    assert text.startswith(f"{name}, version {one.recipe.version}\n")
    assert one.recipe.summary in text
    program, *arguments = _shown_command(text)
    assert program == "log-model"
    options = cli.make_context("log-model", arguments).params
    assert load_recipe(options["recipe"]).name == name
    assert check_name(options["name"])
    assert (options["source"] is None) == (one.recipe.source is not None), "a source is asked for where none is known"
    assert options["trust_remote_code"] == (one.recipe.remote_code is not None)


def test_one_recipe_and_its_command_at_work(work: Path) -> None:
    shown = run("recipes", "llama-chat")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out == whole(load_recipe("llama-chat")) + "\n"
    _, *arguments = _shown_command(shown.out)
    checkpoints.llama(work / "my-checkpoint")
    planned = run(*arguments, "--dry-run", "-o", "json")
    assert planned.code == 0, planned.err
    assert (planned.document["action"], planned.document["recipe"]) == ("planned", "llama-chat")
    assert planned.document["name"] == "main.ml.llama_chat"


def test_one_recipe_as_json() -> None:
    done = run("recipes", "gte-large", "-o", "json")
    assert (done.code, done.err) == (0, "")
    facts = done.document
    assert (facts["name"], facts["task"]) == ("gte-large", "llm/v1/embeddings")
    assert facts["remote_code"] == {"repo": "Alibaba-NLP/new-impl", "consent": "required"}


def test_a_file_of_ones_own(work: Path) -> None:
    (work / "mine.yaml").write_text("extends: llama-chat\nsummary: Our support bot\n")
    shown = run("recipes", "./mine.yaml")
    assert (shown.code, shown.err) == (0, "")
    assert "Our support bot" in shown.out
    _, *arguments = _shown_command(shown.out)
    options = cli.make_context("log-model", arguments).params
    assert options["recipe"] == "./mine.yaml"
    assert load_recipe(options["recipe"]).recipe.summary == "Our support bot"


@pytest.mark.parametrize(
    ("wrong", "near"), [("nope", None), ("gte-larg", '"gte-large"'), ("LLAMA-CHAT", '"llama-chat"')]
)
def test_a_recipe_that_does_not_exist(wrong: str, near: str | None) -> None:
    """Near names are suggested; where none is near, all are named."""
    text, as_json = run("recipes", wrong), run("recipes", wrong, "-o", "json")
    assert (text.code, as_json.code, text.out) == (2, 2, "")
    assert set(as_json.document) == {"error", "findings"}
    error = as_json.document["error"]
    assert (error["code"], error["exit_code"]) == ("recipe-not-found", 2)
    assert f'Unknown recipe "{wrong}"' in text.err
    if near:
        assert f"Did you mean {near}" in error["message"]
    else:
        assert "Did you mean" not in error["message"]
    assert all(name in error["fix"] for name in library())
    assert "Traceback" not in text.err


def _tables(text: str) -> list[list[str]]:
    """The tables of a Markdown page, as their lines."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)]


def test_the_readme_names_every_recipe_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [one.name for one in all_recipes() if f"`{one.name}`" not in readme] == []
    named = set()
    for head, *rows in _tables(readme):
        columns = [n for n, cell in enumerate(head.split("|")) if "recipe" in cell.lower()]
        named |= {name for row in rows for n in columns for name in CODE.findall(row.split("|")[n])}
    assert named - set(library()) == set()
    assert named, "there is a table with a column of recipes"
