"""Write what MLflow's own `mlflow.transformers.save_model` would write for this checkpoint, without loading it.

Fields and files by version: `catalogger.validators.mlflow_versions`.  MLflow is imported where it is used.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from catalogger.checkpoints import Checkpoint
from catalogger.checkpoints.logged import MLMODEL
from catalogger.loggers.skinny import is_skinny
from catalogger.recipes import NamedRecipe, Recipe
from catalogger.validators.facts import Environment, installed
from catalogger.validators.mlflow_versions import has, names_framework, tokenizer_type
from catalogger.validators.mlflow_versions import within as is_within
from catalogger.validators.model_rules import PIPELINES
from catalogger.validators.runtimes import pinned

if TYPE_CHECKING:
    from mlflow.models import Model
    from mlflow.models.signature import ModelSignature

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "llm/v1/chat": {"messages": [{"role": "user", "content": "What is Unity Catalog?"}], "max_tokens": 32},
    "llm/v1/completions": {"prompt": "Unity Catalog is", "max_tokens": 32},
    "llm/v1/embeddings": {"input": "Unity Catalog is a governance layer."},
}
"""An input example for each task, in the form that a serving endpoint takes."""
_EXAMPLE = "input_example.json"
_SERVED_EXAMPLES = {"serving_payload": "serving_input_payload.json", "serving_example": "serving_input_example.json"}


def wanted_version(package: Literal["transformers", "torch", "accelerate"], at: Environment, within: str | None) -> str:
    """The version that the logged model asks for: that of the environment if it is `within` the recipe's range, else
    catalogger's pin within what the MLflow declares.
    """
    version: str | None = getattr(at, package)
    if version and is_within(version, within):
        return version.partition("+")[0]
    return pinned(package, at.mlflow)


def base_model(recipe: NamedRecipe, checkpoint: Checkpoint) -> str:
    """The repository that the model is, or was made from; the folder's own name where nothing tells.

    Upstream writes the local path of a folder here, which means nothing on another machine.
    """
    if checkpoint.origin.kind == "hub":
        return checkpoint.origin.location
    if recipe.recipe.source:
        return recipe.recipe.source.repo
    said = str(checkpoint.config.get("_name_or_path") or "")
    return (
        said if said.count("/") == 1 and not said.startswith((".", "/", "~")) else Path(checkpoint.origin.location).name
    )


def flavor(recipe: NamedRecipe, checkpoint: Checkpoint, mlflow: str, transformers: str) -> dict[str, Any]:
    """The `transformers` flavor of MLmodel, as this MLflow writes it for components that were loaded in the weights'
    dtype.
    """
    pipeline = PIPELINES[recipe.recipe.task]
    fields: dict[str, Any] = {
        "code": None,
        "components": ["tokenizer"],
        "instance_type": pipeline.kind,
        "model_binary": "model",
        "pipeline_model_type": checkpoint.architecture,
        "source_model_name": base_model(recipe, checkpoint),
        "task": pipeline.task,
        "tokenizer_type": tokenizer_type(_tokenizer_class(checkpoint), transformers),
        "transformers_version": transformers,
    }
    if names_framework(transformers):
        fields["framework"] = "pt"
    dtype = checkpoint.dtype or checkpoint.config.get("torch_dtype") or checkpoint.config.get("dtype")
    if dtype and (dtype != "float32" or has("float32_dtype_written", mlflow)):
        fields["torch_dtype"] = f"torch.{dtype}"
    if recipe.recipe.task != "llm/v1/embeddings" or has("embeddings_task", mlflow):
        fields["inference_task"] = recipe.recipe.task
    return fields


def requirements(recipe: Recipe, checkpoint: Checkpoint, at: Environment) -> list[str]:
    """Pinned pip requirements, of the environment and the recipe, whose own go first; nothing is found out by running
    the model.
    """
    pins = {"transformers": wanted_version("transformers", at, recipe.transformers)}
    pins |= {"torch": wanted_version("torch", at, None), "accelerate": wanted_version("accelerate", at, None)}
    if "tokenizer.json" not in checkpoint.small:
        pins |= {p: v for p in ("sentencepiece", "protobuf") if (v := installed(p))}
    pins |= {name: version for name, _, version in (line.partition("==") for line in recipe.requirements)}
    return [f"{name}=={version}" for name, version in pins.items()]


def signature(task: str, mlflow: str) -> ModelSignature:
    """The schema of the task, inputs and outputs, as this MLflow has it."""
    from mlflow.models.signature import ModelSignature
    from mlflow.types import llm
    from mlflow.types.schema import ColSpec, Schema, TensorSpec

    if task == "llm/v1/embeddings" and not has("embeddings_task", mlflow):
        import numpy

        return ModelSignature(
            Schema([ColSpec("string")]), Schema([TensorSpec(numpy.dtype("float64"), (-1,), "double")])
        )
    name = {"llm/v1/chat": "CHAT", "llm/v1/completions": "COMPLETIONS", "llm/v1/embeddings": "EMBEDDING"}[task]
    return ModelSignature(getattr(llm, f"{name}_MODEL_INPUT_SCHEMA"), getattr(llm, f"{name}_MODEL_OUTPUT_SCHEMA"))


def fill(model: Model, recipe: Recipe, fields: Mapping[str, Any], mlflow: str, python: str) -> None:
    """Complete MLflow's Model object: metadata, the signature of the `mlflow` at hand, both flavors.

    `mlflow-skinny` knows no signatures.
    """
    model.metadata = {**(model.metadata or {}), **recipe.metadata, "task": recipe.task}
    if not is_skinny():
        model.signature = signature(recipe.task, mlflow)
    model.add_flavor("transformers", **fields)
    model.add_flavor(
        "python_function",
        loader_module="mlflow.transformers",
        python_version=python,
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    )


def write_example(model: Model, task: str, folder: Path, mlflow: str) -> None:
    """The task's input example, in the files and form of this MLflow.

    Not by its `_save_example`, whose form before 2.16 depends on what its own flavor knows of the task.
    """
    example, info = EXAMPLES[task], {"artifact_path": _EXAMPLE, "type": "json_object"}
    written: Mapping[str, Any] = example
    if not has("json_example", mlflow):
        info |= {"type": "dataframe", "pandas_orient": "split"}
        written = {"columns": list(example), "data": [list(example.values())]}
    (folder / _EXAMPLE).write_text(json.dumps(written))
    for capability, name in _SERVED_EXAMPLES.items():
        if has(capability, mlflow):
            info["serving_input_path"] = name
            (folder / name).write_text(json.dumps(example, indent=2))
    model.saved_input_example_info = info


def write_environment(folder: Path, wanted: list[str], at: Environment) -> None:
    """`conda.yaml`, `requirements.txt` and `python_env.yaml`, as MLflow's own flavors write them.

    Not by its `_process_pip_requirements`: that looks through every installed distribution, to warn of differences.
    """
    from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv

    lines = [f"mlflow=={at.mlflow}", *wanted]
    conda = _mlflow_conda_env(additional_pip_deps=lines, install_mlflow=False)
    conda["dependencies"][0] = f"python={at.python}"
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, default_flow_style=False))
    (folder / "requirements.txt").write_text("\n".join(lines))
    python = _PythonEnv.current()
    python.python = at.python
    python.to_yaml(str(folder / "python_env.yaml"))


def write_metadata(folder: Path, at: Environment) -> None:
    """`metadata/`, which MLflow's logging adds to what a flavor writes, for models that Unity Catalogs share.

    Later MLflows do so in a Databricks Runtime only.
    """
    in_runtime = at.asked.startswith("dbr-") if at.asked else "DATABRICKS_RUNTIME_VERSION" in os.environ
    if not (has("metadata_copies", at.mlflow) or in_runtime):
        return
    names = [MLMODEL, "conda.yaml", "requirements.txt", "python_env.yaml"]
    if has("metadata_holds_all", at.mlflow):
        names = [entry.name for entry in folder.iterdir() if entry.is_file()]
    (folder / "metadata").mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(folder / name, folder / "metadata" / name)


def _tokenizer_class(checkpoint: Checkpoint) -> str | None:
    said = checkpoint.tokenizer_config.get("tokenizer_class") or checkpoint.config.get("tokenizer_class")
    if said:
        return str(said)
    return "BertTokenizer" if checkpoint.config.get("model_type") == "bert" else None
