"""A loopback workspace with models that can be served, and answers that tell who was asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testing.asking import LLAMA, OSS, TOKENS, Echo

from catalogger.testing import Workspace
from catalogger.testing.optimization import tokens, units


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def serving(tmp_path: Path, echo: Echo) -> Iterator[Workspace]:
    """A workspace with the schema main.ml, and a model of each unit of capacity."""
    with Workspace(tmp_path, tokens=TOKENS, answers=echo) as workspace:
        workspace.add_schema("main.ml")
        workspace.serving.add_base_model(LLAMA, tokens(), versions=3)
        workspace.serving.add_base_model(OSS, units())
        yield workspace
