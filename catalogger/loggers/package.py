"""What a registry that takes files itself is sent, and what the tracking server keeps in place of the weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalogger.checkpoints import Checkpoint
from catalogger.checkpoints.logged import MLMODEL
from catalogger.errors import masked
from catalogger.loggers import artifacts
from catalogger.loggers.layout import Layout, stand_at
from catalogger.loggers.manifest import MANIFEST
from catalogger.loggers.record import POINTER, Logged
from catalogger.validators.mlflow_versions import has


def pointer(name: str, registry_uri: str, shape: str, checkpoint: Checkpoint, layout: Layout) -> Mapping[str, Any]:
    """What a logged model without weights says of them, as JSON data."""
    origin = checkpoint.origin
    return {
        "registered_model": name,
        "registry_uri": masked(registry_uri),
        "shape": shape,
        "source": {"kind": origin.kind, "location": origin.location, "revision": origin.revision},
        "files": {i.path: {"size": i.size, "sha256": i.sha256} for i in layout.weights},
    }


def point_at(logged: Logged, uri: str, mlflow_version: str) -> None:
    """Say on the logged model, or on its run before MLflow 3, which version has its weights."""
    import mlflow

    client = mlflow.MlflowClient()
    if logged.model_id and has("logged_models", mlflow_version):
        client.set_logged_model_tags(logged.model_id, {"catalogger.registered": uri})
    else:
        client.set_tag(logged.run_id, "catalogger.registered", uri)


def restore(package: Path, folder: Path | None, location: str, layout: Layout) -> bool:
    """Bring the small files of a logged model back into the package, from its folder or its address; whether they are
    all there.
    """
    weights = {i.path for i in layout.weights}
    if folder:
        for file in (f for f in folder.rglob("*") if f.is_file()):
            path = file.relative_to(folder)
            if path.as_posix() not in weights:
                (package / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, package / path)
    elif not _downloaded(location, package):
        return False
    for own in (POINTER, MANIFEST):  # the one is the tracking server's only, the other is made anew
        (package / own).unlink(missing_ok=True)
    small = Layout(tuple(i for i in layout.items if i.content is not None))
    return (package / MLMODEL).is_file() and stand_at(str(package), small)


def _downloaded(location: str, package: Path) -> bool:
    from mlflow.exceptions import MlflowException

    package.mkdir(parents=True)
    try:
        whole = artifacts.fetched(location, str(package / "down"))
        for entry in whole.iterdir():
            entry.rename(package / entry.name)
    except (MlflowException, OSError):
        shutil.rmtree(package)
        return False
    shutil.rmtree(package / "down")
    return True
