"""catalogger: Hugging Face checkpoints to registered MLflow models, checked first and moved once.

    from catalogger import log_model
    outcome = log_model("bge-small", name="main.ml.bge_small")

Every name is loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalogger.checkpoints import Checkpoint, open_source
    from catalogger.checkpoints.changing.converting import Converted, convert
    from catalogger.errors import CataloggerError
    from catalogger.loggers import Checked, Outcome, Progress, check, lint, log_model
    from catalogger.recipes import Recipe, load_recipe
    from catalogger.serving.bench.load_test import load_test
    from catalogger.serving.bench.results import LoadTest
    from catalogger.serving.capacity import Wish
    from catalogger.serving.deploying import Terms, deploy
    from catalogger.serving.deployment import Deployment
    from catalogger.serving.eligibility import Eligibility, eligibility
    from catalogger.serving.endpoint import Endpoint
    from catalogger.serving.inventory import RunningEndpoint, endpoints, teardown
    from catalogger.serving.prompts import PromptCount, count_prompts
    from catalogger.serving.sizing import Size, Workload, size
    from catalogger.validators import Finding, Report

__all__ = [
    "CataloggerError",
    "Checked",
    "Checkpoint",
    "Converted",
    "Deployment",
    "Eligibility",
    "Endpoint",
    "Finding",
    "LoadTest",
    "Outcome",
    "Progress",
    "PromptCount",
    "Recipe",
    "Report",
    "RunningEndpoint",
    "Size",
    "Terms",
    "Wish",
    "Workload",
    "check",
    "convert",
    "count_prompts",
    "deploy",
    "eligibility",
    "endpoints",
    "lint",
    "load_recipe",
    "load_test",
    "log_model",
    "open_source",
    "size",
    "teardown",
]

_HOME = {
    "CataloggerError": "errors",
    "Checked": "loggers",
    "Checkpoint": "checkpoints",
    "Converted": "checkpoints.changing.converting",
    "Deployment": "serving.deployment",
    "Eligibility": "serving.eligibility",
    "Endpoint": "serving.endpoint",
    "Finding": "validators",
    "LoadTest": "serving.bench.results",
    "Outcome": "loggers",
    "Progress": "loggers",
    "PromptCount": "serving.prompts",
    "Recipe": "recipes",
    "Report": "validators",
    "RunningEndpoint": "serving.inventory",
    "Size": "serving.sizing",
    "Terms": "serving.deploying",
    "Wish": "serving.capacity",
    "Workload": "serving.sizing",
    "check": "loggers",
    "convert": "checkpoints.changing.converting",
    "count_prompts": "serving.prompts",
    "deploy": "serving.deploying",
    "eligibility": "serving.eligibility",
    "endpoints": "serving.inventory",
    "lint": "loggers",
    "load_recipe": "recipes",
    "load_test": "serving.bench.load_test",
    "log_model": "loggers",
    "open_source": "checkpoints",
    "size": "serving.sizing",
    "teardown": "serving.inventory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"catalogger.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
