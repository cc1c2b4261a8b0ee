"""`normalize` in the main job, on the embedded default: what is logged, what the version says, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from cli.command import run
from fakes import checkpoints

from catalogger import check, convert, log_model
from catalogger.errors import CheckpointError


@pytest.fixture
def written_by_5(tmp_path: Path) -> Path:
    """A checkpoint as Transformers 5 writes it, saved by the one that is here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain, folder = checkpoints.llama(tmp_path / "plain"), tmp_path / "five"
    model = AutoModelForCausalLM.from_pretrained(plain)
    model.config.rope_parameters["rope_theta"] = 500000.0
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(plain).save_pretrained(folder)
    return folder


def _log(source: Path, **more: Any) -> Any:
    return log_model("llama-chat", source=source, name="main.ml.bot", **more)


def _tags(number: str = "1") -> dict[str, str]:
    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    return dict(client.get_model_version("main.ml.bot", number).tags)


def _json(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def test_the_version_holds_what_4_reads(written_by_5: Path) -> None:
    before = {p.name: p.read_bytes() for p in written_by_5.iterdir()}
    plain = _log(written_by_5)
    outcome = _log(written_by_5, normalize=4)

    assert (outcome.action, outcome.version) == ("registered", "2")
    assert outcome.fingerprint != plain.fingerprint, "other bytes are another content"
    assert {p.name: p.read_bytes() for p in written_by_5.iterdir()} == before, "the source is untouched"
    location = Path(outcome.location)
    config, tokenizer = _json(location / "model/config.json"), location / "components/tokenizer"
    assert (config["torch_dtype"], config["rope_theta"], config["rope_scaling"]) == ("bfloat16", 500000.0, None)
    assert not {"dtype", "rope_parameters"} & set(config)
    said = _json(tokenizer / "tokenizer_config.json")
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert said["chat_template"] == (tokenizer / "chat_template.jinja").read_text()
    assert (location / "model/model.safetensors").read_bytes() == before["model.safetensors"]

    assert "catalogger.normalized" not in _tags("1")
    assert _tags("2")["catalogger.normalized"] == "transformers 4"
    assert _json(location / "catalogger.json")["tags"]["catalogger.normalized"] == "transformers 4"
    assert outcome.document()["normalized"]["transformers"] == 4
    assert "tokenizer_config.json: tokenizer_class" in str(outcome)
    assert {f.code for f in plain.report.findings} - {f.code for f in outcome.report.findings} == {
        "CK019", "TK012", "TK015",
    }  # fmt: skip
    assert _log(written_by_5, normalize=4).action == "unchanged"


def test_the_model_answers_the_same(written_by_5: Path) -> None:
    import torch

    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    answers = []
    for generation in (None, 4):
        outcome = _log(written_by_5, normalize=generation)
        mlflow.set_tracking_uri(outcome.tracking_uri)
        torch.manual_seed(0)  # the pipeline samples
        answer = mlflow.pyfunc.load_model(outcome.model_uri).predict(asked)
        answers.append(answer[0]["choices"][0]["message"]["content"])
    assert answers[0] == answers[1]


def test_a_version_for_5_of_files_by_4(llama: Path) -> None:
    outcome = _log(llama, normalize=5)
    location = Path(outcome.location)
    config = _json(location / "model/config.json")
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert (location / "components/tokenizer/chat_template.jinja").is_file()
    assert _tags()["catalogger.normalized"] == "transformers 5"


def test_templates_by_name_are_logged_too(llama: Path) -> None:
    file = llama / "tokenizer_config.json"
    said = _json(file)
    two = [{"name": name, "template": said["chat_template"]} for name in ("default", "tool_use")]
    file.write_text(json.dumps({**said, "chat_template": two}))
    tokenizer = Path(_log(llama, normalize=5).location) / "components/tokenizer"
    assert (tokenizer / "additional_chat_templates/tool_use.jinja").read_text() == said["chat_template"]


def test_the_plan_says_what_would_be_changed(written_by_5: Path) -> None:
    arguments = ("--recipe", "llama-chat", "--source", str(written_by_5), "--name", "main.ml.bot", "--normalize", "4")
    done = run(*arguments, "--dry-run")
    assert done.code == 0
    assert 'config.json: torch_dtype added: "bfloat16"' in done.out
    assert 'config.json: torch_dtype added: "bfloat16"' in done.err, "and the run says it as it goes"
    changes = run(*arguments, "--dry-run", "-o", "json").document["normalized"]["changes"]
    assert {"file": "config.json", "key": "rope_theta", "was": None, "now": "500000.0"} in changes
    assert not Path("mlflow.db").exists()


def test_nothing_to_normalise_is_said_and_no_tag_is_set(written_by_5: Path, tmp_path: Path) -> None:
    convert(written_by_5, tmp_path / "four", normalize=4)
    outcome = _log(tmp_path / "four", normalize=4)
    assert outcome.normalized.changes == ()
    assert "nothing: it is as Transformers 4 reads it" in str(outcome)
    assert "catalogger.normalized" not in _tags()


def test_convert_puts_a_folder_into_words_of_4(written_by_5: Path, tmp_path: Path) -> None:
    done = run("convert", str(written_by_5), "--to", str(tmp_path / "four"), "--normalize", "4")
    assert done.code == 0, done.err
    assert "rope_theta added: 500000.0" in done.err
    config = _json(tmp_path / "four/config.json")
    assert (config["torch_dtype"], config["rope_theta"]) == ("bfloat16", 500000.0)


def test_what_cannot_be_said_ends_with_2(written_by_5: Path) -> None:
    file = written_by_5 / "config.json"
    said = _json(file)
    said["rope_parameters"]["rope_type"] = "proportional"
    file.write_text(json.dumps(said))
    arguments = ("--recipe", "llama-chat", "--source", str(written_by_5), "--normalize", "4")
    done = run(*arguments)
    assert done.code == 2
    assert 'has rope kind "proportional", which Transformers 4 does not have' in done.err
    assert "--normalize" in done.err
    assert not Path("mlflow.db").exists()
    with pytest.raises(CheckpointError, match="proportional"):
        check("llama-chat", source=written_by_5, normalize=4)
    file.write_text("{")
    broken = run(*arguments)
    assert broken.code == 2
    assert 'has a "config.json" that is not JSON' in broken.err
    assert run(*arguments[:-1], "6").code == 2


def test_the_rules_name_the_way_out(written_by_5: Path) -> None:
    found = {f.code: f.fix for f in check("llama-chat", source=written_by_5).report.findings}
    for code in ("CK019", "TK012", "TK015"):
        assert "--normalize 4" in found[code]
    left = {f.code for f in check("llama-chat", source=written_by_5, normalize=4).report.findings}
    assert not {"CK019", "TK012", "TK015"} & left


def test_objects_in_memory(written_by_5: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (c.from_pretrained(written_by_5) for c in (AutoModelForCausalLM, AutoTokenizer))
    outcome = log_model("llama-chat", model=model, tokenizer=tokenizer, name="main.ml.bot", normalize=4)
    assert _json(Path(str(outcome.location)) / "model/config.json")["rope_theta"] == 500000.0
