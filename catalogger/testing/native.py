"""The native surface of a loopback workspace: /api/2.1/unity-catalog, where whole numbers are numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from catalogger.testing.grants import Key, Kind
from catalogger.testing.models import Model, Registry, Tags, Version, paged
from catalogger.testing.refusal import RefusalError, wrong

PREFIX = "/api/2.1/unity-catalog/"

Document = dict[str, Any]
Asked = Mapping[str, Any]
Action = Callable[[Registry, str, Asked], Document]


def find(method: str, path: str) -> tuple[Action, dict[str, str]] | None:
    """What is done for a request below the prefix, and the fields that its path holds, still percent-encoded."""
    for of, pattern, action in _ACTIONS:
        if of == method and (found := pattern.fullmatch(path.removeprefix(PREFIX))):
            return action, found.groupdict()
    return None


# Catalogs, schemas and grants


def _get_catalog(registry: Registry, user: str, asked: Asked) -> Document:
    name = asked["catalog"].lower()
    registry.enter(user, name)
    return {"name": name, "owner": registry.grants.owners["CATALOG", name], "catalog_type": "MANAGED_CATALOG"}


def _get_schema(registry: Registry, user: str, asked: Asked) -> Document:
    catalog, _, schema = asked["schema"].lower().partition(".")
    registry.enter(user, catalog, schema)
    full_name = f"{catalog}.{schema}"
    owner = registry.grants.owners["SCHEMA", full_name]
    return {"name": schema, "catalog_name": catalog, "full_name": full_name, "owner": owner}


def _permissions(registry: Registry, user: str, asked: Asked) -> Document:
    return _assignments(registry.grants.assignments(*_securable(registry, user, asked), asked.get("principal")))


def _effective_permissions(registry: Registry, user: str, asked: Asked) -> Document:
    return _assignments(registry.grants.effective(*_securable(registry, user, asked), asked.get("principal")))


def _update_permissions(registry: Registry, user: str, asked: Asked) -> Document:
    kind, name = _named(asked)
    registry.grants.need_owner(user, kind, name)
    for change in asked.get("changes", ()):
        registry.grants.change((kind, name), change["principal"], change.get("add", ()), change.get("remove", ()))
    return _assignments(registry.grants.assignments(kind, name, None))


def _securable(registry: Registry, user: str, asked: Asked) -> Key:
    """Owners are told of everybody, others of themselves only."""
    kind, name = _named(asked)
    registry.grants.exists(kind, name)
    if asked.get("principal") != user:
        registry.grants.need_owner(user, kind, name)
    return kind, name


def _named(asked: Asked) -> Key:
    kind = asked["kind"].upper().replace("REGISTERED-MODEL", "FUNCTION")  # as a bundle's deployment says it
    if kind not in ("CATALOG", "SCHEMA", "FUNCTION"):
        raise wrong(f"SECURABLE_TYPE is invalid: {asked['kind']}")
    return cast(Kind, kind), asked["securable"].lower()


def _assignments(found: list[Document]) -> Document:
    return {"privilege_assignments": found} if found else {}


# Models


def _create_model(registry: Registry, user: str, asked: Asked) -> Document:
    name = asked.get("name", "")
    registry.enter(user, asked["catalog_name"].lower(), asked["schema_name"].lower())
    if "." in name:
        raise wrong(f"Invalid name '{name}': it cannot contain a period, space, forward-slash, or control characters.")
    full_name = f"{asked['catalog_name']}.{asked['schema_name']}.{name}"
    return _model(registry.create_model(user, full_name, asked.get("comment", ""), _tags(asked)), {})


def _list_models(registry: Registry, user: str, asked: Asked) -> Document:
    if "catalog_name" not in asked and not asked.get("max_results"):
        raise wrong("max_results must be specified when listing across the metastore.")
    found = registry.listed(user, asked.get("catalog_name"), asked.get("schema_name"))
    return paged(found, asked, _model_row, "registered_models")


def _get_model(registry: Registry, user: str, asked: Asked) -> Document:
    return _model(registry.model(user, asked["full_name"]), asked)


def _update_model(registry: Registry, user: str, asked: Asked) -> Document:
    found = registry.update_model(user, asked["full_name"], asked.get("comment"), asked.get("new_name"))
    return _model(found, asked)


def _delete_model(registry: Registry, user: str, asked: Asked) -> Document:
    registry.delete_model(user, asked["full_name"])
    return {}


# Versions


def _create_version(registry: Registry, user: str, asked: Asked) -> Document:
    full_name = f"{asked['catalog_name']}.{asked['schema_name']}.{asked['model_name']}"
    facts = {name: asked.get(name, "") for name in ("source", "run_id", "model_id", "comment")}
    created = registry.create_version(
        user,
        full_name,
        **facts,
        link=asked.get("run_tracking_server_id", ""),
        dependencies=asked.get("model_version_dependencies"),
        tags=_tags(asked),
    )
    return _version(created, asked)


def _list_versions(registry: Registry, user: str, asked: Asked) -> Document:
    model = registry.model(user, asked["full_name"])
    newest_first = sorted(model.versions.values(), key=lambda version: -version.number)  # no order is promised
    return paged(newest_first, asked, lambda version: _version_row(model, version), "model_versions")


def _get_version(registry: Registry, user: str, asked: Asked) -> Document:
    return _version(registry.version(user, asked["full_name"], asked["version"]), asked)


def _update_version(registry: Registry, user: str, asked: Asked) -> Document:
    found = registry.update_version(user, asked["full_name"], asked["version"], asked.get("comment"))
    return _version(found, asked)


def _delete_version(registry: Registry, user: str, asked: Asked) -> Document:
    registry.delete_version(user, asked["full_name"], asked["version"])
    return {}


def _finalize(registry: Registry, user: str, asked: Asked) -> Document:
    return _version(registry.finalize(user, asked["full_name"], asked["version"]), asked)


def _credentials(registry: Registry, user: str, asked: Asked) -> Document:
    full_name = f"{asked['catalog_name']}.{asked['schema_name']}.{asked['model_name']}"
    write = asked.get("operation") == "READ_WRITE_MODEL_VERSION"
    return registry.credentials(user, full_name, asked["version"], write=write)


# Aliases and tags


def _by_alias(registry: Registry, user: str, asked: Asked) -> Document:
    return _version(registry.by_alias(user, asked["full_name"], asked["alias"]), asked)


def _set_alias(registry: Registry, user: str, asked: Asked) -> Document:
    model, version = registry.set_alias(user, asked["full_name"], asked["alias"], asked["version_num"])
    return _alias(model, asked["alias"], version.number)


def _delete_alias(registry: Registry, user: str, asked: Asked) -> Document:
    registry.delete_alias(user, asked["full_name"], asked["alias"])
    return {}


def _update_tags(registry: Registry, user: str, asked: Asked) -> Document:
    if asked["kind"].upper() != "FUNCTION":
        raise RefusalError(400, "INVALID_PARAMETER_VALUE", f"SECURABLE_TYPE is invalid: {asked['kind']}")
    changes = asked.get("changes", {})
    add = {tag["key"]: tag.get("value", "") for tag in changes.get("add_tags", ())}
    registry.tag(user, asked["securable"], asked.get("subentity"), add, changes.get("remove", ()))
    return {}


_FULL, _OF_KIND = "models/(?P<full_name>[^/]+)", "(?P<kind>[^/]+)/(?P<securable>[^/]+)"
_VERSION, _ALIAS = f"{_FULL}/versions/(?P<version>[^/]+)", f"{_FULL}/aliases/(?P<alias>[^/]+)"
_ACTIONS: list[tuple[str, re.Pattern[str], Action]] = [
    (method, re.compile(pattern), action)
    for method, pattern, action in (
        ("GET", "catalogs/(?P<catalog>[^/]+)", _get_catalog),
        ("GET", "schemas/(?P<schema>[^/]+)", _get_schema),
        ("GET", f"permissions/{_OF_KIND}", _permissions),
        ("PATCH", f"permissions/{_OF_KIND}", _update_permissions),
        ("GET", f"effective-permissions/{_OF_KIND}", _effective_permissions),
        ("POST", "models", _create_model),
        ("GET", "models", _list_models),
        ("POST", "models/versions", _create_version),
        ("GET", _FULL, _get_model),
        ("PATCH", _FULL, _update_model),
        ("DELETE", _FULL, _delete_model),
        ("GET", f"{_FULL}/versions", _list_versions),
        ("GET", _VERSION, _get_version),
        ("PATCH", _VERSION, _update_version),
        ("DELETE", _VERSION, _delete_version),
        ("PATCH", f"{_VERSION}/finalize", _finalize),
        ("POST", "temporary-model-version-credentials", _credentials),
        ("GET", _ALIAS, _by_alias),
        ("PUT", _ALIAS, _set_alias),
        ("DELETE", _ALIAS, _delete_alias),
        ("PATCH", f"securable-tags/{_OF_KIND}", _update_tags),
        ("PATCH", f"subentity-tags/{_OF_KIND}/(?P<subentity>[^/]+)", _update_tags),
    )
]


def _tags(asked: Asked) -> Tags:
    return {tag["key"]: tag.get("value", "") for tag in asked.get("tags", ())}


def _pairs(tags: Tags) -> list[Document]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _alias(model: Model, alias: str, number: int) -> Document:
    names = {"catalog_name": model.catalog, "schema_name": model.schema, "model_name": model.name}
    return {"alias_name": alias, "version_num": number, **names}


def _asks_aliases(asked: Asked) -> bool:
    return str(asked.get("include_aliases", "")).lower() == "true"


def _model(model: Model, asked: Asked) -> Document:
    found = _model_row(model) | ({"tags": _pairs(model.tags)} if model.tags else {})
    if _asks_aliases(asked):
        found["aliases"] = [_alias(model, alias, number) for alias, number in model.aliases.items()]
    return found


def _model_row(model: Model) -> Document:
    return {
        "name": model.name,
        "catalog_name": model.catalog,
        "schema_name": model.schema,
        "full_name": model.full_name,
        "owner": model.owner,
        "comment": model.comment,
        "storage_location": model.storage_location,
        "created_at": model.created,
        "created_by": model.owner,
        "updated_at": model.updated,
        "updated_by": model.owner,
        "id": model.id,
    }


def _version(found: tuple[Model, Version], asked: Asked) -> Document:
    model, version = found
    row = _version_row(model, version) | ({"tags": _pairs(version.tags)} if version.tags else {})
    if _asks_aliases(asked):
        row["aliases"] = [_alias(model, alias, version.number) for alias in model.aliases_of(version.number)]
    return row


def _version_row(model: Model, version: Version) -> Document:
    row = {
        "model_name": model.name,
        "catalog_name": model.catalog,
        "schema_name": model.schema,
        "version": version.number,
        "source": version.source,
        "run_id": version.run_id,
        "model_id": version.model_id,
        "comment": version.comment,
        "status": version.status,
        "storage_location": version.storage_location,
        "created_at": version.created,
        "created_by": version.created_by,
        "updated_at": version.updated,
        "updated_by": version.created_by,
        "id": version.id,
        "run_workspace_id": int(version.link or 0),
        "model_version_dependencies": version.dependencies,
    }
    return {key: value for key, value in row.items() if value not in ("", 0, None)}
