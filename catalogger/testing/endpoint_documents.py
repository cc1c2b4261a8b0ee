"""Serving endpoints as Databricks writes them: fields and words as databricks-sdk and the REST pages have them."""

from __future__ import annotations

from typing import Any

from catalogger.testing.endpoints import Config, Endpoint, Principal, Served

Document = dict[str, Any]

_LEVELS = {
    "CAN_MANAGE": "Can manage the serving endpoint",
    "CAN_QUERY": "Can query the serving endpoint",
    "CAN_VIEW": "Can view the serving endpoint",
}


def detailed(endpoint: Endpoint, user: str) -> Document:
    """The answer to someone who asks for this endpoint."""
    found = _common(endpoint) | {"permission_level": endpoint.level(user), "endpoint_type": endpoint.kind}
    if config := endpoint.serving:
        found["config"] = _config(config)
    if pending := endpoint.pending:
        found["pending_config"] = _config(pending) | {"start_time": pending.started}
    return found


def summary(endpoint: Endpoint) -> Document:
    """A row of the listing."""
    config = endpoint.serving or endpoint.pending
    return _common(endpoint) | {"config": {"served_entities": [_spec(one) for one in config.served] if config else []}}


def tags(endpoint: Endpoint) -> list[Document]:
    return [{"key": key} | ({"value": value} if value is not None else {}) for key, value in endpoint.tags.items()]


def permissions(endpoint: Endpoint) -> Document:
    return {
        "object_id": f"/serving-endpoints/{endpoint.id}",
        "object_type": "serving-endpoint",
        "access_control_list": [_access(principal, level) for principal, level in endpoint.levels.items()],
    }


def levels() -> Document:
    return {
        "permission_levels": [{"permission_level": level, "description": words} for level, words in _LEVELS.items()]
    }


def _common(endpoint: Endpoint) -> Document:
    found = {
        "name": endpoint.name,
        "creator": endpoint.creator,
        "creation_timestamp": endpoint.created,
        "last_updated_timestamp": endpoint.updated,
        "state": {"ready": endpoint.ready, "config_update": endpoint.update},
        "id": endpoint.id,
        "tags": tags(endpoint),
        "task": endpoint.task,
        "ai_gateway": endpoint.gateway,
        **endpoint.settings,
    }
    return {key: value for key, value in found.items() if value not in (None, {}, [])}


def _config(config: Config) -> Document:
    routes = [
        {"served_model_name": name, "served_entity_name": name, "traffic_percentage": share}
        for name, share in config.routes.items()
    ]
    return {
        "served_entities": [_served(one) for one in config.served],
        "traffic_config": {"routes": routes},
        "config_version": config.version,
    }


def _served(one: Served) -> Document:
    deployment, message = one.state
    return {
        **_spec(one),
        **one.asked,
        "creator": one.creator,
        "creation_timestamp": one.created,
        "state": {"deployment": deployment, "deployment_state_message": message},
    }


def _spec(one: Served) -> Document:
    if not one.entity_version:  # of Databricks' own, paid by the token
        return {"name": one.name, "foundation_model": {"name": one.entity_name, "display_name": one.name}}
    return {"name": one.name, "entity_name": one.entity_name, "entity_version": one.entity_version}


def _access(principal: Principal, level: str) -> Document:
    kind, name = principal
    rights = [{"permission_level": level, "inherited": False}]
    return {kind: name, "display_name": name, "all_permissions": rights}
