"""The main job as a command."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from catalogger.cli.output import Terminal, emit
from catalogger.errors import CataloggerError, UsageError, masked

if TYPE_CHECKING:
    from catalogger.serving.deployment import Deployment


def run(
    *, recipe: str, tags: Iterable[str], deploy: bool, endpoint: str | None, output: str, debug: bool, **options: Any
) -> int:
    """Run the job and print its outcome, and that of the deployment where one is to follow; the exit code."""
    from catalogger.loggers import log_model

    quiet(debug=debug)
    serving = _serving(options, endpoint) if deploy else None
    outcome = log_model(recipe, tags=dict(_pair(tag) for tag in tags), progress=Terminal(), **options)
    if output == "text":
        click.echo(str(outcome))
        if outcome.plan:
            click.echo(f"\nMLmodel:\n{outcome.plan.mlmodel}")
    deployment: dict[str, Any] | None = None
    failure: CataloggerError | None = None
    if serving and outcome.version:
        try:
            done = serving(f"{outcome.name}/{outcome.version}")
            deployment = done.document()
            if output == "text":
                click.echo(str(done))
        except CataloggerError as error:
            failure = error
    elif serving:
        Terminal().say("Whether it is served is known once it is registered: nothing was asked.")
    if output == "json":
        failed = {"error": failure.document()} if failure else {}
        emit({**outcome.document(), "endpoint": deployment, **failed})
    if failure:
        click.echo(f"Error: {failure}", err=True)
        return failure.exit_code
    return 0


def _serving(options: Mapping[str, Any], endpoint: str | None) -> Callable[[str], Deployment]:
    """What deploys a version later.  Raises UsageError where that cannot be, before anything is moved."""
    from catalogger.loggers.stores import choose_stores

    stores = choose_stores(options["tracking_uri"], options["registry_uri"])
    if stores.kind != "databricks":
        raise UsageError(
            f'--deploy needs the Unity Catalog of Databricks, and the registry is "{masked(stores.registry_uri)}".',
            "Give --registry-uri databricks-uc.",
        )
    from catalogger.cli.deploy import run as deploy
    from catalogger.serving.asked import checked_name

    if endpoint is not None:
        checked_name(endpoint)
    profile = stores.registry_uri.partition("://")[2] or None
    return lambda model: deploy(model=model, endpoint=endpoint, profile=profile)


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
