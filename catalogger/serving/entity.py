"""What is served: one version of a registered model, by number or by alias."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from catalogger.errors import RegistryError, UsageError
from catalogger.progress import Progress, Silent
from catalogger.serving.workspace import found, rest_of

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@\s]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))")
_MODELS = "/api/2.1/unity-catalog/models"
_POLL = 5.0  # seconds
_READY = "READY"
_FAILED = "FAILED_REGISTRATION"


@dataclass(frozen=True)
class Entity:
    """One version of a registered model: `catalog.schema.model` and a number."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


def resolve(workspace: WorkspaceClient, reference: str) -> Entity:
    """The version that `NAME/VERSION` or `NAME@ALIAS` (with or without `models:/`) means.

    Raises UsageError where there is no such model, version or alias.
    Source: `GET /api/2.1/unity-catalog/models/{name}/versions/{number}` and `…/aliases/{alias}`.
    """
    parts = _REFERENCE.fullmatch(reference)
    if parts is None or len(parts["name"].split(".")) != 3:
        raise UsageError(
            f'"{reference}" names no version of a model.',
            "Write catalog.schema.model/VERSION or catalog.schema.model@ALIAS.",
        )
    rest, model = rest_of(workspace), f"{_MODELS}/{quote(parts['name'])}"
    path = f"{model}/versions/{parts['version']}" if parts["version"] else f"{model}/aliases/{quote(parts['alias'])}"
    version = found(rest, path)
    if version is None:
        what = f"the version {parts['version']}" if parts["version"] else f'the alias "{parts["alias"]}"'
        there = found(rest, model)
        missing = f'The model "{parts["name"]}" has not {what}.' if there else f'There is no model "{parts["name"]}".'
        raise UsageError(missing, "The catalog's page of the model lists its versions and aliases.")
    return Entity(parts["name"], str(version["version"]))


def wait_until_registered(
    workspace: WorkspaceClient, entity: Entity, timeout: float = 1800, progress: Progress | None = None
) -> None:
    """Return when the version is READY; `timeout` in seconds.

    Raises RegistryError where its registration failed or does not end in time.
    """
    rest, progress = rest_of(workspace), progress or Silent()
    path, end = f"{_MODELS}/{quote(entity.name)}/versions/{entity.version}", time.monotonic() + timeout
    said = None
    while (status := str(rest.call("GET", path).get("status"))) != _READY:
        if status == _FAILED:
            raise RegistryError(
                f'The registration of "{entity}" failed.', "Register the model again, then deploy that."
            )
        if time.monotonic() + _POLL > end:
            raise RegistryError(
                f'"{entity}" is {status} still after {timeout:.0f} s.', "Run the same command again when it is READY."
            )
        if status != said:
            progress.say(f"Waiting for {entity}: {status}")
            said = status
        time.sleep(_POLL)
