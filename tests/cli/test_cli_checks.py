"""`log-model check`, `lint` and `rules`: what they print, and the exit codes that scripts go by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.command import run
from fakes import checkpoints
from fakes.hub import Hub
from mlflow import MlflowClient
from validators.breaking import rewrite, tensors

from catalogger import log_model
from catalogger.checkpoints.changing.change import Wish
from catalogger.cli.checks import check_command
from catalogger.cli.main import cli
from catalogger.cli.rules import page
from catalogger.validators import rules

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return checkpoints.llama(tmp_path / "llama", shards=2)


@pytest.fixture
def float16(tmp_path: Path) -> Path:
    """A checkpoint with one warning: another dtype than the recipe's."""
    return checkpoints.llama(tmp_path / "float16", dtype="float16")


def _check(source: Path, *more: str) -> Any:
    return run("check", "--recipe", "llama-chat", "--source", str(source), "--ignore", "EN003", *more)


def test_a_healthy_checkpoint(llama: Path, work: Path) -> None:
    done = _check(llama, "--name", "main.ml.bot", "--strict")
    assert done.code == 0, done.out
    assert done.out.splitlines()[-1].startswith("Checked ")
    assert ": 0 errors, 0 warnings, " in done.out
    assert "not checked PT004: no --region was given\n" in done.out
    assert done.err == f"Reading {llama}\n"
    assert list(work.iterdir()) == [], "nothing is changed, no store is made"


def test_an_error_ends_with_code_2_and_all_is_said(llama: Path, work: Path) -> None:
    next(llama.glob("*.safetensors")).write_bytes(b"short")
    done = _check(llama, "--name", "ml.bot")
    assert done.code == 2
    assert "error CK002: " in done.out
    assert 'error UC001: name "ml.bot" has 2 parts' in done.out
    assert "Traceback" not in done.err


def test_a_warning_fails_only_where_it_is_asked_to(float16: Path) -> None:
    assert _check(float16).code == 0
    strict = _check(float16, "--strict", "-o", "json")
    assert strict.code == 2
    assert (strict.document["passed"], [f["code"] for f in strict.document["findings"] if f["severity"] != "note"]) == (
        False, ["CK010"],
    )  # fmt: skip


def test_the_checkpoint_as_it_will_be(float16: Path, work: Path) -> None:
    done = _check(float16, "--strict", "--dtype", "bfloat16", "--max-shard-size", "30kB")
    assert done.code == 0, done.out + done.err
    refused = _check(float16, "--adapter", str(float16), "--dtype", "bfloat16")
    assert (refused.code, refused.out) == (2, "")
    assert "Error: " in refused.err
    wrong = _check(float16, "--max-shard-size", "some")
    assert (wrong.code, '"some" is no size of a shard' in wrong.err) == (2, True)
    assert list(work.iterdir()) == []


def test_what_changes_the_weights_is_said_as_in_the_main_job() -> None:
    options = {p.name: p.to_info_dict() for p in cli.params}
    own = {p.name: p.to_info_dict() for p in check_command.params}
    names = {*Wish.__dataclass_fields__, "allow_pickle", "overrides", "normalize", "written_for"}
    assert {n: own[n] for n in names} == {n: options[n] for n in names}


def test_the_json_document(llama: Path) -> None:
    document = _check(llama, "-o", "json").document
    assert set(document) == {"subject", "passed", "findings", "checked", "not_checked", "ignored", "proof"}
    assert document["proof"] is None
    assert (document["subject"], document["passed"], document["ignored"]) == (str(llama), True, ["EN003"])
    assert {*document["checked"], *document["not_checked"], "EN003"} == set(rules())
    for finding in document["findings"]:
        assert set(finding) == {"code", "severity", "subject", "message", "fix"}


