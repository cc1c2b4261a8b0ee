"""The calls of a Databricks workspace's Unity Catalog: `databricks-uc`, `databricks-uc://PROFILE`.

Source: MLflow's own client of `/api/2.0/mlflow/unity-catalog`, and the workspace's `/api/2.1/unity-catalog`.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from catalogger.errors import AccessDenied, CataloggerError, Refused, UsageError
from catalogger.loggers.privileges import needing
from catalogger.loggers.record import Logged
from catalogger.loggers.surface import Row
from catalogger.remote.storage import Storage
from catalogger.remote.vended import needed_package, vended_storage
from catalogger.remote.workspace import workspace
from catalogger.validators.facts import Place

Upload = Literal["auto", "storage", "files"]
FILES_API = "MLFLOW_USE_DATABRICKS_SDK_MODEL_ARTIFACTS_REPO_FOR_UC"
_API = "/api/2.0/mlflow/unity-catalog"
_UC = "/api/2.1/unity-catalog"
_PAGE = 200
_TAG = re.compile(r"[.,\-=/:]")  # not allowed in a tag's key: docs.databricks.com/database-objects/tags
_OURS = re.compile(r"^catalogger_")  # our own keys, which have a dot elsewhere
_TAG_VALUE = 1000  # characters
_CREATES = ("CREATE_MODEL", "CREATE_FUNCTION", "ALL_PRIVILEGES", "CREATE MODEL", "CREATE FUNCTION", "ALL PRIVILEGES")


class DatabricksSurface:
    """One workspace, whose runs are where `tracking_uri` says."""

    gaps: frozenset[str] = frozenset()

    def __init__(self, registry_uri: str, tracking_uri: str, upload: Upload) -> None:
        self._uri, self._tracking, self._upload = registry_uri, tracking_uri, upload
        self._rest = workspace(registry_uri)
        self.words = f"Unity Catalog of {self._rest.base}"
        self._by_files: bool | None = None

    def page(self, name: str, number: str) -> str | None:
        return f"{self._rest.base}/explore/data/models/{name.replace('.', '/')}/version/{number}"

    def look(self, name: str) -> Place:
        catalog, schema, _ = name.split(".")
        missing: list[tuple[str, str, str]] = []
        found = self._securable("catalog", catalog, missing)
        inside = self._securable("schema", f"{catalog}.{schema}", missing) if found else found
        known = bool(inside) and self._may_create(f"{catalog}.{schema}", found or {}, inside or {})
        return Place(
            registry=self.words,
            catalog_exists=None if missing and not found else found is not None,
            schema_exists=None if missing else inside is not None if found else None,
            missing=tuple(missing),
            privileges_known=known or bool(missing),
            needs=None if self._files() else needed_package("s3://") if self._is_aws() else None,
        )

    def versions(self, name: str) -> list[Row]:
        rows: list[Row] = []
        query: dict[str, Any] = {"filter": f"name='{name}'", "max_results": _PAGE}
        with needing("look at", name):
            try:
                while True:
                    answer = self._rest.call("GET", f"{_API}/model-versions/search", query=query)
                    rows += [_row(v, tags=False) for v in answer.get("model_versions") or []]
                    if not (token := answer.get("next_page_token")):
                        return rows
                    query["page_token"] = token
            except Refused as error:
                if error.status == 404 and error.reason:
                    return []
                raise

    def version(self, name: str, number: str) -> Row:
        with needing("look at", name):
            answer = self._rest.call("GET", f"{_API}/model-versions/get", query={"name": name, "version": number})
        return _row(answer.get("model_version") or {}, tags=True)

    def ensure_model(self, name: str, description: str) -> None:
        if self._model(name) is not None:
            return
        with needing("create", name):
            try:
                self._rest.call("POST", f"{_API}/registered-models/create", {"name": name, "description": description})
            except Refused as error:
                if "ALREADY_EXISTS" not in error.reason:
                    raise

    def create(self, name: str, source: str, logged: Logged, description: str) -> Row:
        body: dict[str, Any] = {"name": name, "source": source, "run_id": logged.run_id, "description": description}
        headers: dict[str, str] = {}
        if self._tracking.startswith("databricks"):
            body, headers = self._linked(body, logged)
        with needing("create a version of", name):
            answer = self._rest.call("POST", f"{_API}/model-versions/create", body, headers=headers, once=True)
        return _row(answer.get("model_version") or {}, tags=False)

    def describe(self, name: str, number: str, description: str) -> None:
        body = {"name": name, "version": number, "description": description}
        with needing("create a version of", name):
            self._rest.call("PATCH", f"{_API}/model-versions/update", body)

    def finalize(self, name: str, number: str) -> None:
        with needing("create a version of", name):
            self._rest.call("POST", f"{_API}/model-versions/finalize", {"name": name, "version": number})

    def delete(self, name: str, number: str) -> None:
        with needing("create a version of", name):
            self._rest.call("DELETE", f"{_API}/model-versions/delete", {"name": name, "version": number})

    def storage(self, name: str, row: Row, *, write: bool) -> Storage:
        if self._files():
            from catalogger.remote.files_api import FilesStorage

            return FilesStorage(f"/Models/{name.replace('.', '/')}/{row.number}", self._rest)
        kind = "MODEL_VERSION_OPERATION_READ_WRITE" if write else "MODEL_VERSION_OPERATION_READ"
        body = {"name": name, "version": row.number, "operation": kind}

        def credentials() -> Mapping[str, Any]:
            try:
                answer = self._rest.call("POST", f"{_API}/model-versions/generate-temporary-credentials", body)
            except Refused as error:
                if error.status != 403:
                    raise
                raise AccessDenied(
                    f"{self.words} gives no storage credentials for {name} version {row.number}: {error.said}",
                    "A workspace that blocks them takes files by its Files API: --upload files. Else it takes"
                    " ownership of the model, or CREATE MODEL VERSION on it.",
                ) from error
            found = answer.get("credentials")
            return found if isinstance(found, dict) else {}

        return vended_storage(row.location, credentials, lambda: self._default_storage(name, row))

    def _default_storage(self, name: str, row: Row) -> Storage:
        from catalogger.remote.default_storage import default_storage

        return default_storage(name, row.number, self._uri)

    def aliases(self, name: str) -> Mapping[str, str]:
        found = (self._model(name) or {}).get("aliases") or []
        return {str(a.get("alias")): str(a.get("version")) for a in found}

    def set_alias(self, name: str, alias: str, number: str) -> None:
        with needing("set an alias of", name):
            body = {"name": name, "alias": alias, "version": number}
            self._rest.call("POST", f"{_API}/registered-models/alias", body)

    def delete_alias(self, name: str, alias: str) -> None:
        with needing("set an alias of", name):
            self._rest.call("DELETE", f"{_API}/registered-models/alias", {"name": name, "alias": alias})

    def model_tags(self, name: str) -> Mapping[str, str]:
        return _told((self._model(name) or {}).get("tags"))

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        with needing("set a tag of", name):
            body = {"name": name, "key": _TAG.sub("_", key), "value": value[:_TAG_VALUE]}
            self._rest.call("POST", f"{_API}/registered-models/set-tag", body)

    def names(self, within: str | None) -> list[str]:
        catalog, _, schema = (within or "").partition(".")
        query: dict[str, Any] = {"max_results": _PAGE}
        query |= {"catalog_name": catalog, "schema_name": schema} if within else {}
        names: list[str] = []
        with needing("look at", within or "its catalogs"):
            while True:
                answer = self._rest.call("GET", f"{_UC}/models", query=query)
                names += [str(m.get("full_name")) for m in answer.get("registered_models") or []]
                if not (token := answer.get("next_page_token")):
                    return sorted(names)
                query["page_token"] = token

    def set_tag(self, name: str, number: str, key: str, value: str) -> None:
        with needing("set a tag of", name):
            body = {"name": name, "version": number, "key": _TAG.sub("_", key), "value": value[:_TAG_VALUE]}
            self._rest.call("POST", f"{_API}/model-versions/set-tag", body)

    def _model(self, name: str) -> dict[str, Any] | None:
        with needing("look at", name):
            try:
                answer = self._rest.call("GET", f"{_API}/registered-models/get", query={"name": name})
            except Refused as error:
                if error.status == 404 and error.reason:
                    return None
                raise
        return dict(answer.get("registered_model") or {})

    def _linked(self, body: dict[str, Any], logged: Logged) -> tuple[dict[str, Any], dict[str, str]]:
        """Run link, logged model and lineage, as MLflow's client sends them where the run is in a workspace."""
        tracking = self._rest if self._tracking.partition("://")[2] == self._uri.partition("://")[2] else None
        run, headers = (tracking or workspace(self._tracking)).answer(
            "GET", "/api/2.0/mlflow/runs/get", query={"run_id": logged.run_id}
        )
        if server := headers.get("x-databricks-org-id"):
            body = {**body, "run_tracking_server_id": server}
        if logged.model_id:
            body = {**body, "model_id": logged.model_id, "source": f"models:/{logged.model_id}"}
        tags = {t.get("key"): t.get("value") for t in run.get("run", {}).get("data", {}).get("tags") or []}
        entities: list[dict[str, Any]] = []
        if notebook := tags.get("mlflow.databricks.notebookID"):
            entities.append({"notebook": {"id": notebook}})
        if job := tags.get("mlflow.databricks.jobID"):
            entities.append({"job": {"id": job, "job_run_id": tags.get("mlflow.databricks.jobRunID") or ""}})
        if not entities:
            return body, {}
        lineage = base64.b64encode(json.dumps({"entities": entities}).encode()).decode()
        return body, {"X-Databricks-Lineage-Identifier": lineage}

    def _securable(self, kind: str, name: str, missing: list[tuple[str, str, str]]) -> dict[str, Any] | None:
        """The catalog or schema; None where it is not there, or where it may not be seen, which is then missing."""
        plural = {"catalog": "catalogs", "schema": "schemas"}[kind]
        try:
            return self._rest.call("GET", f"{_UC}/{plural}/{name}")
        except Refused as error:
            if error.status == 403:
                missing.append((f"USE {kind.upper()}", kind, name))
                return None
            if error.status == 404 and error.reason:
                return None
            if error.status == 404:
                raise UsageError(
                    f'"{self._rest.base}" is no Databricks workspace with Unity Catalog.',
                    "Is DATABRICKS_HOST, or the profile's host, right?",
                ) from error
            raise

    def _may_create(self, schema: str, *securables: Mapping[str, Any]) -> bool:
        """Whether it is certain that models may be created: privileges that come by a group are not told."""
        try:
            me = self._rest.call("GET", "/api/2.0/preview/scim/v2/Me").get("userName")
            if me and any(s.get("owner") == me for s in securables):
                return True
            answer = self._rest.call("GET", f"{_UC}/effective-permissions/schema/{schema}", query={"principal": me})
        except CataloggerError:
            return False
        held = answer.get("privilege_assignments") or []
        return any(p.get("privilege") in _CREATES for a in held for p in a.get("privileges") or [])

    def _is_aws(self) -> bool:
        return not re.search(r"\.azuredatabricks\.|\.gcp\.databricks\.", self._rest.base)

    def _files(self) -> bool:
        """Whether files go by the Files API, as MLflow decides it: its variable, else what the workspace says."""
        if self._by_files is None:
            self._by_files = self._decide()
        return self._by_files

    def _decide(self) -> bool:
        said = os.environ.get(FILES_API)
        if self._upload != "auto":
            return self._upload == "files"
        if said is not None:
            return said.strip().lower() in ("true", "1")
        probe = f"{_API}/registered-models:is-databricks-sdk-models-artifact-repository-enabled"
        try:
            return bool(self._rest.call("GET", probe).get("is_databricks_sdk_models_artifact_repository_enabled"))
        except (Refused, UsageError):
            return False


def fits_unity_catalog(key: str, value: str) -> bool:
    """Whether a tag can be set there as it is."""
    return not _TAG.search(key) and len(value) <= _TAG_VALUE


def _row(found: Mapping[str, Any], *, tags: bool) -> Row:
    return Row(
        number=str(found.get("version")),
        status=str(found.get("status")),
        location=str(found.get("storage_location")),
        description=str(found.get("description") or ""),
        run_id=found.get("run_id"),
        created=float(found.get("creation_timestamp") or 0) / 1000,
        tags=_told(found.get("tags")) if tags else None,
    )


def _told(tags: Any) -> dict[str, str]:
    """Tags by their keys as catalogger writes them."""
    return {_OURS.sub("catalogger.", str(t.get("key"))): str(t.get("value")) for t in tags or []}
