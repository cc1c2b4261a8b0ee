"""Healthy tiny checkpoints of each family, and the facts that the rules look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import checkpoints
from validators.judge import Judge

from catalogger.checkpoints import open_source
from catalogger.recipes import Recipe, load_recipe
from catalogger.validators import Environment, Facts

MLFLOW = "3.17.2"


@pytest.fixture
def facts() -> Judge:
    """What the rules see of a folder."""

    def judge(folder: Path, recipe: str | Recipe = "llama-chat", *, mlflow: str = MLFLOW, **more: Any) -> Facts:
        chosen = load_recipe(recipe).recipe if isinstance(recipe, str) else recipe
        opened = open_source(str(folder), allow_pickle=more.get("pickle_allowed", False))
        return replace(Facts(Environment(mlflow), opened, chosen), **more)

    return judge


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One checkpoint of a family, made once; tests that change it work on a copy."""
    makers: dict[str, Callable[..., Path]] = {
        "llama": checkpoints.llama,
        "mistral": checkpoints.mistral,
        "mixtral": checkpoints.mixtral,
        "bert": checkpoints.bert,
    }
    found: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in found:
            folder = tmp_path_factory.mktemp(family) / "model"
            found[family] = makers[family](folder, **({"pooling": "cls"} if family == "bert" else {"shards": 3}))
        return found[family]

    return make
