"""Find a logged or registered model by its address, and read its facts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogger.checkpoints import LoggedModel, open_logged
from catalogger.checkpoints.folder import LARGEST_SMALL
from catalogger.errors import CheckpointError, SourceInvalid
from catalogger.files.temporary import temporary
from catalogger.loggers import artifacts
from catalogger.loggers.stores import choose_stores, local_folder, pointed_at, require_reachable, translated

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf", ".onnx")


@contextmanager
def located(
    model: str, tracking_uri: str | None, registry_uri: str | None, *, whole: bool = False
) -> Iterator[tuple[LoggedModel, Path]]:
    """The facts of the model at a folder, `runs:/…` or `models:/…`, and its folder; of a remote one the small files, or
    the `whole` model, are fetched to a folder that goes away with the block.

    Raises SourceInvalid for an address of no such form, CheckpointError where nothing is there.
    """
    if not model.startswith(("runs:/", "models:/")):
        folder = local_folder(model) if model else None
        if folder is None or not folder.is_dir():
            examples = "Examples: ./model   runs:/RUN/model   models:/main.ml.bot/3   models:/main.ml.bot@champion"
            raise SourceInvalid(model, "is no folder, runs:/… or models:/…", examples)
        yield open_logged(folder), folder
        return
    stores = choose_stores(tracking_uri, registry_uri)
    if stores.kind == "databricks" and model.startswith("models:/") and not stores.exist:
        # Where nobody named a tracking store, that of the workspace is asked: to ask the embedded one would make it.
        stores = replace(stores, tracking_uri=stores.registry_uri.replace("databricks-uc", "databricks", 1))
    if not stores.exist:
        raise CheckpointError(model, f'is not there: the store "{stores.registry_uri}" does not exist')
    require_reachable(stores)
    with temporary("lint") as fetched:
        with pointed_at(stores), translated(stores):
            location = _location(model, unity=stores.kind != "mlflow")
            folder = local_folder(location) or (artifacts.fetched(location, str(fetched)) if whole else None)
            facts = open_logged(folder, location=location) if folder else _remote(location, fetched)
        yield facts, folder or fetched


def _location(model: str, *, unity: bool) -> str:
    """Where the files are; `unity` says that the registry keeps them itself."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    kind, _, rest = model.partition(":/")
    try:
        if kind == "runs":
            return _of_run(client, *rest.strip("/").partition("/")[::2])
        if rest.startswith("m-") and "/" not in rest:
            return str(client.get_logged_model(rest).artifact_location)
        name, alias = rest.partition("@")[::2]
        if alias:
            number = str(client.get_model_version_by_alias(name, alias).version)
        else:
            name, _, number = rest.rpartition("/")
        location = str(client.get_model_version_download_uri(name, number))
        # What a Unity Catalog keeps elsewhere is read by its address there, with credentials of the moment.
        return f"models:/{name}/{number}" if unity and not local_folder(location) else location
    except NotImplementedError as error:
        raise CheckpointError(model, "is named by an alias, which this registry has not", "Name a version.") from error
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise CheckpointError(model, f"is not there: {error.message}", "Look at its spelling.") from error
        raise


def _of_run(client: Any, run_id: str, path: str) -> str:
    """The model that the run logged under this name: since MLflow 3 an output of the run, before a folder of its
    artifacts.
    """
    run = client.get_run(run_id)
    for output in getattr(getattr(run, "outputs", None), "model_outputs", None) or []:
        logged = client.get_logged_model(output.model_id)
        if logged.name == path:
            return str(logged.artifact_location)
    return f"{run.info.artifact_uri}/{path}"


def _remote(location: str, folder: Path) -> LoggedModel:
    """The facts of a model on another machine: its small files are fetched, its weight files only counted."""
    listed = artifacts.listing(location)
    for path, size in listed.items():
        if size <= LARGEST_SMALL and not path.endswith(_WEIGHTS):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                artifacts.fetched(f"{location}/{path}", scratch).replace(target)
    return open_logged(folder, location=location, listed=listed)
