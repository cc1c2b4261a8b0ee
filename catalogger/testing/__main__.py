"""`python -m catalogger.testing`: a loopback workspace to rehearse with, until Ctrl-C."""

from __future__ import annotations

import secrets
import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import click

from catalogger.testing.answers import ModelAnswers
from catalogger.testing.endpoints import Build
from catalogger.testing.optimization import tokens
from catalogger.testing.tracking import TrackingServer
from catalogger.testing.workspace import Workspace

_USER = "rehearsal@loopback.test"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--port", type=int, default=0, help="Where to listen on 127.0.0.1; a free port unless it is given.")
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="A new or empty folder for the files.")
@click.option("--schema", "schemas", multiple=True, default=["main.ml"], show_default=True, help="A schema to make.")
@click.option("--tracking", is_flag=True, help="Start an MLflow server too, for MLFLOW_TRACKING_URI=databricks.")
@click.option("--eligible", multiple=True, metavar="NAME", help="Say of this model that it is, whatever its files say.")
@click.option("--seconds", type=float, default=20, show_default=True, help="How long an endpoint is being built.")
def main(
    port: int, root: Path | None, schemas: tuple[str, ...], tracking: bool, eligible: tuple[str, ...], seconds: float
) -> None:
    """Serve a Databricks workspace on this machine: Unity Catalog models, files, and endpoints that answer with them.

    Prints the variables by which the clients find it.  The token is made anew each time, and good for nothing else.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with ExitStack() as stack:
        folder = _empty(root) if root else Path(stack.enter_context(tempfile.TemporaryDirectory("-workspace")))
        variables = {"MLFLOW_REGISTRY_URI": "databricks-uc"}
        server = _tracking(stack, folder) if tracking else None
        if server:
            variables["MLFLOW_TRACKING_URI"] = "databricks"
        workspace = stack.enter_context(
            Workspace(
                folder / "files",
                tokens={f"dapi{secrets.token_hex(16)}": _USER},
                tracking=server,
                port=port,
                answers=stack.enter_context(ModelAnswers()),
                build=Build(looks=0, seconds=seconds),
            )
        )
        for schema in schemas:
            workspace.add_schema(schema)
        for name in eligible:
            workspace.serving.set_optimization(name, tokens())
        for name, value in {**workspace.environment, **variables}.items():
            click.echo(f"export {name}={value}")
        click.echo("Serving until Ctrl-C.", err=True)
        ended.wait()


def _empty(root: Path) -> Path:
    """Models are forgotten when the workspace ends: files of an earlier one would be of versions that come again."""
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise click.ClickException(f'The folder "{root}" is not empty. Name one that is.')
    return root


def _tracking(stack: ExitStack, folder: Path) -> str:
    place = folder / "tracking"
    place.mkdir()
    return stack.enter_context(TrackingServer(place)).url


if __name__ == "__main__":
    main()
