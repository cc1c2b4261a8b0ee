"""Which versions of a loopback workspace can be served, and as what: read from their files, or told by a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from catalogger.testing.models import Model, Registry, Version
from catalogger.testing.optimization import Answer, derived
from catalogger.testing.refusal import RefusalError


@dataclass(frozen=True)
class ServedVersion:
    """A version that answers queries: its full name, its number, the folder of its files, its MLmodel file.

    `model_type` is what `get-model-optimization-info` calls its family. Of a model without files the folder is not
    there.
    """

    name: str
    number: int
    folder: Path
    model_type: str | None
    mlmodel: Mapping[str, Any]


class Servable:
    """The versions of a registry, whose files are below `root` by the paths of the Files API.

    `descriptions` (an MLmodel file by full name) tell of models without files here, `answers` what is said of a model's
    throughput in place of what its files say.
    """

    def __init__(self, registry: Registry, root: Path) -> None:
        self._registry, self._root = registry, root
        self.descriptions: dict[str, Mapping[str, Any]] = {}
        self.answers: dict[str, Answer] = {}

    def optimization(self, user: str, full_name: str, number: object) -> Mapping[str, Any]:
        """What is said of the version's throughput, to someone who may execute it."""
        model, version = self.ready(user, full_name, number)
        answer = self.answers.get(model.full_name)
        if isinstance(answer, RefusalError):
            raise answer
        return derived(self.mlmodel(model, version)) if answer is None else answer

    def ready(self, user: str, full_name: str, number: object) -> tuple[Model, Version]:
        model, version = self._registry.version(user, full_name, number)
        if version.status != "READY":
            message = f"Model version '{number}' of '{model.full_name}' is {version.status}. It has to be READY."
            raise RefusalError(400, "INVALID_STATE", message)
        return model, version

    def task(self, model: Model, version: Version) -> str | None:
        """The llm/v1 task in the version's metadata."""
        return (self.mlmodel(model, version).get("metadata") or {}).get("task")

    def mlmodel(self, model: Model, version: Version) -> Mapping[str, Any]:
        """The version's MLmodel file; nothing where it has none here."""
        if described := self.descriptions.get(model.full_name):
            return described
        file = self._folder(model, version) / "MLmodel"
        found = yaml.safe_load(file.read_text()) if file.is_file() else {}
        return found if isinstance(found, dict) else {}

    def served(self, full_name: str, number: str) -> ServedVersion | None:
        """The version with its files; None where it is gone."""
        model = self._registry.models.get(full_name)
        version = model.versions.get(int(number)) if model else None
        if model is None or version is None:
            return None
        mlmodel, answer = self.mlmodel(model, version), self.answers.get(full_name)
        said = answer if isinstance(answer, Mapping) else derived(mlmodel)
        return ServedVersion(full_name, version.number, self._folder(model, version), said.get("model_type"), mlmodel)

    def _folder(self, model: Model, version: Version) -> Path:
        return self._root / "Models" / model.catalog / model.schema / model.name / str(version.number)
