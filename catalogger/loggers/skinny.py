"""Log a model as `Model.log` does, by the client alone: it imports pandas, which `mlflow-skinny` comes without."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from catalogger.files.temporary import temporary
from catalogger.validators.mlflow_versions import has

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.models import Model


class Flavor(Protocol):
    """What writes a model's files into a folder that is not there yet."""

    def save_model(self, path: str, mlflow_model: Model) -> None: ...


@dataclass(frozen=True)
class Info:
    """What was logged."""

    model_uri: str
    model_id: str | None


def is_skinny() -> bool:
    """Whether what is installed lacks what the whole MLflow brings."""
    return find_spec("pandas") is None


def log(flavor: Flavor, name: str, run: Run, mlflow_version: str) -> Info:
    """Log the model that the flavor writes as `name` into the run."""
    with temporary("skinny") as folder:
        if has("logged_models", mlflow_version):
            return _logged_model(flavor, name, run, folder / "model")
        return _artifact_of_run(flavor, name, run, folder / "model")


def _logged_model(flavor: Flavor, name: str, run: Run, folder: Path) -> Info:
    import mlflow
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    client, run_id = mlflow.MlflowClient(), run.info.run_id
    made = client.create_logged_model(run.info.experiment_id, name, source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
    location, model_id = made.artifact_location, made.model_id
    flavor.save_model(str(folder), Model(artifact_path=location, model_uuid=model_id, run_id=run_id, model_id=model_id))
    client.log_model_artifacts(model_id, str(folder))
    client.finalize_logged_model(model_id, "READY")
    return Info(f"models:/{model_id}", model_id)


def _artifact_of_run(flavor: Flavor, name: str, run: Run, folder: Path) -> Info:
    import mlflow
    from mlflow.models import Model

    client, document = mlflow.MlflowClient(), Model(artifact_path=name, run_id=run.info.run_id)
    flavor.save_model(str(folder), document)
    client.log_artifacts(run.info.run_id, str(folder), name)
    client._record_logged_model(run.info.run_id, document)
    return Info(f"runs:/{run.info.run_id}/{name}", None)
