"""An alias moves to what was looked at, and back: in the embedded default, in a workspace, and when interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fakes import checkpoints
from fakes.unity import Unity
from serving.deployments import Answers
from testing.asking import ANN, TOKENS

from catalogger import Promotion, log_model, promote
from catalogger.errors import CheckFailed, DeploymentFailed, DeploymentPending, UsageError
from catalogger.loggers.keeper_mlflow import MlflowKeeper
from catalogger.testing import Build, Workspace

NAME = "main.ml.bot"


@pytest.fixture
def versions(tmp_path: Path) -> mlflow.MlflowClient:
    """Three versions in the embedded default; 2 is the champion, and 3 the challenger."""
    for seed, aliases in enumerate(([], ["champion"], ["challenger"])):
        log_model("llama-chat", source=checkpoints.llama(tmp_path / str(seed), seed=seed), name=NAME, aliases=aliases)
    return mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")


def _champion(client: mlflow.MlflowClient) -> str | None:
    number = client.get_registered_model(NAME).aliases.get("champion")
    return None if number is None else str(number)


def _facts(done: Promotion) -> tuple[str, str | None, str | None]:
    return done.action, done.before, done.version


def test_there_and_back(versions: mlflow.MlflowClient) -> None:
    planned = promote(NAME, dry_run=True)
    assert (_facts(planned), _champion(versions)) == (("planned", "2", "3"), "2")
    done = promote(NAME)
    assert (_facts(done), _champion(versions)) == (("promoted", "2", "3"), "3")
    assert done.checked
    assert not done.checked.failed()
    assert f'{NAME}: the alias "champion" moved from version 2 to version 3' in str(done)
    assert _facts(promote(NAME)) == ("unchanged", "3", "3")

    assert _facts(promote(NAME, undo=True, dry_run=True)) == ("planned", "3", "2")
    assert (_facts(promote(NAME, undo=True)), _champion(versions)) == (("undone", "3", "2"), "2")
    again = promote(NAME, undo=True)
    assert (_facts(again), _champion(versions)) == (("unchanged", "2", "2"), "2"), "not one step further back"
    assert "version 3 is undone" in str(again)
    assert _facts(promote(NAME)) == ("promoted", "2", "3")


def test_a_first_champion_is_taken_away_again(versions: mlflow.MlflowClient) -> None:
    done = promote(NAME, target="best-ever")
    assert _facts(done) == ("promoted", None, "3")
    assert _facts(promote(NAME, target="best-ever", undo=True)) == ("undone", "3", None)
    assert "best-ever" not in versions.get_registered_model(NAME).aliases
    assert _facts(promote(NAME, target="best-ever", undo=True)) == ("unchanged", None, None)


def test_interrupted_before_the_alias_moved(versions: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier promotion is in the past then: to undo is not to undo that one."""
    versions.set_registered_model_alias(NAME, "first", "2")
    versions.set_registered_model_alias(NAME, "champion", "1")
    promote(NAME, source="first")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowKeeper, "set_alias", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            promote(NAME)
    assert _champion(versions) == "2"
    assert (_facts(promote(NAME, undo=True)), _champion(versions)) == (("unchanged", "2", "2"), "2")
    assert _facts(promote(NAME)) == ("promoted", "2", "3"), "the same command completes it"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowKeeper, "set_alias", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            promote(NAME, undo=True)
    assert (_facts(promote(NAME, undo=True)), _champion(versions)) == (("undone", "3", "2"), "2")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_two_versions_that_take_turns(versions: mlflow.MlflowClient) -> None:
    promote(NAME)
    versions.set_registered_model_alias(NAME, "challenger", "2")
    assert _facts(promote(NAME)) == ("promoted", "3", "2")
    assert _facts(promote(NAME, undo=True)) == ("undone", "2", "3")


def test_what_others_moved_is_left_alone(versions: mlflow.MlflowClient) -> None:
    with pytest.raises(UsageError, match="No promotion"):
        promote(NAME, undo=True)
    promote(NAME)
    versions.set_registered_model_alias(NAME, "champion", "1")
    with pytest.raises(UsageError, match="something else has moved it since version 3"):
        promote(NAME, undo=True)
    versions.set_registered_model_alias(NAME, "champion", "3")
    versions.delete_model_version(NAME, "2")
    with pytest.raises(UsageError, match="is gone"):
        promote(NAME, undo=True)
    assert _champion(versions) == "3"


