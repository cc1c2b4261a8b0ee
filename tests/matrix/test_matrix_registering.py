"""Registration by this MLflow: to the embedded registry, an open-source Unity Catalog and a Databricks workspace."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from fakes.s3 import S3Server
from loggers.catalogs import Kind, opened
from matrix.differences import CASES, files

from catalogger import log_model

NAME = "main.ml.bot"


@pytest.fixture(params=[name for name in CASES if name != "all-minilm-l6-v2"])
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_embedded_registry(case: str, tmp_path: Path) -> None:
    source = CASES[case].make(tmp_path / "source")
    outcome = log_model(CASES[case].recipe, source=source, name=NAME, aliases=["champion"])
    assert (outcome.action, outcome.version) == ("registered", "1")
    again = log_model(CASES[case].recipe, source=source, name=NAME)
    assert (again.action, again.version) == ("unchanged", "1")
    client = mlflow.MlflowClient(str(outcome.tracking_uri))
    version = client.get_model_version_by_alias(NAME, "champion")
    assert (str(version.version), version.status) == ("1", "READY")
    assert version.tags["catalogger.fingerprint"] == outcome.fingerprint


def test_open_source_unity_catalog(case: str, tmp_path: Path) -> None:
    _registers("oss-folder", case, tmp_path)


def test_databricks_workspace(case: str, tmp_path: Path) -> None:
    _registers("databricks-files", case, tmp_path)


def _registers(kind: Kind, case: str, folder: Path) -> None:
    """One ready version, with every file of the model that the embedded default logs."""
    source = CASES[case].make(folder / "source")
    local = log_model(CASES[case].recipe, source=source, name=NAME, tracking_uri=f"sqlite:///{folder}/local.db")
    with S3Server() as s3, opened(kind, s3, folder / "catalog") as catalog:
        outcome = log_model(CASES[case].recipe, source=source, name=NAME, registry_uri=catalog.uri)
        (held,) = catalog.versions()
        assert (outcome.action, held.number, held.status) == ("registered", "1", "READY")
        assert local.location is not None
        assert files(Path(local.location)) - _ONLY_LOGGED == set(catalog.digests(held))


_ONLY_LOGGED = {"metadata/catalogger.json"}
"""MLflow 2.11 copies this too; Unity Catalogs read the four files that all MLflows copy."""
