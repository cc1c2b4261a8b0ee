"""Logged MLflow models in folders: made by catalogger, by MLflow itself, and rebuilt from what older MLflows wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from fakes import checkpoints

import catalogger.validators

CHAT, COMPLETIONS, EMBEDDINGS = "llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"
EXAMPLES: Mapping[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 8},
    COMPLETIONS: {"prompt": "Hello", "temperature": 0, "stop": ["."]},
    EMBEDDINGS: {"input": ["one", "two"]},
}
OVERRIDES = {EMBEDDINGS: ["metadata.model_type=bge-small"]}
_SIGNATURES = Path(catalogger.validators.__file__).with_name("signatures")


@dataclass(frozen=True)
class Case:
    """What is logged, and by which class it is loaded."""

    recipe: str
    task: str
    make: Callable[..., Path]
    loader: str


CASES = {
    "chat": Case("llama-chat", CHAT, checkpoints.llama, "AutoModelForCausalLM"),
    "completions": Case("llama-completions", COMPLETIONS, checkpoints.llama, "AutoModelForCausalLM"),
    "embeddings": Case("bge-embeddings", EMBEDDINGS, partial(checkpoints.bert, pooling="cls"), "AutoModel"),
}


def by_catalogger(case: Case, folder: Path) -> Path:
    """A model that catalogger has logged; `folder` holds everything that it is made of."""
    outcome = catalogger.log_model(
        case.recipe,
        source=case.make(folder / "source"),
        name="main.ml.ours",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        overrides=OVERRIDES.get(case.task, ()),
    )
    assert outcome.location is not None
    return Path(outcome.location)


def by_mlflow(case: Case, folder: Path, *, from_folder: bool, **more: Any) -> Path:
    """A model that MLflow itself has logged, from components in memory or from the folder."""
    import mlflow
    import transformers

    source = case.make(folder / "source")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    components = {
        "model": getattr(transformers, case.loader).from_pretrained(source),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(source),
    }
    arguments = {
        "task": case.task,
        "input_example": EXAMPLES[case.task],
        "pip_requirements": [f"transformers=={transformers.__version__}", "torch==2.9.1"],
        "metadata": {"model_type": "bge-small"} if case.task == EMBEDDINGS else None,
    }
    info = mlflow.transformers.log_model(
        transformers_model=str(source) if from_folder else components, name="theirs", **{**arguments, **more}
    )
    return Path(mlflow.MlflowClient().get_logged_model(info.model_id).artifact_location)


@dataclass(frozen=True)
class Recorded:
    """One of the models that were run: the MLflow, its Transformers, the signature it wrote."""

    mlflow: str
    transformers: str
    task: str
    architecture: str
    signature: str

    def mlmodel(self) -> dict[str, Any]:
        """MLmodel as that MLflow wrote it, but for ids and times, and with the base model's repository."""
        embeds, old = self.task == EMBEDDINGS, self.mlflow == "2.11.5"
        bert = "BertTokenizer" if self.transformers.startswith("5.") else "BertTokenizerFast"
        llama = "TokenizersBackend" if self.transformers.startswith("5.") else "PreTrainedTokenizerFast"
        flavor = {
            "code": None,
            "components": ["tokenizer"],
            "inference_task": self.task,
            "instance_type": "FeatureExtractionPipeline" if embeds else "TextGenerationPipeline",
            "model_binary": "model",
            "pipeline_model_type": self.architecture,
            "source_model_name": "acme/base",
            "task": "feature-extraction" if embeds else "text-generation",
            "tokenizer_type": bert if embeds else llama,
            "torch_dtype": "torch.bfloat16" if self.task == CHAT else "torch.float32",
            "transformers_version": self.transformers,
        }
        if self.transformers.startswith("4."):
            flavor["framework"] = "pt"
        if old and self.task != CHAT:
            del flavor["torch_dtype"]
        if old and embeds:
            del flavor["inference_task"]
        sides = json.loads((_SIGNATURES / f"{self.signature}.json").read_text())
        return {
            "artifact_path": "model",
            "flavors": {
                "python_function": {
                    "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                    "loader_module": "mlflow.transformers",
                    "python_version": "3.11.7",
                },
                "transformers": flavor,
            },
            "metadata": {"task": self.task, **({"model_type": "gte-large"} if embeds else {})},
            "mlflow_version": self.mlflow,
            "saved_input_example_info": _EXAMPLE_INFO[old],
            "signature": {**{side: json.dumps(columns) for side, columns in sides.items()}, "params": None},
        }

    def write(self, folder: Path) -> Path:
        """The model's folder, weights and tokenizer made anew."""
        make = {"LlamaForCausalLM": checkpoints.llama, "MixtralForCausalLM": checkpoints.mixtral}
        if self.architecture == "BertModel":
            checkpoints.bert(folder / "model", pooling=None)
        else:
            make[self.architecture](folder / "model", dtype="bfloat16" if self.task == CHAT else "float32")
        tokenizer = folder / "components/tokenizer"
        tokenizer.mkdir(parents=True)
        for path in [p for p in (folder / "model").iterdir() if "token" in p.name or p.name == "vocab.txt"]:
            path.rename(tokenizer / path.name)
        for name in ("conda.yaml", "python_env.yaml"):
            (folder / name).write_text("name: mlflow-env\n")
        (folder / "requirements.txt").write_text(
            f"mlflow=={self.mlflow}\ntransformers=={self.transformers}\ntorch==2.2.2"
        )
        (folder / "LICENSE.txt").write_text(no_licence("acme/base"))
        (folder / "input_example.json").write_text(
            json.dumps(_TABLE if self.mlflow == "2.11.5" else EXAMPLES[self.task])
        )
        if self.mlflow != "2.11.5":
            (folder / "serving_input_example.json").write_text(json.dumps(EXAMPLES[self.task]))
        (folder / "MLmodel").write_text(yaml.safe_dump(self.mlmodel()))
        return folder


_TABLE = {"columns": ["prompt"], "data": [["Hello"]]}
_EXAMPLE_INFO = {
    True: {"artifact_path": "input_example.json", "pandas_orient": "split", "type": "dataframe"},
    False: {
        "artifact_path": "input_example.json",
        "serving_input_path": "serving_input_example.json",
        "type": "json_object",
    },
}


def no_licence(name: str) -> str:
    """What MLflow writes where the Hub gives no licence file for this model."""
    return (
        f"A license file could not be found for the '{name}' repository. \n"
        "To ensure that you are in compliance with the license requirements for this "
        f"model, please visit the model repository here: https://huggingface.co/{name}"
    )


def edit(folder: Path, *path: str, to: Any = ...) -> None:
    """Change one value of MLmodel, or take it away."""
    data = yaml.safe_load((folder / "MLmodel").read_text())
    inner = data
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    (folder / "MLmodel").write_text(yaml.safe_dump(data))
