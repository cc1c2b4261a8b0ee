"""The command's contract: exit codes, streams, JSON, and the way from the Hub to a version."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command import START, run
from fakes import checkpoints
from fakes.hub import Hub
from fakes.secrets import secret

from catalogger.cli.main import cli

SUCCESS = {
    "action", "name", "version", "model_uri", "run_id", "fingerprint", "recipe", "task", "source", "findings", "bytes",
    "seconds", "aliases", "endpoint",
}  # fmt: skip
CONTRACT = {
    "--recipe", "--source", "--name", "--alias", "--tag", "--tracking-uri", "--registry-uri", "--weights",
    "--trust-remote-code", "--ignore", "--prove", "--dry-run", "--deploy", "--output", "--debug",
}  # fmt: skip
TOKEN = secret("a user of the Hub", "hugging face")
PASSWORD = secret("a tracking server")
TRACEBACK = "Traceback (most recent call last)"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return checkpoints.llama(tmp_path / "llama", shards=2)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture
def closed() -> str:
    """An address of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def _unharmed(work: Path) -> bool:
    return list(work.iterdir()) == []


# From the Hub to a version.


def test_from_the_hub_to_a_version(tmp_path: Path, work: Path, hub: Hub, closed: str) -> None:
    """Fetched and linked; unchanged; a new version when the branch moves; and from the cache without a network."""
    folder = checkpoints.llama(tmp_path / "first", hidden=128, shards=2)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04." + bytes(100_000))
    commit = hub.add("org/bot", folder, licence="apache-2.0")
    content = ["--recipe", "llama-chat", "--source", "org/bot"]
    job = [*content, "--name", "main.ml.bot", "--alias", "champion", "--tag", "team=search", "-o", "json"]

    first = run(*job, HF_ENDPOINT=hub.url)
    assert first.code == 0, first.err
    outcome = first.document
    assert set(outcome) >= SUCCESS
    assert (outcome["action"], outcome["name"], outcome["version"]) == ("registered", "main.ml.bot", "1")
    assert outcome["source"] == {"kind": "hub", "location": "org/bot", "revision": commit}
    assert (outcome["weights"], outcome["aliases"], outcome["endpoint"]) == ("linked", ["champion"], None)
    weights = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    assert outcome["bytes"] == {"fetched": weights, "read": 0, "written": 0, "sent": 0}
    assert "\r" not in first.err
    assert "Fetching" in first.err
    assert not [r for r in hub.requests if r.path.endswith(".bin")], "the pickled twin is left alone"
    placed = sorted((Path(outcome["location"]) / "model").glob("*.safetensors"))
    assert [p.stat().st_nlink for p in placed] == [2, 2], "one name in the Hub's cache, one in the model"

    before = hub.sent
    second = run(*job, HF_ENDPOINT=hub.url)
    assert second.code == 0, second.err
    again = second.document
    assert (again["action"], again["version"], again["model_uri"]) == ("unchanged", "1", "models:/main.ml.bot/1")
    assert again["fingerprint"] == outcome["fingerprint"]
    assert again["bytes"] == {"fetched": 0, "read": 0, "written": 0, "sent": 0}
    assert hub.sent - before < 20_000

    moved = hub.add("org/bot", checkpoints.llama(tmp_path / "second", hidden=128, shards=2, seed=1))
    third = run(*job, HF_ENDPOINT=hub.url)
    assert third.code == 0, third.err
    newer = third.document
    assert (newer["action"], newer["version"], newer["source"]["revision"]) == ("registered", "2", moved)
    assert moved != commit

    offline = run(*content, "--name", "main.ml.offline", HF_ENDPOINT=closed, HF_HUB_OFFLINE="1")
    assert offline.code == 0, offline.err
    assert offline.out.startswith("registered   main.ml.offline version 1\n")
    assert f"org/bot @ {moved}" in offline.out
    assert "weights linked" in offline.out
    placed = sorted((Path(newer["location"]) / "model").glob("*.safetensors"))
    assert [p.stat().st_nlink for p in placed] == [3, 3], "the cache and both models share the bytes"


def test_a_repository_that_is_not_cached_and_no_network(work: Path, closed: str) -> None:
    done = run(
        "--recipe", "llama-chat", "--source", "org/bot", "-o", "json", HF_ENDPOINT=closed, HF_HUB_OFFLINE="1"
    )  # fmt: skip
    assert (done.code, done.document["error"]["code"]) == (5, "network")
    assert "HF_HUB_OFFLINE is set" in done.err
    assert _unharmed(work)


# Streams.


