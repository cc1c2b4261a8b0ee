"""The main job on the embedded default: real files, real MLflow, SQLite and a folder."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from fakes import checkpoints

from catalogger import log_model
from catalogger.errors import (
    CheckFailed,
    CheckpointError,
    DiskError,
    NameInvalid,
    NotEnoughRoom,
    SourceInvalid,
    UsageError,
)


def _tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def _log(source: Path, **more: Any) -> Any:
    return log_model("llama-chat", source=source, name=more.pop("name", "main.ml.bot"), **more)


def _versions(name: str = "main.ml.bot") -> list[Any]:
    client = mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    return list(client.search_model_versions(f"name='{name}'"))


def test_a_folder_becomes_a_version(llama: Path, work: Path) -> None:
    before = _tree(llama)
    outcome = _log(llama, aliases=["champion"], tags={"team": "search"})

    assert (outcome.action, outcome.name, outcome.version) == ("registered", "main.ml.bot", "1")
    assert outcome.model_uri == "models:/main.ml.bot/1"
    assert outcome.tracking_uri == f"sqlite:///{work / 'mlflow.db'}"
    assert outcome.store_is_default
    assert _tree(llama) == before, "the source is untouched"
    location = Path(outcome.location)
    assert location.is_relative_to(work)
    for shard in llama.glob("*.safetensors"):
        copy = location / "model" / shard.name
        assert copy.read_bytes() == shard.read_bytes()
        assert copy.stat().st_ino != shard.stat().st_ino, "a user's folder is not linked unasked"
    weights = sum(p.stat().st_size for p in llama.glob("*.safetensors"))
    assert (outcome.bytes.read, outcome.bytes.written, outcome.bytes.sent) == (weights, weights, 0)

    client = mlflow.MlflowClient(outcome.tracking_uri)
    version = client.get_model_version_by_alias("main.ml.bot", "champion")
    assert version.version == "1" or version.version == 1
    assert version.status == "READY"
    tags = version.tags
    assert tags["team"] == "search"
    assert tags["catalogger.fingerprint"] == outcome.fingerprint
    assert tags["catalogger.recipe"] == "llama-chat"
    assert tags["catalogger.task"] == "llm/v1/chat"
    assert tags["catalogger.dtype"] == "bfloat16"
    assert int(tags["catalogger.parameters"]) > 1000
    assert tags["catalogger.licence"] == "apache-2.0"
    assert "Licence: apache-2.0" in version.description
    run = client.get_run(outcome.run_id)
    assert run.info.status == "FINISHED"


def test_same_content_makes_no_second_version(llama: Path) -> None:
    first = _log(llama)
    again = _log(llama, aliases=["champion"], tags={"team": "search"})

    assert (again.action, again.version, again.fingerprint) == ("unchanged", "1", first.fingerprint)
    assert (again.bytes.read, again.bytes.written) == (0, 0), "digests are remembered"
    (version,) = _versions()
    assert version.tags["team"] == "search"
    assert mlflow.MlflowClient(first.tracking_uri).get_registered_model("main.ml.bot").aliases == {"champion": "1"} or {
        "champion": 1
    }


def test_rehash_reads_every_byte_again(llama: Path) -> None:
    _log(llama)
    again = _log(llama, rehash=True)
    assert again.action == "unchanged"
    assert again.bytes.read == sum(p.stat().st_size for p in llama.glob("*.safetensors"))


@pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_NAME", None])
def test_a_dry_run_makes_no_experiment_and_no_other_store(
    llama: Path, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    store = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    _log(llama, name="main.ml.other", tracking_uri=store)
    if variable:
        monkeypatch.setenv(variable, "not there yet")
    before = _tree(tmp_path)
    left = sorted(work.iterdir())
    planned = _log(llama, tracking_uri=store, dry_run=True)
    assert planned.plan.weights == "copied"
    assert (_tree(tmp_path), sorted(work.iterdir())) == (before, left)
    assert [e.name for e in mlflow.MlflowClient(store).search_experiments()] == ["Default"]


def test_a_copy_elsewhere_is_the_same_content(llama: Path, tmp_path: Path) -> None:
    first = _log(llama)
    twin = checkpoints.llama(tmp_path / "twin", shards=2)
    again = _log(twin)
    assert (again.action, again.fingerprint) == ("unchanged", first.fingerprint)


def test_other_weights_of_the_same_shape_are_a_new_version(llama: Path, tmp_path: Path) -> None:
    first = _log(llama)
    other = _log(checkpoints.llama(tmp_path / "other", shards=2, seed=1))
    assert (other.action, other.version) == ("registered", "2")
    assert other.fingerprint != first.fingerprint


def test_an_edited_weight_is_a_new_version(llama: Path) -> None:
    _log(llama)
    shard = next(llama.glob("*.safetensors"))
    with shard.open("r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-2, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))
    assert _log(llama).version == "2"


def test_a_changed_recipe_is_a_new_version(llama: Path) -> None:
    _log(llama)
    assert _log(llama, overrides=["metadata.purpose=test"]).version == "2"


def test_a_version_whose_files_are_gone_is_not_taken_for_the_same(llama: Path) -> None:
    first = _log(llama)
    next((Path(first.location) / "model").glob("*.safetensors")).unlink()
    again = _log(llama)
    assert (again.action, again.version) == ("registered", "2")


def test_link_shares_the_inode_and_says_so(llama: Path) -> None:
    outcome = _log(llama, weights="link")
    assert outcome.weights == "linked"
    assert outcome.bytes.written == 0
    for shard in llama.glob("*.safetensors"):
        assert (Path(outcome.location) / "model" / shard.name).stat().st_ino == shard.stat().st_ino
    again = _log(llama, weights="link", name="main.ml.other")
    assert again.bytes.read == 0, "the link did not make the digests forgotten"


def test_dry_run_changes_nothing(llama: Path, work: Path) -> None:
    outcome = _log(llama, dry_run=True)
    assert (outcome.action, outcome.version) == ("planned", None)
    assert list(work.iterdir()) == []
    plan = outcome.plan
    assert set(plan.files) >= {"model/config.json", "components/tokenizer/tokenizer.json"}
    assert plan.to_write > sum(p.stat().st_size for p in llama.glob("*.safetensors"))
    assert (plan.to_fetch, plan.to_upload) == (0, 0)
    assert plan.disks[0].free > plan.disks[0].needed > 0
    assert yaml.safe_load(plan.mlmodel)["metadata"] == {"task": "llm/v1/chat"}


def test_dry_run_tells_an_unchanged_version(llama: Path) -> None:
    _log(llama)
    assert _log(llama, dry_run=True).version == "1"
    assert len(_versions()) == 1


def test_name_is_derived_and_said(llama: Path) -> None:
    outcome = log_model("llama-chat", source=llama)
    assert outcome.name == "main.default.llama_chat"
    assert "no --name was given" in str(outcome)


def test_environment_and_active_run_are_honoured(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "nightly")
    outcome = _log(llama)
    assert outcome.tracking_uri == uri
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("nightly")
    assert client.get_run(outcome.run_id).info.experiment_id == experiment.experiment_id

    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
        inside = _log(llama, name="main.ml.inside")
        assert inside.run_id == run.info.run_id
        assert client.get_run(run.info.run_id).info.status == "RUNNING", "the user's run is the user's to end"


def test_the_users_settings_are_left_as_they_were(llama: Path, tmp_path: Path) -> None:
    mine = f"sqlite:///{tmp_path / 'mine.db'}"
    mlflow.set_tracking_uri(mine)
    outcome = _log(llama, tracking_uri=f"sqlite:///{tmp_path / 'other.db'}")
    assert outcome.tracking_uri.endswith("other.db")
    assert mlflow.get_tracking_uri() == mine


def test_an_artifact_store_elsewhere_gets_one_upload(llama: Path, mlflow_server: str) -> None:
    outcome = _log(llama, tracking_uri=mlflow_server)
    assert (outcome.action, outcome.weights) == ("registered", "uploaded")
    assert outcome.bytes.written == 0
    assert outcome.bytes.sent > sum(p.stat().st_size for p in llama.glob("*.safetensors"))
    mlflow.set_tracking_uri(mlflow_server)
    back = Path(mlflow.artifacts.download_artifacts(outcome.model_uri))
    for shard in llama.glob("*.safetensors"):
        assert (back / "model" / shard.name).read_bytes() == shard.read_bytes()
    again = _log(llama, tracking_uri=mlflow_server)
    assert (again.action, again.bytes.sent) == ("unchanged", 0)


def test_objects_in_memory_are_saved_once(llama: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    outcome = log_model("llama-chat", model=model, tokenizer=tokenizer, name="main.ml.trained")
    assert (outcome.action, outcome.source["kind"], outcome.weights) == ("registered", "memory", "linked")
    back = mlflow.transformers.load_model(f"{outcome.location}", return_type="components")["model"]
    for name, value in model.state_dict().items():
        assert back.state_dict()[name].equal(value), name
    assert not list(Path.cwd().glob(".catalogger-*")), "the folder that was saved to is gone"


def test_outcome_renders_and_is_json(llama: Path) -> None:
    outcome = _log(llama)
    document = json.loads(json.dumps(outcome.document()))
    assert set(document) >= {
        "action", "name", "version", "model_uri", "run_id", "fingerprint", "recipe", "task", "source", "findings",
        "bytes", "seconds", "aliases", "endpoint",
    }  # fmt: skip
    assert document["source"] == {"kind": "folder", "location": str(llama), "revision": None}
    assert document["seconds"] > 0
    assert "main.ml.bot version 1" in str(outcome)
    assert "<table>" in outcome._repr_html_()


# Bad input: a clear error before harm is done.


def _unharmed(work: Path) -> bool:
    return list(work.iterdir()) == []


def test_no_config(tmp_path: Path, work: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        _log(tmp_path / "empty")
    assert _unharmed(work)


def test_config_of_another_architecture(tmp_path: Path, work: Path) -> None:
    with pytest.raises(CheckFailed, match="CK001"):
        _log(checkpoints.bert(tmp_path / "bert"))
    assert _unharmed(work)


def _truncated(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    os.truncate(shard, shard.stat().st_size - 10)


def _ghost(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[0].unlink()


def _stray(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    (folder / "model-00009-of-00009.safetensors").write_bytes(shard.read_bytes())


def _long_header(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes((1 << 40).to_bytes(8, "little") + shard.read_bytes()[8:])


def _pickled(folder: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def _wrapped(folder: Path) -> None:
    checkpoints.write_safetensors(
        folder / "model.safetensors",
        {"model.layers.0.self_attn.q_proj.base_layer.weight": ("BF16", (2, 2), bytes(8))},
    )
    for file in [*folder.glob("model-*.safetensors"), *folder.glob("*.index.json")]:
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_truncated, "CK003"), (_ghost, "CK004"), (_stray, "CK005"), (_long_header, "CK002"), (_pickled, "CK007"),
        (_wrapped, "CK008"),
    ],
)  # fmt: skip
def test_broken_weights(llama: Path, work: Path, spoil: Any, code: str) -> None:
    spoil(llama)
    with pytest.raises(CheckFailed) as failed:
        _log(llama)
    assert {f["code"] for f in failed.value.findings if f["severity"] == "error"} == {code}
    assert failed.value.exit_code == 2
    assert _unharmed(work)


def test_pickled_weights_allowed(llama: Path) -> None:
    _pickled(llama)
    outcome = _log(llama, allow_pickle=True)
    assert (Path(outcome.location) / "model" / "pytorch_model.bin").read_bytes() == b"\x80\x04."


@pytest.mark.parametrize(
    "name", ["a.b", "a.b.c.d", "main.ml.my bot", "main.ml/x.bot", "main..bot", f"main.ml.{'x' * 300}", "", "bot"]
)
def test_names(llama: Path, work: Path, name: str) -> None:
    with pytest.raises(NameInvalid):
        _log(llama, name=name)
    assert _unharmed(work)


def test_no_room(tmp_path: Path, work: Path) -> None:
    """810 GB of holes: no disk here takes a copy of them."""
    huge = checkpoints.sparse_llama_405b(tmp_path / "huge")
    with pytest.raises(NotEnoughRoom) as error:
        log_model("llama-completions", source=huge, name="main.ml.huge")
    assert error.value.exit_code == 6
    assert error.value.needed > 800e9
    assert not (work / "mlruns").exists()


def test_not_writable(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DiskError):
        _log(llama, tracking_uri=f"sqlite:///{tmp_path / 'file' / 'x.db'}")


def test_recipe_without_source(work: Path) -> None:
    with pytest.raises(UsageError, match="names no source"):
        log_model("llama-chat")
    assert _unharmed(work)


def test_source_that_is_nothing(work: Path) -> None:
    with pytest.raises(SourceInvalid, match="is no folder that exists"):
        log_model("llama-chat", source="no such thing")
    assert _unharmed(work)


def test_a_failure_while_placing_leaves_nothing(llama: Path, work: Path) -> None:
    """A link was asked for and cannot be made: /dev/shm is another file system."""
    from shutil import copytree, rmtree

    elsewhere = Path("/dev/shm") / f"catalogger-test-{os.getpid()}"  # noqa: S108
    copytree(llama, elsewhere)
    try:
        with pytest.raises(UsageError, match="cannot be linked"):
            _log(elsewhere, weights="link")
    finally:
        rmtree(elsewhere)
    assert _versions() == []
    assert not list(work.rglob("*.safetensors"))
    with sqlite3.connect(work / "mlflow.db") as database:
        assert {row[0] for row in database.execute("select status from runs")} == {"FAILED"}
    database.close()
    assert _log(llama).version == "1"
