"""Whether provisioned throughput serves a version, and by which unit: the workspace's own answer.

Source: `GET /api/2.0/serving-endpoints/get-model-optimization-info/{name}/{version}`, which no list of the REST
interface names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from catalogger.errors import AccessDenied, CataloggerError, DeploymentFailed, NotEligible, Refused, UnitUnknown
from catalogger.progress import Progress, Silent
from catalogger.remote.rest import Rest
from catalogger.serving.entity import Entity, registered
from catalogger.serving.workspace import ENDPOINTS, rest_of
from catalogger.validators.serving_rules import SERVED

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

Unit = Literal["tokens_per_second", "model_units"]
_CHUNKS: tuple[tuple[str, Unit], ...] = (
    ("model_unit_chunk_size", "model_units"),
    ("throughput_chunk_size", "tokens_per_second"),
)
"""The keys of the answer that tell the unit; where both are there, the first one is taken."""


@dataclass(frozen=True)
class Eligibility:
    """What the workspace says of a version.

    `answer` is all of it.  `unit` and `chunk` (of that unit) are None where it is not eligible, or is, by a unit that
    is not known here.  `reasons` may explain why it is not.
    """

    entity: Entity
    answer: Mapping[str, Any]
    unit: Unit | None = None
    chunk: int | None = None
    reasons: tuple[str, ...] = ()

    @property
    def eligible(self) -> bool:
        return bool(self.answer.get("optimizable"))

    def require(self) -> tuple[Unit, int]:
        """The unit and its chunk.  Raises NotEligible, and UnitUnknown where the unit is not known here."""
        if self.unit is None or self.chunk is None:
            if self.eligible:
                raise UnitUnknown(str(self.entity), self.answer)
            raise NotEligible(str(self.entity), self.answer, self.reasons)
        return self.unit, self.chunk

    def document(self) -> dict[str, Any]:
        """The answer and what it means, as JSON data."""
        return {
            "name": self.entity.name,
            "version": self.entity.version,
            "eligible": self.eligible,
            "unit": self.unit,
            "chunk": self.chunk,
            "answer": dict(self.answer),
            "reasons": list(self.reasons),
        }

    def __str__(self) -> str:
        if self.unit:
            verdict = f"eligible, by {self.unit.replace('_', ' ')} in steps of {self.chunk}"
        else:
            verdict = "eligible, by a unit that is not known here" if self.eligible else "not eligible"
        lines = [f"{self.entity} is {verdict}.", f"The workspace says: {json.dumps(dict(self.answer))}", *self.reasons]
        return "\n  ".join(lines)


def eligibility(
    workspace: WorkspaceClient, reference: str, *, timeout: float = 1800, progress: Progress | None = None
) -> Eligibility:
    """Ask the workspace about `NAME/VERSION` or `NAME@ALIAS`, once it is READY; nothing is created.

    `timeout` in seconds.  Raises UsageError where there is no such version, RegistryError where it does not get READY.
    """
    progress = progress or Silent()
    return asked(rest_of(workspace), registered(workspace, reference, timeout=timeout, progress=progress))


def asked(rest: Rest, entity: Entity) -> Eligibility:
    """The workspace's answer about a READY version."""
    path = f"{ENDPOINTS}/get-model-optimization-info/{quote(entity.name)}/{entity.version}"
    try:
        answer = rest.call("GET", path)
    except Refused as refused:
        if refused.status == 403:
            raise AccessDenied(
                f'"{rest.base}" does not show "{entity}": {refused.said}', "Ask for EXECUTE."
            ) from refused
        unsaid = f'The workspace does not say whether it serves "{entity}": {refused.said}'
        raise DeploymentFailed(unsaid, "The model is registered; nothing was created.") from refused
    if not answer.get("optimizable"):
        return Eligibility(entity, answer, reasons=tuple(_reasons(_mlmodel(rest, entity))))
    for key, unit in _CHUNKS:
        chunk = answer.get(key)
        if isinstance(chunk, int) and chunk > 0:
            return Eligibility(entity, answer, unit, chunk)
    return Eligibility(entity, answer)


def _mlmodel(rest: Rest, entity: Entity) -> Mapping[str, Any] | None:
    """The version's MLmodel file; None where it cannot be had."""
    import yaml

    path = f"/api/2.0/fs/files/Models/{quote(entity.name.replace('.', '/'))}/{entity.version}/MLmodel"
    with suppress(CataloggerError, yaml.YAMLError):
        document = yaml.safe_load(rest.content(path))
        return document if isinstance(document, dict) else None
    return None


def _reasons(mlmodel: Mapping[str, Any] | None) -> Iterator[str]:
    """What may explain that a model is not served."""
    if mlmodel is None:
        yield "Its MLmodel file could not be read here, to say why."
        return
    flavor = (mlmodel.get("flavors") or {}).get("transformers") or {}
    task, architecture = (mlmodel.get("metadata") or {}).get("task"), flavor.get("pipeline_model_type")
    if not flavor:
        yield f"Flavor: {', '.join(mlmodel.get('flavors') or ()) or 'none'}; it serves transformers."
    if not str(task).startswith("llm/v1/"):
        yield f"Task: metadata.task is {json.dumps(task)}; it serves llm/v1/chat, /completions and /embeddings."
    if architecture and architecture not in SERVED:
        yield f"Architecture: {architecture}; it is known to serve {', '.join(SERVED)}."
    elif architecture and task and task not in SERVED[architecture]:
        yield f"Task: it is known to serve {architecture} for {', '.join(SERVED[architecture])}."
    if (dtype := flavor.get("torch_dtype")) and "float32" in str(dtype):
        yield f"Dtype: {dtype}; bfloat16 is recommended."
    yield "Size and region: it serves the sizes of the published models, and not in every region."