def test_the_plan_goes_to_stdout_and_the_progress_to_stderr(llama: Path, work: Path) -> None:
    """A dry run of the main job, as text and as JSON, with stdin closed."""
    job = ["--recipe", "llama-chat", "--source", str(llama), "--dry-run"]
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *START, *job]
    text = subprocess.run(shell, capture_output=True, text=True, timeout=60)
    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith("planned      main.default.llama_chat (no --name was given): nothing was changed\n")
    assert "would write" in text.stdout
    assert "\nMLmodel:\nflavors:\n" in text.stdout
    assert f"Reading {llama}\n" in text.stderr
    assert re.search(r"^Checked \d+ rules", text.stderr, re.MULTILINE)
    assert "Reading" not in text.stdout
    assert "Checked" not in text.stdout
    assert "planned" not in text.stderr
    assert "\r" not in text.stderr

    document = run(*job, "-o", "json")
    assert document.code == 0, document.err
    planned = document.document
    assert set(planned) >= SUCCESS | {"plan"}
    assert (planned["action"], planned["version"], planned["aliases"]) == ("planned", None, [])
    assert (planned["name"], planned["recipe"], planned["task"]) == (
        "main.default.llama_chat", "llama-chat", "llm/v1/chat",
    )  # fmt: skip
    assert f"Reading {llama}\n" in document.err
    assert _unharmed(work)


