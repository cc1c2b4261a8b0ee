"""Read a logged MLflow model as it stands in its folder, made by us or by anybody: facts only.

Small files are read, of weight files only the headers.  Nothing is loaded and no code of the model is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from catalogger.checkpoints.facts import Checkpoint, Origin
from catalogger.checkpoints.folder import LARGEST_SMALL, assemble, open_folder
from catalogger.checkpoints.selection import TOKENIZER, Selection
from catalogger.errors import CheckpointError, human
from catalogger.recipes.documents import NOT_YAML

MLMODEL = "MLmodel"
_LARGEST_TEXT = 16_000_000  # bytes; an MLmodel, requirements or example file above it is none
TOKENIZER_FOLDER = "components/tokenizer"


@dataclass(frozen=True)
class LoggedModel:
    """The facts of one logged model.

    `files` are sizes in bytes by path, links followed, links that lead nowhere left out; `small` the content of the
    files beside the weights and the components.  `checkpoint` are its weights, config and tokenizer; where there is
    none, `no_checkpoint` says why.
    """

    location: str
    mlmodel: Mapping[str, Any]
    files: Mapping[str, int]
    small: Mapping[str, bytes]
    checkpoint: Checkpoint | None = None
    no_checkpoint: str | None = None

    @cached_property
    def flavor(self) -> Mapping[str, Any]:
        """The `transformers` flavor; empty where the model has none."""
        return _mapping(_mapping(self.mlmodel.get("flavors")).get("transformers"))

    @cached_property
    def pyfunc(self) -> Mapping[str, Any]:
        """The `python_function` flavor; empty where the model has none."""
        return _mapping(_mapping(self.mlmodel.get("flavors")).get("python_function"))

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """The `metadata` of MLmodel."""
        return _mapping(self.mlmodel.get("metadata"))

    @cached_property
    def task(self) -> str | None:
        """The `llm/v1` task that flavor and metadata say; None where they say none, or two."""
        said = (self.flavor.get("inference_task"), self.metadata.get("task"))
        tasks = {task for task in said if isinstance(task, str) and task.startswith("llm/v1/")}
        return tasks.pop() if len(tasks) == 1 else None

    @cached_property
    def mlflow(self) -> str | None:
        """The version of the MLflow that wrote the model."""
        said = self.mlmodel.get("mlflow_version")
        return said if isinstance(said, str) and said else None


def open_logged(
    folder: Path,
    *,
    weights: Checkpoint | None = None,
    location: str = "",
    listed: Mapping[str, int] | None = None,
) -> LoggedModel:
    """The facts of the model in this folder.

    weights: the checkpoint whose weight files will stand in it, where they are not there yet.
    location, listed: where the model really is and all that it holds, when the folder has its small files only.
    Raises CheckpointError where the folder holds no MLmodel that can be read.
    """
    where = location or str(folder)
    if not (folder / MLMODEL).is_file():
        raise CheckpointError(where, "has no MLmodel, so it is no logged model", "Give the folder that MLmodel is in.")
    files = {**dict(_files(folder)), **(listed or {})}
    mlmodel = _mlmodel(folder / MLMODEL, where)
    at_top = [path for path, size in files.items() if size <= _LARGEST_TEXT and "/" not in path]
    small = {path: _read(folder / path, where) for path in at_top if (folder / path).is_file()}
    plain = LoggedModel(where, mlmodel, files, small)
    if weights is not None:
        placed = {f"model/{shard.file.path}": shard.file.size for shard in weights.shards}
        return replace(plain, files={**files, **placed}, checkpoint=weights)
    binary = plain.flavor.get("model_binary")
    if not isinstance(binary, str) or PurePosixPath(binary).is_absolute() or ".." in PurePosixPath(binary).parts:
        return replace(plain, no_checkpoint="MLmodel names no folder of weights (model_binary)")
    try:
        checkpoint = _checkpoint(folder, binary, plain.flavor)
    except CheckpointError as error:
        return replace(plain, no_checkpoint=f'"{os.path.relpath(error.location, folder)}" {error.reason}')
    except OSError as error:  # a name that no file can have
        return replace(plain, no_checkpoint=f'"{binary[:80]}" cannot be read: {error.strerror}')
    unread = "the weights are on another machine; their headers were not read" if listed else None
    return replace(plain, checkpoint=replace(checkpoint, unread=unread))


def _checkpoint(folder: Path, binary: str, flavor: Mapping[str, Any]) -> Checkpoint:
    """Weights and config of the model's folder, with the tokenizer of the components, which is the one that is used."""
    held = folder / binary
    if not held.is_dir():
        raise CheckpointError(str(held), "is not there")
    named = flavor.get("source_model_name")
    origin = Origin("folder", str(held), None, named if isinstance(named, str) else str(held))
    model = open_folder(held, origin)
    tokenizer = _tokenizer(folder / TOKENIZER_FOLDER, origin)
    return replace(model, small={**{p: c for p, c in model.small.items() if p not in TOKENIZER}, **tokenizer})


def _tokenizer(folder: Path, origin: Origin) -> Mapping[str, bytes]:
    """The tokenizer's files, looked at as those of a checkpoint are."""
    there = [name for name in TOKENIZER if (folder / name).is_file()]
    for name in there:
        if (size := (folder / name).stat().st_size) > LARGEST_SMALL:
            raise CheckpointError(str(folder), f'has a "{name}" of {human(size)}, which is too large to be one')
    small = {name: _read(folder / name, str(folder)) for name in there}
    alone, none = replace(origin, location=str(folder)), Selection((), (), (), (), {})
    return assemble(alone, none, small, (), {}, licence=None, root=None, allow_pickle=False).small


def _read(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(where, f'has a "{path.name}" that cannot be read: {error.strerror}') from error


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for at, _, names in os.walk(folder):
        for name in names:
            path = Path(at) / name
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def _mlmodel(path: Path, where: str) -> Mapping[str, Any]:
    if path.stat().st_size > _LARGEST_TEXT:
        raise CheckpointError(where, f"has an MLmodel of {human(path.stat().st_size)}, which is too large to be one")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (*NOT_YAML, OSError) as error:
        reason = str(getattr(error, "problem", None) or error)
        raise CheckpointError(where, f"has an MLmodel that cannot be read: {reason}") from error
    if not isinstance(data, dict) or not isinstance(data.get("flavors"), dict):
        raise CheckpointError(where, "has an MLmodel that names no flavors")
    return data


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
