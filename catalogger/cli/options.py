"""Options that many verbs have, and values that are written in the same way for several of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from catalogger.errors import UsageError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

OUTPUT: Decorator = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the result on stdout."
)
DEBUG: Decorator = click.option("--debug", is_flag=True, help="Show tracebacks and MLflow's own messages.")
PROFILE: Decorator = click.option("--profile", metavar="NAME", help="Profile of the Databricks configuration.")
TRACKING: Decorator = click.option(
    "--tracking-uri", metavar="U", help="MLflow tracking store.  [default: MLFLOW_TRACKING_URI, else ./mlflow.db]"
)
REGISTRY: Decorator = click.option(
    "--registry-uri", metavar="U", help="Model registry.  [default: MLFLOW_REGISTRY_URI, else the tracking store]"
)
FOR: Decorator = click.option(
    "--for",
    "written_for",
    metavar="ENVIRONMENT",
    help="Write what another MLflow would: mlflow==2.12.2, or dbr-15.4-ml.  [default: the MLflow installed here]",
)
NORMALIZE: Decorator = click.option(
    "--normalize",
    type=click.IntRange(4, 5),
    metavar="4|5",
    help="Say config, tokenizer and chat template as this generation of Transformers writes and reads them.",
)
OVERRIDES: Decorator = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="K=V",
    help="Change a value of the recipe, as in metadata.model_type=bge-large.",
)
ALLOW_PICKLE: Decorator = click.option(
    "--allow-pickle", is_flag=True, help="Take pickled weights where there are no safetensors."
)
_CHANGES: tuple[Decorator, ...] = (
    click.option("--adapter", metavar="REPO|DIR", help="Merge this LoRA adapter; `none` where a folder holds both."),
    click.option("--base", metavar="SOURCE", help="The adapter's base.  [default: SOURCE, else as its config says]"),
    click.option("--checkpoint", metavar="best|last|N", help="Which one, where SOURCE is a Trainer's folder."),
    click.option(
        "--dtype", type=click.Choice(["bfloat16"]), help="Cast the weights.  [default: they stay as they are]"
    ),
    click.option("--max-shard-size", metavar="N", help="Cut or join the weight files to this size, as in 1GB."),
)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def changes(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that change weights, on a command."""
    for option in reversed(_CHANGES):
        command = option(command)
    return command


def seconds(units: str, examples: str) -> Callable[[click.Context, click.Parameter, str], float]:
    """What reads a time: a number of seconds, or one with any of these units behind it."""
    form = re.compile(rf"(\d+(?:\.\d+)?)([{units}]?)")

    def read(_: click.Context, __: click.Parameter, value: str) -> float:
        said = form.fullmatch(value)
        if said is None:
            raise click.BadParameter(f'"{value}" is no time. Write it as {examples}.')
        return float(said[1]) * _SECONDS[said[2]]

    return read


def pairs(said: Iterable[str], what: str, option: str) -> Mapping[str, str]:
    """Values by key of `KEY=VALUE`.  Raises UsageError for one without a value."""
    found: dict[str, str] = {}
    for one in said:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise UsageError(f'{what} "{one}" has no value.', f"Write {option} KEY=VALUE.")
        found[key] = value
    return found
