"""What a job will move, and whether there is room for it, known before anything is fetched."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogger.checkpoints.hub import cache_root, to_fetch
from catalogger.errors import NotEnoughRoom
from catalogger.files.place import existing, same_file_system
from catalogger.loggers.glance import artifacts_to_be
from catalogger.loggers.outcome import Disk, Plan
from catalogger.loggers.record import Job
from catalogger.loggers.stores import Stores, local_folder
from catalogger.loggers.streaming import Stream

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SPARE = 50_000_000  # bytes that a file system should keep free beside the plan: database, logs, small files


def make_plan(
    job: Job,
    stores: Stores,
    mlmodel: str = "",
    *,
    sends: bool = False,
    root: str | None = None,
    stream: Stream | None = None,
) -> Plan:
    """Files, bytes, names and disk of the job, with the text of MLmodel where it is to be shown.  Changes nothing.

    `sends` says that the registry takes the files, and `root` where it keeps them, as far as that is known; `stream`
    how the weights pass through this machine.
    """
    if stream:
        return _streamed(job, mlmodel, stream)
    making = job.making if job.checkpoint.root is None else None
    fetched = to_fetch(making.change.source if making else job.checkpoint)
    artifacts = artifact_folder(stores)
    size, small = job.layout.size, job.layout.size - job.layout.weight_bytes
    places = [] if job.points_to else [artifacts]  # of all files; None where they are uploaded
    places += [local_folder(root) if root else None] if sends else []
    ways = [way(job, place) for place in places]
    written = [(p, size if how == "copied" else small) for p, how in zip(places, ways, strict=True) if p]
    made = [(making.folder, making.missing)] if making else []
    needs = ([(cache_root(), fetched)] if fetched else []) + made + written
    if job.points_to or not artifacts:
        needs.append((artifacts or Path(tempfile.gettempdir()), small))
    return Plan(
        files={i.path: i.size for i in job.layout.items},
        left_out=job.checkpoint.left_out,
        to_fetch=fetched,
        to_write=sum(count for _, count in made + written),
        to_upload=size * places.count(None),
        weights=ways[-1],
        disks=tuple(_by_file_system(needs)),
        mlmodel=mlmodel,
    )


def _streamed(job: Job, mlmodel: str, stream: Stream) -> Plan:
    small = job.layout.size - job.layout.weight_bytes
    needs = [(stream.folder, stream.needed), (Path(tempfile.gettempdir()), small)]
    return Plan(
        files={i.path: i.size for i in job.layout.items},
        left_out=job.checkpoint.left_out,
        to_fetch=stream.to_fetch,
        to_write=stream.to_write,
        to_upload=job.layout.size,
        weights="streamed",
        disks=tuple(_by_file_system(needs)),
        mlmodel=mlmodel,
    )


def has_room(folder: Path, size: int) -> bool:
    """Whether that many bytes, and the spare ones, are free where the folder is or will be."""
    return size + _SPARE <= shutil.disk_usage(existing(folder)).free


def require_room(plan: Plan) -> None:
    """Raises NotEnoughRoom for the first file system that is too small."""
    for disk in plan.disks:
        if disk.needed + _SPARE > disk.free:
            raise NotEnoughRoom(disk.folder, disk.needed + _SPARE, disk.free)


def artifact_folder(stores: Stores) -> Path | None:
    """The folder that the artifacts of the experiment go to; None where they are sent elsewhere."""
    import mlflow

    if not stores.exist and stores.file:
        return artifacts_to_be(stores)
    return local_folder(_experiment(mlflow.MlflowClient(stores.tracking_uri)).artifact_location)


def _experiment(client: MlflowClient) -> Any:
    """The experiment to log to.  MLflow's own look-up would make one that MLFLOW_EXPERIMENT_NAME names and that is not
    there; it will stand beside the default one.
    """
    from mlflow.tracking import fluent

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name and not fluent._active_experiment_id:
        return client.get_experiment_by_name(name) or client.get_experiment("0")
    return client.get_experiment(fluent._get_experiment_id())


def way(job: Job, artifacts: Path | None) -> str:
    """How the weights get to the folder of the artifacts: `linked`, `copied`, or `uploaded` where there is none."""
    if artifacts is None:
        return "uploaded"
    root = job.checkpoint.root or (job.making.folder if job.making else cache_root())
    if job.weights == "link" or (job.weights == "auto" and job.checkpoint.ours and same_file_system(root, artifacts)):
        return "linked"
    return "copied"


def _by_file_system(needs: list[tuple[Path, int]]) -> Iterator[Disk]:
    """One entry a file system: two folders on one disk share its room."""
    grouped: dict[int, list[tuple[Path, int]]] = {}
    for folder, size in needs:
        grouped.setdefault(existing(folder).stat().st_dev, []).append((folder, size))
    for together in grouped.values():
        folder = together[0][0]
        yield Disk(str(folder), sum(size for _, size in together), shutil.disk_usage(existing(folder)).free)
