"""`log-model size`: how much throughput to provision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from catalogger.cli.options import DEBUG, OUTPUT, PROFILE
from catalogger.cli.output import Terminal, emit
from catalogger.errors import UsageError
from catalogger.quiet import quiet

if TYPE_CHECKING:
    from catalogger.serving.sizing import Workload


@click.command("size")
@click.argument("model", required=False)
@click.option("--tokens-per-second", type=float, metavar="N", help="The rate, input and output together.")
@click.option("--requests-per-second", type=float, metavar="N", help="Or so many requests, of these tokens:")
@click.option("--input-tokens", type=float, metavar="N", help="Of one request, on average.")
@click.option("--output-tokens", type=float, metavar="N", help="Of one answer, on average.")
@click.option("--prompts", type=click.Path(path_type=Path), metavar="FILE", help="Count these, in place of the input.")
@click.option("--tokenizer", metavar="SOURCE", help="By the tokenizer of this checkpoint: a folder or ORG/REPO.")
@click.option("--rows", type=int, metavar="N", help="How long does a batch of so many requests take?")
@click.option(
    "--chunk", type=int, metavar="N", help="Tokens per second of a chunk.  [default: MODEL's, as it is asked]"
)
@click.option("--unit-chunk", type=int, metavar="N", help="Model units of a chunk, where it is served by these.")
@PROFILE
@OUTPUT
@DEBUG
def command(
    model: str | None,
    tokens_per_second: float | None,
    requests_per_second: float | None,
    input_tokens: float | None,
    output_tokens: float | None,
    prompts: Path | None,
    tokenizer: str | None,
    rows: int | None,
    chunk: int | None,
    unit_chunk: int | None,
    profile: str | None,
    output: str,
    debug: bool,
) -> None:
    """Say how much throughput a workload needs; of MODEL (NAME/VERSION or NAME@ALIAS) the workspace tells the chunk.

    \b
    log-model size main.ml.support_bot@champion --requests-per-second 2 --input-tokens 1500 --output-tokens 200
    log-model size --chunk 980 --tokens-per-second 3500 --rows 1000 --input-tokens 3000 --output-tokens 500

    It is arithmetic over documented figures, and measured by `log-model bench` only.
    """
    from catalogger.serving.sizing import size

    quiet(debug=debug)
    if prompts is not None:
        input_tokens, rows = _counted(prompts, tokenizer, input_tokens, rows)
    workload = _workload(requests_per_second, input_tokens, output_tokens, rows)
    if model is not None:
        chunk, unit_chunk = _chunks(model, chunk, unit_chunk, profile)
    found = size(tokens_per_second=tokens_per_second, workload=workload, chunk=chunk, unit_chunk=unit_chunk)
    if output == "json":
        emit(found.document())
    else:
        click.echo(str(found))


def _counted(prompts: Path, tokenizer: str | None, input_tokens: float | None, rows: int | None) -> tuple[float, int]:
    from catalogger.serving.prompts import count_prompts

    if input_tokens is not None or tokenizer is None:
        raise UsageError(
            "--prompts needs --tokenizer, and takes the place of --input-tokens.",
            "Give the model's checkpoint: a folder, or ORG/REPO.",
        )
    found = count_prompts(prompts, tokenizer)
    Terminal().say(f"{prompts}: {found}")
    return found.average, found.rows if rows is None else rows


def _workload(
    requests_per_second: float | None, input_tokens: float | None, output_tokens: float | None, rows: int | None
) -> Workload | None:
    from catalogger.serving.sizing import Workload

    if input_tokens is None:
        if any(given is not None for given in (requests_per_second, output_tokens, rows)):
            raise UsageError("It is not said how large a request is.", "Give --input-tokens and --output-tokens.")
        return None
    return Workload(input_tokens, output_tokens or 0, requests_per_second, rows)


def _chunks(
    model: str, chunk: int | None, unit_chunk: int | None, profile: str | None
) -> tuple[int | None, int | None]:
    """Of tokens per second and of model units, as the workspace says; one of them is None."""
    from catalogger.remote.workspace import workspace_client
    from catalogger.serving.eligibility import eligibility

    said = eligibility(workspace_client(profile), model, progress=Terminal())
    unit, own = said.require()
    Terminal().say(str(said))
    told = (own, None) if unit == "tokens_per_second" else (None, own)
    if (chunk, unit_chunk) not in ((None, None), told):
        raise UsageError(
            f'The workspace says of "{said.entity}" what its chunk is: {own} {unit.replace("_", " ")}.',
            "Leave --chunk and --unit-chunk out.",
        )
    return told
