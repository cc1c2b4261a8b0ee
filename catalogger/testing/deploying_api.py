"""What `bundle deploy` asks of a loopback workspace: workspace files, jobs and their runs, secret scopes, permissions.

Read in the recordings of Databricks' own tool. It must not know how any of them is kept.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from catalogger.testing.files_replies import Reply as RawReply
from catalogger.testing.jobs import Jobs
from catalogger.testing.refusal import document, wrong
from catalogger.testing.secret_scopes import SecretScopes
from catalogger.testing.server import Call, Reply
from catalogger.testing.workspace_files import WorkspaceFiles

Asked = Mapping[str, Any]


@dataclass
class Deployed:
    """What a deployment leaves in a workspace."""

    jobs: Jobs
    files: WorkspaceFiles = field(default_factory=WorkspaceFiles)
    secrets: SecretScopes = field(default_factory=SecretScopes)
    permissions: dict[tuple[str, str], list[Any]] = field(default_factory=dict)


Action = Callable[[Deployed, str, Asked, Call], Any]


def find(method: str, path: str) -> tuple[Action, dict[str, str]] | None:
    """What is done for a request, and the fields that its path holds, still percent-encoded."""
    for methods, pattern, action in _ACTIONS:
        if method in methods and (found := pattern.fullmatch(path)):
            return action, found.groupdict()
    return None


def answer(action: Action, deployed: Deployed, user: str, call: Call, of_path: Mapping[str, str]) -> Reply:
    """The reply: bytes as they are, everything else as JSON."""
    fields = {name: values[-1] for name, values in call.query.items()}
    if not call.path.startswith(_IMPORT):
        fields = call.fields()
    said = action(deployed, user, fields | {name: unquote(value) for name, value in of_path.items()}, call)
    if isinstance(said, bytes):
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(said))}
        return RawReply(200, headers, said)
    return document(said or {})


# Workspace files


def _status(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    return deployed.files.status(asked["path"])


def _list(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    return {"objects": deployed.files.listed(asked["path"])}


def _mkdirs(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    deployed.files.make_folder(asked["path"])


def _export(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    content = deployed.files.read(asked["path"])
    if _is_true(asked.get("direct_download")):
        return content
    return {"content": base64.b64encode(content).decode(), "file_type": asked["path"].rpartition(".")[2]}


def _import(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    if asked.get("format", "SOURCE") != "AUTO":
        raise wrong("Notebooks are not kept here: format must be AUTO.")
    content = base64.b64decode(asked["content"])
    deployed.files.write(asked["path"], content, overwrite=_is_true(asked.get("overwrite")))


def _import_file(deployed: Deployed, _: str, asked: Asked, call: Call) -> Any:
    deployed.files.write(f"/{asked['path']}", call.body.whole(), overwrite=_is_true(asked.get("overwrite")))


def _read_file(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    return deployed.files.read(f"/{asked['path']}")


def _delete(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    deployed.files.delete(asked["path"], recursive=_is_true(asked.get("recursive")))


def _is_true(said: object) -> bool:
    return str(said).lower() == "true"


# Jobs


def _create_job(deployed: Deployed, user: str, asked: Asked, __: Call) -> Any:
    return deployed.jobs.create(user, dict(asked))


def _reset_job(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    deployed.jobs.reset(asked["job_id"], asked["new_settings"])


def _delete_job(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    deployed.jobs.delete(asked["job_id"])


def _get_job(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    return deployed.jobs.find(asked["job_id"]).document()


def _list_jobs(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    return {"jobs": deployed.jobs.listed(asked.get("name"))}


def _run_now(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    return deployed.jobs.run_now(asked["job_id"], asked.get("job_parameters") or {})


def _get_run(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    return deployed.jobs.run(asked["run_id"])


def _get_output(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    return deployed.jobs.output(asked["run_id"])


# Secret scopes


def _create_scope(deployed: Deployed, user: str, asked: Asked, __: Call) -> Any:
    deployed.secrets.create(user, asked["scope"])


def _list_scopes(deployed: Deployed, _: str, __: Asked, ___: Call) -> Any:
    return {"scopes": deployed.secrets.listed()}


def _put_acl(deployed: Deployed, user: str, asked: Asked, __: Call) -> Any:
    deployed.secrets.allow(user, asked["scope"], asked["principal"], asked["permission"])


def _put_secret(deployed: Deployed, user: str, asked: Asked, __: Call) -> Any:
    deployed.secrets.put(user, asked["scope"], asked["key"], asked["string_value"])


def _get_secret(deployed: Deployed, user: str, asked: Asked, __: Call) -> Any:
    return deployed.secrets.get(user, asked["scope"], asked["key"])


def _list_secrets(deployed: Deployed, user: str, asked: Asked, __: Call) -> Any:
    return {"secrets": deployed.secrets.keys(user, asked["scope"])}


# Permissions of what was deployed


def _permissions(deployed: Deployed, _: str, asked: Asked, __: Call) -> Any:
    """Those that were set last: they are kept, and nobody is held to them."""
    kind, name = asked["kind"], asked["id"]
    if "access_control_list" in asked:
        deployed.permissions[kind, name] = list(asked["access_control_list"])
    return {"object_id": f"/{kind}/{name}", "access_control_list": deployed.permissions.get((kind, name), [])}


_IMPORT = "/api/2.0/workspace-files/import-file/"
_WORKSPACE, _JOBS, _SECRETS = "/api/2.0/workspace", "/api/2.[0-2]/jobs", "/api/2.0/secrets"
_ACTIONS: list[tuple[tuple[str, ...], re.Pattern[str], Action]] = [
    (tuple(methods.split()), re.compile(pattern), action)
    for methods, pattern, action in (
        ("GET", f"{_WORKSPACE}/get-status", _status),
        ("GET", f"{_WORKSPACE}/list", _list),
        ("POST", f"{_WORKSPACE}/mkdirs", _mkdirs),
        ("GET", f"{_WORKSPACE}/export", _export),
        ("POST", f"{_WORKSPACE}/import", _import),
        ("POST", f"{_WORKSPACE}/delete", _delete),
        ("POST", f"{_IMPORT}(?P<path>.+)", _import_file),
        ("GET", "/api/2.0/workspace-files/(?P<path>.+)", _read_file),
        ("POST", f"{_JOBS}/create", _create_job),
        ("POST", f"{_JOBS}/reset", _reset_job),
        ("POST", f"{_JOBS}/delete", _delete_job),
        ("GET", f"{_JOBS}/get", _get_job),
        ("GET", f"{_JOBS}/list", _list_jobs),
        ("POST", f"{_JOBS}/run-now", _run_now),
        ("GET", f"{_JOBS}/runs/get", _get_run),
        ("GET", f"{_JOBS}/runs/get-output", _get_output),
        ("POST", f"{_SECRETS}/scopes/create", _create_scope),
        ("GET", f"{_SECRETS}/scopes/list", _list_scopes),
        ("POST", f"{_SECRETS}/acls/put", _put_acl),
        ("POST", f"{_SECRETS}/put", _put_secret),
        ("GET", f"{_SECRETS}/get", _get_secret),
        ("GET", f"{_SECRETS}/list", _list_secrets),
        ("GET PUT PATCH", "/api/2.0/permissions/(?P<kind>jobs|directories|experiments)/(?P<id>[^/]+)", _permissions),
    )
]
