"""`log-model sync`: make true what a manifest says.  `log-model schema`: what it may say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catalogger.cli.options import DEBUG, OUTPUT, REGISTRY, TRACKING, pairs
from catalogger.cli.output import Terminal, emit, interrupted
from catalogger.errors import UsageError
from catalogger.files.sizes import bytes_of
from catalogger.quiet import quiet

if TYPE_CHECKING:
    from catalogger.fleet.outcome import SyncOutcome


_TASK_VALUE = 48 * 1024  # bytes of its JSON that a job takes


def _bytes(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Of a number with a unit, in powers of ten."""
    if value is None:
        return None
    size = bytes_of(value.upper().removesuffix("/S"))
    if size is None:
        raise click.BadParameter(f'"{value}" is no size. Write it as 200MB.')
    return size


@click.command("sync")
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@click.option("--var", "variables", multiple=True, metavar="K=V", help="Value of ${K}; may be repeated.")
@click.option("--only", multiple=True, metavar="NAME", help="Only the entry of this name; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--check", is_flag=True, help="As --dry-run, and exit 3 where something would change.")
@click.option("--jobs", type=int, default=1, metavar="N", help="Entries that are done at a time.  [default: 1]")
@click.option(
    "--max-rate", callback=_bytes, metavar="SIZE", help="Bytes per second that all jobs together move, as 200MB."
)
@click.option("--report", metavar="FILE", type=click.Path(path_type=Path), help="Also write the report as HTML.")
@click.option(
    "--publish", metavar="KEY", help="Set the names that would change as a task value of the Databricks job (dry runs)."
)
@TRACKING
@REGISTRY
@click.option("--trust-remote-code", is_flag=True, help="Consent to the code of entries that ask for it.")
@click.option("--allow-pickle", is_flag=True, help="Agree to pickled weights of entries that ask for it.")
@OUTPUT
@DEBUG
def sync_command(
    manifests: tuple[str, ...],
    variables: Iterable[str],
    dry_run: bool,
    check: bool,
    report: Path | None,
    publish: str | None,
    output: str,
    debug: bool,
    **options: Any,
) -> int:
    """Make true what the MANIFEST files say: register what is new, move aliases, deploy; leave the rest alone.

    \b
    log-model sync models.yaml --dry-run
    log-model sync models.yaml --var CATALOG=prod --jobs 4 --report report.html

    Every entry is planned before any is done; the failure of one ends no other.  Running it again changes nothing.

    \b
    Exit codes: 0 done or nothing to do, 2 a mistake in a manifest or a failed check, 3 --check: something would
    change, else as for the main job, the worst where several entries failed; 130 interrupted.
    """
    from catalogger.fleet.sync import sync

    quiet(debug=debug)
    publishing = _publisher(publish, dry_run=dry_run or check)
    outcome = sync(
        manifests,
        variables=pairs(variables, "--var", "--var"),
        dry_run=dry_run or check,
        debug=debug,
        progress=Terminal(),
        **options,
    )
    publishing(outcome)
    _tell(outcome, output, report)
    if outcome.interrupted:
        interrupted()
    return outcome.exit_code(check=check)


@click.command("schema")
@click.argument("subject", type=click.Choice(["manifest", "recipe"]))
def schema_command(subject: Any) -> None:
    """Print the JSON Schema of a manifest or a recipe, by which editors complete and check.

    \b
    log-model schema manifest > manifest.schema.json
    and as the first line of the manifest:  # yaml-language-server: $schema=manifest.schema.json
    """
    from catalogger.fleet.schema import written

    click.echo(written(subject), nl=False)


def _tell(outcome: SyncOutcome, output: str, report: Path | None) -> None:
    from catalogger.fleet.report import write_report

    click.echo(str(outcome), err=output == "json")
    if outcome.run_id:
        click.echo(f"recorded as MLflow run {outcome.run_id}", err=True)
    if output == "json":
        emit(outcome.document())
    if report:
        write_report(outcome, report)
        click.echo(f"report in {report}", err=True)


def _publisher(key: str | None, *, dry_run: bool) -> Callable[[SyncOutcome], None]:
    """What publishes the names as a task value.  Raises UsageError where there is no task, before anything is done."""
    if key is None:
        return lambda _: None
    if not dry_run:
        raise UsageError("--publish was given without --dry-run.", "It publishes what would change.")
    if "DATABRICKS_RUNTIME_VERSION" not in os.environ:  # the SDK's stand-in would take the value and lose it
        raise UsageError("--publish works in a task of a Databricks job only.", "Leave it out here.")
    from databricks.sdk.runtime import dbutils

    def put(outcome: SyncOutcome) -> None:
        size = len(json.dumps(outcome.pending).encode())
        if size > _TASK_VALUE:
            raise UsageError(
                f"{len(outcome.pending)} names are too much for a task value: {size} of {_TASK_VALUE} bytes.",
                "Divide the manifest between several jobs.",
            )
        dbutils.jobs.taskValues.set(key=key, value=outcome.pending)

    return put