@pytest.mark.parametrize(
    "arguments", [["recipes"], ["--help"], ["--version"], ["-o", "json"], ["recipes", "x", "-ojson"]]
)
def test_a_reader_that_left_gets_no_traceback(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([*START, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert done.returncode != 0
    assert TRACEBACK not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_consent_is_not_asked_for_at_a_prompt(llama: Path, work: Path) -> None:
    """Code of the checkpoint needs consent; an stdin that says nothing is not waited for."""
    config = json.loads((llama / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Bot"}
    (llama / "config.json").write_text(json.dumps(config))
    (llama / "modeling.py").write_text("raise SystemExit(99)\n")
    job = [*START, "--recipe", "llama-chat", "--source", str(llama)]
    with subprocess.Popen(job, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(60) == 2
        out, err = process.communicate()
        assert out == b""
        assert b"--trust-remote-code" in err
    assert _unharmed(work)


# Usage: exit 2, a sentence, one document on request.


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--frobnicate"], "usage", "--frobnicate"),
        (["frobnicate"], "usage", "frobnicate"),
        ([], "usage", "Say what to log by --recipe NAME"),
        (["--recipe"], "usage", "requires an argument"),
        (["--recipe", "llama-chat", "--weights", "move"], "usage", "'auto', 'copy', 'link'"),
        (["--recipe", "llama-cht"], "recipe-not-found", 'Unknown recipe "llama-cht". Did you mean "llama-chat"'),
        (["--recipe", "llama-chat"], "usage", "names no source"),
        (["--recipe", "llama-chat", "--source", "SOURCE", "--name", "a.b"], "name-invalid", '"a.b" has 2 parts'),
        (["--recipe", "llama-chat", "--source", "SOURCE", "--alias", "latest"], "name-invalid", '"latest" is reserved'),
        (["--recipe", "llama-chat", "--source", "SOURCE", "--tag", "team"], "usage", 'tag "team" has no value'),
        (["--recipe", "llama-chat", "--source", "SOURCE", "--tag", "mlflow.user=x"], "usage", '"mlflow.user"'),
        (["--recipe", "llama-chat", "--source", "SOURCE", "--set", "licenze=x"], "recipe-invalid", "licenze"),
        (["--recipe", "llama-chat", "--source", "no such thing"], "source-invalid", '"no such thing"'),
    ],
)
def test_usage(llama: Path, work: Path, arguments: list[str], code: str, message: str) -> None:
    arguments = [str(llama) if a == "SOURCE" else a for a in arguments]
    text, as_json = run(*arguments), run("-o", "json", *arguments)
    assert (text.code, as_json.code, text.out) == (2, 2, "")
    assert text.err.startswith("Error: ") or "\nError: " in text.err
    document = as_json.document
    assert set(document) == {"error", "findings"}
    assert set(document["error"]) == {"code", "message", "fix", "exit_code"}
    assert (document["error"]["code"], document["error"]["exit_code"]) == (code, 2)
    assert message in document["error"]["message"]
    assert document["error"]["message"].splitlines()[0] in text.err
    assert document["error"]["fix"].splitlines()[0] in text.err
    assert document["findings"] == []
    assert TRACEBACK not in text.err + as_json.err
    assert _unharmed(work)


@pytest.mark.parametrize("form", [["-o", "json"], ["-ojson"], ["--output", "json"], ["--output=json"]])
def test_every_spelling_of_json_holds_for_usage_errors(form: list[str]) -> None:
    done = run("--frobnicate", *form)
    assert (done.code, done.document["error"]["exit_code"]) == (2, 2)


def test_a_failed_check(llama: Path, tmp_path: Path, work: Path) -> None:
    bert = checkpoints.bert(tmp_path / "bert")
    done = run("--recipe", "llama-chat", "--source", str(bert), "-o", "json")
    assert done.code == 2
    assert set(done.document) == {"error", "findings"}
    assert done.document["error"]["code"] == "check-failed"
    findings = done.document["findings"]
    assert all(set(f) == {"code", "severity", "subject", "message", "fix"} for f in findings)
    assert "CK001" in {f["code"] for f in findings if f["severity"] == "error"}
    assert "CK001" in done.err
    assert _unharmed(work)


def test_traceback_only_with_debug(work: Path) -> None:
    job = ("--recipe", "llama-cht", "-o", "json")
    plain, debug = run(*job), run(*job, "--debug")
    assert (plain.code, debug.code) == (2, 2)
    assert TRACEBACK not in plain.out + plain.err
    assert TRACEBACK in debug.err
    assert debug.document == plain.document


# The other side.


def test_gated(llama: Path, work: Path, hub: Hub) -> None:
    hub.add("org/gated", llama, gated=True)
    job = ("--recipe", "llama-chat", "--source", "org/gated", "--dry-run", "-o", "json")
    stranger = run(*job, HF_ENDPOINT=hub.url)
    assert (stranger.code, stranger.document["error"]["code"]) == (4, "access-denied")
    assert stranger.document["error"]["exit_code"] == 4
    assert "No token was sent" in stranger.err
    assert f"Accept the licence at {hub.url}/org/gated" in stranger.err
    assert "HF_TOKEN" in stranger.err

    refused = run(*job, "--debug", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    assert refused.code == 4
    assert "The token that was sent has no access" in refused.err
    assert TRACEBACK in refused.err

    hub.accepted.add(TOKEN)
    allowed = run(*job, "--debug", HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    assert allowed.code == 0, allowed.err
    assert allowed.document["action"] == "planned"
    assert any(r.authorised and r.status < 300 for r in hub.requests)
    for done in (refused, allowed):
        assert TOKEN not in done.out + done.err
        assert TOKEN.removeprefix("hf_") not in done.out + done.err
    assert _unharmed(work)


def test_a_repository_that_does_not_exist(work: Path, hub: Hub) -> None:
    done = run("--recipe", "llama-chat", "--source", "org/nothing", "-o", "json", HF_ENDPOINT=hub.url)
    assert (done.code, done.document["error"]["code"]) == (2, "repository-not-found")
    assert '"org/nothing"' in done.err
    assert _unharmed(work)


def test_no_network(work: Path, closed: str) -> None:
    done = run("--recipe", "llama-chat", "--source", "org/bot", "-o", "json", HF_ENDPOINT=closed)
    assert (done.code, done.document["error"]["code"], done.document["error"]["exit_code"]) == (5, "network", 5)
    assert "HF_ENDPOINT" in done.err
    assert _unharmed(work)


def test_an_mlflow_server_that_is_not_there(llama: Path, work: Path, closed: str) -> None:
    uri = closed.replace("http://", f"http://user:{PASSWORD}@")
    done = run(
        "--recipe", "llama-chat", "--source", str(llama), "--tracking-uri", uri, "-o", "json",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )  # fmt: skip
    assert (done.code, done.document["error"]["code"]) == (5, "network")
    assert closed.removeprefix("http://") in done.err
    assert PASSWORD not in done.out + done.err
    assert TRACEBACK not in done.err
    assert _unharmed(work)


def test_an_artifact_folder_that_cannot_be_made(llama: Path, work: Path) -> None:
    """A file is where the folder of the embedded default has to be: no one may write there, not even root."""
    (work / "mlruns").write_text("in the way")
    done = run("--recipe", "llama-chat", "--source", str(llama), "-o", "json")
    assert (done.code, done.document["error"]["code"], done.document["error"]["exit_code"]) == (6, "disk", 6)
    assert "mlruns" in done.err
    assert TRACEBACK not in done.err
    with sqlite3.connect(work / "mlflow.db") as database:
        tables = {name for (name,) in database.execute("select name from sqlite_master")}
        assert "runs" not in tables or database.execute("select count(*) from runs").fetchone() == (0,)
        assert "model_versions" not in tables, "it was not even begun"
    database.close()


def test_a_working_folder_that_is_not_writable(llama: Path) -> None:
    """Said at once, not after MLflow's own minutes of trying again.  Nobody may write to /proc, not even root."""
    done = run("--recipe", "llama-chat", "--source", str(llama), "-o", "json", cwd=Path("/proc"), timeout=15)
    assert (done.code, done.document["error"]["code"]) == (6, "disk")
    assert "/proc/mlflow.db" in done.err


# Help.


def test_help_documents_every_option() -> None:
    done = run("--help", COLUMNS="100")
    assert (done.code, done.err) == (0, "")
    listed = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", done.out, re.MULTILINE))
    assert listed >= CONTRACT
    for option in cli.params:
        assert set(option.opts) & listed, option.name
        assert getattr(option, "help", None), f"{option.opts} says nothing"
    assert {o for p in cli.params for o in p.opts if o.startswith("--")} | {"--help"} == listed
    for code in (
        "0 done",
        "2 usage",
        "4 permission",
        "5 network",
        "6 disk",
        "7 registry",
        "8 endpoint",
        "9 endpoint",
        "130 interrupted",
    ):
        assert code in done.out
    assert run("--help", COLUMNS="100", PYTHONHASHSEED="7").out == done.out
    assert run("-h", COLUMNS="100").out == done.out


def test_version() -> None:
    from importlib.metadata import version

    done = run("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.strip().endswith(version("catalogger"))
