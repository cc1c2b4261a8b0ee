"""`log-model check` and `log-model lint`: what every rule says, and an exit code for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from catalogger.cli.options import ALLOW_PICKLE, DEBUG, FOR, NORMALIZE, OVERRIDES, REGISTRY, TRACKING, changes
from catalogger.cli.output import Terminal, emit
from catalogger.quiet import quiet

if TYPE_CHECKING:
    from catalogger.loggers import Checked

_FAILED = 2


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that both verbs have."""
    form = click.Choice(["text", "json", "sarif"])
    for option in (
        DEBUG,
        click.option("-o", "--output", type=form, default="text", help="Form of the report on stdout."),
        click.option("--strict", is_flag=True, help="Fail at warnings too."),
        click.option("--ignore", multiple=True, metavar="CODE", help="Do not run this rule."),
        click.option("--prove", is_flag=True, help="Where no error is found: load the model and ask it (needs torch)."),
        click.option("--trust-remote-code", is_flag=True, help="Consent to the Python code that the model brings."),
        click.option("--region", metavar="R", help="Where it is to be served, as the cloud names it (eastus2)."),
        REGISTRY,
        TRACKING,
    ):
        command = option(command)
    return command


@click.command("check")
@click.option("--recipe", required=True, metavar="NAME|FILE", help="What the checkpoint should be.")
@click.option("--source", metavar="SOURCE", help="As for the main job.  [default: the recipe's own]")
@changes
@click.option("--name", metavar="C.S.M", help="catalog.schema.model that it would be registered as.")
@OVERRIDES
@ALLOW_PICKLE
@FOR
@NORMALIZE
@_shared
def check_command(output: str, strict: bool, debug: bool, **options: Any) -> None:
    """Say whether a checkpoint would register, serve and answer right.

    Only metadata is read, and nothing is changed.  Where the weights are to be changed on the way (--adapter, --dtype,
    --max-shard-size, …) it is checked as it will be.  Exit code 2 where a finding is an error.
    """
    from catalogger.loggers import check

    quiet(debug=debug)
    _show(check(**options, progress=Terminal()), output, strict=strict)


@click.command("lint")
@click.argument("model")
@click.option("--recipe", metavar="NAME|FILE", help="What the model should be, where that is known.")
@_shared
def lint_command(model: str, output: str, strict: bool, debug: bool, **options: Any) -> None:
    """Look at a logged or registered MODEL, made by catalogger or by anybody.

    MODEL is a folder, runs:/RUN/PATH, models:/NAME/VERSION or models:/NAME@ALIAS.  Nothing is loaded or changed.
    """
    from catalogger.loggers import lint

    quiet(debug=debug)
    _show(lint(model, **options, progress=Terminal()), output, strict=strict)


def _show(checked: Checked, output: str, *, strict: bool) -> None:
    """Print what was found, and end with the exit code that it deserves."""
    if output == "json":
        emit(checked.document(strict=strict))
    elif output == "sarif":
        from catalogger.validators.sarif import sarif

        click.echo(json.dumps(sarif(checked.report, checked.subject), indent=2))
    else:
        click.echo(str(checked))
    if checked.failed(strict=strict):
        raise click.exceptions.Exit(_FAILED)
