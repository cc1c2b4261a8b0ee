"""What `databricks bundle deploy` does, by the SDK: the requests that the tool's own recordings show, in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import ResourceAlreadyExists
from databricks.sdk.service import catalog
from jobs.bundle_file import Config, put_in


def deploy(client: WorkspaceClient, config: Config, root: str, folder: Path, wheel: Path) -> dict[str, Any]:
    """The ids of all that was made, by its reference.  `root` is the bundle's folder in the workspace."""
    client.current_user.me()
    for part in ("state", "files", "artifacts/.internal"):
        client.workspace.mkdirs(f"{root}/{part}")
    _import(client, f"{root}/state/deploy.lock", b'{"ID": "1"}')
    uploaded = f"{root}/artifacts/.internal/{wheel.name}"
    _import(client, uploaded, wheel.read_bytes())
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        path = f"{root}/files/{file.relative_to(folder)}"
        client.workspace.mkdirs(path.rpartition("/")[0])
        _import(client, path, file.read_bytes())
    made = _resources(client, config, uploaded, root)
    _import(client, f"{root}/state/deployment.json", json.dumps(made).encode())
    client.workspace.delete(f"{root}/state/deploy.lock")
    return made


def _import(client: WorkspaceClient, path: str, content: bytes) -> None:
    query, headers = {"overwrite": "true"}, {"Content-Type": "application/octet-stream"}
    url = f"/api/2.0/workspace-files/import-file/{path.lstrip('/')}"
    client.api_client.do("POST", url, query=query, data=content, headers=headers)


def _resources(client: WorkspaceClient, config: Config, wheel: str, root: str) -> dict[str, Any]:
    """Experiments and models first: the jobs refer to them."""
    made: dict[str, Any] = {}
    resources = config["resources"]
    for key, experiment in resources["experiments"].items():
        made[f"resources.experiments.{key}.id"] = _experiment(client, experiment["name"])
    for key, model in resources["registered_models"].items():
        where = {name: model[name] for name in ("name", "catalog_name", "schema_name")}
        full_name = client.registered_models.create(**where).full_name or ""
        changes = [_change(grant) for grant in model["grants"]]
        client.grants.update("registered-model", full_name, changes=changes)
        made[f"resources.registered_models.{key}.id"] = full_name
    for key, job in resources["jobs"].items():
        settings = put_in(job, made.get)
        for environment in settings["environments"]:
            spec = environment["spec"]
            spec["dependencies"] = [wheel if d.startswith(".") else d for d in spec["dependencies"]]
        metadata = {"kind": "BUNDLE", "metadata_file_path": f"{root}/state/metadata.json"}
        runs_as = {"run_as": config["run_as"]} if "run_as" in config else {}
        body = {**settings, **runs_as, "deployment": metadata, "edit_mode": "UI_LOCKED", "format": "MULTI_TASK"}
        answer: Any = client.api_client.do("POST", "/api/2.2/jobs/create", body=body)
        made[f"resources.jobs.{key}.id"] = answer["job_id"]
    return made


def _experiment(client: WorkspaceClient, name: str) -> str:
    """One that an earlier deployment made is taken, as the tool knows by its state."""
    try:
        return client.experiments.create_experiment(name).experiment_id or ""
    except ResourceAlreadyExists:
        found = client.experiments.get_by_name(name).experiment
        return (found and found.experiment_id) or ""


def _change(grant: Config) -> catalog.PermissionsChange:
    """All that the principal had goes first."""
    privileges = [catalog.Privilege(name) for name in grant["privileges"]]
    everything = [catalog.Privilege.ALL_PRIVILEGES]
    return catalog.PermissionsChange(add=privileges, remove=everything, principal=grant["principal"])
