"""The entry point of a Databricks job's tasks: `catalogger-task COMMAND...` does what `log-model COMMAND...` does.

It brings what a wheel task lacks in its environment, secrets, credentials and an experiment, and must not know a verb.
"""

from __future__ import annotations

import os
import sys

import click

from catalogger.cli.main import run
from catalogger.cli.output import fail
from catalogger.errors import AccessDenied, CataloggerError, UsageError
from catalogger.remote.workspace import runtime_credentials


@click.command(context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]})
@click.option("--hf-token-secret", default="", metavar="SCOPE/KEY", help="Secret to set HF_TOKEN to; empty for none.")
@click.option("--experiment-id", metavar="ID", help="MLflow experiment that is logged to: a wheel task has none.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND...")
def command(hf_token_secret: str, experiment_id: str | None, arguments: tuple[str, ...]) -> int:
    """Run `log-model COMMAND...` as the task of a Databricks job.

    \b
    catalogger-task --hf-token-secret=models/hf_token sync models.yaml --dry-run --publish changed

    The secret is read by dbutils, with the READ permission of whoever the job runs as.
    """
    if hf_token_secret:
        os.environ["HF_TOKEN"] = _secret(hf_token_secret)
    if experiment_id:
        os.environ["MLFLOW_EXPERIMENT_ID"] = experiment_id
    os.environ |= runtime_credentials()
    return run(list(arguments))


def main() -> None:
    """Run the task, and return where all went well: to Databricks every SystemExit of a task is a failure, even 0."""
    try:
        code = command.main(sys.argv[1:], prog_name="catalogger-task", standalone_mode=False)
    except (click.ClickException, CataloggerError) as error:
        code = fail(error, as_json=False, debug=False)
    sys.stdout.flush()
    if code:
        sys.exit(code)


def _secret(reference: str) -> str:
    """The value of the secret, without the line's end that a shell puts behind it."""
    scope, _, key = reference.partition("/")
    if not scope or not key or "/" in key:
        raise UsageError(f'--hf-token-secret "{reference}" names no secret.', "Write SCOPE/KEY.")
    try:
        from databricks.sdk.runtime import dbutils

        value = str(dbutils.secrets.get(scope=scope, key=key)).strip()
    except Exception as error:  # dbutils has as many kinds of errors as it has kinds of runtimes
        raise AccessDenied(
            f'The secret "{reference}" cannot be read: {error}',
            f"`databricks secrets list-secrets {scope}` shows the keys; whoever runs the job needs READ on the scope.",
        ) from error
    if not value:
        raise UsageError(
            f'The secret "{reference}" is empty.', f"`databricks secrets put-secret {scope} {key}` sets it."
        )
    return value
