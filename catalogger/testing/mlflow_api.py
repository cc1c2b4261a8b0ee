"""MLflow's own surface of a loopback workspace: /api/2.0/mlflow/unity-catalog, in protobuf's JSON.

Whole numbers of 64 bits are strings in it, and what is empty is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from catalogger.testing.models import Model, Registry, Tags, Version, paged
from catalogger.testing.refusal import wrong

PREFIX = "/api/2.0/mlflow/unity-catalog/"
PROBE = "registered-models:is-databricks-sdk-models-artifact-repository-enabled"

_FILTER = re.compile(r"\s*name\s*=\s*['\"]([^'\"]+)['\"]\s*")
Document = dict[str, Any]
Asked = Mapping[str, Any]
Action = Callable[[Registry, str, Asked], Document]


def find(method: str, path: str) -> Action | None:
    """What is done for a request below the prefix, given the registry, the user and the fields of the request."""
    return _ACTIONS.get((method, path.removeprefix(PREFIX)))


def _create_model(registry: Registry, user: str, asked: Asked) -> Document:
    return _model(registry.create_model(user, asked["name"], asked.get("description", ""), _tags(asked)))


def _update_model(registry: Registry, user: str, asked: Asked) -> Document:
    return _model(registry.update_model(user, asked["name"], asked.get("description"), asked.get("new_name")))


def _delete_model(registry: Registry, user: str, asked: Asked) -> Document:
    registry.delete_model(user, asked["name"])
    return {}


def _get_model(registry: Registry, user: str, asked: Asked) -> Document:
    return _model(registry.model(user, asked["name"]))


def _search_models(registry: Registry, user: str, asked: Asked) -> Document:
    return paged(registry.listed(user), asked, _model_row, "registered_models")


def _create_version(registry: Registry, user: str, asked: Asked) -> Document:
    facts = {name: asked.get(name, "") for name in ("source", "run_id", "model_id")}
    created = registry.create_version(
        user,
        asked["name"],
        **facts,
        comment=asked.get("description", ""),
        link=asked.get("run_tracking_server_id", ""),
        dependencies=asked.get("model_version_dependencies"),
        tags=_tags(asked),
    )
    return _version(created)


def _update_version(registry: Registry, user: str, asked: Asked) -> Document:
    return _version(registry.update_version(user, asked["name"], asked["version"], asked.get("description")))


def _delete_version(registry: Registry, user: str, asked: Asked) -> Document:
    registry.delete_version(user, asked["name"], asked["version"])
    return {}


def _get_version(registry: Registry, user: str, asked: Asked) -> Document:
    return _version(registry.version(user, asked["name"], asked["version"]))


def _search_versions(registry: Registry, user: str, asked: Asked) -> Document:
    if not (found := _FILTER.fullmatch(asked.get("filter", ""))):
        raise wrong(
            "Unsupported filter query: please specify your filter parameter in the format `name = 'model_name'`."
        )
    model = registry.model(user, found[1])
    return paged(list(model.versions.values()), asked, lambda v: _version_row(model, v), "model_versions")


def _finalize(registry: Registry, user: str, asked: Asked) -> Document:
    return _version(registry.finalize(user, asked["name"], asked["version"]))


def _credentials(registry: Registry, user: str, asked: Asked) -> Document:
    write = asked.get("operation") == "MODEL_VERSION_OPERATION_READ_WRITE"
    given = registry.credentials(user, asked["name"], asked["version"], write=write)
    return {"credentials": given | {"expiration_time": str(given["expiration_time"])}}


def _download_uri(registry: Registry, user: str, asked: Asked) -> Document:
    return {"artifact_uri": registry.version(user, asked["name"], asked["version"])[1].storage_location}


def _set_alias(registry: Registry, user: str, asked: Asked) -> Document:
    registry.set_alias(user, asked["name"], asked["alias"], asked["version"])
    return {}


def _delete_alias(registry: Registry, user: str, asked: Asked) -> Document:
    registry.delete_alias(user, asked["name"], asked["alias"])
    return {}


def _by_alias(registry: Registry, user: str, asked: Asked) -> Document:
    return _version(registry.by_alias(user, asked["name"], asked["alias"]))


def _set_tag(registry: Registry, user: str, asked: Asked) -> Document:
    registry.tag(user, asked["name"], asked.get("version"), {asked["key"]: asked.get("value", "")}, ())
    return {}


def _delete_tag(registry: Registry, user: str, asked: Asked) -> Document:
    registry.tag(user, asked["name"], asked.get("version"), {}, [asked["key"]])
    return {}


def _emit_lineage(registry: Registry, user: str, asked: Asked) -> Document:
    registry.version(user, asked["name"], asked["version"])
    return {}


_ACTIONS: dict[tuple[str, str], Action] = {
    ("POST", "registered-models/create"): _create_model,
    ("PATCH", "registered-models/update"): _update_model,
    ("DELETE", "registered-models/delete"): _delete_model,
    ("GET", "registered-models/get"): _get_model,
    ("GET", "registered-models/search"): _search_models,
    ("POST", "registered-models/alias"): _set_alias,
    ("DELETE", "registered-models/alias"): _delete_alias,
    ("GET", "registered-models/alias"): _by_alias,
    ("POST", "registered-models/set-tag"): _set_tag,
    ("DELETE", "registered-models/delete-tag"): _delete_tag,
    ("POST", "model-versions/create"): _create_version,
    ("PATCH", "model-versions/update"): _update_version,
    ("DELETE", "model-versions/delete"): _delete_version,
    ("GET", "model-versions/get"): _get_version,
    ("GET", "model-versions/search"): _search_versions,
    ("POST", "model-versions/finalize"): _finalize,
    ("POST", "model-versions/generate-temporary-credentials"): _credentials,
    ("GET", "model-versions/get-download-uri"): _download_uri,
    ("POST", "model-versions/emit-lineage"): _emit_lineage,
    ("POST", "model-versions/set-tag"): _set_tag,
    ("DELETE", "model-versions/delete-tag"): _delete_tag,
}


def _tags(asked: Asked) -> Tags:
    return {tag["key"]: tag.get("value", "") for tag in asked.get("tags", ())}


def _model(model: Model) -> Document:
    more = {
        "aliases": [{"alias": alias, "version": str(number)} for alias, number in model.aliases.items()],
        "tags": _pairs(model.tags),
    }
    return {"registered_model": _said(_model_row(model) | more)}


def _model_row(model: Model) -> Document:
    """As a search has it: without aliases and tags."""
    return _said(
        {
            "name": model.full_name,
            "creation_timestamp": str(model.created),
            "last_updated_timestamp": str(model.updated),
            "user_id": model.owner,
            "description": model.comment,
        }
    )


def _version(found: tuple[Model, Version]) -> Document:
    model, version = found
    more = {
        "aliases": [{"alias": alias, "version": str(version.number)} for alias in model.aliases_of(version.number)],
        "tags": _pairs(version.tags),
    }
    return {"model_version": _said(_version_row(model, version) | more)}


def _version_row(model: Model, version: Version) -> Document:
    return _said(
        {
            "name": model.full_name,
            "version": str(version.number),
            "creation_timestamp": str(version.created),
            "last_updated_timestamp": str(version.updated),
            "user_id": version.created_by,
            "description": version.comment,
            "source": version.source,
            "run_id": version.run_id,
            "run_tracking_server_id": version.link,
            "status": version.status,
            "storage_location": version.storage_location,
            "model_id": version.model_id,
        }
    )


def _pairs(tags: Tags) -> list[Document]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _said(document: Document) -> Document:
    return {key: value for key, value in document.items() if value not in ("", [])}
