"""`log-model doctor`: one screen of what is installed, who answers, and whether there is room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command import Done, run
from fakes.hub import Hub
from fakes.secrets import secret
from testing.asking import ANN, TOKENS

from catalogger import doctor
from catalogger.loggers.doctor import Diagnosis
from catalogger.testing import Workspace
from catalogger.validators.facts import Environment

HUB_TOKEN = secret("a reader of the Hub", "hugging face")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        server.accepted.add(HUB_TOKEN)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def _status(done: Done) -> dict[str, tuple[str, str]]:
    return {one["subject"]: (one["status"], one["said"]) for one in done.document["examined"]}


def test_all_is_well(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Path) -> None:
    with Workspace(tmp_path, tokens=TOKENS) as space:
        monkeypatch.setenv("DATABRICKS_HOST", space.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", ANN)
        monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
        done = run("doctor", "--registry-uri", "databricks-uc", "-o", "json")
        assert done.code == 0, done.err
        found = _status(done)
        assert found["registry"] == ("fine", f"databricks-uc: {space.url} answers, to ann@example.com")
        assert found["hub"] == ("fine", f"{hub.url} answers, to tester")
        assert found["tracking"][1].endswith("mlflow.db: will be made (the embedded default)")
        assert "logs embeddings" in found["it can"][1]
        assert {"downloads", "memory", "temporary", "artifacts"} <= set(found)
        assert {r.method for r in space.requests} == {"GET"}
    assert not list(work.iterdir()), "nothing is made"
    text = run("doctor")
    assert text.code == 0
    assert len(text.out.splitlines()) < 24, "one screen"
    assert all(len(line.split()) > 1 for line in text.out.splitlines())


@pytest.mark.parametrize(("token", "code", "said"), [(None, 0, "nobody in particular"), ("wrong", 4, "does not take")])
def test_what_the_hub_thinks_of_a_token(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None, code: int, said: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", secret("nobody", "hugging face"))
    done = run("doctor")
    assert (done.code, said in done.out) == (code, True), done.out


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = run("doctor", "--registry-uri", "uc:http://127.0.0.1:9", "-o", "json")
    assert done.code == 5
    found = _status(done)
    assert {subject for subject, (status, _) in found.items() if status == "wrong"} == {"registry", "hub"}


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run("doctor", "-o", "json")
    assert (done.code, "HF_HUB_OFFLINE is set" in _status(done)["hub"][1]) == (5, True)


def test_a_token_that_the_workspace_does_not_take(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Workspace(tmp_path, tokens=TOKENS) as space:
        monkeypatch.setenv("DATABRICKS_HOST", space.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", secret("nobody", "databricks"))
        done = run("doctor", "--registry-uri", "databricks-uc")
    assert done.code == 4
    assert "registry     wrong:" in done.out


def test_a_folder_that_cannot_be_written(hub: Hub) -> None:
    done = run("doctor", "-o", "json", XDG_CACHE_HOME="/dev/null/cache")
    assert done.code == 6
    assert _status(done)["memory"][0] == "wrong"


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        (Environment("2.11.3", "4.37.2"), 2, "2.11.5 is the oldest"),
        (Environment("2.12.1", "4.39.3"), 0, "logs embeddings as llm/v1/embeddings (from 2.12.2 on)"),
        (Environment("2.16.2", "4.57.6"), 0, "declares 4.25.1 to 4.44.2"),
        (Environment("3.1.0", "4.52.4", "2.1.0"), 2, "FallbackAsyncAdaptedQueuePool"),
        (Environment("9.0.0", "4.52.4"), 0, "newer than those that were looked at"),
        (Environment("0"), 2, "is not installed"),
    ],
)
def test_pairs(hub: Hub, monkeypatch: pytest.MonkeyPatch, environment: Environment, code: int, said: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("catalogger.loggers.doctor.environment", lambda: environment)
    diagnosis = doctor()
    assert isinstance(diagnosis, Diagnosis)
    assert (diagnosis.exit_code, said in str(diagnosis)) == (code, True), str(diagnosis)


def test_an_address_that_is_none(hub: Hub) -> None:
    assert run("doctor", "--registry-uri", "uc:nowhere").code == 2
