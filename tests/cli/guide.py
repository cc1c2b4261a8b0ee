"""Commands that a page shows, held to those that there are."""

from __future__ import annotations

import shlex

import click

from catalogger.cli.main import cli


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def require_known(shown: str) -> None:
    """The words behind `log-model` are a verb, or the main job, and options that it takes."""
    words = shlex.split(shown.partition(">")[0])
    verb = None if words[0].startswith("-") else cli.get_command(click.Context(cli), words[0])
    assert verb or words[0] == "--recipe", "the main job"
    assert {word for word in words if word.startswith("-")} <= options_of(verb or cli)
