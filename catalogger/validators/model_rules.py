"""ML rules on MLmodel: what a logged model says of itself, and what loading and serving need it to say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from catalogger.checkpoints import LoggedModel
from catalogger.checkpoints.facts import TORCH_DTYPES
from catalogger.checkpoints.logged import MLMODEL
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.mlflow_versions import has, is_later, is_version, names_framework
from catalogger.validators.rules import Found, rule

_DTYPE_ALIASES = {"half": "float16", "float": "float32", "double": "float64"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
_OWN_IDS = re.compile(r"BAAI/bge-(small|base|large)-en(-v1\.5)?|Alibaba-NLP/gte-(base|large)-en-v1\.5", re.IGNORECASE)
_AGAIN = "Log the model again, by catalogger or mlflow.transformers.log_model."


class Pipeline(NamedTuple):
    """What Transformers' own names are for an `llm/v1` task."""

    task: str
    kind: str


PIPELINES: Mapping[str, Pipeline] = {
    "llm/v1/chat": Pipeline("text-generation", "TextGenerationPipeline"),
    "llm/v1/completions": Pipeline("text-generation", "TextGenerationPipeline"),
    "llm/v1/embeddings": Pipeline("feature-extraction", "FeatureExtractionPipeline"),
}


def transformers_model(facts: Facts) -> LoggedModel:
    """The logged model.  Raises NotChecked where it is one of another flavor."""
    model = facts.logged
    if any(flavors(facts)):
        raise NotChecked("the model is of another flavor, as ML001 says")
    return model


def is_reference(model: LoggedModel) -> bool:
    """Whether the model names weights that are elsewhere instead of holding them."""
    elsewhere = ("source_model_revision", "local_base_model_path", "peft_adaptor")
    return "model_binary" not in model.flavor and any(model.flavor.get(key) for key in elsewhere)


def task_of(facts: Facts) -> str:
    """The model's `llm/v1` task.  Raises NotChecked where it is not certain: another rule says so."""
    if any(inference_task(facts)):
        raise NotChecked("the task is not certain, as ML003 says")
    task = transformers_model(facts).task
    if task not in PIPELINES:
        raise NotChecked("the task is not certain, as ML004 says")
    return str(task)


def shown(value: object) -> str:
    """A value of any type, in a few characters."""
    if isinstance(value, str):
        text = json.dumps(value[:81], ensure_ascii=False).encode("utf-8", "replace").decode()
        return text if len(value) <= 80 else f"{text[:-1]}…"
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 1e18 else "a large number"
    return f"a {'mapping' if isinstance(value, dict) else type(value).__name__}"


def is_hub_id(name: str) -> bool:
    """Whether the Hub could have a repository of this name, which a path is not."""
    return len(name) <= 96 and _HUB_ID.fullmatch(name) is not None


@rule("ML001", "error")
def flavors(facts: Facts) -> Iterator[Found]:
    """The model has MLflow's transformers flavor, and is loaded by it.

    Provisioned throughput serves that flavor only; any other model is offered a CPU or GPU workload.

    Fix: log it by `mlflow.transformers`, not as a custom pyfunc or by another flavor.
    """
    model, fix = facts.logged, "Log it by mlflow.transformers: provisioned throughput serves no other flavor."
    loader = model.pyfunc.get("loader_module")
    if not model.flavor:
        yield Found(MLMODEL, "has no transformers flavor", fix)
    elif not model.pyfunc:
        yield Found(MLMODEL, "has no python_function flavor", fix)
    elif loader != "mlflow.transformers":
        yield Found(MLMODEL, f"is loaded by {shown(loader)} instead of mlflow.transformers", fix)


@rule("ML002", "error")
def needed_fields(facts: Facts) -> Iterator[Found]:
    """The flavor has every field that loading needs.

    Without `task`, `pipeline_model_type` or a component's type MLflow ends in a KeyError; without `components` or
    `model_binary` it looks for what is not there.

    Fix: log the model again; MLflow writes them all.
    """
    model = transformers_model(facts)
    names = model.flavor.get("components")
    needed: dict[str, type] = {"task": str, "pipeline_model_type": str, "components": list}
    if not is_reference(model):
        needed["model_binary"] = str
    if isinstance(names, list):
        needed |= {f"{name}_type": str for name in names if isinstance(name, str)}
    for key, kind in needed.items():
        said = model.flavor.get(key)
        if not said or not isinstance(said, kind):
            name = shown(key)[1:-1]
            what = f"says {shown(said)} as {name}" if key in model.flavor else f"says no {name}"
            yield Found(MLMODEL, f"{what}, which loading needs", _AGAIN)


