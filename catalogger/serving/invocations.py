"""Queries to one endpoint: what it is, what it takes, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    DeploymentFailed,
    DeploymentPending,
    NetworkUnreachable,
    Refused,
    UsageError,
    human,
)
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.workspace import workspace_rest
from catalogger.serving.streaming import event_data
from catalogger.serving.workspace import endpoint_path, endpoint_url, found, rest_of

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

T = TypeVar("T")
EXECUTION = 120.0
"""Seconds after which an endpoint ends a request (limits page, "model execution")."""
_CONNECT = 10.0
_ON_THE_WAY = 10.0  # seconds more than the endpoint has, so that it is the one to say that it is late
_FOUNDATION = 4_000_000  # bytes of a request, for foundation models (limits page, "payload": 4 MB)
_CUSTOM = 16_000_000  # for models that are served on machines of a workload type
_WRONG = (400, 413, 422)


class Invocations:
    """Sends queries to the endpoint of this name; `timeout` is in seconds."""

    def __init__(self, workspace: WorkspaceClient, name: str, timeout: float) -> None:
        self.name, self.url = name, endpoint_url(str(workspace.config.host), name)
        self._management = rest_of(workspace)
        self._rest = workspace_rest(workspace.config, (_CONNECT, timeout + _ON_THE_WAY))
        self._timeout = timeout
        self._path = f"/serving-endpoints/{quote(name, safe='')}/invocations"

    @property
    def query_url(self) -> str:
        """Where queries go."""
        return f"{self._rest.base}{self._path}"

    @cached_property
    def described(self) -> Mapping[str, Any]:
        """What the workspace says of the endpoint, asked for once.

        Raises UsageError where there is none of this name, AccessDenied where it may not be seen, and DeploymentPending
        or DeploymentFailed where it is not ready.
        """
        try:
            document = found(self._management, endpoint_path(self.name))
        except Refused as refused:
            raise self._translated(refused) from refused
        if document is None:
            raise self._unknown()
        self._require_ready(document)
        return document

    @cached_property
    def payload_limit(self) -> int:
        """Bytes that a request may have."""
        entities = (self.described.get("config") or {}).get("served_entities") or ()
        provisioned = any("provisioned" in key for entity in entities for key, value in entity.items() if value)
        return _CUSTOM if self.described.get("endpoint_type") == "CUSTOM_MODEL" and not provisioned else _FOUNDATION

    def require_task(self, task: str, instead: Mapping[str, str]) -> None:
        """Raises UsageError where the endpoint is known to serve another task; `instead` says what asks that."""
        served = self.described.get("task")
        if served and served != task:
            fix = instead.get(str(served), "Ask an endpoint of that task.")
            raise UsageError(f'The endpoint "{self.name}" serves {served}, and this asks for {task}.', fix)

    def ask(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's document."""
        self.require_fits(payload)
        return self._patiently(lambda: self._rest.call("POST", self._path, payload, once=True))

    def stream(self, payload: Mapping[str, Any]) -> Generator[str]:
        """The data of each event of the answer."""
        asked = {**payload, "stream": True}
        self.require_fits(asked)
        return event_data(self._patiently(lambda: self._rest.blocks(self._path, asked)))

    def require_fits(self, payload: Mapping[str, Any]) -> None:
        """Raises UsageError for a request of more bytes than the endpoint takes."""
        if (size := size_of(payload)) > self.payload_limit:
            raise UsageError(
                f"The request has {human(size)}, and an endpoint takes {human(self.payload_limit)} at the most.",
                "Ask for less at once.",
            )

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """What the attempt gives.  429 and what else may pass are waited for; an answer that takes too long is not."""
        from requests.exceptions import ReadTimeout

        def once() -> T:
            try:
                return attempt()
            except TryAgain as again:
                if isinstance(again.__cause__, ReadTimeout):
                    raise self._late() from again
                raise

        try:
            return patiently(once)
        except Refused as refused:
            raise self._translated(refused) from refused

    def _require_ready(self, document: Mapping[str, Any]) -> None:
        state = document.get("state") or {}
        if state.get("ready") == "READY":
            return
        update = state.get("config_update")
        said = f'The endpoint "{self.name}" is not ready: {state.get("ready")}, {update}.'
        if update == "UPDATE_FAILED":
            raise DeploymentFailed(f"{said}\n{self.url}", "Its page says why. Mend that, then deploy again.")
        raise DeploymentPending(said, self.url, "Ask again when it is ready; that may take 30 minutes and more.")

    def _translated(self, refused: Refused) -> CataloggerError:
        """The refusal in words of a query."""
        if refused.status == 403:
            denied = f'You may not query the endpoint "{self.name}": {refused.said}'
            return AccessDenied(denied, "Ask whoever manages it for CAN_QUERY.")
        if refused.status == 404:
            return self._unknown()
        if refused.status in _WRONG:
            return UsageError(f'The endpoint "{self.name}" refuses the request: {refused.said}', "Ask otherwise.")
        return refused

    def _unknown(self) -> UsageError:
        return UsageError(f'There is no endpoint "{self.name}".', "The page of serving endpoints lists them.")

    def _late(self) -> NetworkUnreachable:
        return NetworkUnreachable(
            f'The endpoint "{self.name}" did not answer within {self._timeout:g} s.',
            f"It ends every request after {EXECUTION:g} s: ask for fewer tokens or texts at once.",
        )


def size_of(payload: object) -> int:
    """Bytes of the JSON as it is sent.  Raises UsageError for what is none."""
    try:
        return len(json.dumps(payload, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"The request cannot be written as JSON: {error}.", "Give texts, numbers and lists."
        ) from error
