"""`log-model deploy` and `--deploy`: from a checkpoint to an endpoint that answers, and the exit codes on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command import Done, run
from fakes import checkpoints
from testing.asking import ANN, LLAMA, OSS, TOKENS

from catalogger.testing import NO_CAPACITY, Build, ModelAnswers, Workspace
from catalogger.testing.optimization import NOT_OPTIMIZABLE, tokens, units

NAME = "main.ml.bot"


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    with ModelAnswers() as answers, Workspace(tmp_path / "root", tokens=TOKENS, answers=answers) as workspace:
        workspace.add_schema("main.ml")
        workspace.serving.add_base_model(LLAMA, tokens())
        workspace.serving.add_base_model(OSS, units())
        yield workspace


@pytest.fixture(autouse=True)
def _at_it(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", space.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", ANN)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("source") / "llama")


def _log(llama: Path, *more: str) -> Done:
    asked = ("--recipe", "llama-chat", "--source", str(llama), "--name", NAME, "--registry-uri", "databricks-uc")
    return run(*asked, *more, timeout=120)


def test_from_a_checkpoint_to_an_endpoint_that_answers_in_one_command(space: Workspace, llama: Path) -> None:
    space.serving.build = Build(looks=0)
    done = _log(llama, "--deploy", "--endpoint", "support", "-o", "json")
    assert done.code == 0, done.err
    assert done.document["action"] == "registered"
    endpoint = done.document["endpoint"]
    assert (endpoint["action"], endpoint["endpoint"], endpoint["version"]) == ("created", "support", "1")
    assert endpoint["smoke"]["finish_reason"] in ("stop", "length")
    assert space.serving.endpoint("support").tags["catalogger_fingerprint"] == done.document["fingerprint"]  # type: ignore[union-attr]
    again = _log(llama, "--deploy", "--endpoint", "support")
    assert again.code == 0, again.err
    assert "unchanged    main.ml.bot version 1" in again.out
    assert "unchanged    endpoint support: ready" in again.out


def test_a_registered_model_stays_where_its_endpoint_fails(space: Workspace, llama: Path) -> None:
    space.serving.order("bot", Build("failed", looks=0, message="Not healthy."))
    done = _log(llama, "--deploy", "-o", "json")
    assert (done.code, done.document["action"], done.document["endpoint"]) == (9, "registered", None)
    assert "Not healthy" in done.document["error"]["message"]
    assert space.model(NAME)


def test_deploy_is_refused_at_once_for_other_registries(llama: Path, work: Path) -> None:
    done = run("--recipe", "llama-chat", "--source", str(llama), "--name", NAME, "--deploy")
    assert (done.code, "needs the Unity Catalog of Databricks" in done.err) == (2, True)
    assert list(work.iterdir()) == []


def test_a_wrong_endpoint_name_is_refused_before_anything_moves(space: Workspace, llama: Path) -> None:
    done = _log(llama, "--deploy", "--endpoint", "a.b")
    assert (done.code, space.model(NAME)) == (2, None)


def test_a_dry_run_asks_nothing_of_serving(space: Workspace, llama: Path) -> None:
    done = _log(llama, "--deploy", "--dry-run")
    assert (done.code, "known once it is registered" in done.err) == (0, True)
    assert space.matching("serving-endpoints") == []


def test_deploy_shows_the_answer_the_price_and_every_state(space: Workspace) -> None:
    space.serving.build = Build(looks=0)
    done = run("deploy", f"{LLAMA}/1", "--check-only")
    assert (done.code, done.out.splitlines()[0]) == (0, "checked      endpoint llama: nothing was created")
    assert '"throughput_chunk_size": 980' in done.err
    assert "Billed by the hour: 980 tokens/s" in done.err
    assert space.serving.names == []
    done = run("deploy", f"{OSS}/1", "--no-wait", "-o", "json")
    assert (done.document["unit"], done.document["maximum"], done.document["state"]) == (
        "model_units",
        50,
        "not waited for",
    )


def test_pending_is_exit_code_8(space: Workspace) -> None:
    space.serving.order("llama", NO_CAPACITY)
    done = run("deploy", f"{LLAMA}/1", "--timeout", "0", "-o", "json")
    assert (done.code, done.document["error"]["code"]) == (8, "deployment-pending")
    assert f"{space.url}/ml/endpoints/llama" in done.err


def test_not_eligible_is_exit_code_2(space: Workspace) -> None:
    space.serving.servable.answers[LLAMA] = NOT_OPTIMIZABLE
    done = run("deploy", f"{LLAMA}/1")
    assert (done.code, "does not serve" in done.err, space.serving.names) == (2, True, [])


def test_many_chunks_need_a_yes_without_a_terminal(space: Workspace) -> None:
    space.serving.build = Build(looks=0)
    asked = ("deploy", f"{LLAMA}/1", "--max-throughput", str(5 * 980), "--no-wait")
    done = run(*asked)
    assert (done.code, "--yes" in done.err, space.serving.names) == (2, True, [])
    assert run(*asked, "--yes").code == 0
    assert space.serving.names == ["llama"]


def test_the_options_of_a_gateway_come_from_a_file(space: Workspace, work: Path) -> None:
    space.serving.build = Build(looks=0)
    Path("gateway.yaml").write_text("usage_tracking_config: {enabled: true}\n")
    assert run("deploy", f"{LLAMA}/1", "--ai-gateway", "gateway.yaml", "--no-wait").code == 0
    endpoint = space.serving.endpoint("llama")
    assert endpoint
    assert endpoint.gateway == {"usage_tracking_config": {"enabled": True}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("usage: {}", "no AI gateway has: usage"),
        ("- a", "no mapping"),
        ("{", "neither YAML nor JSON"),
        (None, "cannot be read"),
    ],
)
def test_a_gateway_file_that_is_none(space: Workspace, work: Path, content: str | None, words: str) -> None:
    if content is not None:
        Path("gateway.yaml").write_text(content)
    done = run("deploy", f"{LLAMA}/1", "--ai-gateway", "gateway.yaml")
    assert (done.code, words in done.err, space.serving.names) == (2, True, [])


@pytest.mark.parametrize("share", ["4", "4=x", "=5", "4=-1"])
def test_a_share_that_is_none(space: Workspace, share: str) -> None:
    done = run("deploy", f"{LLAMA}/1", "--traffic", share)
    assert (done.code, "is no share" in done.err) == (2, True)


def test_the_outcome_is_one_document(space: Workspace) -> None:
    done = run("deploy", f"{LLAMA}/1", "--check-only", "-o", "json")
    assert json.loads(done.out)["optimization"]["optimizable"] is True
