"""Ctrl-C at the two long moments, then the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import mlflow
import pytest
from fakes import checkpoints
from fakes.hub import Hub

# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
_AS_IN_A_TERMINAL = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
SIZE = 2.0  # GB: long enough on any disk that the signal comes in the middle


def _command(*arguments: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        _AS_IN_A_TERMINAL + "from catalogger.cli import main; main()",
        "--recipe",
        "llama-completions",
        *arguments,
    ]


def _interrupt_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> str:
    """Send SIGINT as soon as the condition holds; gives what the command said on stderr."""
    with process:
        try:
            deadline = time.monotonic() + 120
            while not reached():
                assert process.poll() is None, f"the command ended first: {process.communicate()[1]}"
                assert time.monotonic() < deadline
            process.send_signal(signal.SIGINT)
            said: str = process.communicate(timeout=60)[1]
        except BaseException:
            process.kill()
            raise
    return said


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(_command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _largest(files: Iterable[Path]) -> int:
    """Bytes of the largest file, of those that are still there when looked at."""
    sizes = [0]
    for file in files:
        with suppress(FileNotFoundError):
            sizes.append(file.stat().st_size)
    return max(sizes)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.big_llama(tmp_path_factory.mktemp("big") / "llama", SIZE, shards=4)


@pytest.mark.parametrize("early", [True, False], ids=["before MLflow is there", "into the logged model"])
def test_interrupted_while_placing(big: Path, work: Path, early: bool) -> None:
    """With unknown digests the copy begins at once; with known ones when the registry has been asked."""
    client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    if not early:
        first = _command("--source", str(big), "--name", "main.ml.first", "--weights", "link")
        subprocess.run(first, check=True, capture_output=True)
    there = set(work.rglob("*.safetensors"))
    process = _start("--source", str(big), "--name", "main.ml.bot")
    said = _interrupt_when(process, lambda: _largest(set(work.rglob("*.safetensors")) - there) > 10_000_000)
    assert process.returncode == 130
    assert "Run the same command again" in said
    assert set(work.rglob("*.safetensors")) == there, "what was begun is taken away"
    assert not list(work.glob(".catalogger-*"))
    assert client.search_model_versions("name='main.ml.bot'") == []
    statuses = {m.status.value for m in client.search_logged_models(["0"])}
    assert statuses == (set() if early else {"READY", "FAILED"})

    again = subprocess.run(_command("--source", str(big), "--name", "main.ml.bot"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    (version,) = client.search_model_versions("name='main.ml.bot'")
    assert version.status == "READY"
    assert not list(work.glob(".catalogger-*"))
    for shard in big.glob("*.safetensors"):
        (placed,) = set(work.rglob(shard.name)) - there
        assert placed.stat().st_size == shard.stat().st_size


def test_interrupted_while_fetching(big: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub() as hub:
        hub.add("org/big", big)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        process = _start("--source", "org/big", "--name", "main.ml.bot")
        said = _interrupt_when(process, lambda: hub.sent > 300_000_000)
        assert process.returncode == 130
        assert "Run the same command again" in said
        client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
        assert client.search_registered_models() == []

        cache = Path(os.environ["HF_HOME"])
        whole = {p for p in cache.rglob("*.safetensors") if p.is_symlink()}
        before = hub.sent
        again = subprocess.run(_command("--source", "org/big", "--name", "main.ml.bot"), capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        assert "linked" in again.stdout
        fetched = sum(p.stat().st_size for p in cache.rglob("*.safetensors")) - sum(p.stat().st_size for p in whole)
        assert hub.sent - before < fetched + 5_000_000, "finished shards are not fetched again"
        (version,) = client.search_model_versions("name='main.ml.bot'")
        assert version.status == "READY"


def test_logged_and_not_registered_is_picked_up(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between logging and registering: the next run registers what is there, and copies nothing."""
    from catalogger import log_model
    from catalogger.loggers.mlflow_registry import MlflowRegistry

    source = checkpoints.llama(tmp_path / "llama")
    with monkeypatch.context() as patched:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(MlflowRegistry, "register", stop)
        with pytest.raises(KeyboardInterrupt):
            log_model("llama-chat", source=source, name="main.ml.bot")
    (placed,) = work.rglob("model.safetensors")
    outcome = log_model("llama-chat", source=source, name="main.ml.bot")
    assert (outcome.action, outcome.version, outcome.weights) == ("registered", "1", "in place")
    assert outcome.location == str(placed.parent.parent)
    assert list(work.rglob("model.safetensors")) == [placed]
