"""Wait until an endpoint is as it was asked to be; it is never deleted, whatever comes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catalogger.errors import DeploymentFailed, DeploymentPending
from catalogger.progress import Progress
from catalogger.remote.rest import Rest
from catalogger.serving.workspace import endpoint_path, found

POLL = 10.0
"""Seconds between two looks."""
TIMEOUT = 3600.0
"""Seconds that a deployment is waited for: 30 minutes or more are usual, by the model's size."""
_SCARCE = re.compile(r"capacity|timed?.?out|quota|exhausted", re.IGNORECASE)
_FIX = "Run the same command again: it goes on with the endpoint that is there."
_ENDED = ("UPDATE_FAILED", "UPDATE_CANCELED")


@dataclass(frozen=True)
class State:
    """Where an endpoint is.  `entities` are name, deployment and message of what is being built, or else serves.

    The words are the workspace's own; one that is not known here means that something is under way.
    """

    ready: str
    update: str
    entities: tuple[tuple[str, str, str], ...]

    @property
    def is_ready(self) -> bool:
        return self.ready == "READY" and self.update == "NOT_UPDATING"

    @property
    def has_failed(self) -> bool:
        return self.update in _ENDED

    @property
    def is_updating(self) -> bool:
        return self.update != "NOT_UPDATING" and not self.has_failed

    @property
    def messages(self) -> str:
        """What the served entities say."""
        return "; ".join(dict.fromkeys(message for _, _, message in self.entities if message))

    def __str__(self) -> str:
        entities = ", ".join(f"{name} {deployment} {message}".strip() for name, deployment, message in self.entities)
        return f"{self.ready}, {self.update}{': ' if entities else ''}{entities}"


def state_of(document: Mapping[str, Any]) -> State:
    """The state in an endpoint's document."""
    state = document.get("state") or {}
    config = document.get("pending_config") or document.get("config") or {}
    entities = tuple(
        (str(one.get("name")), str(said.get("deployment", "")), str(said.get("deployment_state_message") or ""))
        for one in config.get("served_entities") or ()
        if (said := one.get("state") or {})
    )
    return State(str(state.get("ready")), str(state.get("config_update")), entities)


def wait(
    rest: Rest, name: str, url: str, progress: Progress, *, timeout: float, poll: float, seen: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The endpoint's document once no update is under way and it is ready, or once its update has ended otherwise.

    `seen` is the document as it was last seen; a line is told of every change.
    Raises DeploymentPending where that takes longer than `timeout` seconds, DeploymentFailed where somebody ends it.
    """
    end, said = time.monotonic() + timeout, ""
    document: Mapping[str, Any] | None = seen
    while document is not None:
        state = state_of(document)
        if (line := str(state)) != said:
            progress.say(f"{name}: {line}")
            said = line
        if state.is_ready or state.has_failed:
            return document
        if time.monotonic() + poll > end:
            what = f'The endpoint "{name}" is not ready after {timeout:.0f} s: {line.rstrip(".")}.'
            raise DeploymentPending(f"{what} The model is registered, and the endpoint stays.", url, _FIX)
        time.sleep(poll)
        document = found(rest, endpoint_path(name))
    raise DeploymentFailed(
        f'The endpoint "{name}" is gone: somebody ended it. The model is registered.',
        "Run the same command again: it makes it anew.",
    )


def require_ready(document: Mapping[str, Any], name: str, url: str) -> None:
    """Raises DeploymentPending where capacity is short, and DeploymentFailed where the update failed in another way."""
    state = state_of(document)
    if not state.has_failed:
        return
    serves = "The configuration before it still serves." if state.ready == "READY" else "Nothing is served."
    how = "was canceled" if state.update == "UPDATE_CANCELED" else "failed"
    what = f'The update of the endpoint "{name}" {how}: {state.messages or "it says no more"}'
    if _SCARCE.search(state.messages):
        fix = "Capacity is short: run the same command again later, or ask the account team."
        raise DeploymentPending(f"{what} {serves} The model is registered.", url, fix)
    raise DeploymentFailed(
        f"{what} {serves} The model is registered.\n{url}",
        "The endpoint's page has the logs. --rollback puts the configuration before it back.",
    )
