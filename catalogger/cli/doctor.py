"""`log-model doctor`: what is installed, who answers, and whether there is room."""

from __future__ import annotations

import click

from catalogger.cli.options import DEBUG, OUTPUT, REGISTRY, TRACKING
from catalogger.cli.output import emit
from catalogger.quiet import quiet


@click.command("doctor")
@TRACKING
@REGISTRY
@OUTPUT
@DEBUG
def command(tracking_uri: str | None, registry_uri: str | None, output: str, debug: bool) -> int:
    """Examine what is installed, what this MLflow and Transformers can do, whether the stores and the Hub answer and
    who they think you are, and the disks.  Nothing is changed; no token is shown.

    \b
    Exit codes: 0 all is well, 2 the installed packages, 4 permission, 5 network, 6 disk, 7 a server refused.
    """
    from catalogger.loggers.doctor import doctor

    quiet(debug=debug)
    diagnosis = doctor(tracking_uri=tracking_uri, registry_uri=registry_uri)
    if output == "json":
        emit(diagnosis.document())
    else:
        click.echo(str(diagnosis))
    return diagnosis.exit_code
