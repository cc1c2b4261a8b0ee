"""The main job as a command."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import click

from catalogger.cli.output import Terminal, emit
from catalogger.errors import UsageError


def run(*, recipe: str, tags: Iterable[str], output: str, debug: bool, **options: Any) -> None:
    """Run the job and print its outcome."""
    from catalogger.loggers import log_model

    quiet(debug=debug)
    outcome = log_model(recipe, tags=dict(_pair(tag) for tag in tags), progress=Terminal(), **options)
    if output == "json":
        emit(outcome.document())
        return
    click.echo(str(outcome))
    if outcome.plan:
        click.echo(f"\nMLmodel:\n{outcome.plan.mlmodel}")


def _pair(tag: str) -> tuple[str, str]:
    key, equals, value = tag.partition("=")
    if not equals or not key:
        raise UsageError(f'The tag "{tag}" has no value.', "Write --tag KEY=VALUE.")
    return key, value


def quiet(*, debug: bool) -> None:
    """MLflow, Alembic and Transformers tell much that is not ours to tell; --debug lets them."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if debug:
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name in ("mlflow", "alembic", "huggingface_hub", "transformers", "databricks"):
        logging.getLogger(name).setLevel(logging.ERROR)
