"""What an endpoint is asked to be: its name, what it serves, and the two forms in which the workspace is told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalogger.errors import UsageError
from catalogger.serving.capacity import Capacity
from catalogger.serving.entity import Entity
from catalogger.serving.workspace import ENDPOINTS, endpoint_path

Fields = Mapping[str, Any]
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_RESERVED = "databricks-"
_COMPUTE = (
    *("min_provisioned_throughput", "max_provisioned_throughput", "scale_to_zero_enabled"),
    *("provisioned_model_units", "burst_scaling_enabled"),
)
MADE_BY = {"key": "made_by", "value": "catalogger"}


@dataclass(frozen=True)
class Configuration:
    """Served entities, as the workspace takes them, and the percentage of the traffic of each by its name."""

    served: tuple[Fields, ...]
    traffic: Mapping[str, int] = field(default_factory=dict)

    @property
    def by_units(self) -> bool:
        return any("provisioned_model_units" in one for one in self.served)

    @property
    def names(self) -> set[str]:
        """The models."""
        return {str(one["entity_name"]) for one in self.served}

    def fields(self) -> dict[str, Any]:
        """The configuration in a request."""
        found: dict[str, Any] = {"served_entities": [dict(one) for one in self.served]}
        if self.traffic:
            routes = [{"served_entity_name": n, "traffic_percentage": p} for n, p in self.traffic.items()]
            found["traffic_config"] = {"routes": routes}
        return found

    def is_like(self, other: Configuration) -> bool:
        """Whether both have the same effect."""
        return _plain(self) == _plain(other)


def creation(name: str, wanted: Configuration, tags: Sequence[Fields], gateway: Fields | None) -> tuple[str, Fields]:
    """The path to POST to, and the body."""
    body = {"name": name, "config": wanted.fields(), "tags": [dict(tag) for tag in tags]}
    if gateway:
        body["ai_gateway"] = dict(gateway)
    return f"{ENDPOINTS}/pt" if wanted.by_units else ENDPOINTS, body


def update(name: str, wanted: Configuration) -> tuple[str, Fields]:
    """The path to PUT to, and the body: wrapped for model units, and bare for tokens per second."""
    if wanted.by_units:
        return f"{ENDPOINTS}/pt/{endpoint_path(name).rpartition('/')[2]}/config", {"config": wanted.fields()}
    return f"{endpoint_path(name)}/config", wanted.fields()


def configuration(document: Fields | None) -> Configuration | None:
    """What an endpoint's `config` or `pending_config` says; None where there is none."""
    if not document or not document.get("served_entities"):
        return None
    kept = ("name", "entity_name", "entity_version", *_COMPUTE)
    served = tuple({k: one[k] for k in kept if one.get(k) is not None} for one in document["served_entities"])
    routes = (document.get("traffic_config") or {}).get("routes") or ()
    traffic = {
        str(r.get("served_entity_name") or r.get("served_model_name")): int(r["traffic_percentage"]) for r in routes
    }
    return Configuration(tuple({"entity_name": one.get("name", ""), **one} for one in served), traffic)


def wanted(
    entity: Entity, capacity: Capacity, traffic: Mapping[str, int], present: Configuration | None
) -> Configuration:
    """The configuration that serves the entity: alone, or with others that are served now, by shares of the traffic.

    `traffic` gives the percentage of each version by its number or the name of its served entity.
    Raises UsageError where the shares do not sum up to 100, or name something that is not served.
    """
    new = {"entity_name": entity.name, "entity_version": entity.version, **capacity.fields}
    if not traffic:
        return Configuration((new,))
    if (total := sum(traffic.values())) != 100 or min(traffic.values()) < 0:
        raise UsageError(f"The shares of --traffic sum up to {total}, not to 100.", "Give each as VERSION=PERCENT.")
    there = {str(one["name"]): one for one in present.served} if present else {}
    by_number = {str(one["entity_version"]): name for name, one in there.items() if one["entity_name"] == entity.name}
    served: list[Fields] = []
    shares: dict[str, int] = {}
    for key, share in traffic.items():
        name = entity.served_name if key in (entity.version, entity.served_name) else by_number.get(key, key)
        if name in shares:
            raise UsageError(f'--traffic gives "{name}" two shares.', "Give it one.")
        if name == entity.served_name:
            served.append({**new, "name": entity.served_name})
        elif name in there:
            served.append(there[name])
        else:
            known = ", ".join([entity.version, *(n for n in by_number if n != entity.version)])
            raise UsageError(f'--traffic names "{key}", which is not served.', f"Known are {known}.")
        shares[name] = share
    if entity.served_name not in shares:
        raise UsageError(f"--traffic gives version {entity.version} no share.", f"Add {entity.version}=PERCENT.")
    return Configuration(tuple(served), shares)


def outline(name: str, model: str) -> Fields:
    """What will be sent of a version that is yet to come: all that is known without the workspace's answer."""
    config = {"served_entities": [{"entity_name": model}]}
    return {"name": name, "config": config, "tags": [MADE_BY]}


def endpoint_name(model: str) -> str:
    """The name where none is asked for: the model's own.  Raises UsageError where the workspace would not take it."""
    return checked_name(model.rpartition(".")[2])


def checked_name(name: str) -> str:
    """The name.  Raises UsageError where the workspace would not take it."""
    if not _NAME.fullmatch(name):
        length = f" ({len(name)} characters)" if len(name) > 63 else ""
        raise UsageError(
            f'The endpoint name "{name[:80]}"{length} is none that the workspace takes.',
            "1 to 63 letters, digits, dashes and underscores; --endpoint gives another.",
        )
    if name.lower().startswith(_RESERVED):
        raise UsageError(f'The endpoint name "{name}" begins with {_RESERVED}, which is reserved.', "Give another.")
    return name


def _plain(one: Configuration) -> object:
    shares = {name: share for name, share in one.traffic.items() if share}
    named = len(one.served) > 1

    def fields(served: Fields) -> tuple[object, ...]:
        compute = (served.get(key) or None for key in _COMPUTE[:-1])
        name = served.get("name") if named else None
        burst = served.get("burst_scaling_enabled", True)
        return (name, served["entity_name"], str(served.get("entity_version")), *compute, burst)

    return sorted(map(fields, one.served), key=repr), shares if named else None
