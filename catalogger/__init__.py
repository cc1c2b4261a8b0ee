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
    from catalogger.cli.output import Terminal
    from catalogger.errors import CataloggerError
    from catalogger.fleet.outcome import EntryOutcome, SyncOutcome
    from catalogger.fleet.promotion import Promotion, promote
    from catalogger.fleet.schema import schema
    from catalogger.fleet.sync import sync
    from catalogger.loggers import Checked, Outcome, Progress, check, lint, log_model
    from catalogger.loggers.cleaning import Cleaning, clean
    from catalogger.loggers.doctor import Diagnosis, doctor
    from catalogger.loggers.outdated import Freshness, Outdated, outdated
    from catalogger.loggers.verifying import Verified, verify
    from catalogger.notebook import local_disk, parameters
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
    "Cleaning",
    "Deployment",
    "Diagnosis",
    "Eligibility",
    "Endpoint",
    "EntryOutcome",
    "Finding",
    "Freshness",
    "LoadTest",
    "Outcome",
    "Outdated",
    "Progress",
    "Promotion",
    "PromptCount",
    "Recipe",
    "Report",
    "RunningEndpoint",
    "Size",
    "SyncOutcome",
    "Terminal",
    "Terms",
    "Verified",
    "Wish",
    "Workload",
    "check",
    "clean",
    "count_prompts",
    "deploy",
    "doctor",
    "eligibility",
    "endpoints",
    "lint",
    "load_recipe",
    "load_test",
    "local_disk",
    "log_model",
    "open_source",
    "outdated",
    "parameters",
    "promote",
    "schema",
    "size",
    "sync",
    "teardown",
    "verify",
]

_HOME = {
    "CataloggerError": "errors",
    "Checked": "loggers",
    "Checkpoint": "checkpoints",
    "Cleaning": "loggers.cleaning",
    "Deployment": "serving.deployment",
    "Diagnosis": "loggers.doctor",
    "Eligibility": "serving.eligibility",
    "Endpoint": "serving.endpoint",
    "EntryOutcome": "fleet.outcome",
    "Finding": "validators",
    "Freshness": "loggers.outdated",
    "LoadTest": "serving.bench.results",
    "Outcome": "loggers",
    "Outdated": "loggers.outdated",
    "Progress": "loggers",
    "Promotion": "fleet.promotion",
    "PromptCount": "serving.prompts",
    "Recipe": "recipes",
    "Report": "validators",
    "RunningEndpoint": "serving.inventory",
    "Size": "serving.sizing",
    "SyncOutcome": "fleet.outcome",
    "Terminal": "cli.output",
    "Terms": "serving.deploying",
    "Verified": "loggers.verifying",
    "Wish": "serving.capacity",
    "Workload": "serving.sizing",
    "check": "loggers",
    "clean": "loggers.cleaning",
    "count_prompts": "serving.prompts",
    "deploy": "serving.deploying",
    "doctor": "loggers.doctor",
    "eligibility": "serving.eligibility",
    "endpoints": "serving.inventory",
    "lint": "loggers",
    "load_recipe": "recipes",
    "load_test": "serving.bench.load_test",
    "local_disk": "notebook",
    "log_model": "loggers",
    "open_source": "checkpoints",
    "parameters": "notebook",
    "outdated": "loggers.outdated",
    "promote": "fleet.promotion",
    "schema": "fleet.schema",
    "size": "serving.sizing",
    "sync": "fleet.sync",
    "teardown": "serving.inventory",
    "verify": "loggers.verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"catalogger.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
