"""Log a laid-out model: one run, one logged model, the weights placed or uploaded once.

MLflow's `Model.log` takes any object with `save_model(path, mlflow_model=…)` as a flavor; ours writes the small files
into its temporary folder and puts the weights straight where the model will stand, so that nothing is copied twice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogger.checkpoints import Checkpoint, LoggedModel, open_logged
from catalogger.checkpoints.logged import MLMODEL
from catalogger.files.digests import DigestMemory, Tick
from catalogger.files.place import Placed, Weights
from catalogger.files.workers import Workers
from catalogger.loggers import elsewhere, mlmodel, skinny
from catalogger.loggers.changing import Making
from catalogger.loggers.layout import Item, Layout, source_path
from catalogger.loggers.manifest import write_manifest
from catalogger.loggers.outcome import Moved
from catalogger.loggers.placing import Placing
from catalogger.loggers.stores import local_folder
from catalogger.recipes import NamedRecipe
from catalogger.validators.facts import Environment
from catalogger.validators.mlflow_versions import has

if TYPE_CHECKING:
    from mlflow.models import Model

POINTER = "weights.json"
"""The file of a logged model that says where its weights are, where they are in the registry only."""


@dataclass(frozen=True)
class Logged:
    """The logged model.  `location` is its folder or address, `weights` how they got there, `digests` their content."""

    model_uri: str
    model_id: str | None
    run_id: str
    location: str
    weights: str
    moved: Moved
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """What the flavor below needs to write one model.  `lint` raises where what was written is not right; `ahead` has
    begun to place the weights already; `package` gets the small files for a registry that takes files itself, to which
    `points_to` leads where the weights are not logged too; `manifest` makes what a model with weights says of
    itself, of their digests; `making` is how weights come about that are changed before.  `mlflow` is the one at hand,
    `target` what the model is written for: mostly the same.
    """

    name: str
    recipe: NamedRecipe
    checkpoint: Checkpoint
    layout: Layout
    fields: Mapping[str, Any]
    mlflow: str
    target: Environment
    weights: Weights
    memory: DigestMemory
    workers: Workers
    tick: Tick
    lint: Callable[[LoggedModel], None]
    ahead: Placing | None = None
    package: Path | None = None
    points_to: Mapping[str, Any] | None = None
    manifest: Callable[[Mapping[str, str]], Mapping[str, Any]] | None = None
    making: Making | None = None

    def placing(self, items: Iterable[Item], folder: Path | None) -> Placing:
        """Begin to place these weight files in the folder, or only to hash them where that is None."""
        return Placing(items, self.checkpoint, folder, self.weights, self.memory, self.workers)


def log(job: Job, seal: Callable[[Mapping[str, str], str, str], Mapping[str, str]]) -> Logged:
    """Write the model through MLflow into the active run, or into one of its own.

    `seal` makes the run's tags of the digests, when all is in place.  What was begun and not finished is taken away
    again, and its run and logged model are marked as failed, whatever stopped it.
    """
    import mlflow
    from mlflow.models import Model

    flavor = _Flavor(job)
    named: dict[str, Any] = {"artifact_path": job.name}
    if has("logged_models", job.mlflow):
        named = {"artifact_path": None, "name": job.name}
    with _run(job.name) as run:
        try:
            if skinny.is_skinny():
                info: Any = skinny.log(flavor, job.name, run, job.mlflow)
            else:
                info = Model.log(flavor=flavor, validate_serving_input=False, **named)
        except BaseException:
            job.workers.stop()
            flavor.undo()
            raise
        mlflow.MlflowClient().log_batch(
            run.info.run_id, tags=_run_tags(seal(flavor.digests, flavor.location, info.model_uri))
        )
    return Logged(
        model_uri=info.model_uri,
        model_id=getattr(info, "model_id", None),
        run_id=run.info.run_id,
        location=flavor.location,
        weights=flavor.how,
        moved=flavor.moved,
        digests=flavor.digests,
    )


def preview(job: Job) -> str:
    """The text of MLmodel as it would be written, without the ids that logging gives."""
    from mlflow.models import Model

    model = Model()
    mlmodel.fill(model, job.recipe.recipe, job.fields, job.mlflow, job.target.python)
    return _text(job, model)


def write_small_files(job: Job, model: Model, folder: Path) -> None:
    """Everything of the model but its weights, into a folder that is made."""
    folder.mkdir(parents=True)
    mlmodel.fill(model, job.recipe.recipe, job.fields, job.mlflow, job.target.python)
    for item in job.layout.items:
        if item.content is not None:
            target = folder / item.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(item.content)
    mlmodel.write_example(model, job.recipe.recipe.task, folder, job.target.mlflow)
    model.model_size_bytes = _bytes_below(folder) + job.layout.weight_bytes
    (folder / MLMODEL).write_text(_text(job, model))
    wanted = mlmodel.requirements(job.recipe.recipe, job.checkpoint, job.target)
    mlmodel.write_environment(folder, wanted, job.target)


def _text(job: Job, model: Model) -> str:
    """The text of MLmodel."""
    if job.target.asked or skinny.is_skinny():
        return elsewhere.text(model, job.recipe.recipe.task, job.name, job.target)
    return str(model.to_yaml())


def link_weights(job: Job, folder: Path) -> None:
    """Symbolic links to the weight files, never to folders, which stores leave out."""
    for item in job.layout.weights:
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source_path(job.checkpoint, item))


class _Flavor:
    """The `flavor` of one `Model.log` call."""

    __name__ = "catalogger"

    def __init__(self, job: Job) -> None:
        if not job.target.asked:  # 2.11.5 copies every other file to `metadata/`, and only of a flavor that says this
            self.model_data_artifact_paths = ("model", "components", POINTER)
        self._job = job
        self._made: Path | None = None
        self._model_id: str | None = None
        self.location = ""
        self.how = "uploaded"
        self.moved = Moved()
        self.digests: dict[str, str] = {i.weights: i.sha256 for i in job.layout.weights if i.weights and i.sha256}

    def save_model(self, path: str, mlflow_model: Model, **_: object) -> None:
        job, folder = self._job, Path(path)
        self._model_id = getattr(mlflow_model, "model_id", None)
        self.location = _location(mlflow_model, job.mlflow)
        write_small_files(job, mlflow_model, folder)
        job.lint(open_logged(folder, weights=job.checkpoint, location=self.location))
        if job.package:
            shutil.copytree(folder, job.package, dirs_exist_ok=True)
            mlmodel.write_metadata(job.package, job.target)
        if job.points_to:
            (folder / POINTER).write_text(json.dumps(job.points_to, indent=2) + "\n")
            self.how = "in the registry"
            return
        if placed := local_folder(self.location):
            self._made = placed
            self._place(placed)
        else:
            self._link_for_upload(folder)
        if job.target.asked or skinny.is_skinny():  # else MLflow's logging does it
            mlmodel.write_metadata(folder, job.target)
        if job.manifest:
            write_manifest(folder, job.manifest(self.digests), without={MLMODEL})  # which MLflow may write once more

    def _place(self, folder: Path) -> None:
        """Weights straight into the local artifact folder."""
        job = self._job
        placing = job.ahead or job.placing(job.layout.weights, folder)
        placed = placing.finish(folder, job.tick)
        self._learn(placed)
        self.how = " and ".join(sorted({p.how for p in placed.values()})) or "in place"
        self.moved = Moved(read=sum(p.read for p in placed.values()), written=sum(p.written for p in placed.values()))

    def _link_for_upload(self, folder: Path) -> None:
        """The upload reads through the links."""
        job = self._job
        unknown = [i for i in job.layout.weights if i.sha256 is None]
        self._learn(job.placing(unknown, None).finish(None))
        link_weights(job, folder)
        self.moved = Moved(read=sum(i.size for i in (*job.layout.weights, *unknown)), sent=job.layout.size)

    def _learn(self, placed: Mapping[str, Placed]) -> None:
        self.digests.update({weights: p.sha256 for weights, p in placed.items() if p.sha256})

    def undo(self) -> None:
        """Take away what was begun: the artifact folder, and READY or PENDING from a logged model that is not whole."""
        import mlflow
        from mlflow.exceptions import MlflowException

        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)
        if self._model_id:
            with suppress(MlflowException):  # what stopped the job is told, not that its mark could not be set
                mlflow.MlflowClient().finalize_logged_model(self._model_id, "FAILED")


@contextmanager
def _run(name: str) -> Iterator[Any]:
    """The active run, or one of our own that ends with the block."""
    import mlflow

    if active := mlflow.active_run():
        yield active
        return
    run = mlflow.start_run(run_name=f"log {name}")
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    finally:
        with redirect_stdout(StringIO()):  # MLflow prints addresses, with the password of the tracking URI in them
            mlflow.end_run(status)


def _location(model: Model, mlflow_version: str) -> str:
    """Where the model's files will stand: the logged model's own location, or below the run's on MLflow 2."""
    if has("logged_models", mlflow_version):
        return str(model.artifact_path)
    import mlflow

    return f"{mlflow.MlflowClient().get_run(model.run_id).info.artifact_uri}/{model.artifact_path}"


def _run_tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def _bytes_below(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
