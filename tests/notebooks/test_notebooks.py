"""Every notebook runs cell by cell, and leaves versions, endpoints that answered, and pages that can be read."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fakes import checkpoints
from fakes.hub import Hub
from notebooks.kernel import Ran, run
from testing.asking import ANN, TOKENS

from catalogger.notebook import as_jupyter, parameters
from catalogger.testing import Build, ModelAnswers, Workspace

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))
QUICK = {"deploy": "yes", "seconds": 0.2, "input_tokens": 70, "output_tokens": 4, "endpoint": "served"}
RECIPE = """
extends: {parent}
parameters:
vocabulary:
context_length:
dtype:
embedding: {{dimension: 32, query_instruction: "Find: "}}
"""
NEW_IMPL = """
from transformers import BertConfig, BertModel


class NewConfig(BertConfig):
    model_type = "new"


class NewModel(BertModel):
    config_class = NewConfig
"""


def _code(source: Path) -> list[str]:
    return [cell["source"] for cell in as_jupyter(source.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(source: Path) -> None:
    cells = as_jupyter(source.read_text())["cells"]
    assert 5 <= len(cells) <= 9
    assert cells[0]["cell_type"] == "markdown"
    assert all(len(cell["source"].splitlines()) <= 20 for cell in cells), "short ones"
    install, restart, *code = _code(source)
    assert re.fullmatch(r'%pip install --quiet "catalogger\[[a-z,]+\]==\d+\.\d+\.\d+"', install)
    assert "restartPython" in restart
    assert "catalogger.parameters(" in code[0]
    assert ("deploy=False" in code[0]) == ("catalogger.deploy(" in source.read_text()), "nothing is served unasked"


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_none_of_the_known_defects(source: Path) -> None:
    text = source.read_text()
    code = "\n".join(cell for cell in _code(source) if not cell.startswith("%"))
    tree = ast.parse(code)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assert stored <= read, "nothing is made and not used"
    assert not re.search(r"[\"'/]1[\"']|version\s*=\s*[\"']?\d", code), "no version's number"
    assert not re.search(r"token(?!s)|config\.", code.replace("tokenizer", "")), "no token, from nowhere"
    assert "wait=False" not in code, "what is deployed is waited for"
    assert not re.search(r"name=\"[^\"]*-[^\"]*\"", code), "a hyphen in a name needs quoting in SQL"
    assert not any(isinstance(n, ast.For | ast.While | ast.FunctionDef | ast.Try) for n in ast.walk(tree)) or (
        source.stem == "from_a_training_run" and "train" in text
    ), "no logic that the package has"
    assert {"os", "catalogger"} & names


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield server


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with (
        ModelAnswers() as answers,
        Workspace(
            tmp_path / "space", tokens=TOKENS, sdk_uploads=True, answers=answers, build=Build(looks=0)
        ) as workspace,
    ):
        workspace.add_schema("main.default")
        for name, value in {**workspace.environment, "DATABRICKS_TOKEN": ANN}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks-uc")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        yield workspace


def _ran(name: str, tmp_path: Path, work: Path, **given: Any) -> Ran:
    done = run(FOLDER / f"{name}.py", {**QUICK, "cache": str(tmp_path / "cache"), **given}, work)
    assert "'restart'" in done.text()
    assert "--quiet" in done.text()
    return done


def _challenges(space: Workspace, name: str) -> None:
    model = space.model(name)
    assert model is not None
    assert model.aliases == {"challenger": 1}


def _served(done: Ran, space: Workspace, name: str) -> None:
    """A version with its alias, an endpoint that serves it, and everything shown."""
    _challenges(space, name)
    endpoint = space.serving.endpoint("served")
    assert endpoint is not None
    assert endpoint.config is not None
    assert [(e.entity_name, e.entity_version) for e in endpoint.config.served] == [(name, "1")]
    check, outcome, deployment, load_test = done.html()
    assert "0 errors" in check
    page = f"{space.url}/explore/data/models/{name.replace('.', '/')}/version/1"
    assert f'<a href="{page}"' in outcome
    assert "registered" in outcome
    assert f'<a href="{space.url}/ml/endpoints/served"' in deployment
    assert "data:image/png;base64," in load_test
    assert "latency p50" in load_test


def _family(work: Path, parent: str) -> str:
    """The recipe without the sizes of the published model."""
    file = work / "tiny.yaml"
    file.write_text(RECIPE.format(parent=parent))
    return str(file)


def test_bge_embeddings(space: Workspace, hub: Hub, tmp_path: Path, work: Path) -> None:
    commit = hub.add("BAAI/bge-large-en-v1.5", checkpoints.bert(tmp_path / "bert"), licence="mit")
    done = _ran("bge_embeddings", tmp_path, work, recipe=_family(work, "bge-large"))
    _served(done, space, "main.default.bge_large")
    assert f"/tree/{commit}" in done.html()[1]
    assert "2 vectors of" in done.text()


def test_gte_embeddings(space: Workspace, hub: Hub, tmp_path: Path, work: Path) -> None:
    folder = checkpoints.bert(tmp_path / "gte")
    config = json.loads((folder / "config.json").read_text())
    named = {"AutoConfig": "modeling.NewConfig", "AutoModel": "modeling.NewModel"}
    borrowed = {key: f"Alibaba-NLP/new-impl--{value}" for key, value in named.items()}
    config |= {"architectures": ["NewModel"], "model_type": "new", "auto_map": borrowed}
    (folder / "config.json").write_text(json.dumps(config))
    hub.add("Alibaba-NLP/new-impl", {"modeling.py": NEW_IMPL.encode()})
    hub.add("Alibaba-NLP/gte-large-en-v1.5", folder)
    done = _ran("gte_embeddings", tmp_path, work, recipe="gte-embeddings")
    _served(done, space, "main.default.gte_large")
    assert "2 vectors of" in done.text()


def test_llama_chat(space: Workspace, tmp_path: Path, work: Path) -> None:
    source = checkpoints.llama(tmp_path / "llama")
    _served(_ran("llama_chat", tmp_path, work, source=source.as_posix()), space, "main.default.support_bot")


def test_deepseek_chat(space: Workspace, hub: Hub, tmp_path: Path, work: Path) -> None:
    hub.add("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", checkpoints.llama(tmp_path / "llama"))
    done = _ran("deepseek_r1_distill_llama_chat", tmp_path, work, recipe="llama-chat")
    _served(done, space, "main.default.deepseek_r1_distill_llama_8b")


def test_mixtral_completions(space: Workspace, hub: Hub, tmp_path: Path, work: Path) -> None:
    hub.add("mistralai/Mixtral-8x7B-v0.1", checkpoints.mixtral(tmp_path / "mixtral"))
    done = _ran("mixtral_completions", tmp_path, work, recipe="mixtral-completions")
    _served(done, space, "main.default.mixtral_8x7b")


def test_from_a_training_run(space: Workspace, tmp_path: Path, work: Path) -> None:
    base = checkpoints.llama(tmp_path / "llama")
    done = _ran("from_a_training_run", tmp_path, work, base=str(base), steps=3)
    outcome, lint = done.html()
    assert "registered" in outcome
    assert "0 errors" in lint
    _challenges(space, "main.default.trained_bot")
    (recorded,) = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["0"])
    assert "loss" in recorded.data.metrics, "the run of the training"
    assert recorded.info.run_id == space.versions("main.default.trained_bot")[0].run_id


@pytest.mark.parametrize(
    ("said", "value"),
    [({}, (7, 0.5, "text", True)), ({"NUMBER": "8", "SHARE": "1", "TEXT": "x", "FLAG": "no"}, (8, 1.0, "x", False))],
)
def test_parameters_outside_of_databricks(
    monkeypatch: pytest.MonkeyPatch, said: Mapping[str, str], value: tuple[object, ...]
) -> None:
    for name, text in said.items():
        monkeypatch.setenv(f"CATALOGGER_VAR_{name}", text)
    asked = parameters(number=7, share=0.5, text="text", flag=True)
    assert (asked.number, asked.share, asked.text, asked.flag) == value


def test_a_number_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGGER_VAR_NUMBER", "many")
    with pytest.raises(ValueError, match="many"):
        parameters(number=7)


def test_what_is_no_notebook() -> None:
    with pytest.raises(ValueError, match="first line"):
        as_jupyter("print()\n")
