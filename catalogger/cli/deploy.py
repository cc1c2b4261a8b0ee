"""`log-model deploy`: from a registered version to an endpoint that answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catalogger.cli.options import DEBUG, OUTPUT, PROFILE, seconds
from catalogger.cli.output import Terminal, emit
from catalogger.errors import UsageError
from catalogger.quiet import quiet

if TYPE_CHECKING:
    from catalogger.serving.capacity import Capacity
    from catalogger.serving.deployment import Deployment

_GATEWAY = ("fallback_config", "guardrails", "inference_table_config", "rate_limits", "usage_tracking_config")


@click.command("deploy")
@click.argument("model")
@click.option("--endpoint", metavar="NAME", help="Name of the endpoint.  [default: the model's own]")
@click.option("--min-throughput", "minimum", type=int, metavar="N", help="Tokens per second that are always there.")
@click.option("--max-throughput", "maximum", type=int, metavar="N", help="Tokens per second at the most.")
@click.option("--tokens-per-second", type=float, metavar="N", help="At least so many, rounded up to whole chunks.")
@click.option("--units", type=int, metavar="N", help="Model units, for models that are served by these.")
@click.option("--scale-to-zero", is_flag=True, help="Let it go to sleep; the first query after that fails or waits.")
@click.option("--no-burst", is_flag=True, help="Never more than the --units.")
@click.option("--traffic", multiple=True, metavar="VERSION=PERCENT", help="Share the traffic with what is served now.")
@click.option("--replace", is_flag=True, help="Agree that an endpoint of this name stops serving another model.")
@click.option("--ai-gateway", metavar="FILE", type=click.Path(path_type=Path), help="Its options, in YAML or JSON.")
@click.option("--check-only", is_flag=True, help="Ask whether it could be served, and create nothing.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is ready.")
@click.option(
    "--timeout",
    callback=seconds("smh", "5400, 90m or 2h"),
    default="60m",
    metavar="TIME",
    help="Seconds, or as 90m.  [default: 60m]",
)
@click.option("--rollback", is_flag=True, help="Put the configuration before it back where an update fails.")
@click.option("--logprobs", is_flag=True, help="Prove that it gives log probabilities.")
@click.option("--yes", is_flag=True, help="Agree to more than four chunks.")
@PROFILE
@OUTPUT
@DEBUG
def command(output: str, debug: bool, **options: Any) -> None:
    """Serve MODEL (NAME/VERSION or NAME@ALIAS) on a provisioned-throughput endpoint, and see that it answers.

    \b
    log-model deploy main.ml.support_bot@champion
    log-model deploy main.ml.gte_large/3 --endpoint search --min-throughput 980 --max-throughput 2940

    The workspace says whether it serves the version, and by tokens per second or by model units.  Without a capacity
    it is one chunk, the cheapest that serves.  What is there as asked is left alone; nothing is ever deleted.

    \b
    Exit codes: 0 ready, 2 not eligible or a wrong request (nothing was created), 4 permission, 5 network,
    8 not ready yet (run it again), 9 failed.
    """
    quiet(debug=debug)
    done = run(**options)
    if output == "json":
        emit(done.document())
    else:
        click.echo(str(done))


def run(
    *,
    model: str,
    endpoint: str | None,
    traffic: Iterable[str] = (),
    replace: bool = False,
    ai_gateway: Path | None = None,
    check_only: bool = False,
    no_wait: bool = False,
    timeout: float = 3600.0,
    dimension: int | None = None,
    rollback: bool = False,
    logprobs: bool = False,
    yes: bool = False,
    profile: str | None = None,
    **wish: Any,
) -> Deployment:
    """The deployment as the command does it; the options as for `Terms` and `Wish`."""
    from catalogger.remote.workspace import workspace_client
    from catalogger.serving.capacity import Wish
    from catalogger.serving.deploying import Terms, deploy

    asked = Wish(**wish)
    terms = Terms(
        replace=replace,
        traffic=_shares(traffic),
        ai_gateway=_gateway(ai_gateway) if ai_gateway else None,
        wait=not no_wait,
        timeout=timeout,
        rollback=rollback,
        logprobs=logprobs,
        dimension=dimension,
    )
    return deploy(
        workspace_client(profile),
        model,
        endpoint=endpoint,
        wish=asked,
        terms=terms,
        check_only=check_only,
        consent=_consent(agreed=yes),
        progress=Terminal(),
    )


def _consent(*, agreed: bool) -> Callable[[Capacity], bool]:
    def ask(capacity: Capacity) -> bool:
        if agreed or not sys.stdin.isatty():
            return agreed
        return click.confirm(f"That is {capacity.chunks} chunks. Create it?", err=True)

    return ask


def _shares(traffic: Iterable[str]) -> dict[str, int]:
    """Percentages by version."""
    shares: dict[str, int] = {}
    for said in traffic:
        version, _, percent = said.partition("=")
        if not version or not percent.isdecimal():
            raise UsageError(f'--traffic "{said}" is no share.', "Write VERSION=PERCENT, as in 4=10.")
        if version in shares:
            raise UsageError(f'--traffic gives "{version}" two shares.', "Give it one.")
        shares[version] = int(percent)
    return shares


def _gateway(file: Path) -> Mapping[str, Any]:
    """The options of an AI gateway, as the workspace takes them."""
    import yaml

    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'"{file}" cannot be read: {error}.') from error
    except yaml.YAMLError as error:
        raise UsageError(f'"{file}" is neither YAML nor JSON: {error}') from error
    unknown = sorted(set(map(str, options)) - set(_GATEWAY)) if isinstance(options, dict) else ["no mapping"]
    if unknown:
        held = f'"{file}" holds what no AI gateway has: {", ".join(unknown)}.'
        raise UsageError(held, f"Known are {', '.join(_GATEWAY)}.")
    return dict(options)
