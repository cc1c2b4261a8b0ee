"""`log-model promote`: the champion is moved to a version that was looked at, and back."""

from __future__ import annotations

import click

from catalogger.cli.options import DEBUG, OUTPUT, REGISTRY, TRACKING
from catalogger.cli.output import Terminal, emit
from catalogger.quiet import quiet


@click.command("promote")
@click.argument("name")
@click.option("--from", "source", default="challenger", metavar="A", help="Alias to promote.  [default: challenger]")
@click.option("--to", "target", default="champion", metavar="A", help="Alias to move.  [default: champion]")
@click.option("--undo", is_flag=True, help="Move it back to where it was before the last promotion.")
@click.option("--endpoint", metavar="E", help="Ask this endpoint.  [default: each that serves the version]")
@click.option("--dry-run", is_flag=True, help="Look at everything, and move nothing.")
@TRACKING
@REGISTRY
@OUTPUT
@DEBUG
def command(
    name: str,
    source: str,
    target: str,
    undo: bool,
    endpoint: str | None,
    dry_run: bool,
    tracking_uri: str | None,
    registry_uri: str | None,
    output: str,
    debug: bool,
) -> None:
    """Move the alias champion of the model NAME to the version that challenger points at.

    Before that, the version is looked at as `log-model lint` does, and an endpoint that serves it is asked something.

    \b
    log-model promote main.ml.support_bot
    log-model promote main.ml.support_bot --undo

    \b
    Exit codes: 0 moved, or nothing to move, 2 lint found an error, no such alias, or nothing to undo, 4 permission,
    7 registry, 8 the endpoint is not ready, 9 it answers wrongly.  With 2, 8 and 9 nothing was changed.
    """
    from catalogger.fleet.promotion import promote

    quiet(debug=debug)
    done = promote(
        name,
        source=source,
        target=target,
        undo=undo,
        endpoint=endpoint,
        dry_run=dry_run,
        tracking_uri=tracking_uri,
        registry_uri=registry_uri,
        progress=Terminal(),
    )
    if output == "json":
        emit(done.document())
    else:
        click.echo(str(done))
