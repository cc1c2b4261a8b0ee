"""`log-model outdated`: which registered models are behind their source, or behind their adapter."""

from __future__ import annotations

import click

from catalogger.cli.options import DEBUG, OUTPUT, REGISTRY, TRACKING
from catalogger.cli.output import Terminal, emit
from catalogger.quiet import quiet

_BEHIND = 3


@click.command("outdated")
@click.argument("names", nargs=-1, metavar="[NAME|CATALOG.SCHEMA]...")
@click.option("--check", is_flag=True, help="End with exit code 3 where a model is behind.")
@TRACKING
@REGISTRY
@OUTPUT
@DEBUG
def command(
    names: tuple[str, ...],
    check: bool,
    tracking_uri: str | None,
    registry_uri: str | None,
    output: str,
    debug: bool,
) -> None:
    """Say which registered models are behind the branch of the Hub that they, or their adapters, came from.

    Without names, all that catalogger made in the registry.  One request a repository; no file of a model is read.

    \b
    Exit codes: 0 answered, 3 with --check where a model is behind, 5 the Hub could not be asked at all.
    """
    from catalogger.loggers.outdated import outdated

    quiet(debug=debug)
    found = outdated(names, tracking_uri=tracking_uri, registry_uri=registry_uri, progress=Terminal())
    if output == "json":
        emit(found.document())
    elif found.models:
        click.echo(str(found))
    else:
        Terminal().say("No model here was registered by catalogger.")
    if check and found.behind:
        raise click.exceptions.Exit(_BEHIND)