def test_the_document_for_code_scanning(llama: Path) -> None:
    (shard, *_) = sorted(llama.glob("*.safetensors"))
    shard.write_bytes(b"short")
    done = _check(llama, "-o", "sarif", "--name", "ml.bot")
    assert done.code == 2
    document = json.loads(done.out)
    assert document["version"] == "2.1.0"
    (ran,) = document["runs"]
    driver = ran["tool"]["driver"]
    assert driver["name"] == "catalogger"
    listed = [rule["id"] for rule in driver["rules"]]
    assert listed == sorted(set(rules()) - {"EN003"})
    for result in ran["results"]:
        assert listed[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
    places = {result["ruleId"]: result["locations"][0] for result in ran["results"]}
    assert places["CK002"] == {"physicalLocation": {"artifactLocation": {"uri": shard.name}}}
    assert places["UC001"] == {"logicalLocations": [{"name": "name"}]}
    (invocation,) = ran["invocations"]
    unchecked = {n["associatedRule"]["id"] for n in invocation["toolExecutionNotifications"]}
    assert "PT004" in unchecked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check"], "Missing option '--recipe'"),
        (["check", "--recipe", "nonesuch"], 'Unknown recipe "nonesuch"'),
        (["check", "--recipe", "llama-chat"], "names no source"),
        (["check", "--recipe", "llama-chat", "--source", "./nowhere"], "is neither a folder nor ORG/REPO"),
        (["check", "--recipe", "llama-chat", "--source", ".", "--ignore", "CK999"], "has no config.json"),
        (["lint"], "Missing argument 'MODEL'"),
        (["lint", "./nowhere"], "is no folder, runs:/… or models:/…"),
        (["lint", "."], "has no MLmodel, so it is no logged model"),
        (["lint", "models:/main.ml.bot/1"], "is not there: the store"),
        (["rules", "CK999"], 'There is no rule "CK999"'),
    ],
)
def test_what_cannot_be_looked_at(arguments: list[str], says: str, work: Path) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    as_json = run(*arguments, "-o", "json")
    assert (as_json.code, as_json.document["error"]["exit_code"]) == (2, 2)
    assert list(work.iterdir()) == []


def test_a_registry_that_cannot_be_reached_is_a_finding(llama: Path) -> None:
    done = _check(llama, "--tracking-uri", "http://127.0.0.1:9", "-o", "json")
    assert done.code == 2
    assert [f["code"] for f in done.document["findings"] if f["severity"] == "error"] == ["UC003"]
    assert done.document["not_checked"]["UC004"] == "the registry could not be asked"


def test_another_kind_under_the_same_name(tmp_path: Path, llama: Path) -> None:
    log_model("bge-embeddings", source=checkpoints.bert(tmp_path / "bert", pooling="cls"), name="main.ml.bot")
    done = _check(llama, "--name", "main.ml.bot", "-o", "json")
    assert done.code == 0
    assert {f["message"] for f in done.document["findings"] if f["code"] == "UC004"} == {
        "main.ml.bot version 1 has architecture BertModel; this one has LlamaForCausalLM",
        "main.ml.bot version 1 has task llm/v1/embeddings; this one has llm/v1/chat",
    }


def test_a_model_of_191_shards_is_checked_by_its_headers(tmp_path: Path) -> None:
    """810 GB on the Hub: less than 40 MB are moved."""
    folder = checkpoints.sparse_llama_405b(tmp_path / "large")
    with Hub() as hub:
        hub.add("org/large", folder, digests={p.name: f"{n:064x}" for n, p in enumerate(folder.glob("*.safetensors"))})
        done = run(
            "check", "--recipe", "llama-chat", "--source", "org/large", "-o", "json", HF_ENDPOINT=hub.url, timeout=120
        )
        moved = hub.sent
    document = done.document
    assert done.code == 0, [f for f in document["findings"] if f["severity"] == "error"]
    assert {"CK002", "CK003", "CK004", "CK006", "CK022", "CK026"} <= set(document["checked"])
    assert moved < 40_000_000


