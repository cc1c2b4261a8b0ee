"""`catalogger-task`: what a Databricks task lacks, brought to `log-model`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command import Done
from databricks.sdk import WorkspaceClient
from fakes import checkpoints
from fakes.hub import Hub
from fakes.secrets import secret
from testing.asking import ANN, BOB, TOKENS

from catalogger.testing import Workspace

TOKEN = secret("the Hub's gated models", "hugging face")
RUNTIME = Path(__file__).parents[1] / "jobs" / "runtime"
CHECK = ("check", "--recipe", "bge-embeddings", "--source", "acme/bge")
_WITNESS = """
from catalogger.cli.task import main
try:
    main()
except SystemExit as ended:
    print("SystemExit", ended.code)
else:
    print("returned")
"""


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with Workspace(tmp_path, tokens=TOKENS) as workspace:
        client = WorkspaceClient(host=workspace.url, token=ANN)
        client.secrets.create_scope("models")
        client.secrets.put_secret("models", "hf_token", string_value=f"{TOKEN}\n")
        client.secrets.put_secret("models", "empty", string_value=" ")
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", ANN)
        yield workspace


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add("acme/bge", checkpoints.bert(tmp_path / "bge", pooling="cls"), gated=True, token=TOKEN)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def _task(*arguments: str, **environment: str) -> Done:
    """The entry point as a task calls it, and how it ended, as the last line of its output."""
    done = subprocess.run(
        [sys.executable, "-c", _WITNESS, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def _ended(done: Done) -> str:
    return done.out.splitlines()[-1]


def test_a_task_that_went_well_returns() -> None:
    done = _task("recipes")
    assert (_ended(done), "bge-small" in done.out) == ("returned", True), done.err
    assert _ended(_task("--hf-token-secret=", "recipes")) == "returned"


def test_a_task_that_failed_ends_with_the_commands_exit_code() -> None:
    done = _task("recipes", "no-such-recipe")
    assert (_ended(done), 'Unknown recipe "no-such-recipe"' in done.err) == ("SystemExit 2", True)
    assert _ended(_task("--experiment", "1")) == "SystemExit 2"
    assert "--experiment" in _task("--experiment", "1").err


def test_the_secret_is_the_token_of_the_hub(space: Workspace, hub: Hub) -> None:
    assert _ended(_task(*CHECK)).startswith("SystemExit"), "the model is gated"
    done = _task("--hf-token-secret=models/hf_token", *CHECK)
    assert _ended(done) == "returned", done.err
    assert any(request.authorised and request.status == 200 for request in hub.requests)
    assert [r.line for r in space.requests if "secrets/get" in r.line] == [
        "GET /api/2.0/secrets/get?scope=models&key=hf_token"
    ]


@pytest.mark.parametrize(
    ("reference", "code", "words"),
    [
        ("hf_token", 2, "Write SCOPE/KEY"),
        ("/hf_token", 2, "Write SCOPE/KEY"),
        ("models/hf/token", 2, "Write SCOPE/KEY"),
        ("models/empty", 2, 'The secret "models/empty" is empty'),
        ("models/other", 4, "Secret does not exist with scope: models and key: other"),
        ("other/hf_token", 4, "Scope other does not exist"),
    ],
)
def test_a_secret_that_is_none(space: Workspace, reference: str, code: int, words: str) -> None:
    done = _task(f"--hf-token-secret={reference}", "recipes")
    assert (_ended(done), words in done.err, "bge-small" in done.out) == (f"SystemExit {code}", True, False), done.err


def test_a_secret_that_the_jobs_identity_may_not_read(space: Workspace) -> None:
    done = _task("--hf-token-secret=models/hf_token", "recipes", DATABRICKS_TOKEN=BOB)
    assert (_ended(done), "needs READ on the scope" in done.err) == ("SystemExit 4", True), done.err


def test_the_experiment_is_the_jobs_own() -> None:
    script = "import os; from catalogger.cli.task import main; main(); print(os.environ['MLFLOW_EXPERIMENT_ID'])"
    command = [sys.executable, "-c", script, "--experiment-id=17", "recipes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "17"


_SIGNED_IN = """
import os
from catalogger.cli.task import main
os.environ["TASK_PROCESS"] = str(os.getpid())
main()
print(os.environ.get("DATABRICKS_HOST"), os.environ.get("DATABRICKS_TOKEN") == os.environ["TASK_TOKEN"])
"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "http://127.0.0.1:9 True"),
        ({"DATABRICKS_HOST": "http://127.0.0.1:10", "DATABRICKS_TOKEN": BOB}, "http://127.0.0.1:10 False"),
        ({"DATABRICKS_RUNTIME_VERSION": ""}, "None False"),
    ],
    ids=["of the runtime", "set already", "no runtime"],
)
def test_what_a_runtime_signs_in_with_is_handed_on(more: dict[str, str], said: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(RUNTIME), os.environ.get("PYTHONPATH", "")]),
        "DATABRICKS_RUNTIME_VERSION": "client.4.9",
        "TASK_HOST": "http://127.0.0.1:9",
        "TASK_TOKEN": ANN,
        **more,
    }
    if not environment["DATABRICKS_RUNTIME_VERSION"]:
        del environment["DATABRICKS_RUNTIME_VERSION"]
    command = [sys.executable, "-c", _SIGNED_IN, "recipes"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == said
