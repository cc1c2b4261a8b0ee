"""What goes wrong around a Unity Catalog: a clear error, the right exit code, nothing lost, the next run goes on."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from fakes.secrets import MARK, secret
from fakes.unity import Unity
from loggers.catalogs import NAME, SESSION, TOKEN, Catalog, DatabricksCatalog, OssCatalog, log, tree

from catalogger import log_model
from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    CheckFailed,
    NetworkUnreachable,
    NotEnoughRoom,
    RegistryError,
    UsageError,
)

_CREATE = {"oss": r"POST .*/models/versions", "databricks": r"POST .*/model-versions/create"}
_FINALIZE = {"oss": r"PATCH .*/finalize", "databricks": r"POST .*/model-versions/finalize"}


def _side(catalog: Catalog) -> str:
    return str(catalog.kind).partition("-")[0]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(oss: OssCatalog, llama: Path, status: int) -> None:
    for pattern in (r"GET .*/catalogs/", _CREATE["oss"], r"PATCH .*/versions/\d+$", _FINALIZE["oss"]):
        oss.server.order.fail(pattern, status, headers={"Retry-After": "0"})
    assert log(llama, oss).version == "1"
    assert [v.status for v in oss.versions()] == ["READY"]


@pytest.mark.parametrize("step", [_CREATE, _FINALIZE], ids=["create", "finalize"])
def test_an_answer_that_is_lost_makes_no_second_version(catalog: Any, llama: Path, step: dict[str, str]) -> None:
    catalog.server.order.reset(step[_side(catalog)], "after")
    assert log(llama, catalog).action == "registered"
    assert [v.status for v in catalog.versions()] == ["READY"]


def test_a_server_that_is_restarted_in_mid_run_is_waited_for(oss: OssCatalog, llama: Path) -> None:
    """It hangs up while the version is being created, is away for a moment, and comes back with what it knew."""

    def restart() -> None:
        oss.server.stop()
        oss.server.start()

    restarting = threading.Thread(target=restart)

    def hook(line: str) -> None:
        if line.startswith("POST") and "/models/versions" in line and restarting.ident is None:
            restarting.start()

    oss.watch(hook)
    assert log(llama, oss).action == "registered"
    restarting.join()
    assert [v.status for v in oss.versions()] == ["READY"]


def test_patience_ends(catalog: Any, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "1")
    catalog.server.order.fail(_FINALIZE[_side(catalog)], 503, times=1000)
    with pytest.raises(NetworkUnreachable) as failed:
        log(llama, catalog)
    assert failed.value.exit_code == 5
    assert "version 1 stays pending; the same command goes on with it" in str(failed.value)
    assert [v.status for v in catalog.versions()] == ["PENDING_REGISTRATION"]


def test_the_next_run_goes_on_with_a_pending_version(
    catalog: Any, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "1")
    catalog.server.order.fail(_FINALIZE[_side(catalog)], 400)
    with pytest.raises(RegistryError):
        log(llama, catalog)
    sent = catalog.sent()
    outcome = log(llama, catalog)
    assert (outcome.action, outcome.version) == ("registered", "1")
    assert "an interrupted registration was taken up" in outcome.notes
    if catalog.kind.endswith(("s3", "storage")):
        weights = sum(f.stat().st_size for f in llama.glob("*.safetensors"))
        assert catalog.sent() - sent < weights / 2, "what was there was not sent again"
    assert [v.status for v in catalog.versions()] == ["READY"]
    assert catalog.unfinished() == 0


def test_no_privilege_names_what_to_ask_for(workspace: DatabricksCatalog, llama: Path) -> None:
    workspace.server.revoke("SCHEMA", "main.ml", "account users", "ALL PRIVILEGES")
    workspace.server.grant("SCHEMA", "main.ml", "me@example.org", "USE SCHEMA")
    with pytest.raises(AccessDenied) as failed:
        log(llama, workspace)
    assert failed.value.exit_code == 4
    assert "GRANT CREATE MODEL ON SCHEMA `main`.`ml`" in str(failed.value)
    assert workspace.versions() == []


def test_no_schema_privilege_is_found_beforehand(workspace: DatabricksCatalog, llama: Path) -> None:
    workspace.server.revoke("SCHEMA", "main.ml", "account users", "ALL PRIVILEGES")
    with pytest.raises(CheckFailed) as failed:
        log(llama, workspace)
    assert failed.value.exit_code == 4
    (finding,) = [f for f in failed.value.findings if f["severity"] == "error"]
    assert finding["code"] == "UC007"
    assert "GRANT USE SCHEMA ON SCHEMA" in str(finding["fix"])
    assert not Path("mlruns").exists()


@pytest.mark.parametrize("token", [secret("nobody"), secret("nobody", "databricks")], ids=["of OAuth", "personal"])
def test_a_wrong_token(workspace: DatabricksCatalog, llama: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """A workspace answers a personal token that is none as if a privilege were missing."""
    monkeypatch.setenv("DATABRICKS_TOKEN", token)
    with pytest.raises(AccessDenied, match="token") as failed:
        log(llama, workspace)
    assert failed.value.exit_code == 4
    assert token not in str(failed.value)
    assert "GRANT" not in str(failed.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_token_with_a_line_break(oss: OssCatalog, llama: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setenv("MLFLOW_UC_OSS_TOKEN", secret("first") + end + secret("second"))
    with pytest.raises(UsageError, match="line break") as failed:
        log(llama, oss)
    assert MARK not in str(failed.value)


def test_a_newline_at_a_tokens_end_is_no_part_of_it(
    workspace: DatabricksCatalog, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN + "\n")
    assert log(llama, workspace).version == "1"


def test_a_user_without_privileges_on_an_open_source_server(llama: Path, tmp_path: Path) -> None:
    with Unity((tmp_path / "root").as_uri(), tokens={secret("root"): "admin", secret("her"): "her"}) as server:
        server.add_schema("main.ml")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_UC_OSS_TOKEN", secret("her"))
            with pytest.raises((AccessDenied, CheckFailed)) as failed:
                log_model("llama-chat", source=llama, name=NAME, registry_uri=f"uc:{server.url}")
            assert "USE CATALOG" in str(failed.value) + str(getattr(failed.value, "findings", ""))
            patch.setenv("MLFLOW_UC_OSS_TOKEN", secret("nobody"))
            with pytest.raises(AccessDenied):
                log_model("llama-chat", source=llama, name=NAME, registry_uri=f"uc:{server.url}")
            patch.setenv("MLFLOW_UC_OSS_TOKEN", secret("root"))
            done = log_model("llama-chat", source=llama, name=NAME, registry_uri=f"uc:{server.url}")
            assert done.version == "1"


def test_a_schema_that_vanishes_between_check_and_create(catalog: Any, llama: Path) -> None:
    before = tree(llama)
    pattern = {"oss": r"POST .*/models$", "databricks": r"POST .*/registered-models/create"}[_side(catalog)]
    catalog.server.order.vanish("main.ml", pattern)
    with pytest.raises(RegistryError) as failed:
        log(llama, catalog)
    assert failed.value.exit_code == 7
    assert "main.ml" in str(failed.value)
    assert tree(llama) == before


def test_a_server_without_storage(llama: Path) -> None:
    with Unity(None) as server:
        server.add_schema("main.ml")
        with pytest.raises(RegistryError, match="no storage for models") as failed:
            log_model("llama-chat", source=llama, name=NAME, registry_uri=f"uc:{server.url}")
        assert "storage-root.models" in failed.value.fix


def test_a_login_page_in_place_of_an_answer(catalog: Any, llama: Path) -> None:
    pattern = {"oss": "/catalogs/", "databricks": "/catalogs/"}[_side(catalog)]
    catalog.server.order.login_page(pattern, times=10)
    with pytest.raises(UsageError, match="web page") as failed:
        log(llama, catalog)
    assert failed.value.exit_code == 2
    assert catalog.versions() == []


def test_a_server_of_another_kind(mlflow_server: str, llama: Path, oss: OssCatalog) -> None:
    with pytest.raises(UsageError) as failed:
        log(llama, oss, registry_uri=f"uc:{mlflow_server}")
    assert "Unity Catalog" in str(failed.value) or "not as a registry does" in str(failed.value)


def test_nobody_listens(oss: OssCatalog, llama: Path) -> None:
    oss.server.stop()
    with pytest.raises(NetworkUnreachable) as failed:
        log(llama, oss)
    assert failed.value.exit_code == 5
    oss.server.start()


def test_truncated_answers_are_asked_for_again(catalog: Any, llama: Path) -> None:
    catalog.server.order.truncate("GET .*/catalogs/", times=2)
    catalog.server.order.truncate(_FINALIZE[_side(catalog)])
    assert log(llama, catalog).version == "1"
    assert [v.status for v in catalog.versions()] == ["READY"]


def test_a_full_storage_side(workspace: DatabricksCatalog, llama: Path) -> None:
    workspace.proxy.fail(r"^PUT .*safetensors", 507, "InsufficientStorage", times=1000)
    with pytest.raises(RegistryError) as failed:
        log(llama, workspace)
    assert failed.value.exit_code == 7
    assert "stays pending" in str(failed.value)


def test_a_full_disk_where_the_server_keeps_files(
    oss: OssCatalog, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalogger.remote.folder.FolderStorage.free", lambda _: 1000)
    with pytest.raises(NotEnoughRoom) as failed:
        log(llama, oss)
    assert failed.value.exit_code == 6
    assert oss.versions() == [], "the number was given back"


def test_credentials_that_expire_are_renewed(workspace: DatabricksCatalog, llama: Path) -> None:
    workspace.proxy.fail(r"^(PUT|POST) .*safetensors", 400, "ExpiredToken")
    assert log(llama, workspace).version == "1"
    asked = workspace.server.matching("generate-temporary-credentials")
    assert len(asked) >= 3, "to write, anew, and to read back"


def test_storage_that_refuses_is_final(workspace: DatabricksCatalog, llama: Path) -> None:
    workspace.proxy.fail(r"^(PUT|POST) .*safetensors", 403, "AccessDenied", times=1000)
    with pytest.raises(AccessDenied) as failed:
        log(llama, workspace)
    assert failed.value.exit_code == 4


def test_blocked_vended_credentials_point_to_the_files_api(workspace: DatabricksCatalog, llama: Path) -> None:
    from dataclasses import replace

    workspace.server.vending = replace(workspace.server.vending, blocked=True)
    with pytest.raises(AccessDenied, match="--upload files"):
        log(llama, workspace)
    workspace.by_files = True
    outcome = log(llama, workspace, upload="files")
    assert (outcome.action, outcome.version) == ("registered", "1")
    assert tree(llama).items() >= {
        (p.removeprefix("model/"), d)
        for p, d in workspace.digests(workspace.versions()[0]).items()
        if p.endswith(".safetensors")
    }


@pytest.mark.parametrize(
    ("variable", "by_files"), [("true", True), ("false", False)], ids=["variable true", "variable false"]
)
def test_files_go_as_mlflow_would_send_them(
    catalog: Any, llama: Path, monkeypatch: pytest.MonkeyPatch, variable: str, by_files: bool
) -> None:
    """MLflow's variable wins over what the workspace says when it is asked."""
    if not isinstance(catalog, DatabricksCatalog):
        return
    monkeypatch.setenv("MLFLOW_USE_DATABRICKS_SDK_MODEL_ARTIFACTS_REPO_FOR_UC", variable)
    log(llama, catalog)
    assert bool(catalog.server.matching(r"^PUT /api/2.0/fs/files")) is by_files


