"""The main job as a command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from catalogger.cli.options import pairs
from catalogger.cli.output import Terminal, emit
from catalogger.errors import CataloggerError, UsageError, after_registration, masked
from catalogger.quiet import quiet

if TYPE_CHECKING:
    from catalogger.loggers import Outcome
    from catalogger.serving.deployment import Deployment


def run(
    *, recipe: str, tags: Iterable[str], deploy: bool, endpoint: str | None, output: str, debug: bool, **options: Any
) -> int:
    """Run the job and print its outcome, and that of the deployment where one is to follow; the exit code."""
    from catalogger.loggers import log_model

    quiet(debug=debug)
    if endpoint is not None and not deploy:
        raise UsageError("--endpoint was given without --deploy.", "Add --deploy, or leave it out.")
    serving = _serving(recipe, options, endpoint) if deploy else None
    outcome = log_model(recipe, tags=pairs(tags, "The tag", "--tag"), progress=Terminal(), **options)
    if output == "text":
        click.echo(str(outcome))
        if outcome.plan:
            click.echo(f"\nMLmodel:\n{outcome.plan.mlmodel}")
    deployment, failure = _deployed(serving, outcome) if serving else (None, None)
    if deployment and output == "text":
        click.echo(str(deployment))
    code = _code(failure, outcome) if failure else 0
    if output == "json":
        failed = {"error": {**failure.document(), "exit_code": code}} if failure else {}
        emit({**outcome.document(), "endpoint": deployment.document() if deployment else None, **failed})
    if failure:
        click.echo(f"Error: {failure}", err=True)
    return code


@dataclass(frozen=True)
class _Serving:
    """Where and how a version is deployed after it was registered.  `endpoint` is None where it is to be the model's
    own name; `dimension` is that of its vectors, where the recipe knows it.
    """

    endpoint: str | None
    profile: str | None
    dimension: int | None

    def deploy(self, model: str, *, check_only: bool) -> Deployment:
        from catalogger.cli.deploy import run as deploy

        return deploy(
            model=model,
            endpoint=self.endpoint,
            profile=self.profile,
            dimension=self.dimension,
            check_only=check_only,
        )

    def outline(self, name: str) -> str:
        """What is known of the deployment of a version that is yet to come."""
        from catalogger.serving.asked import endpoint_name, outline

        body = json.dumps(outline(self.endpoint or endpoint_name(name), name))
        return (
            f"Then it would create or update an endpoint by {body}, with the version's number and one chunk: whether it"
            " is served, by which unit and in which steps is known once it is registered."
        )


def _serving(recipe: str, options: Mapping[str, Any], endpoint: str | None) -> _Serving:
    """How a version is deployed later.  Raises UsageError where that cannot be, before anything is moved."""
    from catalogger.loggers.stores import choose_stores
    from catalogger.recipes import load_recipe
    from catalogger.serving.asked import checked_name, endpoint_name

    stores = choose_stores(options["tracking_uri"], options["registry_uri"])
    if stores.kind != "databricks":
        raise UsageError(
            f'--deploy needs the Unity Catalog of Databricks, and the registry is "{masked(stores.registry_uri)}".',
            "Give --registry-uri databricks-uc.",
        )
    if endpoint is not None:
        checked_name(endpoint)
    elif options["name"] is not None:
        endpoint_name(options["name"])
    embedding = load_recipe(recipe, options["overrides"]).recipe.embedding
    profile = stores.registry_uri.partition("://")[2] or None
    return _Serving(endpoint, profile, embedding.dimension if embedding else None)


def _deployed(serving: _Serving, outcome: Outcome) -> tuple[Deployment | None, CataloggerError | None]:
    """The deployment of what was registered, or why there is none; a plan creates nothing."""
    planned = outcome.action == "planned"
    if outcome.version is None:
        Terminal().say(serving.outline(outcome.name))
        return None, None
    try:
        return serving.deploy(f"{outcome.name}/{outcome.version}", check_only=planned), None
    except CataloggerError as error:
        return None, error


def _code(failure: CataloggerError, outcome: Outcome) -> int:
    """The exit code where the model is registered and only its deployment is not done: it may be later, or not."""
    if outcome.action == "planned":
        return failure.exit_code
    return after_registration(failure.exit_code)
