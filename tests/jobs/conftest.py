"""The bundle's wheel, built and installed once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs import fresh
from jobs.bundle_file import read


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the command that the bundle says."""
    return fresh.build(read().config["artifacts"]["catalogger"]["build"], tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fresh environment that has the wheel."""
    return fresh.install(wheel, tmp_path_factory.mktemp("environment"))
