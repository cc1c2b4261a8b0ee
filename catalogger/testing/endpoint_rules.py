"""What a loopback workspace demands of a serving endpoint that somebody asks for.

Wording: as Databricks was seen to send it, where it was seen; which of several defects is told first is a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from catalogger.testing.endpoints import Config, Served
from catalogger.testing.refusal import RefusalError, wrong
from catalogger.testing.servable import Servable

Asked = Mapping[str, Any]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_RESERVED = "databricks-"
_MOST_ENTITIES = 15  # documented are 10
_MINIMUM, _MAXIMUM, _UNITS = THROUGHPUT = (
    "min_provisioned_throughput",
    "max_provisioned_throughput",
    "provisioned_model_units",
)
_FIELDS = {
    *("name", "entity_name", "entity_version", "model_name", "model_version", "scale_to_zero_enabled"),
    *("burst_scaling_enabled", "workload_size", "workload_type", "environment_vars", "instance_profile_arn"),
    *("min_provisioned_concurrency", "max_provisioned_concurrency", "external_model", *THROUGHPUT),
}
_COMPUTE = _FIELDS - {"name", "entity_name", "entity_version", "model_name", "model_version"}


def check_name(name: str) -> None:
    """The name of an endpoint or of a served entity."""
    if not _NAME.fullmatch(name):
        rule = "It must be 1 to 63 characters long: letters, digits, dashes and underscores."
        raise wrong(f"Invalid name '{name}'. {rule}")


def check_endpoint_name(name: str) -> None:
    check_name(name)
    if name.lower().startswith(_RESERVED):
        raise wrong(f"Invalid endpoint name '{name}': the prefix '{_RESERVED}' is reserved.")


def config_of(servable: Servable, creator: str, asked: Asked, *, units: bool) -> Config:
    """What is asked to be served; `units` where it came by the path for model units."""
    rows = asked.get("served_entities") or asked.get("served_models") or ()
    if not rows:
        raise wrong("Missing required field: served_entities")
    if len(rows) > _MOST_ENTITIES:
        raise wrong(f"An endpoint has at most {_MOST_ENTITIES} served entities, not {len(rows)}.")
    served = tuple(_served(servable, creator, row, units=units) for row in rows)
    names = [one.name for one in served]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise wrong(f"The served entity name '{twice}' is not unique.")
    return Config(served, _routes(names, asked.get("traffic_config") or {}))


def task_of(servable: Servable, creator: str, config: Config) -> str | None:
    """The task that all served entities have."""
    ready = [servable.ready(creator, one.entity_name, one.entity_version) for one in config.served]
    tasks = {servable.task(model, version) for model, version in ready}
    if len(tasks) > 1:
        raise wrong(f"All served entities of an endpoint must have the same task, not {sorted(map(str, tasks))}.")
    return tasks.pop()


def is_throughput(config: Config) -> bool:
    return any(field in one.asked for one in config.served for field in THROUGHPUT)


def _served(servable: Servable, creator: str, row: Asked, *, units: bool) -> Served:
    if unknown := sorted(set(row) - _FIELDS):
        raise wrong(f"Unknown field of a served entity: {unknown[0]}")
    if "external_model" in row:
        if any(field in row for field in THROUGHPUT):
            raise wrong("provisioned throughput is not supported for endpoints with external models")
        raise RefusalError(501, "NOT_IMPLEMENTED", "This loopback workspace serves no external models.")
    entity = str(row.get("entity_name") or row.get("model_name") or "")
    number = row.get("entity_version") or row.get("model_version")
    if not entity:
        raise wrong("Missing required field: entity_name")
    if number is None:
        raise wrong("Missing required field: entity_version")
    model, version = servable.ready(creator, entity, number)
    name = str(row.get("name") or f"{model.name}-{version.number}")
    check_name(name)
    _check_compute(servable.optimization(creator, entity, number), model.full_name, row, units=units)
    asked = {field: row[field] for field in row if field in _COMPUTE}
    return Served(name, model.full_name, str(version.number), creator, asked)


def _check_compute(info: Asked, entity: str, row: Asked, *, units: bool) -> None:
    """The three ways to ask for compute, each with its own fields and multiples."""
    ranged = [field for field in (_MINIMUM, _MAXIMUM) if field in row]
    if not units and not ranged and _UNITS not in row:
        if "workload_size" not in row:
            raise wrong("Missing required field: workload_size")
        return
    chunk = info.get("model_unit_chunk_size") if info.get("optimizable") else None
    if units or _UNITS in row:
        _check_units(chunk, entity, row, ranged, units=units)
    elif chunk or not info.get("optimizable") or not info.get("throughput_chunk_size"):
        raise wrong(f"{entity} is not eligible for Provisioned Throughput")
    else:
        _check_range(int(info["throughput_chunk_size"]), row)


def _check_units(chunk: int | None, entity: str, row: Asked, ranged: list[str], *, units: bool) -> None:
    if ranged:
        raise wrong(f"{ranged[0]} is not supported with provisioned_model_units.")
    if not units:
        raise wrong("provisioned_model_units is only supported by provisioned throughput endpoints.")
    if chunk is None:
        raise wrong(f"{entity} does not support provisioned model units.")
    asked = _whole(row, _UNITS)
    if asked <= 0 or asked % chunk:
        raise wrong(f"provisioned_model_units must be a positive multiple of {chunk}, not {asked}.")
    if row.get("scale_to_zero_enabled"):
        raise wrong("scale_to_zero_enabled is not supported with provisioned_model_units.")


def _check_range(chunk: int, row: Asked) -> None:
    low, high = _whole(row, _MINIMUM), _whole(row, _MAXIMUM)
    for field, value in ((_MINIMUM, low), (_MAXIMUM, high)):
        if value < 0 or value % chunk:
            raise wrong(f"{field} must be a multiple of {chunk}, not {value}.")
    if high == 0:
        raise wrong(f"{_MAXIMUM} must be positive.")
    if low > high:
        raise wrong(f"{_MINIMUM} ({low}) must not be greater than {_MAXIMUM} ({high}).")


def _whole(row: Asked, field: str) -> int:
    value = row.get(field)
    if value is None:
        raise wrong(f"Missing required field: {field}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong(f"{field} must be a whole number.")
    return value


def _routes(names: list[str], asked: Asked) -> dict[str, int]:
    """Percentages by served entity."""
    rows = asked.get("routes") or ()
    if not rows and len(names) == 1:
        return {names[0]: 100}
    routes = {
        str(row.get("served_entity_name") or row.get("served_model_name")): _whole(row, "traffic_percentage")
        for row in rows
    }
    if unknown := next((name for name in routes if name not in names), None):
        raise wrong(f"The traffic route '{unknown}' names no served entity.")
    if any(not 0 <= share <= 100 for share in routes.values()):
        raise wrong("Each traffic_percentage must be between 0 and 100.")
    if sum(routes.values()) != 100:
        raise wrong(f"The sum of traffic_percentage must be 100, not {sum(routes.values())}.")
    return routes