def test_lint_stands_before_it(versions: mlflow.MlflowClient) -> None:
    location = versions.get_model_version_download_uri(NAME, "3")
    next((Path(location.removeprefix("file://")) / "model").glob("*.safetensors")).write_bytes(b"no weights")
    with pytest.raises(CheckFailed):
        promote(NAME)
    assert _champion(versions) == "2"
    assert not versions.get_registered_model(NAME).tags


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"source": "newest"}, 'no alias "newest" of "main.ml.bot"'),
        ({"endpoint": "ep"}, "Only a Databricks workspace has endpoints"),
        ({"undo": True, "endpoint": "ep"}, "asks no endpoint"),
        ({"name": "main.ml.nobody"}, "no model"),
        ({"target": "v1"}, "v1"),
    ],
)
def test_what_cannot_be_promoted(versions: mlflow.MlflowClient, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        promote(asked.pop("name", NAME), **asked)
    assert _champion(versions) == "2"


def test_a_registry_without_aliases_is_refused(tmp_path: Path) -> None:
    with Unity((tmp_path / "root").as_uri()) as server:
        server.add_schema("main.ml")
        with pytest.raises(UsageError, match="has no aliases, so that nothing can be promoted"):
            promote(NAME, registry_uri=f"uc:{server.url}")


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def space(tmp_path: Path, answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace with two versions, 1 the champion and 2 the challenger; what it serves is ready at once."""
    with Workspace(tmp_path / "root", tokens=TOKENS, answers=answers, build=Build(looks=0)) as workspace:
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", ANN)
        workspace.add_schema("main.ml")
        for seed, alias in enumerate(("champion", "challenger")):
            source = checkpoints.llama(tmp_path / str(seed), seed=seed)
            log_model("llama-chat", source=source, name=NAME, aliases=[alias], registry_uri="databricks-uc")
        yield workspace


def _promote(**more: Any) -> Promotion:
    return promote(NAME, registry_uri="databricks-uc", **more)


def _serve(version: str, endpoint: str) -> None:
    from catalogger import deploy
    from catalogger.remote.workspace import workspace_client

    deploy(workspace_client(), f"{NAME}/{version}", endpoint=endpoint)


def _at(space: Workspace) -> int:
    model = space.model(NAME)
    assert model
    return model.aliases["champion"]


def test_whoever_serves_the_version_is_asked(space: Workspace, answers: Answers) -> None:
    _serve("1", "ep-old")
    _serve("2", "ep-new")
    answers.asked.clear()
    done = _promote()
    assert (_facts(done), _at(space)) == (("promoted", "1", "2"), 2)
    assert [(a.endpoint, a.share, bool(a.smoke)) for a in done.answers] == [("ep-new", 100, True)]
    assert len(answers.asked) == 1
    assert 'asked        endpoint ep-new answered "A layer."' in str(done)
    model = space.model(NAME)
    assert model
    assert model.tags == {"catalogger_promoted_champion": "version 2 in place of version 1"}
    assert (_facts(_promote(undo=True)), _at(space)) == (("undone", "2", "1"), 1)


def test_without_an_endpoint_that_is_said(space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = _promote()
    assert not Path("mlflow.db").exists(), "no tracking store is needed, and none is made"
    assert (done.answers, done.notes, _at(space)) == ((), ("no endpoint serves version 2, so that none was asked",), 2)


def test_a_wrong_answer_moves_nothing(space: Workspace, answers: Answers) -> None:
    _serve("2", "ep-new")
    answers.document = {"choices": []}
    with pytest.raises(DeploymentFailed):
        _promote()
    assert _at(space) == 1
    assert not space.model(NAME).tags  # type: ignore[union-attr]


def test_an_endpoint_that_is_named(space: Workspace) -> None:
    with pytest.raises(UsageError, match='no endpoint "ep"'):
        _promote(endpoint="ep")
    _serve("1", "ep")
    with pytest.raises(UsageError, match=r"serves main\.ml\.bot/1, not main"):
        _promote(endpoint="ep")
    assert _at(space) == 1


def test_an_endpoint_that_is_not_ready(space: Workspace, answers: Answers) -> None:
    _serve("2", "ep-new")
    answers.asked.clear()
    space.serving.recover("ep-new", looks=5)
    with pytest.raises(DeploymentPending, match='"ep-new" is not ready'):
        _promote(endpoint="ep-new")
    assert (_at(space), answers.asked) == (1, [])