@rule("ML003", "error")
def inference_task(facts: Facts) -> Iterator[Found]:
    """The flavor's `inference_task` is an `llm/v1` task, and one that its pipeline does.

    It decides the form of requests and answers: without it the model answers in the pipeline's own form, and refuses
    a chat. MLflow 2.11 writes none for embeddings.

    Fix: log it with `task="llm/v1/chat"`, `"llm/v1/completions"` or `"llm/v1/embeddings"`.
    """
    model = transformers_model(facts)
    said, pipeline = model.flavor.get("inference_task"), model.flavor.get("task")
    fix = f"Log it with one of the tasks {', '.join(PIPELINES)}."
    if said is None:
        if pipeline != "feature-extraction" or not _before_embeddings_task(model):
            yield Found(MLMODEL, f"says no inference_task beside task {shown(pipeline)}", fix)
    elif not isinstance(said, str) or said not in PIPELINES:
        yield Found(MLMODEL, f"says inference_task {shown(said)}, which is none", fix)
    elif isinstance(pipeline, str) and pipeline != PIPELINES[said].task:
        what = f"says inference_task {said} and task {shown(pipeline)}; it goes with {PIPELINES[said].task}"
        yield Found(MLMODEL, what, fix)


@rule("ML004", "error")
def metadata_task(facts: Facts) -> Iterator[Found]:
    """`metadata.task` says the same task, and the recipe's.

    Provisioned throughput goes by it; a model without it is offered a GPU workload.

    Fix: log it with the `llm/v1` task; MLflow then writes `metadata.task` itself.
    """
    model = transformers_model(facts)
    if any(inference_task(facts)):
        raise NotChecked("there is no task to compare with, as ML003 says")
    said, wanted = model.metadata.get("task"), model.flavor.get("inference_task") or "llm/v1/embeddings"
    if said is None:
        yield Found(
            MLMODEL, f"says no task in its metadata; inference_task is {wanted}", f'Log it with task="{wanted}".'
        )
    elif said != wanted:
        what = f"says task {shown(said)} in its metadata; inference_task is {wanted}"
        yield Found(MLMODEL, what, f'Log it with task="{wanted}" and no task in the metadata.')
    elif facts.recipe and facts.recipe.task != wanted:
        what = f"says task {wanted}; the recipe is for {facts.recipe.task}"
        yield Found(MLMODEL, what, f'Log it with task="{facts.recipe.task}", or choose a recipe of its own task.')


@rule("ML005", "warning")
def model_type(facts: Facts) -> Iterator[Found]:
    """A fine-tuned GTE or BGE says by `metadata.model_type` which of them it is.

    The published ones are known by their name on the Hub; of a fine-tuned one provisioned throughput cannot tell size
    and family otherwise.

    Fix: log it with `metadata={"model_type": "gte-large"}` (or `gte-base`, `bge-large`, `bge-base`, `bge-small`), or
    by `log-model --set metadata.model_type=…`.
    """
    model = transformers_model(facts)
    said = model.metadata.get("model_type")
    wanted = facts.recipe.metadata.get("model_type") if facts.recipe else None
    family = {"NewModel": "GTE", "BertModel": "BGE"}.get(str(facts.opened.architecture))
    if model.task != "llm/v1/embeddings" or not family:
        return
    fix = "Log it with metadata.model_type, such as gte-large or bge-small."
    if wanted is not None and said != wanted:
        what = f"says model_type {shown(said)} in its metadata; the recipe says {shown(wanted)}"
        yield Found(MLMODEL, what, f"Log it with metadata.model_type {wanted}.")
    elif not said and (facts.recipe is None or facts.recipe.serving) and not _is_own(model.flavor):
        yield Found(MLMODEL, f"says no model_type in its metadata, which a fine-tuned {family} needs", fix)


@rule("ML008", "error")
def architecture_agrees(facts: Facts) -> Iterator[Found]:
    """`pipeline_model_type` is the architecture of the weights.

    MLflow loads the weights by that class, whatever their config says; what the class does not know becomes random.

    Fix: log the model again from its own files.
    """
    said, found = transformers_model(facts).flavor.get("pipeline_model_type"), facts.opened.architecture
    if not said or not isinstance(said, str):
        raise NotChecked("there is no pipeline_model_type, as ML002 says")
    if found is None:
        raise NotChecked("config.json names no architecture")
    if said != found:
        what = f"says pipeline_model_type {shown(said)}; config.json says {shown(found)}"
        yield Found(MLMODEL, what, "Log the model again from its own files.")


