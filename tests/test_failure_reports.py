"""Failure reports that people filed: for each row of docs/failure-reports.md a test that names it.

Rows that are one broken file or field are in the corpus, whose defects carry the row's number.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.command import run
from fakes import checkpoints
from validators.corpus import DEFECTS
from validators.models import no_licence

from catalogger import check, lint, log_model
from catalogger.checkpoints import File, open_source
from catalogger.errors import CheckFailed, CheckpointError, NotEnoughRoom, SourceInvalid
from catalogger.loggers.mlmodel import flavor, requirements, wanted_version
from catalogger.recipes import load_recipe
from catalogger.validators import Environment, Existing, Facts, Report, Target, environment, run_rules

PAGE = Path(__file__).parents[1] / "docs" / "failure-reports.md"


def _codes(report: Report, severity: str = "error") -> list[str]:
    """The codes but that of the Transformers that happens to be installed here."""
    return [f.code for f in report.findings if f.severity == severity and f.code != "EN003"]


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return checkpoints.llama(tmp_path / "llama", shards=2)


@pytest.fixture
def model(llama: Path, work: Path) -> Path:
    """A logged model, to be broken."""
    location = log_model("llama-chat", source=llama, name="main.ml.bot").location
    assert location
    return Path(shutil.copytree(location, work / "model"))


def _mlmodel(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = yaml.safe_load((model / "MLmodel").read_text())
    change(data)
    (model / "MLmodel").write_text(yaml.safe_dump(data))


def test_row_3_no_signature(model: Path) -> None:
    _mlmodel(model, lambda data: data.pop("signature"))
    assert _codes(lint(model).report) == ["ML006"]


def test_row_4_bge_with_mlflow_2_12_1(tmp_path: Path) -> None:
    bert = open_source(str(checkpoints.bert(tmp_path / "bert", pooling="cls")))

    def said(mlflow: str) -> list[str]:
        report = run_rules(Facts(Environment(mlflow), bert, load_recipe("bge-embeddings").recipe))
        return [f"{f.code} {f.message}" for f in report.findings if f.severity == "error"]

    assert said("2.12.1") == ["EN001 is 2.12.1, which refuses every way to log llm/v1/embeddings"]
    assert said("2.11.5") == said("2.12.2") == said("2.16.2") == said("3.17.2") == []


def test_row_5_gte_with_mlflow_2_12_1() -> None:
    report = run_rules(Facts(Environment("2.12.1"), recipe=load_recipe("gte-large").recipe), only=("EN001",))
    assert _codes(report) == ["EN001"]


def test_row_6_a_model_by_reference(model: Path) -> None:
    def refer(data: dict[str, Any]) -> None:
        fields = data["flavors"]["transformers"]
        del fields["model_binary"]
        fields |= {"source_model_name": "org/base", "source_model_revision": "a" * 40}

    _mlmodel(model, refer)
    shutil.rmtree(model / "model")
    assert "ML015" in _codes(lint(model).report, "warning")


def test_row_8_a_pair_that_is_known_to_fail() -> None:
    report = run_rules(Facts(Environment("3.17.2", "5.23.0")), only=("EN",))
    said = {f.code: f.message for f in report.findings}
    assert set(said) == {"EN002", "EN003"}
    for message in said.values():
        assert "5.23.0" in message
        assert "3.17.2" in message


def test_row_9_requirements_without_torchvision(model: Path, llama: Path) -> None:
    lines = (model / "requirements.txt").read_text().splitlines()
    assert not [line for line in lines if line.startswith(("torchvision", "tensorflow"))]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines)
    assert "torchvision" not in sys.modules


def test_row_11_too_little_room(tmp_path: Path, work: Path) -> None:
    giant = checkpoints.sparse_llama_405b(tmp_path / "giant")
    with pytest.raises(NotEnoughRoom) as refused:
        log_model("llama-chat", source=giant, name="main.ml.giant")
    assert refused.value.needed > 800e9 > refused.value.free
    assert not list(work.glob("mlruns/**/*.safetensors"))


def test_row_12_a_file_above_5_gb(llama: Path) -> None:
    opened = open_source(str(llama))
    large = [replace(s, file=File(s.file.path, 6 * 10**9), expected=6 * 10**9) for s in opened.shards]
    report = run_rules(Facts(Environment("3.17.2"), replace(opened, shards=tuple(large))), only=("CK014",))
    assert len(report.findings) == 2


def test_row_15_an_mlflow_without_the_files_api() -> None:
    target = Target("main.ml.bot", "databricks-uc")
    found = {v: _codes(run_rules(Facts(Environment(v), target=target), only=("EN004",)), "warning") for v in (
        "2.11.5", "2.12.2", "2.13.3", "2.16.2", "2.17.2", "2.18.0", "3.17.2",
    )}  # fmt: skip
    assert [v for v, codes in found.items() if codes] == ["2.12.2", "2.16.2"]


@pytest.mark.parametrize("name", ["a.b", "a.b.c.d", "a.b c.d", "a/b.c.d", "a..c", f"a.b.{'c' * 256}"])
def test_row_17_a_bad_name(name: str, llama: Path, work: Path) -> None:
    job = run("--recipe", "llama-chat", "--source", str(llama), "--name", name)
    assert job.code == 2
    assert "Reading" not in job.err, "known before anything is read"
    assert _codes(check("llama-chat", source=llama, name=name).report) == ["UC001"]
    assert list(work.iterdir()) == []


def test_row_22_code_without_consent_in_a_job(llama: Path) -> None:
    """Standard input is closed: whoever asks there ends the job."""
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "m.M"}}))
    (llama / "m.py").write_text("raise SystemExit('was run')")
    done = run("--recipe", "llama-chat", "--source", str(llama), "--name", "main.ml.bot")
    assert done.code == 2
    assert "CK009" in done.err
    assert "was run" not in done.err


def test_row_23_a_template_that_drifted(llama: Path) -> None:
    log_model("llama-chat", source=llama, name="main.ml.bot")
    settings = json.loads((llama / "tokenizer_config.json").read_text())
    changed = settings["chat_template"].replace("[assistant]", "[assistant] <think>")
    (llama / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": changed}))
    report = check("llama-chat", source=llama, name="main.ml.bot").report
    (drift,) = [f for f in report.findings if f.code == "TK007"]
    assert (drift.severity, "version 1" in drift.message) == ("warning", True)
    outcome = log_model("llama-chat", source=llama, name="main.ml.bot")
    assert "TK007" in [f.code for f in outcome.report.findings]


def test_row_24_the_licence_of_a_folder(model: Path, llama: Path) -> None:
    assert (model / "LICENSE").read_text() == (llama / "LICENSE").read_text()
    (model / "LICENSE").unlink()
    (model / "LICENSE.txt").write_text(no_licence(str(llama)))
    assert "ML016" in _codes(lint(model).report, "warning")


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address of this machine at which nobody listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{kept.getsockname()[1]}"


def test_row_26_a_registry_that_is_not_there(llama: Path, nobody: str) -> None:
    report = check("llama-chat", source=llama, name="main.ml.bot", registry_uri=nobody).report
    assert _codes(report) == ["UC003"]
    assert nobody in next(f.message for f in report.findings if f.code == "UC003")


def test_row_33_a_template_in_a_file_of_its_own(llama: Path) -> None:
    settings = json.loads((llama / "tokenizer_config.json").read_text())
    (llama / "chat_template.jinja").write_text(settings.pop("chat_template"))
    (llama / "tokenizer_config.json").write_text(json.dumps(settings))
    report = check("llama-chat", source=llama).report
    assert _codes(report) == []
    assert "TK015" in _codes(report, "note")
    version = log_model("llama-chat", source=llama, name="main.ml.bot")
    assert version.location
    assert (Path(version.location) / "components/tokenizer/chat_template.jinja").exists()


def test_row_34_gte_asks_for_a_transformers_that_its_code_knows(tmp_path: Path) -> None:
    named = load_recipe("gte-large")
    assert named.recipe.transformers == "<5"
    bert = checkpoints.bert(tmp_path / "bert", pooling="cls")
    opened = open_source(str(bert))
    lines = requirements(named.recipe, opened, environment())
    assert [line for line in lines if line.startswith("transformers==4.")]
    fields = flavor(named, opened, "3.17.2", wanted_version("transformers", environment(), named.recipe.transformers))
    assert f"transformers=={fields['transformers_version']}" in lines


def test_row_42_examples_in_the_form_of_the_endpoint(model: Path) -> None:
    stored = json.loads((model / "input_example.json").read_text())
    assert set(stored) == {"messages", "max_tokens"}
    for name in ("input_example.json", "serving_input_example.json"):
        (model / name).write_text(json.dumps({"inputs": {"messages": [1, 2]}}))
    assert set(_codes(lint(model).report, "warning") + _codes(lint(model).report)) == {"ML013"}


@pytest.mark.parametrize("mlflow", ["2.11.0", "2.11.4"])
def test_row_43_an_mlflow_that_cannot_log_a_folder(mlflow: str) -> None:
    report = run_rules(Facts(Environment(mlflow), recipe=load_recipe("llama-chat").recipe), only=("EN001",))
    assert _codes(report) == ["EN001"]


def test_row_47_nothing_is_left_of_a_model_that_is_not_right(
    llama: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature is taken away where catalogger writes it; the rule sees it before anything is registered."""
    import mlflow

    from catalogger.loggers import mlmodel

    filled = mlmodel.fill

    def without(written: Any, *arguments: Any) -> None:
        filled(written, *arguments)
        written.signature = None

    monkeypatch.setattr(mlmodel, "fill", without)
    with pytest.raises(CheckFailed) as failed:
        log_model("llama-chat", source=llama, name="main.ml.bot")
    assert {f["code"] for f in failed.value.findings if f["severity"] == "error"} == {"ML006"}
    client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    assert client.search_registered_models() == []
    assert not list(work.glob("mlruns/**/*.safetensors"))


