"""The registry behind MLflow's own model store: the embedded default, or any MLflow server.

It can do everything (aliases, tags, descriptions); it copies nothing and checks nothing, so that what is registered
must have been checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from catalogger.errors import RegistryError, masked
from catalogger.loggers.layout import Layout, stand_at
from catalogger.loggers.record import Logged
from catalogger.loggers.registry import FINGERPRINT, Standing, Version, existing
from catalogger.loggers.stores import Stores
from catalogger.validators import Existing

if TYPE_CHECKING:
    from mlflow import MlflowClient


class MlflowRegistry:
    """Versions of models in one MLflow registry."""

    def __init__(self, stores: Stores) -> None:
        import mlflow

        self._uri = stores.registry_uri
        self._client: MlflowClient = mlflow.MlflowClient(stores.tracking_uri, stores.registry_uri)

    def versions_with(self, name: str, tag: str, value: str) -> list[Version]:
        """READY versions of the model that carry the tag, newest first."""
        found = self._client.search_model_versions(f"name = '{name}' and tag.`{tag}` = '{value}'")
        ready = [self._read(v) for v in found if v.status == "READY"]
        return sorted(ready, key=lambda v: -int(v.number))

    def newest(self, name: str) -> Existing | None:
        """The newest version of the name, by what its tags say; None where there is none."""
        version = self._newest(name)
        return existing(str(version.version), version.tags) if version else None

    def standing(self, name: str) -> Standing | None:
        """The newest version with its tags, and where the aliases point."""
        version = self._newest(name)
        if version is None:
            return None
        aliases = {alias: str(number) for alias, number in self._client.get_registered_model(name).aliases.items()}
        return Standing(str(version.version), dict(version.tags), aliases)

    def register(self, name: str, logged: Logged, tags: Mapping[str, str], description: str) -> Version:
        """A new version for the logged model, with its tags and description from the first moment.

        Read back before it is returned: servers have been seen to give one number to two callers.  Raises
        RegistryError.
        """
        self._ensure_model(name, description)
        more: dict[str, Any] = {"model_id": logged.model_id} if logged.model_id else {}
        source = f"models:/{logged.model_id}" if logged.model_id else logged.location
        made = self._client.create_model_version(
            name, source, logged.run_id, tags=dict(tags), description=description, **more
        )
        version = self._read(self._client.get_model_version(name, made.version))
        if version.tags.get(FINGERPRINT) != tags[FINGERPRINT]:
            raise RegistryError(
                f"{name} version {version.number} holds another model than the one just registered.",
                "Run the same command again.",
            )
        return version

    def is_whole(self, version: Version, layout: Layout) -> bool:
        """Whether every file stands where the version is, with its size."""
        return stand_at(version.location, layout)

    def make_true(
        self, name: str, version: Version, aliases: Iterable[str], tags: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Set the aliases and the tags that are not so already, and read the aliases back.  Raises RegistryError."""
        for key, value in tags.items():
            if version.tags.get(key) != value:
                self._client.set_model_version_tag(name, version.number, key, value)
        for alias in aliases:
            if self._aliased(name, alias) != version.number:
                self._client.set_registered_model_alias(name, alias, version.number)
            if (found := self._aliased(name, alias)) != version.number:
                raise RegistryError(
                    f'The alias "{alias}" of {name} points at version {found}, not {version.number}.',
                    "Run the same command again.",
                )
        return ()

    def _newest(self, name: str) -> Any | None:
        newest = self._client.search_model_versions(f"name = '{name}'", max_results=1, order_by=["version_number DESC"])
        return newest[0] if newest else None

    def _aliased(self, name: str, alias: str) -> str | None:
        version = self._client.get_registered_model(name).aliases.get(alias)
        return None if version is None else str(version)

    def _ensure_model(self, name: str, description: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name, description=description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _read(self, version: Any) -> Version:
        location = self._client.get_model_version_download_uri(version.name, version.version)
        return Version(str(version.version), version.run_id, dict(version.tags), location, self._page(version))

    def _page(self, version: Any) -> str | None:
        if not self._uri.startswith(("http://", "https://")):
            return None
        return f"{masked(self._uri).rstrip('/')}/#/models/{version.name}/versions/{version.version}"