@rule("ML009", "warning")
def source_name(facts: Facts) -> Iterator[Found]:
    """`source_model_name` is a repository of the Hub, not a path on the machine that logged the model.

    MLflow writes the path of a folder there. On another machine it means nothing: requests with `stop` fail, the
    licence points nowhere, and provisioned throughput cannot tell the base model.

    Fix: log it by catalogger, which names the base model; or by MLflow from the Hub id.
    """
    said = transformers_model(facts).flavor.get("source_model_name")
    fix = "Log it by catalogger, which names the base model's repository, or from the Hub id."
    if not isinstance(said, str) or not is_hub_id(said):
        kind = "a local path or nothing that the Hub could have" if said else "so that nothing tells the base model"
        yield Found(MLMODEL, f"says source_model_name {shown(said)}, {kind}", fix)
    elif "/" not in said:
        what = f"says source_model_name {shown(said)}, without an owner; only the Hub's oldest models have such names"
        known = "Say the base model's repository as source in the recipe, or as _name_or_path in config.json."
        yield Found(MLMODEL, what, known, "note")


@rule("ML010", "warning")
def loaded_dtype(facts: Facts) -> Iterator[Found]:
    """The flavor's `torch_dtype` is the dtype of the weights.

    MLflow loads the weights in that dtype. Where it says none, as for a folder that was logged without `torch_dtype=`,
    Transformers 4 makes them float32: twice the memory of bfloat16.

    Fix: log it with `torch_dtype` set to the weights' own dtype.
    """
    flavor = transformers_model(facts).flavor
    said, version = flavor.get("torch_dtype"), flavor.get("transformers_version")
    name = said.removeprefix("torch.") if isinstance(said, str) else ""
    name = _DTYPE_ALIASES.get(name, name)
    if said is not None and name not in TORCH_DTYPES.values():
        yield Found(MLMODEL, f"says torch_dtype {shown(said)}, which is none", "Say the weights' own dtype.", "error")
        return
    found, config = facts.weights.dtype, facts.opened.config
    if found is None:
        raise NotChecked("no header of a weight file could be read")
    fix = f"Log it with torch_dtype=torch.{found}."
    if said is None and found != "float32":
        if not is_version(version):
            raise NotChecked("MLmodel says no transformers_version")
        if names_framework(version):
            what = f"says no torch_dtype; Transformers {version} loads the {found} weights as float32"
            yield Found(MLMODEL, what, fix)
    elif said is not None and name != found:
        if name == (config.get("torch_dtype") or config.get("dtype")):
            raise NotChecked("the weights are not what their config says, as CK010 says")
        yield Found(MLMODEL, f"says torch_dtype {shown(said)}; the weights are {found}", fix)


@rule("ML018", "note")
def python_version(facts: Facts) -> Iterator[Found]:
    """The Python that wrote the model is the one at hand.

    An environment is made for the model's own Python; where it is loaded without one, another minor version may lack
    the pinned packages.

    Fix: load the model under its own Python, or log it again under this one.
    """
    said = transformers_model(facts).pyfunc.get("python_version")
    if not isinstance(said, str):
        raise NotChecked("MLmodel says no Python version")
    if said.split(".")[:2] != facts.environment.python.split(".")[:2]:
        what = f"says Python {shown(said)}; this is {facts.environment.python}"
        yield Found(MLMODEL, what, "Load it under its own Python, or log it again under this one.")


@rule("ML019", "error")
def pipeline_kind(facts: Facts) -> Iterator[Found]:
    """`instance_type` is the pipeline of the task.

    A pipeline of another kind answers in another form.

    Fix: log the model again with its `llm/v1` task.
    """
    said, task = transformers_model(facts).flavor.get("instance_type"), task_of(facts)
    if said is None:
        raise NotChecked("MLmodel says no instance_type, which loading can do without")
    if said != PIPELINES[task].kind:
        yield Found(MLMODEL, f"says instance_type {shown(said)}; {task} goes with {PIPELINES[task].kind}", _AGAIN)


@rule("ML020", "warning")
def written_later(facts: Facts) -> Iterator[Found]:
    """The MLflow that wrote the model is not later than the one at hand.

    An older MLflow may know neither the types of the signature nor the fields: 2.11.5 to 2.16.2 cannot read the
    signature of a chat model that 2.19 or later wrote.

    Fix: load it by an MLflow as new as its own, or log the model for this one (`--for`).
    """
    said, here = written_by(transformers_model(facts)), facts.environment.mlflow
    if is_later(said, here):
        fix = f"pip install 'mlflow>={said}', or log it again for this one: --for mlflow=={here}"
        yield Found(MLMODEL, f"says MLflow {said}, later than {here}", fix)


def written_by(model: LoggedModel) -> str:
    """The MLflow that wrote the model.  Raises NotChecked where that is not said."""
    if not is_version(model.mlflow):
        raise NotChecked("MLmodel says no mlflow_version")
    return model.mlflow


def _before_embeddings_task(model: LoggedModel) -> bool:
    return is_version(model.mlflow) and not has("embeddings_task", model.mlflow)


def _is_own(flavor: Mapping[str, Any]) -> bool:
    name = flavor.get("source_model_name")
    return isinstance(name, str) and _OWN_IDS.fullmatch(name) is not None
