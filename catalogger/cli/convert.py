"""`log-model convert`: a checkpoint changed, to a folder."""

from __future__ import annotations

import click

from catalogger.cli.options import ALLOW_PICKLE, DEBUG, NORMALIZE, OUTPUT, changes
from catalogger.cli.output import Terminal, emit
from catalogger.quiet import quiet


@click.command("convert")
@click.argument("source")
@click.option("--to", required=True, metavar="FOLDER", help="Where the result goes; it must not exist, or be empty.")
@changes
@ALLOW_PICKLE
@NORMALIZE
@OUTPUT
@DEBUG
def command(
    source: str,
    to: str,
    adapter: str | None,
    base: str | None,
    checkpoint: str | None,
    dtype: str | None,
    max_shard_size: str | None,
    allow_pickle: bool,
    normalize: int | None,
    output: str,
    debug: bool,
) -> None:
    """Merge an adapter, cast to bfloat16, or cut the shards anew: SOURCE into a folder.

    \b
    log-model convert ./my-adapter --to ./merged
    log-model convert meta-llama/Llama-3.1-8B --adapter ./my-adapter --to ./merged --max-shard-size 1GB
    log-model convert ./trained-in-float32 --to ./smaller --dtype bfloat16

    No model is loaded: memory stays flat whatever the size.  Run it again after an interruption: it goes on where it
    stopped, or says what was done.
    """
    from catalogger.checkpoints.changing.change import Wish
    from catalogger.checkpoints.changing.converting import converting

    quiet(debug=debug)
    wish = Wish(adapter, base, checkpoint, dtype, max_shard_size)
    with converting(source, to, wish, allow_pickle=allow_pickle, normalize=normalize, progress=Terminal()) as done:
        if output == "json":
            emit(done.document())
        else:
            click.echo(str(done))
