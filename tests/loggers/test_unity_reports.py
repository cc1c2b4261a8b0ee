"""Failure reports that concern registering to Unity Catalog: each test names its row of docs/failure-reports.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fakes import checkpoints
from fakes.secrets import secret
from fakes.unity import Unity
from loggers.catalogs import NAME, SESSION, Catalog, DatabricksCatalog, OssCatalog, another_machine, log, tree

from catalogger import log_model
from catalogger.errors import NetworkUnreachable, RegistryError
from catalogger.remote.rest import Rest


@pytest.mark.parametrize("tracking", ["auto", "full"])
def test_row_1_neither_the_source_nor_the_logged_model_is_deleted(
    catalog: Any, llama: Path, work: Path, tracking: str
) -> None:
    """Also when it fails after the files were sent, and when it is run again."""
    before = tree(llama)
    catalog.server.order.fail("finalize", 400)
    with pytest.raises(RegistryError):
        log(llama, catalog, tracking=tracking)
    logged = tree(work / "mlruns")
    assert logged
    assert tree(llama) == before
    assert log(llama, catalog, tracking=tracking).action == "registered"
    assert tree(llama) == before
    assert tree(work / "mlruns") == logged
    assert log(llama, catalog, tracking=tracking).action == "unchanged"
    assert tree(work / "mlruns") == logged


def test_row_2_local_tracking_with_a_registry_elsewhere(catalog: Catalog, llama: Path) -> None:
    outcome = log(llama, catalog)
    assert outcome.tracking_uri.startswith("sqlite:")
    assert outcome.action == "registered"


def test_row_2_a_tracking_server_with_a_registry_elsewhere(oss: OssCatalog, llama: Path, mlflow_server: str) -> None:
    outcome = log(llama, oss, tracking_uri=mlflow_server)
    assert (outcome.action, outcome.tracking_uri) == ("registered", mlflow_server)
    (held,) = oss.versions()
    assert held.run_id == outcome.run_id


def test_row_2_a_killed_run_is_taken_up_from_a_tracking_server(
    oss: OssCatalog, llama: Path, mlflow_server: str, tmp_path: Path
) -> None:
    """The small files of the logged model come back from the server, on another machine too."""
    oss.server.order.fail("finalize", 400)
    with pytest.raises(RegistryError):
        log(llama, oss, tracking_uri=mlflow_server)
    with another_machine(tmp_path / "elsewhere"):
        outcome = log(llama, oss, tracking_uri=mlflow_server)
    assert (outcome.action, outcome.version) == ("registered", "1")
    assert [v.status for v in oss.versions()] == ["READY"]
    assert len(mlflow.MlflowClient(mlflow_server).search_runs(["0"])) == 1


def test_row_13_a_gateway_that_times_out_is_tried_again_and_given_up_in_the_end(
    workspace: DatabricksCatalog, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.proxy.fail(r"^PUT .*safetensors", 504, "GatewayTimeout", times=2)
    assert log(llama, workspace).action == "registered"
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "1")
    workspace.proxy.fail(r"^(PUT|POST) .*main|safetensors", 504, "GatewayTimeout", times=1000)
    with pytest.raises(NetworkUnreachable) as failed:
        log(llama, workspace, name="main.ml.other")
    assert failed.value.exit_code == 5


def test_row_14_credentials_that_last_for_a_few_requests_only(workspace: DatabricksCatalog, llama: Path) -> None:
    count, keys = 0, workspace.server.vending.credentials["aws_temp_credentials"]

    def expire(_: object) -> None:
        nonlocal count
        count += 1
        if count == 4:
            renewed = {"aws_temp_credentials": {**keys, "session_token": secret("the next one", "session")}}
            workspace.server.vending = replace(workspace.server.vending, credentials=renewed)
            workspace.proxy.tokens.add(secret("the next one", "session"))
            workspace.proxy.expired.add(SESSION)

    workspace.proxy.on_request = expire
    assert log(llama, workspace).action == "registered"
    assert len(workspace.server.matching("generate-temporary-credentials")) >= 3


def test_row_16_the_alias_is_set_when_the_version_is_ready(workspace: DatabricksCatalog, llama: Path) -> None:
    seen: list[str] = []

    def hook(line: str) -> None:
        if "registered-models/alias" in line and line.startswith("POST"):
            seen.extend(v.status for v in workspace.versions())

    workspace.watch(hook)
    log(llama, workspace, aliases=["champion"])
    assert seen == ["READY"]


def test_row_18_an_alias_is_read_back(workspace: DatabricksCatalog, llama: Path) -> None:
    """The server says yes and sets nothing."""
    log(llama, workspace)
    workspace.server.order.fail("POST .*registered-models/alias", 200)
    with pytest.raises(RegistryError, match='"champion"'):
        log(llama, workspace, aliases=["champion"])


def test_row_25_pages_are_followed(oss: OssCatalog, llama: Path, tmp_path: Path) -> None:
    """The version with this content is beyond the first page of the list."""
    log(llama, oss)
    held = oss.versions()[0]
    rest = Rest(oss.server.url)
    body = {"model_name": "bot", "catalog_name": "main", "schema_name": "ml", "source": "s", "comment": "other"}
    for _ in range(110):
        rest.call("POST", "/api/2.1/unity-catalog/models/versions", body)
    other = checkpoints.llama(tmp_path / "other", shards=2, seed=7)
    assert log(other, oss).version == "112"
    again = log(other, oss)
    assert (again.action, again.version) == ("unchanged", "112")
    assert log(llama, oss).version == held.number


def test_row_27_a_server_without_a_storage_root(llama: Path) -> None:
    with Unity(None) as server:
        server.add_schema("main.ml")
        with pytest.raises(RegistryError, match="no storage for models"):
            log_model("llama-chat", source=llama, name=NAME, registry_uri=f"uc:{server.url}")


def test_row_29_unrelated_inputs_of_an_active_run(workspace: DatabricksCatalog, llama: Path, work: Path) -> None:
    import numpy as np

    mlflow.set_tracking_uri(f"sqlite:///{work / 'mlflow.db'}")
    with mlflow.start_run() as run:
        mlflow.log_input(mlflow.data.from_numpy(np.zeros(3), source="https://example.org/x.csv"))
        outcome = log(llama, workspace)
    assert outcome.run_id == run.info.run_id
    assert workspace.versions()[0].run_id == run.info.run_id


def test_row_50_no_description_is_ever_missing(catalog: Any, llama: Path) -> None:
    log(llama, catalog)
    sent = [r.document for r in catalog.server.requests if r.method in ("POST", "PATCH") and r.document]
    texts = [d[key] for d in sent for key in ("comment", "description") if key in d]
    assert texts
    assert all(texts)


def test_row_52_a_name_that_differs_in_case_only_is_found_beyond_the_first_page(oss: OssCatalog, llama: Path) -> None:
    rest = Rest(oss.server.url)
    for n in range(120):
        body = {"name": f"m{n:03}", "catalog_name": "main", "schema_name": "ml"}
        rest.call("POST", "/api/2.1/unity-catalog/models", body)
    rest.call("POST", "/api/2.1/unity-catalog/models", {"name": "BOT", "catalog_name": "main", "schema_name": "ml"})
    assert "UC009" in {f.code for f in log(llama, oss, dry_run=True).report.findings}


def test_row_53_the_location_that_is_told_is_there(oss: OssCatalog, llama: Path) -> None:
    location = log(llama, oss).location
    assert location is not None
    assert (Path(location.removeprefix("file://")) / "MLmodel").is_file()


def test_row_54_a_server_that_never_ends_its_answer(oss: OssCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "0")
    oss.server.order.stall("GET .*/catalogs/main")
    with pytest.raises(NetworkUnreachable):
        Rest(oss.server.url, timeout=(1, 0.2)).call("GET", "/api/2.1/unity-catalog/catalogs/main")
