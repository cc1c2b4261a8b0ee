"""`log-model endpoints` and `log-model teardown`: what runs, and its end."""

from __future__ import annotations

import sys

import click

from catalogger.cli.options import DEBUG, OUTPUT, PROFILE
from catalogger.cli.output import Terminal, emit
from catalogger.errors import UsageError
from catalogger.quiet import quiet


@click.command("endpoints")
@click.option("--alias", default="champion", metavar="A", help="Compare with this alias.  [default: champion]")
@click.option("--behind", "only_behind", is_flag=True, help="List only those that are behind it.")
@PROFILE
@OUTPUT
@DEBUG
def endpoints_command(alias: str, only_behind: bool, profile: str | None, output: str, debug: bool) -> None:
    """List the serving endpoints: what they serve, of what size, and which are behind the alias of their model."""
    from catalogger.remote.workspace import workspace_client
    from catalogger.serving.inventory import endpoints

    quiet(debug=debug)
    found = [one for one in endpoints(workspace_client(profile), alias=alias) if one.behind or not only_behind]
    if output == "json":
        emit({"alias": alias, "endpoints": [one.document() for one in found]})
        return
    for one in found:
        by = f", by {one.creator}" if one.creator else ""
        since = f", since {one.created} UTC" if one.created else ""
        foreign = "" if one.ours else ", not made by catalogger"
        click.echo(f"{one.name}: {one.state}, {one.task or 'no task'}{by}{since}{foreign}")
        for entity in one.served:
            late = f"; {alias} is version {entity.alias_version}" if entity.is_behind else ""
            click.echo(f"    {entity}{late}")
    if not found:
        Terminal().say("No endpoint is behind." if only_behind else "There are no endpoints.")


@click.command("teardown")
@click.argument("endpoint")
@click.option("--yes", is_flag=True, help="Do not ask.")
@PROFILE
@OUTPUT
@DEBUG
def teardown_command(endpoint: str, yes: bool, profile: str | None, output: str, debug: bool) -> None:
    """End the serving endpoint ENDPOINT; the models that it serves stay registered."""
    from catalogger.remote.workspace import workspace_client
    from catalogger.serving.inventory import running, teardown

    quiet(debug=debug)
    workspace = workspace_client(profile)
    found = running(workspace, endpoint)
    serves = ", ".join(map(str, found.served)) or "nothing"
    whose = "" if found.ours else f" It was not made by catalogger, but by {found.creator}."
    Terminal().say(f"{endpoint} ({found.state}) serves {serves}.{whose} The models stay registered.")
    if not yes and not sys.stdin.isatty():
        raise UsageError(f'Nobody can be asked whether the endpoint "{endpoint}" is to end.', "Agree by --yes.")
    if not yes and not click.confirm("End it?", err=True):
        raise UsageError(f'The endpoint "{endpoint}" was left as it is.')
    teardown(workspace, endpoint)
    if output == "json":
        emit({"action": "ended", "endpoint": found.document()})
    else:
        click.echo(f"ended        endpoint {endpoint}")
