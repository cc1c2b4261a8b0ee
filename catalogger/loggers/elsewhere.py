"""MLmodel as another MLflow than the one at hand writes it, or a whole one where `mlflow-skinny` is at hand: from the
table of what each can do.

Ids, times and places are those of the store at hand; nothing else is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from catalogger.validators.facts import Environment
from catalogger.validators.mlflow_versions import has, signature_names
from catalogger.validators.runtimes import unknown_of
from catalogger.validators.signatures import recorded

if TYPE_CHECKING:
    from mlflow.models import Model

_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "prompts_field": {"prompts": None},
    "type_hint_fields": {"is_signature_from_type_hint": False, "type_hint_from_example": False},
}
"""What an MLflow with the capability writes, and says so of a model like ours."""


def words(target: Environment) -> str:
    """What a model is written for, and what of it is not known."""
    held = {"MLflow": target.mlflow, "Transformers": target.transformers, "Python": target.python}
    known = ", ".join(f"{name} {version}" for name, version in held.items() if version)
    missing = [name.capitalize() for name in unknown_of(target)]
    gap = f"; not known of it, and so chosen as for any other: {', '.join(missing)}" if missing else ""
    return f"written for {target.asked}: {known}{gap}"


def text(model: Model, task: str, name: str, target: Environment) -> str:
    """The text of MLmodel of a model that was logged as `name`, as the target's MLflow writes it."""
    said = dict(model.to_dict())
    if target.asked:
        said.pop("databricks_runtime", None)  # of the one at hand
    said["mlflow_version"] = target.mlflow
    said["signature"] = _signature(task, target.mlflow)
    for capability, fields in _FIELDS.items():
        for key, value in fields.items():
            said.pop(key, None)
            if has(capability, target.mlflow):
                said[key] = value
    if not has("logged_models", target.mlflow):
        said["artifact_path"] = name
        if said.pop("model_id", None):
            said["model_uuid"] = str(said["model_uuid"]).removeprefix("m-")
    return str(yaml.safe_dump(said, default_flow_style=False))


def _signature(task: str, mlflow: str) -> dict[str, Any]:
    (name,) = signature_names(task, mlflow)
    found = recorded(name)
    return {"inputs": json.dumps(found.inputs), "outputs": json.dumps(found.outputs), "params": None}
