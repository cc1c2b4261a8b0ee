"""`log-model convert`: a checkpoint changed, to a folder."""

from __future__ import annotations

import click

from catalogger.cli.options import DEBUG, NORMALIZE, OUTPUT
from catalogger.cli.output import Terminal, emit
from catalogger.quiet import quiet


@click.command("convert")
@click.argument("source")
@click.option("--to", required=True, metavar="FOLDER", help="Where the result goes; it must not exist, or be empty.")
@click.option("--adapter", metavar="REPO|DIR", help="Merge this LoRA adapter; `none` where a folder holds both.")
@click.option("--base", metavar="SOURCE", help="The base, where SOURCE is an adapter.  [default: as its config says]")
@click.option("--checkpoint", metavar="best|last|N", help="Which one, where SOURCE is a Trainer's folder.")
@click.option("--dtype", type=click.Choice(["bfloat16"]), help="Cast the weights.  [default: they stay as they are]")
@click.option("--max-shard-size", metavar="N", help="Cut or join the weight files to this size, as in 1GB.")
@click.option("--allow-pickle", is_flag=True, help="Take pickled weights too: read as data, by a process apart.")
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
    stopped.
    """
    from catalogger.checkpoints.changing.converting import convert

    quiet(debug=debug)
    done = convert(
        source,
        to,
        adapter=adapter,
        base=base,
        checkpoint=checkpoint,
        dtype=dtype,
        max_shard_size=max_shard_size,
        allow_pickle=allow_pickle,
        normalize=normalize,
        progress=Terminal(),
    )
    if output == "json":
        emit(done.document())
    else:
        click.echo(str(done))
