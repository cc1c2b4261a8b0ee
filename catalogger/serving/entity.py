"""What is served: one version of a registered model, by number or by alias."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from catalogger.errors import RegistryError, UsageError
from catalogger.progress import Progress, Silent
from catalogger.remote.rest import Rest
from catalogger.serving.workspace import found, rest_of

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@\s]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))")
_FINGERPRINT = re.compile(r"\(catalogger: shape [0-9a-f]+, fingerprint ([0-9a-f]+)\)\s*$")
_MODELS = "/api/2.1/unity-catalog/models"
_READY, _FAILED = "READY", "FAILED_REGISTRATION"
_POLL = 5.0  # seconds


@dataclass(frozen=True)
class Entity:
    """One version of a registered model: `catalog.schema.model` and a number.

    `fingerprint` is that of its content, where the version's description names it, as catalogger's do.
    """

    name: str
    version: str
    fingerprint: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def served_name(self) -> str:
        """What Databricks calls a served entity that is given no name."""
        return f"{self.name.rpartition('.')[2]}-{self.version}"


def resolve(workspace: WorkspaceClient, reference: str) -> Entity:
    """The version that `NAME/VERSION` or `NAME@ALIAS` (with or without `models:/`) means.

    Raises UsageError where there is no such model, version or alias.
    Source: `GET /api/2.1/unity-catalog/models/{name}/versions/{number}` and `…/aliases/{alias}`.
    """
    return _entity(_version(rest_of(workspace), reference), reference)


def registered(
    workspace: WorkspaceClient,
    reference: str,
    *,
    timeout: float = 1800,
    poll: float = _POLL,
    progress: Progress | None = None,
) -> Entity:
    """The version that is meant, once it is READY; `timeout` and `poll` in seconds.

    Raises what `resolve` raises, and RegistryError where its registration failed or does not end in time.
    """
    rest, progress, end = rest_of(workspace), progress or Silent(), time.monotonic() + timeout
    said = None
    while (status := str((version := _version(rest, reference)).get("status"))) != _READY:
        entity = _entity(version, reference)
        if status == _FAILED:
            raise RegistryError(f'The registration of "{entity}" failed.', "Register it again, then deploy that.")
        if time.monotonic() + poll > end:
            late = f'"{entity}" is {status} still, after {timeout:.0f} s.'
            raise RegistryError(late, "Run the same command again when it is READY.")
        if status != said:
            progress.say(f"Waiting for {entity}: {status}")
            said = status
        time.sleep(poll)
    return _entity(version, reference)


def version_of_alias(rest: Rest, name: str, alias: str) -> str | None:
    """The version that the alias of a model points at; None where there is no such alias."""
    version = found(rest, f"{_MODELS}/{quote(name)}/aliases/{quote(alias)}")
    return str(version["version"]) if version else None


def _version(rest: Rest, reference: str) -> dict[str, Any]:
    parts = _REFERENCE.fullmatch(reference)
    if parts is None or len(parts["name"].split(".")) != 3:
        fix = "Write catalog.schema.model/VERSION or catalog.schema.model@ALIAS."
        raise UsageError(f'"{reference}" names no version of a model.', fix)
    name, number, alias = parts["name"], parts["version"], parts["alias"]
    model = f"{_MODELS}/{quote(name)}"
    version = found(rest, f"{model}/versions/{number}" if number else f"{model}/aliases/{quote(alias)}")
    if version is None:
        what = f"version {number}" if number else f'alias "{alias}"'
        missing = f'There is no {what} of "{name}".' if found(rest, model) else f'There is no model "{name}".'
        raise UsageError(missing, "The model's page in the catalog lists its versions and aliases.")
    return version


def _entity(version: dict[str, Any], reference: str) -> Entity:
    name = reference.removeprefix("models:/").replace("@", "/").partition("/")[0]
    marked = _FINGERPRINT.search(str(version.get("comment") or ""))
    return Entity(name, str(version["version"]), marked[1] if marked else None)
