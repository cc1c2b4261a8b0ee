"""The command itself: without a verb it does the main job; a verb is a module of this room, loaded when it is used."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from itertools import pairwise
from typing import Any

import click

from catalogger.cli.options import ALLOW_PICKLE, DEBUG, FOR, NORMALIZE, OUTPUT, OVERRIDES, REGISTRY, TRACKING, changes
from catalogger.cli.output import fail, interrupted

_VERBS = {
    "recipes": ("catalogger.cli.recipes", "command"),
    "check": ("catalogger.cli.checks", "check_command"),
    "lint": ("catalogger.cli.checks", "lint_command"),
    "rules": ("catalogger.cli.rules", "command"),
    "convert": ("catalogger.cli.convert", "command"),
    "size": ("catalogger.cli.size", "command"),
    "deploy": ("catalogger.cli.deploy", "command"),
    "query": ("catalogger.cli.query", "command"),
    "bench": ("catalogger.cli.bench", "command"),
    "endpoints": ("catalogger.cli.endpoints", "endpoints_command"),
    "sync": ("catalogger.cli.sync", "sync_command"),
    "schema": ("catalogger.cli.sync", "schema_command"),
    "teardown": ("catalogger.cli.endpoints", "teardown_command"),
    "verify": ("catalogger.cli.verify", "command"),
    "outdated": ("catalogger.cli.outdated", "command"),
    "promote": ("catalogger.cli.promote", "command"),
    "clean": ("catalogger.cli.clean", "command"),
    "doctor": ("catalogger.cli.doctor", "command"),
}


class _Verbs(click.Group):
    """A group whose commands are imported only when they are called or listed with their help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, name = _VERBS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--recipe", metavar="NAME|FILE", help="What to log: a recipe's name, or a recipe file of your own.")
@click.option(
    "--source",
    metavar="SOURCE",
    help="ORG/REPO[@REVISION] on the Hub, a folder, or package:DISTRIBUTION/FOLDER.  [default: the recipe's own]",
)
@changes
@click.option("--name", metavar="C.S.M", help="catalog.schema.model to register.  [default: main.default.<recipe>]")
@click.option("--alias", "aliases", multiple=True, metavar="A", help="Alias to set on the version; may be repeated.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Tag to set on the version; may be repeated.")
@OVERRIDES
@FOR
@TRACKING
@REGISTRY
@click.option(
    "--weights",
    type=click.Choice(["auto", "copy", "link"]),
    default="auto",
    help="How weight files get into the model: auto links the Hub's cache, copies a folder.  [default: auto]",
)
@click.option(
    "--upload",
    type=click.Choice(["auto", "storage", "files"]),
    default="auto",
    help="How files get to Databricks: by the cloud storage, or by the Files API.  [default: auto, as MLflow chooses]",
)
@click.option(
    "--tracking",
    type=click.Choice(["auto", "full"]),
    default="auto",
    help="full also logs the weights to the tracking server where Unity Catalog holds them.  [default: auto]",
)
@click.option("--stream", is_flag=True, help="From the Hub to the registry file by file, with little disk.")
@NORMALIZE
@click.option("--trust-remote-code", is_flag=True, help="Consent to the Python code that a checkpoint brings.")
@ALLOW_PICKLE
@click.option("--ignore", multiple=True, metavar="CODE", help="Do not run this rule; recorded in the version's tags.")
@click.option("--rehash", is_flag=True, help="Hash every file again instead of trusting remembered digests.")
@click.option("--prove", is_flag=True, help="Load the model and ask it something before it is logged (needs torch).")
@click.option("--dry-run", is_flag=True, help="Show the whole plan and change nothing.")
@click.option("--deploy", is_flag=True, help="Then serve the version, by one chunk; `deploy` has more options.")
@click.option("--endpoint", metavar="NAME", help="Name of that endpoint.  [default: the model's own]")
@OUTPUT
@DEBUG
@click.version_option(package_name="catalogger")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> int:
    """Check a Hugging Face checkpoint, log it as an MLflow model and register it to Unity Catalog.

    \b
    log-model --recipe bge-small --name main.ml.bge_small
    log-model --recipe llama-chat --source ./my-fine-tune --name main.ml.support_bot --alias challenger

    No weight is loaded, everything is checked before a weight moves, and the same content makes no second version.

    \b
    Exit codes: 0 done or nothing to do, 1 our mistake, 2 usage or a failed check (nothing was changed),
    4 permission, 5 network, 6 disk, 7 registry, 8 endpoint not ready yet, 9 endpoint failed,
    130 interrupted (run it again to go on).
    """
    if ctx.invoked_subcommand is not None:
        return 0
    if not options["recipe"]:
        raise click.UsageError("Say what to log by --recipe NAME; `log-model recipes` lists them.")
    from catalogger.cli.job import run as log

    return log(**options)


def main() -> None:
    """Entry point of the `log-model` script: runs a command and ends the process with the exit code of its outcome."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(141)  # as the shell counts a process that SIGPIPE ended: the reader left, whatever was done is done
    except KeyboardInterrupt:
        interrupted()
        os._exit(130)  # downloads of other threads would hold the process; they are taken up by the next run
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run the command with these arguments; its exit code.  Raises KeyboardInterrupt and BrokenPipeError only."""
    try:
        ended = cli.main(arguments, prog_name="log-model", standalone_mode=False)
    except click.Abort as stopped:
        raise KeyboardInterrupt from stopped
    except BrokenPipeError:
        raise
    except Exception as error:
        return fail(error, as_json=_wants_json(arguments), debug="--debug" in arguments)
    return ended if isinstance(ended, int) else 0


def _wants_json(arguments: list[str]) -> bool:
    """Known before parsing, as a usage error is also a document then."""
    joined = {"-ojson", "-o=json", "--output=json"} & set(arguments)
    return bool(joined) or any(f in ("-o", "--output") and form == "json" for f, form in pairwise(arguments))
