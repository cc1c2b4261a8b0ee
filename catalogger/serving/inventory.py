"""What runs: the endpoints of a workspace, what they serve, which are behind their alias; and their end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalogger.errors import AccessDenied, Refused, UsageError
from catalogger.remote.rest import Rest
from catalogger.serving.asked import MADE_BY
from catalogger.serving.entity import version_of_alias
from catalogger.serving.waiting import state_of
from catalogger.serving.workspace import ENDPOINTS, endpoint_path, endpoint_url, found, rest_of

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


@dataclass(frozen=True)
class ServedEntity:
    """One served entity of an endpoint.

    `capacity` are its fields of throughput or units, as the workspace has them; `traffic` is a percentage.
    `alias_version` is the version that the model's alias points at; None where it has no such alias, or hides it.
    """

    name: str
    model: str
    version: str | None
    capacity: Mapping[str, Any]
    traffic: int
    alias_version: str | None = None

    @property
    def is_behind(self) -> bool:
        """Whether the alias points at another version."""
        return self.alias_version is not None and self.alias_version != self.version

    def __str__(self) -> str:
        version = f"/{self.version}" if self.version else ""
        figures = [str(self.capacity[key]) for key in _FIGURES if self.capacity.get(key) is not None]
        unit = "model units" if "provisioned_model_units" in self.capacity else "tokens/s"
        size = f", {' to '.join(dict.fromkeys(figures))} {unit}" if figures else ""
        asleep = ", scales to zero" if self.capacity.get("scale_to_zero_enabled") else ""
        share = f", {self.traffic} % of the traffic" if self.traffic != 100 else ""
        return f"{self.model}{version}{size}{asleep}{share}"


VersionOf = Callable[[str], str | None]
"""The version that a model's alias points at."""
_FIGURES = ("min_provisioned_throughput", "max_provisioned_throughput", "provisioned_model_units")
_CAPACITY = (*_FIGURES, "scale_to_zero_enabled", "burst_scaling_enabled", "workload_type", "workload_size")


@dataclass(frozen=True)
class RunningEndpoint:
    """One endpoint as the workspace has it; `created` is in UTC, `ours` says that catalogger made it."""

    name: str
    url: str
    state: str
    task: str | None
    creator: str | None
    created: str | None
    ours: bool
    served: tuple[ServedEntity, ...]

    @property
    def behind(self) -> tuple[ServedEntity, ...]:
        """The served entities that are not what the alias of their model points at."""
        return tuple(one for one in self.served if one.is_behind)

    def document(self) -> dict[str, Any]:
        """The endpoint as JSON data."""
        own = {**asdict(self), "served": [{**asdict(one), "behind": one.is_behind} for one in self.served]}
        return own | {"behind": bool(self.behind)}


def endpoints(workspace: WorkspaceClient, *, alias: str = "champion") -> list[RunningEndpoint]:
    """Every endpoint that one may see, by name; those of Databricks' own that are paid by the token are left out.

    alias: what each model's version is compared with.
    """
    rest = rest_of(workspace)
    aliased: dict[str, str | None] = {}

    def version(model: str) -> str | None:
        if model not in aliased:
            try:
                aliased[model] = version_of_alias(rest, model, alias)
            except (AccessDenied, Refused):
                aliased[model] = None
        return aliased[model]

    found_names = sorted(name for name, own in names(rest) if not own)
    documents = (found(rest, endpoint_path(name)) for name in found_names)
    return [_running(document, workspace, version) for document in documents if document]


def teardown(workspace: WorkspaceClient, name: str) -> None:
    """End an endpoint.  What it serves stays registered.

    Raises UsageError where there is none of this name, AccessDenied where it may not be ended.
    """
    rest = rest_of(workspace)
    try:
        rest.call("DELETE", endpoint_path(name))
    except Refused as refused:
        if refused.status == 404:
            raise UsageError(f'There is no endpoint "{name}".', "`log-model endpoints` lists them.") from refused
        if refused.status == 403:
            denied = f'The endpoint "{name}" may not be ended: {refused.said}'
            raise AccessDenied(denied, "It takes CAN_MANAGE.") from refused
        raise


def running(workspace: WorkspaceClient, name: str) -> RunningEndpoint:
    """One endpoint.  Raises UsageError where there is none of this name."""
    document = found(rest_of(workspace), endpoint_path(name))
    if document is None:
        raise UsageError(f'There is no endpoint "{name}".', "`log-model endpoints` lists them.")
    return _running(document, workspace, lambda _: None)


def names(rest: Rest) -> Iterator[tuple[str, bool]]:
    """Of every endpoint its name, page by page, and whether it is Databricks' own."""
    for one in documents(rest):
        entities = (one.get("config") or {}).get("served_entities") or ()
        yield str(one["name"]), bool(entities) and all("foundation_model" in entity for entity in entities)


def documents(rest: Rest) -> Iterator[Mapping[str, Any]]:
    """Every endpoint as the workspace lists it, page by page: shorter than when it is asked about alone."""
    query: dict[str, str] = {}
    while True:
        page = rest.call("GET", ENDPOINTS, query=query)
        yield from page.get("endpoints") or ()
        if not (token := page.get("next_page_token")):
            return
        query = {"page_token": str(token)}


def _running(
    document: Mapping[str, Any], workspace: WorkspaceClient, version: Callable[[str], str | None]
) -> RunningEndpoint:
    config = document.get("config") or document.get("pending_config") or {}
    routes = (config.get("traffic_config") or {}).get("routes") or ()
    shares = {str(r.get("served_entity_name") or r["served_model_name"]): int(r["traffic_percentage"]) for r in routes}
    served = tuple(_served(one, shares, version) for one in config.get("served_entities") or ())
    state, created = state_of(document), document.get("creation_timestamp")
    name = str(document["name"])
    return RunningEndpoint(
        name=name,
        url=endpoint_url(str(workspace.config.host), name),
        state="ready" if state.is_ready else str(state).partition(":")[0],
        task=document.get("task"),
        creator=document.get("creator"),
        created=f"{datetime.fromtimestamp(int(created) / 1000, UTC):%Y-%m-%d %H:%M}" if created else None,
        ours=MADE_BY in (document.get("tags") or ()),
        served=served,
    )


def _served(one: Mapping[str, Any], shares: Mapping[str, int], version: VersionOf) -> ServedEntity:
    name, model = str(one.get("name")), str(one.get("entity_name") or one.get("name"))
    number = one.get("entity_version")
    capacity = {key: one[key] for key in _CAPACITY if one.get(key) is not None}
    return ServedEntity(
        name,
        model,
        str(number) if number else None,
        capacity,
        shares.get(name, 0 if shares else 100),
        version(model) if number else None,
    )
