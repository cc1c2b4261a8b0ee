"""`log-model bench`: how fast an endpoint answers, and where its throughput ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catalogger.cli.options import DEBUG, OUTPUT, PROFILE
from catalogger.cli.output import Terminal, emit
from catalogger.errors import NetworkUnreachable, UsageError
from catalogger.quiet import quiet

if TYPE_CHECKING:
    from catalogger.serving.bench.results import LoadTest


@click.command("bench")
@click.argument("endpoint")
@click.option("--parallel", metavar="N,N,…", help="Requests at the same time, a step each.  [default: 1,2,4,8,… 128]")
@click.option("--input-tokens", type=int, metavar="N", help="Tokens of each prompt.  [default: 2048; 512 to embed]")
@click.option("--output-tokens", type=int, metavar="N", help="Tokens of each answer.  [default: 256]")
@click.option("--tokenizer", metavar="SOURCE", help="The model's checkpoint, a folder or ORG/REPO.")
@click.option("--seconds", type=float, default=30.0, metavar="S", help="How long a step is measured.  [default: 30]")
@click.option("--requests", type=int, metavar="N", help="Measure so many requests of each stream instead.")
@click.option("--plateau", type=float, default=5.0, metavar="PERCENT", help="What a step must add.  [default: 5]")
@click.option("--timeout", type=float, default=120.0, metavar="S", help="Seconds for one answer.  [default: 120]")
@click.option(
    "--save",
    "places",
    multiple=True,
    metavar="PLACE",
    type=click.Path(path_type=Path),
    help="Folder for JSON, CSV and picture, or a file in .json, .csv, .png or .svg; may be repeated.",
)
@click.option("--against", metavar="FILE", type=click.Path(path_type=Path), help="Compare with this saved JSON.")
@PROFILE
@OUTPUT
@DEBUG
def command(
    endpoint: str,
    parallel: str | None,
    places: Sequence[Path],
    against: Path | None,
    profile: str | None,
    output: str,
    debug: bool,
    **options: Any,
) -> int:
    """Load-test the serving endpoint ENDPOINT, which costs as many tokens as it answers.

    \b
    log-model bench support-bot --tokenizer ./checkpoint --save results/
    log-model bench support-bot --parallel 1,8,64 --requests 10 --against results/load-test.json

    After 10 warm-up queries, which tell how many tokens the endpoint sees in a prompt, 1, 2, 4, 8, … requests run at
    the same time.  The ladder ends where two steps, one after the other, each add no more than 5 % to the throughput.
    Steps that --parallel names are all run.

    Two throughputs are told: of output tokens, and of input and output tokens, which endpoints are provisioned in.
    Ctrl-C ends it and keeps what was measured.
    """
    from catalogger.remote.workspace import workspace_client
    from catalogger.serving.bench.comparing import compare
    from catalogger.serving.bench.load_test import load_test
    from catalogger.serving.bench.results import GIVEN_UP, INTERRUPTED, read
    from catalogger.serving.bench.saving import files_of, save

    quiet(debug=debug)
    files = files_of(places)
    earlier = None if against is None else read(against)
    steps = None if parallel is None else _numbers(parallel)
    test = load_test(workspace_client(profile), endpoint, parallel=steps, progress=Terminal(), **options)
    comparison = compare(test, earlier) if earlier else None
    for file in save(test, files, earlier):
        Terminal().say(f"Wrote {file}")
    if output == "json":
        emit(test.document() | ({"against": comparison.document()} if comparison else {}))
    else:
        click.echo("\n\n".join([test.text(), *([comparison.text()] if comparison else [])]))
        click.echo(_conclusion(test))
    if test.ended == GIVEN_UP:
        Terminal().say(f'Error: The endpoint "{endpoint}" no longer answers. What was measured before is kept.')
        return NetworkUnreachable.exit_code
    return 130 if test.ended == INTERRUPTED else 0


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise UsageError(f'"{text}" is no list of numbers.', "Write them as in --parallel 1,2,4.") from error


def _conclusion(test: LoadTest) -> str:
    from catalogger.serving.bench.results import WHOLE_RATE

    best = test.best
    if best is None:
        return "Nothing was answered."
    most = test.served.most
    share = f", {best.whole_rate / most:.0%} of the {most:,.0f} that it is provisioned for at the most" if most else ""
    limit = "; the client was the limit there" if best.client_limits else ""
    return f"\nHighest: {best.whole_rate:,.0f} {WHOLE_RATE} at {best.parallel} parallel requests{share}{limit}."
