"""`log-model deploy` and `--deploy`: from a checkpoint to an endpoint that answers, and the exit codes on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command import START, Done, run
from fakes import checkpoints
from fakes.secrets import secret
from serving.deployments import WRITES
from testing.asking import ANN, BOB, LLAMA, OSS, TOKENS, create, ranged, register

from catalogger.testing import NO_CAPACITY, Build, ModelAnswers, Workspace
from catalogger.testing.optimization import NOT_OPTIMIZABLE, UNIT_UNKNOWN, described, tokens, units

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


def test_what_stops_a_deployment_after_the_registration_is_not_called_nothing_changed(
    space: Workspace, llama: Path
) -> None:
    space.serving.set_optimization(NAME, NOT_OPTIMIZABLE)
    done = _log(llama, "--deploy", "-o", "json")
    assert (done.code, done.document["action"]) == (9, "registered")
    assert (done.document["error"]["code"], done.document["error"]["exit_code"]) == ("not-eligible", 9)
    space.serving.set_optimization(NAME, tokens())
    space.serving.order("bot", Build("failed", looks=0, message="Timed out: no GPU capacity."))
    done = _log(llama, "--deploy")
    assert (done.code, "unchanged    main.ml.bot version 1" in done.out) == (8, True)


def test_deploy_is_refused_at_once_for_other_registries(llama: Path, work: Path) -> None:
    done = run("--recipe", "llama-chat", "--source", str(llama), "--name", NAME, "--deploy")
    assert (done.code, "needs the Unity Catalog of Databricks" in done.err) == (2, True)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--deploy", "--endpoint", "a.b"), 'endpoint name "a.b"'),
        (("--deploy", "--name", "main.ml.databricks-bot"), "reserved"),
        (("--endpoint", "support"), "without --deploy"),
    ],
)
def test_what_cannot_be_deployed_is_refused_before_anything_moves(
    space: Workspace, llama: Path, options: tuple[str, ...], words: str
) -> None:
    done = _log(llama, *options)
    assert (done.code, words in done.err, space.matching(".*")) == (2, True, [])


def test_a_dry_run_tells_the_payload_and_asks_nothing_of_serving(space: Workspace, llama: Path) -> None:
    done = _log(llama, "--deploy", "--dry-run")
    assert (done.code, "known once it is registered" in done.err) == (0, True)
    assert '{"name": "bot", "config": {"served_entities": [{"entity_name": "main.ml.bot"}]}' in done.err
    assert space.matching("serving-endpoints") == []


def test_a_dry_run_of_what_is_registered_creates_no_endpoint(space: Workspace, llama: Path) -> None:
    assert _log(llama).code == 0
    done = _log(llama, "--deploy", "--dry-run", "-o", "json")
    assert (done.code, done.document["action"], done.document["endpoint"]["action"]) == (0, "planned", "checked")
    assert (space.serving.names, space.matching(WRITES)) == ([], [])
    space.serving.set_optimization(NAME, NOT_OPTIMIZABLE)
    assert _log(llama, "--deploy", "--dry-run").code == 2


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((f"{LLAMA}/9",), f'no version 9 of "{LLAMA}"'),
        ((f"{LLAMA}@best",), f'no alias "best" of "{LLAMA}"'),
        (("system.ai.nobody/1",), 'no model "system.ai.nobody"'),
        ((LLAMA,), "names no version"),
        ((f"{LLAMA}/1", "--max-throughput", "1000"), "no multiple of 980.\nGive 980 or 1960."),
        ((f"{LLAMA}/1", "--min-throughput", "1960", "--max-throughput", "980"), "is above"),
        ((f"{LLAMA}/1", "--max-throughput", "0"), "is no capacity"),
        ((f"{LLAMA}/1", "--tokens-per-second", "0"), "is no capacity"),
        ((f"{LLAMA}/1", "--units", "50"), "not by model units"),
        ((f"{OSS}/1", "--units", "70"), "no multiple of 50.\nGive 50 or 100."),
        ((f"{OSS}/1", "--units", "0"), "is no capacity"),
        ((f"{OSS}/1", "--scale-to-zero"), "no scale to zero"),
        ((f"{LLAMA}/1", "--endpoint", "a.b"), "letters, digits, dashes and underscores"),
        ((f"{LLAMA}/1", "--endpoint", "x" * 64), "(64 characters)"),
        ((f"{LLAMA}/1", "--endpoint", "databricks-mine"), "is reserved"),
        ((f"{LLAMA}/1", "--endpoint", "THERE"), 'differs from "THERE" in case only'),
        ((f"{LLAMA}/1", "--endpoint", "there"), "serves main.ml.other, which would end"),
        ((f"{OSS}/1", "--endpoint", "there", "--replace"), "the other unit of capacity"),
        ((f"{LLAMA}/1", "--traffic", "1=90", "--traffic", "2=20"), "sum up to 110, not to 100"),
        ((f"{LLAMA}/1", "--traffic", "1=50", "--traffic", "1=50"), '"1" two shares'),
        ((f"{LLAMA}/1", "--timeout", "soon"), "is no time"),
        (("main.ml.unknown/1",), "by a unit of capacity that is not known"),
    ],
)
def test_bad_input_creates_nothing(space: Workspace, arguments: tuple[str, ...], words: str) -> None:
    for name, answer in (("main.ml.other", tokens()), ("main.ml.unknown", UNIT_UNKNOWN)):
        space.serving.add_base_model(name, answer)
    create(space, ranged("main.ml.other"), name="there")
    before = len(space.matching(WRITES))
    done = run("deploy", *arguments)
    assert (done.code, words in done.err, done.out) == (2, True, ""), done.err
    assert len(space.matching(WRITES)) == before
    assert space.serving.names == ["there"]


@pytest.mark.parametrize(
    ("order", "code", "words"),
    [
        ("failed", 7, "The registration of"),
        ("pending", 7, "is PENDING_REGISTRATION still"),
        ("stranger", 4, "does not have USE SCHEMA on Schema 'main.hers'"),
        ("expired", 4, "does not know the token"),
        ("region", 9, "not supported in the region 'antarctica'"),
        ("tier", 9, "provisioned throughput is not supported"),
    ],
)
def test_what_the_workspace_does_not_allow_creates_nothing(
    space: Workspace, order: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.add_schema("main.hers", owner="ann@example.com", everyone=False)
    space.grant("CATALOG", "main", "ann@example.com", "USE CATALOG")
    register(space, "main.hers.own", described("llm/v1/chat"))
    model = space.model("main.hers.own")
    assert model
    if order in ("failed", "pending"):
        model.versions[1].status = f"{order.upper()}_REGISTRATION"
    space.serving.region = "antarctica" if order == "region" else None
    space.serving.throughput = order != "tier"
    tokens_of = {"stranger": BOB, "expired": secret("expired", "databricks")}
    monkeypatch.setenv("DATABRICKS_TOKEN", tokens_of.get(order, ANN))
    done = run("deploy", "main.hers.own/1", "--timeout", "0")
    assert (done.code, words in done.err) == (code, True), done.err
    assert space.serving.names == []


def test_an_interrupt_leaves_the_endpoint_and_says_how_to_go_on(space: Workspace) -> None:
    space.serving.order("llama", NO_CAPACITY)
    command = [*START, "deploy", f"{LLAMA}/1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as job:
        assert job.stderr
        told = next(line for line in job.stderr if "DEPLOYMENT_CREATING" in line)
        job.send_signal(signal.SIGINT)
        told += job.communicate(timeout=60)[1]
    assert job.returncode == 130
    assert f"goes on by itself: {space.url}/ml/endpoints/llama" in told
    assert "Run the same command again" in told
    assert space.serving.names == ["llama"]


@pytest.mark.parametrize(("time", "seconds"), [("5", 5), ("9s", 9), ("0.1m", 6), ("0.001h", 4)])
def test_times_are_seconds_or_have_a_unit(space: Workspace, time: str, seconds: int) -> None:
    space.serving.order("llama", NO_CAPACITY)
    done = run("deploy", f"{LLAMA}/1", "--timeout", time)
    assert (done.code, f"is not ready after {seconds} s" in done.err) == (8, True)
