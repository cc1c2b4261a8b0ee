"""A rehearsal as its page tells it: a workspace by command, a checkpoint logged, registered, served and asked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import requests
from fakes import checkpoints

PAGE = Path(__file__).parents[2] / "docs" / "rehearsal.md"
HEAD = [sys.executable, "-m", "catalogger.testing"]
ENDPOINTS = "/api/2.0/serving-endpoints"
MESSAGES = [{"role": "user", "content": "What is a shard?"}]
ENTITY = {"entity_version": "1", "min_provisioned_throughput": 980, "max_provisioned_throughput": 980}


@contextmanager
def _command(*options: str) -> Iterator[subprocess.Popen[str]]:
    """The running command, ended by its own number."""
    with subprocess.Popen([*HEAD, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _variables(lines: IO[str], count: int) -> dict[str, str]:
    exports = [next(lines).removeprefix("export ").strip() for _ in range(count)]
    return dict(line.split("=", 1) for line in exports)


def _serve_and_ask(variables: Mapping[str, str], name: str) -> str:
    """What the endpoint of this model says."""
    host, headers = variables["DATABRICKS_HOST"], {"Authorization": f"Bearer {variables['DATABRICKS_TOKEN']}"}
    config = {"served_entities": [{"entity_name": name, **ENTITY}]}
    created = requests.post(f"{host}{ENDPOINTS}", json={"name": "bot", "config": config}, headers=headers, timeout=60)
    assert created.status_code == 200, created.text
    assert requests.get(f"{host}{ENDPOINTS}/bot", headers=headers, timeout=60).json()["state"]["ready"] == "READY"
    query = {"messages": MESSAGES, "max_tokens": 4}
    answer = requests.post(f"{host}/serving-endpoints/bot/invocations", json=query, headers=headers, timeout=300)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_the_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    root = tmp_path / "root"
    llama = checkpoints.llama(tmp_path / "llama")
    with _command("--root", str(root), "--seconds", "0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        variables = _variables(process.stdout, 3)
        assert list(variables) == ["DATABRICKS_HOST", "DATABRICKS_TOKEN", "MLFLOW_REGISTRY_URI"]
        job = ["--recipe", "llama-chat", "--source", str(llama), "--name", "main.ml.bot"]
        done = subprocess.run(
            [sys.executable, "-c", "from catalogger.cli import main; main()", *job],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert (root / "files" / "Models" / "main" / "ml" / "bot" / "1" / "MLmodel").is_file()
        assert isinstance(_serve_and_ask(variables, "main.ml.bot"), str)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == "Serving until Ctrl-C.\n"


def test_a_folder_with_files_of_an_earlier_rehearsal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    done = subprocess.run([*HEAD, "--root", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert f'The folder "{tmp_path}" is not empty.' in done.stderr


def test_the_command_starts_a_tracking_server_and_ends_it(tmp_path: Path) -> None:
    with _command("--tracking", "--schema", "prod.llm", "--eligible", "prod.llm.any", "--port", "0") as process:
        assert process.stdout is not None
        variables = _variables(process.stdout, 4)
        assert variables["MLFLOW_TRACKING_URI"] == "databricks"
        headers = {"Authorization": f"Bearer {variables['DATABRICKS_TOKEN']}"}
        host = variables["DATABRICKS_HOST"]
        experiments = f"{host}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        assert requests.get(experiments, headers=headers, timeout=60).json()["experiment"]["experiment_id"] == "0"
        schema = requests.get(f"{host}/api/2.1/unity-catalog/schemas/prod.llm", headers=headers, timeout=60)
        assert schema.json()["full_name"] == "prod.llm"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_the_pages_python_runs_as_it_stands(work: Path) -> None:
    checkpoints.llama(work / "my-checkpoint")
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outcome, *_, requests_made = done.stdout.splitlines()
    assert "main.ml.support_bot" in outcome
    assert "POST /serving-endpoints/support-bot/invocations" in requests_made
