"""What is begun before MLflow is there: only where it cannot be in vain, and never visible afterwards."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import mlflow
import pytest
from fakes import checkpoints

from catalogger import log_model
from catalogger.loggers.glance import artifacts_to_be, may_hold
from catalogger.loggers.placing import Placing
from catalogger.loggers.registry import SHAPE
from catalogger.loggers.stores import Stores


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoints.llama(tmp_path / "llama")


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """Where weights were placed, or None where they were only hashed, in the order of beginning."""
    begun: list[Path | None] = []
    original = Placing.__init__

    def noted(self: Placing, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        begun.append(self.folder)

    monkeypatch.setattr(Placing, "__init__", noted)
    return begun


def test_a_first_copy_is_begun_early_and_moved(source: Path, work: Path, folders: list[Path | None]) -> None:
    outcome = log_model("llama-chat", source=source, name="main.ml.bot")
    (staging,) = folders
    assert staging is not None
    assert staging.parent == work
    assert staging.name.startswith(".catalogger-")
    assert not staging.exists()
    (placed,) = work.rglob("model.safetensors")
    assert placed.read_bytes() == (source / "model.safetensors").read_bytes()
    assert outcome.bytes.read == outcome.bytes.written == placed.stat().st_size


def test_what_a_killed_run_left_is_taken_away(source: Path, work: Path, folders: list[Path | None]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("catalogger.loggers.work.pointed_at", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            log_model("llama-chat", source=source, name="main.ml.bot")
    (left,) = folders
    assert left is not None
    assert not left.exists()
    (left / "model").mkdir(parents=True)
    (left / "model" / "model.safetensors").write_bytes(b"half")
    log_model("llama-chat", source=source, name="main.ml.bot")
    assert folders == [left, left]
    assert not left.exists()
    (placed,) = work.rglob("model.safetensors")
    assert placed.read_bytes() == (source / "model.safetensors").read_bytes()


def _interrupted(_: object) -> None:
    raise KeyboardInterrupt


def test_a_registered_shape_is_hashed_and_not_copied(source: Path, work: Path, folders: list[Path | None]) -> None:
    log_model("llama-chat", source=source, name="main.ml.bot")
    outcome = log_model("llama-chat", source=source, name="main.ml.bot", rehash=True)
    assert (outcome.action, folders[1:]) == ("unchanged", [None])


def test_an_early_copy_is_dropped_where_the_registry_knows_more(
    source: Path, work: Path, folders: list[Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_model("llama-chat", source=source, name="main.ml.bot")
    monkeypatch.setattr("catalogger.loggers.early.may_hold", lambda *_: False)
    outcome = log_model("llama-chat", source=source, name="main.ml.bot", rehash=True)
    assert outcome.action == "unchanged"
    assert folders[1] is not None
    assert folders[2] is None
    assert not list(work.glob(".catalogger-*"))
    assert len(list(work.rglob("model.safetensors"))) == 1


def test_no_early_copy_without_room(
    source: Path, work: Path, folders: list[Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalogger.loggers.early.has_room", lambda *_: False)
    log_model("llama-chat", source=source, name="main.ml.bot")
    (folder,) = folders
    assert folder is not None
    assert not folder.name.startswith(".catalogger-")


def _stores(file: Path) -> Stores:
    return Stores(f"sqlite:///{file}", f"sqlite:///{file}")


def test_the_glance_agrees_with_mlflow(source: Path, work: Path) -> None:
    """Held to what MLflow does, so that a change there is seen."""
    stores = _stores(work / "mlflow.db")
    before = artifacts_to_be(stores)
    assert not may_hold(stores, "main.ml.bot", SHAPE, "1")
    client = mlflow.MlflowClient(stores.tracking_uri)
    assert Path(client.get_experiment("0").artifact_location).parent == before
    assert artifacts_to_be(stores) == before
    client.create_registered_model("main.ml.bot")
    client.create_model_version("main.ml.bot", str(work), tags={SHAPE: "1"})
    assert may_hold(stores, "main.ml.bot", SHAPE, "1")
    assert not may_hold(stores, "main.ml.bot", SHAPE, "2")
    assert not may_hold(stores, "main.ml.other", SHAPE, "1")


def test_what_cannot_be_seen_may_be_there(work: Path) -> None:
    assert may_hold(Stores("http://127.0.0.1:1", "http://127.0.0.1:1"), "a.b.c", SHAPE, "1")
    assert artifacts_to_be(Stores("http://127.0.0.1:1", "http://127.0.0.1:1")) is None
    (work / "text.db").write_text("no database")
    assert may_hold(_stores(work / "text.db"), "a.b.c", SHAPE, "1")
    assert artifacts_to_be(_stores(work / "text.db")) is None
    sqlite3.connect(work / "other.db").close()
    assert may_hold(_stores(work / "other.db"), "a.b.c", SHAPE, "1")


def test_artifacts_elsewhere(work: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    client.create_experiment("remote", artifact_location="s3://bucket/models")
    assert artifacts_to_be(_stores(work / "mlflow.db")) is None
