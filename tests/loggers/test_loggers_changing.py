"""Weights that are changed in the main job: what convert makes, checked as it will be, made once, and not again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from checkpoints.adapters import Q_V, model_of, peft_of, train
from checkpoints.client import point_at
from fakes import checkpoints, trained
from fakes.hub import Hub
from huggingface_hub import constants
from loggers.catalogs import NAME, tree

from catalogger import Outcome, check, convert, log_model, outdated, verify
from catalogger.errors import CataloggerError, CheckFailed, UsageError

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own advice


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder: Path = checkpoints.llama(tmp_path / "base", hidden=64, shards=3)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return train(base, tmp_path / "adapter", **Q_V)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        point_at(monkeypatch, server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


def _log(source: str | Path | None, **more: Any) -> Outcome:
    return log_model(more.pop("recipe", "llama-chat"), source=source, name=more.pop("name", NAME), **more)


def _answer(done: Outcome) -> str:
    """What the version says to its example; tokens are drawn by chance, which begins anew."""
    import transformers

    loaded = mlflow.pyfunc.load_model(str(done.model_uri))
    transformers.set_seed(1)
    return str(loaded.predict(done.example)[0]["choices"][0]["message"]["content"])


def _tags(version: str = "1") -> dict[str, str]:
    return dict(mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}").get_model_version(NAME, version).tags)


def _versions() -> int:
    return len(mlflow.MlflowClient(f"sqlite:///{Path.cwd() / 'mlflow.db'}").search_model_versions(f"name='{NAME}'"))


def _changed() -> list[Path]:
    """What is left of changed weights, here and in the cache."""
    return [*(Path(os.environ["XDG_CACHE_HOME"]) / "catalogger/changed").glob("*"), *Path.cwd().glob(".catalogger-*")]


def _model_files(location: str | None) -> dict[str, str]:
    return tree(Path(str(location)) / "model")


def _as_converted(files: dict[str, str], folder: Path) -> None:
    """The files of a model are those of the converted folder, byte by byte, but for the tokenizer's, which stand
    elsewhere.
    """
    made = tree(folder)
    assert any(path.endswith(".safetensors") for path in files)
    assert files == {path: digest for path, digest in made.items() if path in files}
    assert {p for p in made if p.endswith(".safetensors")} <= files.keys()


def test_a_merged_version_is_what_convert_makes(base: Path, adapter: Path, tmp_path: Path) -> None:
    before = tree(base) | tree(adapter)
    done = _log(base, adapter=adapter, dtype="bfloat16", max_shard_size="100kB")
    convert(base, tmp_path / "merged", adapter=adapter, dtype="bfloat16", max_shard_size="100kB")
    _as_converted(_model_files(done.location), tmp_path / "merged")
    assert (done.action, done.weights) == ("registered", "linked")
    shards = list(Path(str(done.location)).glob("model/*.safetensors"))
    assert [shard.stat().st_nlink for shard in shards] == [1] * len(shards), "nothing else has them"
    assert done.bytes.written == sum(shard.stat().st_size for shard in shards)
    assert tree(base) | tree(adapter) == before
    assert _changed() == []

    assert done.change
    assert (done.change["merged"], done.change["cast"], done.change["to"]["files"]) == (4, 0, len(shards))
    tags = _tags()
    assert (tags["catalogger.base"], tags["catalogger.adapter"]) == (str(base), str(adapter))
    assert len(tags["catalogger.base_sha256"]) == len(tags["catalogger.adapter_sha256"]) == 64
    assert (tags["catalogger.cast"], tags["catalogger.dtype"]) == ("bfloat16", "bfloat16")
    assert tags["catalogger.max_shard_size"] == "100000"
    assert tags["catalogger.fingerprint"] == done.fingerprint
    checked = verify(f"{NAME}/1")
    assert checked.passed
    assert {file.state for file in checked.files if file.path.startswith("model/")} == {"same"}
    assert f"With the adapter {adapter}, merged" in str(
        mlflow.MlflowClient(done.tracking_uri).get_model_version(NAME, "1").description
    )


def test_it_answers_as_pefts_own_merge_does(base: Path, adapter: Path, tmp_path: Path) -> None:
    import torch

    done = _log(base, adapter=adapter)
    merged = peft_of(base, adapter).merge_and_unload()
    ids = torch.tensor([[1, 3, 299, 42, 7]])
    with torch.no_grad():
        ours = model_of(Path(str(done.location)) / "model")(ids).logits
        theirs, plain = merged(ids).logits, model_of(base)(ids).logits
    assert torch.equal(ours, theirs)
    assert not torch.equal(plain, theirs), "the adapter does something"
    merged.save_pretrained(tmp_path / "peft")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "peft" / name).write_bytes((base / name).read_bytes())
    other = _log(tmp_path / "peft", name="main.ml.peft")
    mlflow.set_tracking_uri(done.tracking_uri)
    assert _answer(done) == _answer(other)


def test_again_is_unchanged_and_nothing_is_read(base: Path, adapter: Path) -> None:
    first = _log(base, adapter=adapter, dtype="bfloat16")
    again = _log(base, adapter=adapter, dtype="bfloat16", aliases=["champion"])
    assert (again.action, again.version, again.fingerprint) == ("unchanged", "1", first.fingerprint)
    assert (again.bytes.read, again.bytes.written) == (0, 0)
    assert again.change is None
    planned = _log(base, adapter=adapter, dtype="bfloat16", dry_run=True)
    assert (planned.action, planned.version) == ("planned", "1")
    assert planned.plan
    assert planned.plan.to_write == 0
    read = _log(base, adapter=adapter, dtype="bfloat16", rehash=True)
    assert (read.action, read.bytes.written) == ("unchanged", 0)
    assert read.bytes.read > sum(f.stat().st_size for f in base.glob("*.safetensors"))


def test_another_option_is_another_version(base: Path, adapter: Path) -> None:
    first = _log(base, adapter=adapter)
    plain, cut = _log(base), _log(base, adapter=adapter, max_shard_size="20kB")
    assert [first.version, plain.version, cut.version] == ["1", "2", "3"]
    assert len({first.fingerprint, plain.fingerprint, cut.fingerprint}) == 3
    assert "catalogger.request" not in _tags()


def test_an_adapter_alone_takes_its_own_base(base: Path, adapter: Path) -> None:
    first = log_model("llama-chat", adapter=adapter, name=NAME)
    assert (first.action, first.change and first.change["base"]) == ("registered", str(base))
    assert _log(adapter).action == "unchanged", "a source that is an adapter is merged too"
    assert _log(base, adapter=adapter).action == "unchanged"
    base.rename(base.with_name("moved"))
    found = log_model("llama-chat", adapter=adapter, base=base.with_name("moved"), name=NAME)
    assert found.action == "unchanged", "a move is no new model"


def test_a_base_and_an_adapter_that_moved(hub: Hub, base: Path, adapter: Path, tmp_path: Path) -> None:
    """Another commit is another version, which is said; and what is registered is behind, as its base is."""
    commits = [hub.add("org/base", base), hub.add("org/adapter", adapter)]
    first = _log("org/base", adapter="org/adapter")
    tags = _tags()
    assert tags["catalogger.base"] == f"org/base@{commits[0]}"
    assert tags["catalogger.adapter"] == f"org/adapter@{commits[1]}"
    assert first.bytes.fetched > 0
    sent = hub.sent
    assert _log("org/base", adapter="org/adapter").action == "unchanged"
    assert hub.sent - sent < 100_000, "no weight is asked for"
    assert [m.state for m in outdated([NAME]).models] == ["up to date"]
    moved = hub.add("org/base", checkpoints.llama(tmp_path / "later", hidden=64, shards=3, seed=1))
    assert [m.state for m in outdated([NAME]).models] == ["behind"]
    second = _log("org/base", adapter="org/adapter")
    assert (second.action, second.version) == ("registered", "2")
    said = f"the base has moved since version 1, which was made from org/base@{commits[0]}: org/base@{moved}"
    assert said in second.notes


def test_a_folder_that_holds_others_now(base: Path, adapter: Path) -> None:
    _log(base, adapter=adapter)
    train(checkpoints.llama(base, hidden=64, shards=3, seed=1), adapter, **{**Q_V, "lora_alpha": 8})
    second = _log(base, adapter=adapter)
    assert second.version == "2"
    assert [note.partition(" has moved")[0] for note in second.notes] == ["the base", "the adapter"]


def test_a_dry_run_says_the_change_and_makes_nothing(base: Path, adapter: Path, work: Path) -> None:
    before = tree(base.parent)
    planned = _log(base, adapter=adapter, max_shard_size="100kB", dry_run=True)
    assert list(work.iterdir()) == _changed() == []
    assert tree(base.parent) == before
    assert planned.change
    assert planned.change["to"] == {"bytes": planned.change["to"]["bytes"], "files": 3}
    assert planned.plan
    (disk,) = planned.plan.disks
    assert disk.needed > planned.change["to"]["bytes"] > 200_000
    text = str(planned)
    assert f"adapter      {adapter}, merged into 4 tensors" in text
    assert "changed      227.1 kB in 3 files to 227.1 kB in 3" in text
    assert planned.document()["change"] == planned.change


@pytest.mark.parametrize("kind", ["adapter", "name", "task", "dtype", "size", "no base"])
def test_refused_before_anything_is_fetched(kind: str, hub: Hub, base: Path, adapter: Path, work: Path) -> None:
    """Of the base only headers and small files are asked for."""
    hub.add("org/base", checkpoints.llama(base.parent / "big", hidden=512, shards=2))
    hub.add("org/fits", base)
    asked: dict[str, dict[str, Any]] = {
        "adapter": {"source": "org/base", "adapter": adapter},
        "name": {"source": "org/base", "dtype": "bfloat16", "name": "main.bot"},
        "task": {"source": "org/fits", "adapter": adapter, "recipe": "gte-embeddings"},
        "dtype": {"source": "org/base", "dtype": "int8"},
        "size": {"source": "org/base", "max_shard_size": "some"},
        "no base": {"source": "org/base", "base": "org/fits", "dtype": "bfloat16"},
    }
    with pytest.raises(CataloggerError) as caught:
        _log(**asked[kind])
    assert caught.value.exit_code == 2
    sentences = {
        "adapter": "is for another base",
        "name": "main.bot",
        "task": "CK001",
        "dtype": "none that can be cast to",
        "size": "is no size of a shard",
        "no base": "is no adapter",
    }
    assert sentences[kind] in str(caught.value)
    assert hub.sent < 3_000_000
    assert list(work.iterdir()) == _changed() == []


def test_the_logged_model_is_looked_at_before_anything_is_made(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What MLflow will say of itself is known then: a signature that is wrong ends the job before the merge."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    wrong = ModelSignature(Schema([ColSpec("string", "text")]), Schema([ColSpec("string", "text")]))
    monkeypatch.setattr("catalogger.loggers.mlmodel.signature", lambda *_: wrong)
    with pytest.raises(CheckFailed) as caught:
        _log(base, adapter=adapter)
    assert (caught.value.exit_code, _changed()) == (2, [])
    assert list(Path.cwd().rglob("*.safetensors")) == []


def test_no_room(tmp_path: Path, work: Path) -> None:
    """Known before a byte is written: 812 GB are on no disk that tests run on."""
    source = checkpoints.sparse_llama_405b(tmp_path / "source")
    with pytest.raises(CataloggerError, match="GB free") as caught:
        _log(source, max_shard_size="1GB")
    assert (caught.value.exit_code, caught.value.code) == (6, "disk-full")
    assert _changed() == list(work.rglob("*.safetensors")) == []


def _codes(source: str | Path | None, **more: Any) -> set[str]:
    return {finding.code for finding in check("llama-chat", source=source, name=NAME, **more).report.findings}


def test_a_check_looks_at_it_as_it_will_be(hub: Hub, tmp_path: Path, work: Path) -> None:
    """Of a base on the Hub only headers and small files are asked for; what the change takes away is not found."""
    wide = checkpoints.llama(tmp_path / "wide", dtype="float32", hidden=512, shards=2)
    adapter = train(wide, tmp_path / "adapter", **Q_V)
    hub.add("org/wide", wide)
    assert "CK010" in _codes("org/wide")
    assert "CK010" in _codes("org/wide", adapter=adapter), "a merge leaves the dtype"
    assert "CK010" not in _codes("org/wide", adapter=adapter, dtype="bfloat16", max_shard_size="1MB")
    assert hub.sent < 1_000_000 < min(shard.stat().st_size for shard in wide.glob("*.safetensors"))
    assert list(work.iterdir()) == _changed() == []


def test_a_check_finds_an_error_in_what_will_be(base: Path, adapter: Path, work: Path) -> None:
    """The result is the subject of every rule: its shards are cut as they will be."""
    found = check("llama-chat", adapter=adapter, name=NAME, max_shard_size="20kB")
    assert found.subject == str(adapter)
    assert not found.failed()
    assert "CK003" in found.report.ran
    wrong = check("gte-embeddings", source=base, adapter=adapter, name=NAME)
    assert "CK001" in {finding.code for finding in wrong.report.findings if finding.severity == "error"}
    with pytest.raises(CataloggerError, match="is for another base") as caught:
        check("llama-chat", source=checkpoints.llama(base.parent / "big", hidden=128), adapter=adapter)
    assert caught.value.exit_code == 2
    assert list(work.iterdir()) == _changed() == []


def test_pickled_weights_on_the_hub_are_not_fetched_by_a_check(hub: Hub, base: Path) -> None:
    pickled = trained.pickled(base, base.parent / "pickled")
    hub.add("org/pickled", pickled)
    with pytest.raises(UsageError, match="is known only when all of them are here"):
        check("llama-chat", source="org/pickled", dtype="bfloat16", allow_pickle=True)
    assert hub.sent < pickled.joinpath("pytorch_model.bin").stat().st_size
    assert "CK002" in check("llama-chat", source=pickled, dtype="bfloat16", allow_pickle=True).report.ran


def test_a_check_proves_what_will_be(
    base: Path, adapter: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are made for that, in a folder that goes away."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    proved = check("llama-chat", source=base, adapter=adapter, name=NAME, prove=True)
    assert proved.proof
    assert str(proved.proof.document()["prompt"]).endswith("</s>[assistant] ")
    assert list(work.iterdir()) == _changed() == list(place.iterdir()) == []


def test_an_adapter_that_moved_is_told_beside_its_base(hub: Hub, base: Path, adapter: Path, tmp_path: Path) -> None:
    """Each by its own branch and by one request a repository; a version without an adapter costs what it did."""
    hub.add("org/base", base)
    was = hub.add("org/lora", adapter)
    _log("org/base", adapter="org/lora")
    _log("org/base", adapter=f"org/lora@{was}", name="main.ml.pinned")
    _log("org/base", adapter=adapter, name="main.ml.folder")
    _log("org/base", name="main.ml.plain")
    now = hub.add("org/lora", train(base, tmp_path / "later", **{**Q_V, "lora_alpha": 8}))

    before = len(hub.requests)
    found = outdated(["main.ml"])
    asked = [request.path for request in hub.requests[before:]]
    assert asked == ["/api/models/org/base/refs", "/api/models/org/lora/refs"]
    states = {m.name: (m.state, m.adapter and m.adapter.state) for m in found.models}
    assert states == {
        NAME: ("up to date", "behind"),
        "main.ml.pinned": ("up to date", "pinned"),
        "main.ml.folder": ("up to date", "not checked"),
        "main.ml.plain": ("up to date", None),
    }
    (behind,) = found.behind
    assert behind.adapter
    assert (behind.name, behind.adapter.recorded, behind.adapter.now) == (NAME, was, now)
    commits = f"{was[:12]} was registered, {now[:12]} is there now"
    assert f"behind       {NAME} version 1 with the adapter org/lora @ main: {commits}\n" in f"{found}\n"
    document = found.document()
    assert document["behind"] == 1
    assert {m["name"]: m["adapter"] and m["adapter"]["now"] for m in document["models"]}[NAME] == now

    before = len(hub.requests)
    assert [m.state for m in outdated(["main.ml.plain"]).models] == ["up to date"]
    assert [request.path for request in hub.requests[before:]] == ["/api/models/org/base/refs"]
    assert _log("org/base", adapter="org/lora").version == "2"
    assert outdated([NAME]).behind == ()


def test_an_adapter_of_a_branch_that_is_gone(hub: Hub, base: Path, adapter: Path) -> None:
    commit = hub.add("org/lora", adapter)
    hub.move("org/lora", "dev", commit)
    _log(base, adapter="org/lora@dev")
    assert _tags()["catalogger.asked_adapter_revision"] == "dev"
    (model,) = outdated([NAME]).models
    assert model.adapter
    assert (model.state, model.adapter.state) == ("not checked", "up to date")
    del hub._repos["org/lora"].refs["dev"]
    (model,) = outdated([NAME]).models
    assert model.adapter
    assert (model.adapter.state, model.is_behind) == ("not checked", False)
    assert 'no branch or tag "dev" any more' in model.adapter.why