def test_a_name_that_differs_in_case_only_is_warned_of(oss: OssCatalog, llama: Path) -> None:
    log(llama, oss, name="main.ml.Bot")
    outcome = log(llama, oss)
    assert "UC009" in {f.code for f in outcome.report.findings}


def test_the_old_workspace_registry_is_no_target(llama: Path) -> None:
    with pytest.raises(UsageError, match="old one") as failed:
        log_model("llama-chat", source=llama, name=NAME, registry_uri="databricks")
    assert "databricks-uc" in failed.value.fix


@pytest.mark.parametrize("uri", ["uc:", "uc:databricks-uc", "uc:ftp://x", "databricks-uc:x", "uc://127.0.0.1:8080"])
def test_addresses_that_are_none(llama: Path, uri: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        log_model("llama-chat", source=llama, name=NAME, registry_uri=uri)


def test_no_credentials_at_all(llama: Path) -> None:
    with pytest.raises(AccessDenied, match="No Databricks credentials"):
        log_model("llama-chat", source=llama, name=NAME, registry_uri="databricks-uc")


def test_tags_that_unity_catalog_does_not_take(workspace: DatabricksCatalog, llama: Path) -> None:
    with pytest.raises(UsageError, match="cannot be set in Unity Catalog"):
        log(llama, workspace, tags={"team.owner": "search"})
    assert workspace.versions() == []


def test_no_secret_is_in_any_error(catalog: Any, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request fails once with an answer that quotes what came in, as some proxies do."""
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "1")
    secrets = [TOKEN, SESSION, catalog.s3.secret_key, os.environ.get("DATABRICKS_TOKEN", TOKEN)]
    for pattern in ("/catalogs/", _CREATE[_side(catalog)], "credentials", _FINALIZE[_side(catalog)]):
        for status in (400, 403):
            catalog.server.order.fail(pattern, status, code=f"BAD_REQUEST: Bearer {TOKEN}")
            try:
                log(llama, catalog)
            except CataloggerError as error:
                text = f"{error} {error.document()} {getattr(error, 'findings', '')}"
                assert not [s for s in secrets if s in text]
