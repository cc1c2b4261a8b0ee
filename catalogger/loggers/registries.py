"""Opens the registry that the addresses name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from catalogger.files.place import Weights
from catalogger.files.workers import Workers
from catalogger.loggers.mlflow_registry import MlflowRegistry
from catalogger.loggers.registry import Registry
from catalogger.loggers.stores import Stores
from catalogger.loggers.surface import Surface
from catalogger.loggers.unity import UnityRegistry
from catalogger.loggers.unity_databricks import DatabricksSurface, Upload
from catalogger.loggers.unity_oss import OssSurface
from catalogger.remote.folder import FolderStorage
from catalogger.remote.storage import Storage
from catalogger.remote.vended import vended_storage
from catalogger.validators.facts import Place

__all__ = ["Upload", "look", "open_registry", "open_unity"]


def open_registry(stores: Stores, upload: Upload = "auto") -> Registry:
    """The registry of the stores, to ask it."""
    return MlflowRegistry(stores) if stores.kind == "mlflow" else open_unity(stores, upload)


def open_unity(
    stores: Stores,
    upload: Upload = "auto",
    weights: Weights = "copy",
    *,
    ours: bool = False,
    workers: Workers | None = None,
) -> UnityRegistry:
    """The Unity Catalog of the stores.  What is sent to a folder of this machine is placed there by the `workers`."""
    return UnityRegistry(_surface(stores, upload, weights, ours, workers or Workers()))


def look(stores: Stores, name: str, upload: Upload = "auto") -> Place | None:
    """Catalog, schema, privileges and storage of the name; None where the registry has no such things."""
    if stores.kind == "mlflow":
        return None
    return _surface(stores, upload, "copy", False, Workers()).look(name)


def _surface(stores: Stores, upload: Upload, weights: Weights, ours: bool, workers: Workers) -> Surface:
    if stores.kind == "databricks":
        return DatabricksSurface(stores.registry_uri, stores.tracking_uri, upload)

    def open_storage(location: str, credentials: Callable[[], Mapping[str, Any]]) -> Storage:
        if location.startswith("file:"):
            return FolderStorage(location, workers, weights, ours=ours)
        return vended_storage(location, credentials)

    return OssSurface(stores.registry_uri, open_storage)
