"""The management surface of model serving: /api/2.0/serving-endpoints, and the permissions of endpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from catalogger.testing import endpoint_documents as documents
from catalogger.testing.endpoints import CAN_MANAGE, CAN_VIEW, LEVELS, Endpoint, Principal
from catalogger.testing.models import paged
from catalogger.testing.refusal import wrong
from catalogger.testing.serving import Serving

PREFIX, PERMISSIONS = "/api/2.0/serving-endpoints", "/api/2.0/permissions/serving-endpoints/"

Document = dict[str, Any]
Asked = Mapping[str, Any]
Action = Callable[[Serving, str, Asked], Document]

_GATEWAY = ("fallback_config", "guardrails", "inference_table_config", "rate_limits", "usage_tracking_config")
_LIMITED = ("user", "user_group", "service_principal", "endpoint")
_PRINCIPALS = ("user_name", "group_name", "service_principal_name")


def find(method: str, path: str) -> tuple[Action, dict[str, str]] | None:
    """What is done for a request, and the fields that its path holds, still percent-encoded."""
    for methods, pattern, action in _ACTIONS:
        if method in methods and (found := pattern.fullmatch(path)):
            return action, found.groupdict()
    return None


# Endpoints


def _optimization(serving: Serving, user: str, asked: Asked) -> Document:
    return dict(serving.servable.optimization(user, asked["full_name"], asked["version"]))


def _create(serving: Serving, user: str, asked: Asked) -> Document:
    check_gateway(asked.get("ai_gateway") or {})
    return documents.detailed(serving.create(user, asked, units=False), user)


def _create_units(serving: Serving, user: str, asked: Asked) -> Document:
    check_gateway(asked.get("ai_gateway") or {})
    return documents.detailed(serving.create(user, asked, units=True), user)


def _update(serving: Serving, user: str, asked: Asked) -> Document:
    return documents.detailed(serving.update(user, asked["name"], asked, units=False), user)


def _update_units(serving: Serving, user: str, asked: Asked) -> Document:
    return documents.detailed(serving.update(user, asked["name"], asked["config"], units=True), user)


def _get(serving: Serving, user: str, asked: Asked) -> Document:
    endpoint = serving.find(user, asked["name"])
    endpoint.look()
    return documents.detailed(endpoint, user)


def _list(serving: Serving, user: str, asked: Asked) -> Document:
    size = min(int(asked.get("max_results") or serving.page_size or 0), serving.page_size or 1000)
    return paged(serving.visible(user), {**asked, "max_results": size}, documents.summary, "endpoints")


def _delete(serving: Serving, user: str, asked: Asked) -> Document:
    serving.delete(user, asked["name"])
    return {}


def _tags(serving: Serving, user: str, asked: Asked) -> Document:
    endpoint = serving.find(user, asked["name"], CAN_MANAGE)
    for tag in asked.get("add_tags") or ():
        endpoint.tags[tag["key"]] = tag.get("value")
    for key in asked.get("delete_tags") or ():
        endpoint.tags.pop(key, None)
    return {"tags": documents.tags(endpoint)}


def _gateway(serving: Serving, user: str, asked: Asked) -> Document:
    """All of the configuration is replaced."""
    endpoint = serving.find(user, asked["name"], CAN_MANAGE)
    gateway = {field: value for field, value in asked.items() if field != "name"}
    check_gateway(gateway)
    endpoint.gateway = gateway
    return gateway


def _notifications(serving: Serving, user: str, asked: Asked) -> Document:
    endpoint = serving.find(user, asked["name"], CAN_MANAGE)
    endpoint.settings["email_notifications"] = asked["email_notifications"]
    return {"name": endpoint.name, "email_notifications": asked["email_notifications"]}


def check_gateway(gateway: Asked) -> None:
    """The options of the AI gateway, as far as their names and the words for rate limits go."""
    if unknown := sorted(set(gateway) - set(_GATEWAY)):
        raise wrong(f"Unknown field of ai_gateway: {unknown[0]}")
    for limit in gateway.get("rate_limits") or ():
        if limit.get("renewal_period") != "minute":
            raise wrong("renewal_period of a rate limit must be 'minute'.")
        if limit.get("key", "endpoint") not in _LIMITED:
            raise wrong(f"key of a rate limit must be one of {', '.join(_LIMITED)}.")
        if not (limit.get("calls") or limit.get("tokens")):
            raise wrong("A rate limit must have calls or tokens.")


# Permissions


def _permissions(serving: Serving, user: str, asked: Asked) -> Document:
    return documents.permissions(serving.by_id(user, asked["id"], CAN_VIEW))


def _levels(serving: Serving, user: str, asked: Asked) -> Document:
    serving.by_id(user, asked["id"], CAN_VIEW)
    return documents.levels()


def _change_permissions(serving: Serving, user: str, asked: Asked) -> Document:
    endpoint = serving.by_id(user, asked["id"], CAN_MANAGE)
    endpoint.levels |= _access(asked)
    return documents.permissions(endpoint)


def _replace_permissions(serving: Serving, user: str, asked: Asked) -> Document:
    """The creator keeps the right to manage."""
    endpoint: Endpoint = serving.by_id(user, asked["id"], CAN_MANAGE)
    endpoint.levels = {("user_name", endpoint.creator): CAN_MANAGE} | _access(asked)
    return documents.permissions(endpoint)


def _access(asked: Asked) -> dict[Principal, str]:
    found: dict[Principal, str] = {}
    for row in asked.get("access_control_list") or ():
        kind = next((kind for kind in _PRINCIPALS if kind in row), None)
        if kind is None or row.get("permission_level") not in LEVELS:
            raise wrong(f"An entry of access_control_list needs a principal and one of {', '.join(LEVELS)}.")
        found[kind, row[kind]] = row["permission_level"]
    return found


_NAME, _OF = f"{PREFIX}/(?P<name>[^/]+)", f"{PERMISSIONS}(?P<id>[^/]+)"
_ACTIONS: list[tuple[tuple[str, ...], re.Pattern[str], Action]] = [
    (tuple(methods.split()), re.compile(pattern), action)
    for methods, pattern, action in (
        ("GET", f"{PREFIX}/get-model-optimization-info/(?P<full_name>[^/]+)/(?P<version>[^/]+)", _optimization),
        ("POST", f"{PREFIX}/?", _create),  # MLflow's client sends a slash
        ("POST", f"{PREFIX}/pt", _create_units),
        ("GET", f"{PREFIX}/?", _list),
        ("GET", _NAME, _get),
        ("DELETE", _NAME, _delete),
        ("PUT", f"{PREFIX}/pt/(?P<name>[^/]+)/config", _update_units),
        ("PUT", f"{_NAME}/config", _update),
        ("PATCH", f"{_NAME}/tags", _tags),
        ("PUT", f"{_NAME}/ai-gateway", _gateway),
        ("PATCH PUT", f"{_NAME}/notifications", _notifications),
        ("GET", _OF, _permissions),
        ("GET", f"{_OF}/permissionLevels", _levels),
        ("PATCH", _OF, _change_permissions),
        ("PUT", _OF, _replace_permissions),
    )
]
