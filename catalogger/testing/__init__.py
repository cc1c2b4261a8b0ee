"""Stand-ins of a Databricks workspace on this machine, for tests and rehearsals.

    from catalogger.testing import ModelAnswers, Workspace
    with ModelAnswers() as answers, Workspace(folder, tokens={"a-token": "me"}, answers=answers) as workspace:
        workspace.add_schema("main.ml")

They know nothing of the rest of catalogger. Every name is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalogger.testing.answers import ModelAnswers
    from catalogger.testing.endpoints import NO_CAPACITY, Build
    from catalogger.testing.invocations import Answers
    from catalogger.testing.models import NO_CREDENTIALS, Vending
    from catalogger.testing.servable import ServedVersion
    from catalogger.testing.workspace import Workspace

__all__ = [
    "NO_CAPACITY",
    "NO_CREDENTIALS",
    "Answers",
    "Build",
    "ModelAnswers",
    "ServedVersion",
    "Vending",
    "Workspace",
]

_HOME = {
    "NO_CAPACITY": "endpoints",
    "NO_CREDENTIALS": "models",
    "Answers": "invocations",
    "Build": "endpoints",
    "ModelAnswers": "answers",
    "ServedVersion": "servable",
    "Vending": "models",
    "Workspace": "workspace",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"catalogger.testing.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
