"""The endpoints that serve one version of a model, and what each of them answers to one query.  Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from catalogger.errors import DeploymentPending, UsageError
from catalogger.remote.rest import Rest
from catalogger.serving.inventory import documents
from catalogger.serving.smoke import Smoke, prove
from catalogger.serving.waiting import state_of
from catalogger.serving.workspace import endpoint_path, found


@dataclass(frozen=True)
class Answered:
    """What one endpoint answered; None where it has no task that is known here.

    `share` is the percentage of its queries that the version gets: below 100 another version may have answered.
    """

    endpoint: str
    smoke: Smoke | None
    share: int

    def document(self) -> dict[str, Any]:
        """The answer as JSON data."""
        smoke = self.smoke.document() if self.smoke else None
        return {"endpoint": self.endpoint, "share": self.share, "smoke": smoke}

    def __str__(self) -> str:
        said = f"answered {self.smoke}" if self.smoke else "was asked nothing: its task is not known here"
        shared = f"; {self.share} % of its queries go to the version" if self.share < 100 else ""
        return f"endpoint {self.endpoint} {said}{shared}"


def answers_of(rest: Rest, model: str, version: str, endpoint: str | None = None) -> tuple[Answered, ...]:
    """Ask the endpoint, or where none is named every one that serves the version; there may be none.

    Raises UsageError where the endpoint is not there or serves something else, DeploymentPending where one is not
    ready, DeploymentFailed where an answer is none.
    """
    if endpoint is None:
        serving = [one for one in documents(rest) if _share(one, model, version) is not None]
        return tuple(_asked(rest, _whole(rest, str(one["name"])), model, version) for one in serving)
    return (_asked(rest, _whole(rest, endpoint), model, version),)


def _whole(rest: Rest, name: str) -> Mapping[str, Any]:
    document = found(rest, endpoint_path(name))
    if document is None:
        raise UsageError(f'There is no endpoint "{name}".', "`log-model endpoints` lists them.")
    return document


def _asked(rest: Rest, document: Mapping[str, Any], model: str, version: str) -> Answered:
    name, share = str(document["name"]), _share(document, model, version)
    if share is None:
        held = ", ".join(f"{one.get('entity_name')}/{one.get('entity_version')}" for one in _entities(document))
        raise UsageError(
            f'The endpoint "{name}" serves {held or "nothing"}, not {model}/{version}.',
            f"Serve it first: log-model deploy {model}/{version} --endpoint {name}",
        )
    state = state_of(document)
    if state.ready != "READY":
        url = f"{rest.base}/ml/endpoints/{quote(name, safe='')}"
        raise DeploymentPending(f'The endpoint "{name}" is not ready: {state}.', url, "Run it again when it is.")
    return Answered(name, prove(rest, name, document.get("task")), share)


def _share(document: Mapping[str, Any], model: str, version: str) -> int | None:
    """The percentage of its queries that the version gets; None where it is not served there."""
    own = {
        str(one.get("name"))
        for one in _entities(document)
        if (one.get("entity_name"), str(one.get("entity_version"))) == (model, version)
    }
    if not own:
        return None
    routes = ((document.get("config") or {}).get("traffic_config") or {}).get("routes") or ()
    shares = [
        _traffic(route)
        for route in routes
        if (route.get("served_entity_name") or route.get("served_model_name")) in own
    ]
    return sum(shares) if routes else 100


def _traffic(route: Mapping[str, Any]) -> int:
    return int(route.get("traffic_percentage") or 0)


def _entities(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is served now, and not what is still being built."""
    yield from (document.get("config") or {}).get("served_entities") or ()
