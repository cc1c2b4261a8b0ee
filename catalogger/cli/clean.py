"""`log-model clean`: what runs have left that did not end is listed, and removed where one agrees."""

from __future__ import annotations

import sys

import click

from catalogger.cli.options import DEBUG, OUTPUT, REGISTRY, TRACKING, seconds
from catalogger.cli.output import Terminal, emit
from catalogger.quiet import quiet


@click.command("clean")
@click.argument("names", nargs=-1, metavar="[NAME|CATALOG.SCHEMA]...")
@click.option("--yes", is_flag=True, help="Remove it, and do not ask.")
@click.option(
    "--older-than",
    callback=seconds("smhd", "90m, 24h or 7d"),
    default="24h",
    metavar="TIME",
    help="As 90m or 7d.  [default: 24h]",
)
@TRACKING
@REGISTRY
@OUTPUT
@DEBUG
def command(
    names: tuple[str, ...],
    yes: bool,
    older_than: float,
    tracking_uri: str | None,
    registry_uri: str | None,
    output: str,
    debug: bool,
) -> None:
    """List what catalogger has left of runs that did not end, and remove it.

    Versions that never became READY, with their files and unfinished uploads; and, without names, folders of this
    machine.  What catalogger did not make stays, and so does what a run is at work in.  Without a terminal and without
    --yes nothing is removed.

    \b
    Exit codes: 0 listed or removed, 4 permission, 6 or 7 something could not be removed.
    """
    from catalogger.loggers.cleaning import Cleaning, clean

    def run(*, yes: bool) -> Cleaning:
        return clean(
            names,
            yes=yes,
            older_than=older_than,
            tracking_uri=tracking_uri,
            registry_uri=registry_uri,
            progress=Terminal(),
        )

    quiet(debug=debug)
    done = run(yes=yes)
    if done.left and not yes and sys.stdin.isatty():
        Terminal().say(str(done))
        if click.confirm("Remove what is left over?", err=True):
            done = run(yes=True)
    if output == "json":
        emit(done.document())
    elif done.things:
        click.echo(str(done))
    else:
        Terminal().say("Nothing is left over.")
    if done.left and not yes:
        Terminal().say("Nothing was removed: --yes removes what is left over.")
    if done.exit_code:
        raise click.exceptions.Exit(done.exit_code)