def test_lint_of_a_folder_of_a_run_of_a_version_and_of_an_alias(llama: Path) -> None:
    outcome = log_model("llama-chat", source=llama, name="main.ml.bot", aliases=["champion"])
    at = ["--tracking-uri", outcome.tracking_uri]
    model = str(outcome.location)
    ways = [model, f"runs:/{outcome.run_id}/bot", "models:/main.ml.bot/1", "models:/main.ml.bot@champion"]
    documents = []
    for way in ways:
        done = run("lint", way, *at, "-o", "json", "--ignore", "EN003", "--strict")
        assert done.code == 0, done.out
        documents.append(done.document)
        assert documents[-1].pop("subject") == way
    assert documents[1:] == documents[:-1]
    assert {"ML001", "CK003", "TK003"} <= set(documents[0]["checked"])

    shard = next((Path(model) / "model").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    broken = run("lint", "models:/main.ml.bot@champion", *at)
    assert broken.code == 2
    assert f"error CK003: {shard.name} is " in broken.out


@pytest.mark.parametrize(
    "model", ["models:/main.ml.bot/9", "models:/main.ml.bot@nobody", "models:/none", "runs:/x/bot"]
)
def test_lint_of_what_is_not_registered(llama: Path, model: str) -> None:
    outcome = log_model("llama-chat", source=llama, name="main.ml.bot")
    done = run("lint", model, "--tracking-uri", outcome.tracking_uri)
    assert done.code in (2, 7)
    assert "Traceback" not in done.err
    assert "Internal error" not in done.err


def test_lint_with_a_recipe_that_is_not_the_model(llama: Path) -> None:
    outcome = log_model("llama-chat", source=llama, name="main.ml.bot")
    done = run("lint", str(outcome.location), "--recipe", "mixtral-chat", "-o", "json")
    assert done.code == 2
    assert [f["code"] for f in done.document["findings"] if f["severity"] == "error"] == ["CK001"]


def test_proved_before_and_after_it_is_logged(llama: Path, work: Path) -> None:
    checked = _check(llama, "--prove", "-o", "json")
    assert checked.code == 0, checked.err
    proof = checked.document["proof"]
    assert proof["prompt"].endswith("</s>[assistant] ")
    assert proof["finish_reason"] in ("stop", "length")
    assert "of memory needed" in checked.err
    assert list(work.iterdir()) == [], "nothing was logged"

    logged = run("--recipe", "llama-chat", "--source", str(llama), "--name", "main.ml.bot", "--prove", "-o", "json")
    assert logged.code == 0, logged.err
    assert (logged.document["action"], logged.document["proof"]["prompt"]) == ("registered", proof["prompt"])
    again = run("--recipe", "llama-chat", "--source", str(llama), "--name", "main.ml.bot", "--prove")
    assert "note         not proved, as nothing new is registered" in again.out

    linted = run("lint", "models:/main.ml.bot/1", "--tracking-uri", logged.document["tracking_uri"], "--prove")
    assert linted.code == 0, linted.err
    assert f"\nprompt       {json.dumps(proof['prompt'])}\n" in linted.out


def test_a_model_that_answers_no_numbers_is_not_registered(llama: Path, work: Path) -> None:
    def spoil(header: dict[str, Any], data: bytearray) -> None:
        start, end = header["model.norm.weight"]["data_offsets"]
        data[start:end] = b"\xff\x7f" * ((end - start) // 2)

    rewrite(next(f for f in llama.glob("*.safetensors") if "model.norm.weight" in tensors(f)), spoil)
    done = run("--recipe", "llama-chat", "--source", str(llama), "--name", "main.ml.bot", "--prove", "-o", "json")
    assert (done.code, done.document["error"]["code"]) == (2, "proof-failed")
    assert "not finite" in done.err
    assert done.document["findings"], "what the rules said before is not lost"
    client = MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    assert client.search_registered_models() == []
    assert client.search_runs([e.experiment_id for e in client.search_experiments()]) == []
    assert not list(work.glob("mlruns/**/*.safetensors"))


def test_every_rule_is_explained() -> None:
    listed = run("rules")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == list(rules())
    one = run("rules", "ck003")
    assert one.out.startswith("CK003 (error): Every weight file is as long as its header says")
    assert "MLflow registers it as READY." in one.out
    assert "\nFix: " in one.out
    document = run("rules", "CK003", "-o", "json").document
    assert [sorted(rule) for rule in document["rules"]] == [
        ["can_be_ignored", "code", "fix", "severity", "title", "why"]
    ]


def test_the_page_of_the_rules_is_what_the_code_says() -> None:
    """Made by `log-model rules -o markdown > docs/rules.md`."""
    assert PAGE.read_text() == page(rules().values())
    assert f"{len(rules())} [rules](docs/rules.md)" in PAGE.parents[1].joinpath("README.md").read_text()


@pytest.mark.parametrize("code", rules())
def test_every_rule_has_a_page(code: str) -> None:
    rule = rules()[code]
    assert rule.title
    assert not rule.title.endswith(".")
    assert rule.why.endswith((".", ")"))
    assert rule.fix.endswith((".", "`"))