def test_row_48_a_source_that_does_not_exist(work: Path) -> None:
    with pytest.raises(SourceInvalid):
        log_model("llama-chat", source="./nowhere", name="main.ml.bot")
    (work / "empty").mkdir()
    with pytest.raises(CheckpointError):
        log_model("llama-chat", source="./empty", name="main.ml.bot")
    assert [p.name for p in work.iterdir()] == ["empty"]


def test_row_49_a_version_without_its_weights(llama: Path) -> None:
    outcome = log_model("llama-chat", source=llama, name="main.ml.bot")
    for shard in Path(str(outcome.location)).glob("model/*.safetensors"):
        shard.unlink()
    report = lint("models:/main.ml.bot/1", tracking_uri=outcome.tracking_uri).report
    assert _codes(report) == ["CK007"]


def test_the_same_template_is_no_drift(llama: Path) -> None:
    """Near row 23."""
    opened = open_source(str(llama))
    same = Existing("1", chat_template=opened.chat_template_sha256)
    facts = Facts(
        Environment("3.17.2"), opened, load_recipe("llama-chat").recipe, target=Target("a.b.c", "", existing=same)
    )
    assert run_rules(facts, only=("TK007",)).findings == ()


def test_every_row_of_the_page_has_a_test_that_names_it() -> None:
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)}
    tests = "".join(file.read_text() for file in Path(__file__).parent.rglob("test_*.py"))
    named = {int(number) for number in re.findall(r"^def test_row_(\d+)_", tests, re.MULTILINE)}
    in_corpus = {d.row for d in DEFECTS if d.row is not None}
    assert named | in_corpus == rows
    assert len(rows) >= 30
