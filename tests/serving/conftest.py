"""A loopback workspace with models of both kinds, for the tests of deployments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from databricks.sdk import WorkspaceClient
from serving.deployments import Answers
from testing.asking import ANN, LLAMA, OSS, TOKENS

from catalogger.testing import Workspace
from catalogger.testing.optimization import tokens, units


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def space(tmp_path: Path, answers: Answers) -> Iterator[Workspace]:
    with Workspace(tmp_path, tokens=TOKENS, answers=answers) as workspace:
        workspace.add_schema("main.ml")
        workspace.serving.add_base_model(LLAMA, tokens(), versions=3)
        workspace.serving.add_base_model(OSS, units())
        yield workspace


@pytest.fixture
def client(space: Workspace) -> WorkspaceClient:
    return WorkspaceClient(host=space.url, token=ANN)
