"""What the user asked the main job for, and which rules have to wait until more is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from catalogger.files.digests import DigestMemory
from catalogger.files.place import Weights
from catalogger.loggers.registries import Upload
from catalogger.loggers.stores import Stores
from catalogger.progress import Progress
from catalogger.recipes import NamedRecipe
from catalogger.validators import Environment, Facts, environment, run_rules

LOGGED = ("ML",)
"""Rules on the model as it is written."""
NAMED = ("UC004", "TK007")
"""Rules that compare with what is registered under the name already."""
LATER = LOGGED + NAMED
_FIRST = ("EN001", "EN002", "EN006")
"""Rules that need nothing but what is installed, or asked for, and so speak before anything is read."""

Tracking = Literal["auto", "full"]


@dataclass(frozen=True)
class Request:
    """What the user asked for, checked as far as it can be without looking at the checkpoint."""

    recipe: NamedRecipe
    name: str
    name_was_derived: bool
    stores: Stores
    progress: Progress
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    weights: Weights = "auto"
    trust_remote_code: bool = False
    allow_pickle: bool = False
    ignore: tuple[str, ...] = ()
    memory: DigestMemory = field(default_factory=DigestMemory)
    prove: bool = False
    upload: Upload = "auto"
    tracking: Tracking = "auto"
    stream: bool = False
    normalize: int | None = None
    target: Environment | None = None
    """What the model is written for, where that is not what is installed here."""


def require_supported(request: Request) -> None:
    """Raises CheckFailed where what is installed here cannot do this, or no MLflow of what the model is written for
    can.
    """
    here, recipe = environment(), request.recipe.recipe
    asked = [Facts(here)] if request.target else []
    for facts in (*asked, Facts(request.target or here, recipe=recipe, here=here)):
        report = run_rules(facts, request.ignore, only=_FIRST)
        if report.failed():
            request.progress.say("\n".join(map(str, report.findings)))
        report.raise_on_error()
