"""The endpoints that serve one version of a model, and what each of them answers to one query.  Nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalogger.errors import DeploymentPending, UsageError
from catalogger.remote.rest import Rest
from catalogger.serving.inventory import documents
from catalogger.serving.smoke import Smoke, prove
from catalogger.serving.waiting import state_of
from catalogger.serving.workspace import endpoint_path, endpoint_url, found


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
    if endpoint is not None:
        return (_asked(rest, _whole(rest, endpoint), model, version),)
    listed = [one for one in documents(rest) if _names(one.get("config"), model, version)]
    whole = [_whole(rest, str(one["name"])) for one in listed]  # a listing also has what is yet to be built
    return tuple(_asked(rest, one, model, version) for one in whole if _share(one, model, version) is not None)


def _whole(rest: Rest, name: str) -> Mapping[str, Any]:
    document = found(rest, endpoint_path(name))
    if document is None:
        raise UsageError(f'There is no endpoint "{name}".', "`log-model endpoints` lists them.")
    return document


def _asked(rest: Rest, document: Mapping[str, Any], model: str, version: str) -> Answered:
    name, share, state = str(document["name"]), _share(document, model, version), state_of(document)
    coming = share is not None or _names(document.get("pending_config"), model, version)
    if coming and (share is None or state.ready != "READY"):
        pending = f'The endpoint "{name}" is not ready: {state}.'
        raise DeploymentPending(pending, endpoint_url(rest.base, name), "Run it again when it is.")
    if share is None:
        entities = (document.get("config") or {}).get("served_entities") or ()
        held = ", ".join(f"{one.get('entity_name')}/{one.get('entity_version')}" for one in entities)
        raise UsageError(
            f'The endpoint "{name}" serves {held or "nothing"}, not {model}/{version}.',
            f"Serve it first: log-model deploy {model}/{version} --endpoint {name}",
        )
    return Answered(name, prove(rest, name, document.get("task")), share)


def _share(document: Mapping[str, Any], model: str, version: str) -> int | None:
    """The percentage of its queries that the version gets; None where it is not served there."""
    config = document.get("config") or {}
    own = _names(config, model, version)
    routes = (config.get("traffic_config") or {}).get("routes") or ()
    if not own or not routes:
        return 100 if own else None
    named = [(str(r.get("served_entity_name") or r.get("served_model_name")), r["traffic_percentage"]) for r in routes]
    return sum(int(share) for name, share in named if name in own)


def _names(config: Mapping[str, Any] | None, model: str, version: str) -> set[str]:
    """What the version is called among the served entities of a configuration."""
    wanted = (model, version)
    entities = (config or {}).get("served_entities") or ()
    return {str(e.get("name")) for e in entities if (e.get("entity_name"), str(e.get("entity_version"))) == wanted}
