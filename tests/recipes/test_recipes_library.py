"""The recipes that ship: each file loads, is called as it says it is, and the families of the design page are there."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from catalogger.recipes import all_recipes, library, load_recipe
from catalogger.recipes.lookup import LIBRARY
from catalogger.validators import check_name

FILES = sorted(LIBRARY.rglob("*.yaml"))
FAMILIES = {
    "llama-chat": ("llm/v1/chat", "LlamaForCausalLM"),
    "llama-completions": ("llm/v1/completions", "LlamaForCausalLM"),
    "mistral-chat": ("llm/v1/chat", "MistralForCausalLM"),
    "mistral-completions": ("llm/v1/completions", "MistralForCausalLM"),
    "mixtral-chat": ("llm/v1/chat", "MixtralForCausalLM"),
    "mixtral-completions": ("llm/v1/completions", "MixtralForCausalLM"),
    "dbrx-chat": ("llm/v1/chat", "DbrxForCausalLM"),
    "gte-embeddings": ("llm/v1/embeddings", "NewModel"),
    "bge-embeddings": ("llm/v1/embeddings", "BertModel"),
}
PUBLISHED = {
    "llm/v1/chat": {
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-70B-Instruct",
        "meta-llama/Llama-3.1-405B-Instruct",
        "meta-llama/Llama-3.2-1B-Instruct",
        "meta-llama/Llama-3.2-3B-Instruct",
        "meta-llama/Llama-3.3-70B-Instruct",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "databricks/dbrx-instruct",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
    },
    "llm/v1/completions": {
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-3.1-70B",
        "meta-llama/Llama-3.1-405B",
        "meta-llama/Llama-3.2-1B",
        "meta-llama/Llama-3.2-3B",
        "meta-llama/Llama-3.3-70B-Instruct",
        "mistralai/Mixtral-8x7B-v0.1",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "mistralai/Mistral-7B-v0.3",
        "databricks/dbrx-base",
    },
    "llm/v1/embeddings": {
        "Alibaba-NLP/gte-base-en-v1.5",
        "Alibaba-NLP/gte-large-en-v1.5",
        "BAAI/bge-small-en-v1.5",
        "BAAI/bge-base-en-v1.5",
        "BAAI/bge-large-en-v1.5",
        "sentence-transformers/all-MiniLM-L6-v2",
    },
}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_file_loads_under_its_own_name(file: Path) -> None:
    found = load_recipe(file.stem)
    assert found.name == file.stem
    assert library()[file.stem] == file


def test_folder_is_the_task(file: Path) -> None:
    assert load_recipe(file.stem).recipe.task == f"llm/v1/{file.parent.name}"


def test_first_line_is_the_command(file: Path) -> None:
    recipe = load_recipe(file.stem).recipe
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# log-model --recipe ")
    words = shlex.split(first.removeprefix("# "))
    assert words[2] == file.stem
    assert check_name(words[words.index("--name") + 1]) == "main.ml." + re.sub(r"\W", "_", file.stem)
    assert ("--source" in words) == (recipe.source is None)
    assert ("--trust-remote-code" in words) == (recipe.remote_code is not None)


def test_published_model_has_its_size_and_licence(file: Path) -> None:
    recipe = load_recipe(file.stem).recipe
    known = (recipe.dtype, recipe.parameters, recipe.context_length, recipe.vocabulary, recipe.licence)
    if recipe.source:
        assert None not in known
    else:
        assert known[1:] == (None, None, None, None)


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(path.stem for path in FILES).items() if count > 1] == []
    assert [found.name for found in all_recipes()] == list(library())
    assert len(library()) == len(FILES)


def test_every_family_of_the_design_is_there() -> None:
    found = {r.name: (r.recipe.task, r.recipe.architectures[0]) for r in all_recipes() if r.recipe.source is None}
    assert found == FAMILIES


def test_every_published_model_of_the_design_is_there() -> None:
    found: dict[str, set[str]] = {}
    for named in all_recipes():
        if named.recipe.source:
            found.setdefault(named.recipe.task, set()).add(named.recipe.source.repo)
    assert found == PUBLISHED


def test_borrowed_code_is_known_for_gte_only() -> None:
    borrowed = {r.name: r.recipe.remote_code.repo for r in all_recipes() if r.recipe.remote_code}
    assert borrowed == dict.fromkeys(("gte-base", "gte-embeddings", "gte-large"), "Alibaba-NLP/new-impl")
