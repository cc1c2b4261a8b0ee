"""Which models are behind: what the registry recorded against what the Hub says, by one request a repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from checkpoints.client import go_offline, point_at
from fakes import checkpoints
from fakes.hub import Hub
from loggers.catalogs import NAME, DatabricksCatalog, OssCatalog

from catalogger import log_model, outdated
from catalogger.errors import NetworkUnreachable, UsageError
from catalogger.loggers.outdated import Outdated


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        point_at(monkeypatch, server.url)
        server.add("org/bot", checkpoints.llama(tmp_path / "first"))
        yield server


def _moved(hub: Hub, tmp_path: Path) -> str:
    """Another commit on main."""
    return hub.add("org/bot", checkpoints.llama(tmp_path / "second", seed=1))


def _states(found: Outdated) -> dict[str, str]:
    return {model.name: model.state for model in found.models}


def test_the_whole_registry_by_one_request_a_repository(hub: Hub, tmp_path: Path) -> None:
    commit = next(iter(hub._repos["org/bot"].commits))
    hub.tag("org/bot", "v1", commit)
    log_model("llama-chat", source="org/bot", name="main.ml.moving", aliases=["champion"])
    log_model("llama-chat", source="org/bot@v1", name="main.ml.tagged")
    log_model("llama-chat", source=f"org/bot@{commit}", name="main.ml.pinned")
    log_model("llama-chat", source=tmp_path / "first", name="main.ml.folder")
    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    client.create_registered_model("theirs")
    client.create_model_version("theirs", str(tmp_path))

    assert _states(outdated())["main.ml.moving"] == "up to date"
    now = _moved(hub, tmp_path)
    before = len(hub.requests)
    found = outdated()
    assert [request.path for request in hub.requests[before:]] == ["/api/models/org/bot/refs"]
    assert _states(found) == {
        "main.ml.folder": "not checked",
        "main.ml.moving": "behind",
        "main.ml.pinned": "pinned",
        "main.ml.tagged": "up to date",
    }, "and nothing of what others registered"
    (behind,) = found.behind
    assert (behind.recorded, behind.now, behind.asked) == (commit, now, "main")
    assert (behind.version, behind.aliases) == ("1", ("champion",))
    assert f"behind       main.ml.moving version 1 (champion) from org/bot @ main: {commit[:12]} was" in str(found)
    assert "a folder has no commits" in str(found)

    log_model("llama-chat", source="org/bot", name="main.ml.moving")
    (again,) = outdated(["main.ml.moving"]).models
    assert (again.version, again.state) == ("2", "up to date")


def test_what_was_asked_for_is_recorded(hub: Hub, tmp_path: Path) -> None:
    hub.move("org/bot", "dev", next(iter(hub._repos["org/bot"].commits)))
    log_model("llama-chat", source="org/bot@dev", name=NAME)
    log_model("llama-chat", source=tmp_path / "first", name="main.ml.folder")
    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    assert client.get_model_version(NAME, "1").tags["catalogger.asked_revision"] == "dev"
    assert "catalogger.asked_revision" not in client.get_model_version("main.ml.folder", "1").tags


def test_a_branch_or_repository_that_is_gone_is_not_checked(hub: Hub, tmp_path: Path) -> None:
    hub.move("org/bot", "dev", next(iter(hub._repos["org/bot"].commits)))
    hub.add("org/gone", tmp_path / "first")
    log_model("llama-chat", source="org/bot@dev", name="main.ml.branch")
    log_model("llama-chat", source="org/gone", name="main.ml.repo")
    del hub._repos["org/bot"].refs["dev"], hub._repos["org/gone"]
    found = outdated(["main.ml"])
    assert set(_states(found).values()) == {"not checked"}
    assert 'no branch or tag "dev" any more' in str(found)
    assert '"org/gone" does not exist on the Hub, or is private' in str(found)


def test_no_answer_at_all_is_an_error(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    log_model("llama-chat", source="org/bot", name=NAME)
    go_offline(monkeypatch)
    with pytest.raises(NetworkUnreachable, match="HF_HUB_OFFLINE"):
        outdated()


def test_names_that_are_not_there(hub: Hub, work: Path) -> None:
    assert outdated().models == ()
    assert list(work.iterdir()) == [], "no store is made by looking"
    log_model("llama-chat", source="org/bot", name=NAME)
    with pytest.raises(UsageError, match=r'"main\.ml\.nobody" is not there'):
        outdated([NAME, "main.ml.nobody"])


def test_in_a_workspace(hub: Hub, workspace: DatabricksCatalog, tmp_path: Path) -> None:
    log_model("llama-chat", source="org/bot", name=NAME, registry_uri=workspace.uri, aliases=["champion"])
    workspace.server.add_schema("main.other")
    _moved(hub, tmp_path)
    for names in ((), ("main.ml",), (NAME,)):
        (found,) = outdated(names, registry_uri=workspace.uri).models
        assert (found.name, found.state, found.aliases) == (NAME, "behind", ("champion",))


def test_in_an_open_source_catalog_the_tags_are_in_the_manifest(hub: Hub, oss: OssCatalog, tmp_path: Path) -> None:
    log_model("llama-chat", source="org/bot", name=NAME, registry_uri=oss.uri)
    _moved(hub, tmp_path)
    for names in ((), ("main.ml",)):
        (found,) = outdated(names, registry_uri=oss.uri).models
        assert (found.name, found.state) == (NAME, "behind")
