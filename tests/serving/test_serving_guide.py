"""The guide on serving shows commands that exist, figures that the command gives, and names that the package has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from cli.command import run
from cli.guide import options_of, require_known

import catalogger
from catalogger.cli.main import cli

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
SHOWN = re.findall(r"^\$ log-model (.+)$", PAGE, re.MULTILINE)
CALCULATED = re.findall(r"^\$ log-model (size (?!main\.).*)\n((?:.+\n)+?)(?=```|\$ )", PAGE, re.MULTILINE)


@pytest.mark.parametrize("shown", SHOWN)
def test_every_command_is_one_and_takes_its_options(shown: str) -> None:
    require_known(shown)


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(--[\w-]+)", PAGE))))
def test_every_option_in_the_text_is_one_of_a_verb(named: str) -> None:
    verbs = [cli.get_command(click.Context(cli), name) for name in cli.list_commands(click.Context(cli))]
    assert any(verb and named in options_of(verb) for verb in verbs)


@pytest.mark.parametrize(("asked", "told"), CALCULATED)
def test_calculated_figures_are_those_that_the_command_gives(asked: str, told: str) -> None:
    assert run(*shlex.split(asked)).out == told


def test_the_calculations_are_found() -> None:
    assert len(CALCULATED) >= 2


def test_every_function_of_the_table_is_public() -> None:
    table = PAGE[: PAGE.index("MODEL is")]
    named = re.findall(r"`(\w+)\(", table)
    assert len(named) >= 8
    assert set(named) <= set(catalogger.__all__)
