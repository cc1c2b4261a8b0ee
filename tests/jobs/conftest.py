"""The bundle's wheel, built and installed once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs.bundle_file import read

from catalogger.testing.tracking import TrackingServer
from jobs import fresh


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the command that the bundle says."""
    return fresh.build(read().config["artifacts"]["catalogger"]["build"], tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fresh environment that has the wheel."""
    return fresh.install(wheel, tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server, which a workspace passes runs and experiments on to."""
    with TrackingServer(tmp_path_factory.mktemp("tracking")) as server:
        yield server.url
