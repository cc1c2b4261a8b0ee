"""`log-model verify`: the registered bytes against the digests that were recorded."""

from __future__ import annotations

import click

from catalogger.cli.options import DEBUG, OUTPUT, REGISTRY, TRACKING
from catalogger.cli.output import Terminal, emit
from catalogger.errors import RegistryError
from catalogger.quiet import quiet


@click.command("verify")
@click.argument("model")
@TRACKING
@REGISTRY
@OUTPUT
@DEBUG
def command(model: str, tracking_uri: str | None, registry_uri: str | None, output: str, debug: bool) -> None:
    """Compare the files of MODEL (NAME, NAME/VERSION or NAME@ALIAS) with the digests recorded of them.

    Every byte is read, where it is registered, and nothing is changed.  A file of which no digest is recorded is said
    to be not checked.

    \b
    Exit codes: 0 all that is recorded is the same, 2 nothing is recorded of this version, 7 a file is missing or
    holds other bytes.
    """
    from catalogger.loggers.verifying import verify

    quiet(debug=debug)
    found = verify(model, tracking_uri=tracking_uri, registry_uri=registry_uri, progress=Terminal())
    if output == "json":
        emit(found.document())
    else:
        click.echo(str(found))
    if not found.passed:
        raise click.exceptions.Exit(RegistryError.exit_code)
