"""`log-model rules`: what is looked at, why it matters, how to fix it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from catalogger.cli.output import emit
from catalogger.errors import UsageError

if TYPE_CHECKING:
    from catalogger.validators import Rule

_WIDTH = 100
_ROOMS = {
    "CK": "Checkpoint",
    "EN": "Environment",
    "ML": "Logged model",
    "PT": "Serving on provisioned throughput",
    "TK": "Tokenizer and chat template",
    "UC": "Target",
}
_HEAD = (
    "`log-model check` and `log-model lint` run these, and so does `log-model` itself: what concerns the checkpoint"
    " before a weight moves, what concerns the logged model before it is registered. The severity is the worst that a"
    " rule says; an error stops the job. This page is printed by `log-model rules -o markdown`."
)


@click.command("rules")
@click.argument("code", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    help="Form of the result on stdout.",
)
def command(code: str | None, output: str) -> None:
    """List the rules, or explain the one with this CODE."""
    from catalogger.validators import rules

    known = rules()
    if code is not None and code.upper() not in known:
        raise UsageError(f'There is no rule "{code}".', f"Rules: {', '.join(known)}.")
    chosen = known if code is None else {code.upper(): known[code.upper()]}
    if output == "json":
        emit({"rules": [document(rule) for rule in chosen.values()]})
    elif output == "markdown":
        click.echo(page(chosen.values()), nl=False)
    elif code is None:
        click.echo("\n".join(f"{rule.code}  {rule.severity:<7}  {rule.title}" for rule in chosen.values()))
    else:
        click.echo(explained(chosen[code.upper()]))


def document(rule: Rule) -> Mapping[str, str | bool]:
    """The rule as JSON data."""
    return {
        "code": rule.code,
        "severity": rule.severity,
        "title": rule.title,
        "why": rule.why,
        "fix": rule.fix,
        "can_be_ignored": not rule.protects,
    }


def page(chosen: Iterable[Rule]) -> str:
    """The documentation page of the rules."""
    lines = ["# Rules", "", *textwrap.wrap(_HEAD, _WIDTH), ""]
    room = ""
    for rule in chosen:
        if rule.code[:2] != room:
            room = rule.code[:2]
            lines += [f"## {_ROOMS[room]}", ""]
        ignoring = (
            "It protects data and cannot be ignored." if rule.protects else f"`--ignore {rule.code}` leaves it out."
        )
        lines += [f"### {rule.code}: {rule.title}", "", f"Severity: {rule.severity}. {ignoring}", ""]
        for part in (*rule.why.split("\n\n"), f"Fix: {rule.fix}"):
            lines += [*textwrap.wrap(part, _WIDTH), ""]
    return "\n".join(lines)


def explained(rule: Rule) -> str:
    """One rule as people read it."""
    ignoring = "It protects data and cannot be ignored." if rule.protects else f"--ignore {rule.code} leaves it out."
    parts = [f"{rule.code} ({rule.severity}): {rule.title}", rule.why, f"Fix: {rule.fix}", ignoring]
    return "\n\n".join(textwrap.fill(p, _WIDTH) for part in parts for p in part.split("\n\n"))
