"""MLflow's own model store, to look after what is registered there: the embedded default, or any MLflow server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogger.errors import RegistryError, UsageError
from catalogger.files.digests import Tick, sha256_file
from catalogger.files.temporary import temporary
from catalogger.files.workers import Workers
from catalogger.loggers import artifacts
from catalogger.loggers.keeper import Reader
from catalogger.loggers.stores import Stores, local_folder
from catalogger.loggers.surface import Row
from catalogger.remote.folder import FolderStorage
from catalogger.remote.reading import Reading
from catalogger.remote.storage import Storage

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 200


class MlflowKeeper:
    """One registry.  The files of its versions are those of a run: they are read, and never changed."""

    gaps: frozenset[str] = frozenset()

    def __init__(self, stores: Stores) -> None:
        import mlflow

        self.words = f"the MLflow registry {stores.registry_uri}"
        self._client: MlflowClient = mlflow.MlflowClient(stores.tracking_uri, stores.registry_uri)

    def names(self, within: str | None) -> list[str]:
        found: list[str] = []
        token: str | None = None
        while True:
            page = self._client.search_registered_models(max_results=_PAGE, page_token=token)
            found += [model.name for model in page]
            if not (token := page.token):
                break
        return sorted(name for name in found if within is None or name.startswith(f"{within}."))

    def rows(self, name: str) -> list[Row]:
        if "'" in name:
            raise UsageError(f'"{name}" cannot be looked for: MLflow takes no quote in a search.')
        found: list[Row] = []
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name = '{name}'", max_results=_PAGE, page_token=token)
            found += [_row(version) for version in page]
            if not (token := page.token):
                return sorted(found, key=lambda row: int(row.number))

    def row(self, name: str, number: str) -> Row:
        return _row(self._client.get_model_version(name, number))

    def aliases(self, name: str) -> Mapping[str, str]:
        found = self._client.get_registered_model(name).aliases
        return {alias: str(number) for alias, number in found.items()}

    def set_alias(self, name: str, alias: str, number: str) -> None:
        self._client.set_registered_model_alias(name, alias, number)

    def delete_alias(self, name: str, alias: str) -> None:
        self._client.delete_registered_model_alias(name, alias)

    def model_tags(self, name: str) -> Mapping[str, str]:
        return dict(self._client.get_registered_model(name).tags)

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        self._client.set_registered_model_tag(name, key, value)

    def reader(self, name: str, row: Row) -> Reader:
        location = str(self._client.get_model_version_download_uri(name, row.number))
        folder = local_folder(location)
        return Reading(FolderStorage(folder.absolute().as_uri(), Workers())) if folder else _Artifacts(location)

    def storage(self, name: str, row: Row) -> Storage | None:
        return None

    def delete(self, name: str, number: str) -> None:
        self._client.delete_model_version(name, number)


class _Artifacts:
    """Files behind an address that only MLflow reads: each is fetched whole, to a folder that goes away."""

    def __init__(self, location: str) -> None:
        self.location = location

    def listing(self) -> Mapping[str, int]:
        return artifacts.listing(self.location)

    def read(self, path: str) -> bytes:
        with temporary("reading") as folder:
            return self._fetched(path, folder).read_bytes()

    def digest(self, path: str, size: int, tick: Tick) -> str:
        with temporary("reading") as folder:
            return sha256_file(self._fetched(path, folder), tick)

    def _fetched(self, path: str, folder: Path) -> Path:
        from mlflow.exceptions import MlflowException

        try:
            return artifacts.fetched(f"{self.location}/{path}", str(folder))
        except (MlflowException, OSError) as error:
            raise RegistryError(f'"{self.location}/{path}" cannot be read: {error}') from error


def _row(version: Any) -> Row:
    return Row(
        number=str(version.version),
        status=str(version.status),
        location="",  # of files that are a run's
        description=str(version.description or ""),
        run_id=version.run_id,
        created=float(version.creation_timestamp or 0) / 1000,
        tags=dict(version.tags),
    )
