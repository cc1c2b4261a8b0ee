"""The type of the fixture that turns a folder into the facts that rules look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from catalogger.recipes import Recipe
from catalogger.validators import Facts


class Judge(Protocol):
    """Facts of a folder as a recipe sees them."""

    def __call__(self, folder: Path, recipe: str | Recipe = ..., *, mlflow: str = ..., **more: Any) -> Facts: ...
