"""Weights that are changed in the main job, in every registry and stopped at any moment: one right version, no rest."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from checkpoints.adapters import Q_V, all_tensors, train
from fakes import checkpoints
from fakes.checkpoints import write_safetensors
from loggers.catalogs import NAME, Catalog, another_machine, log, tree
from loggers.test_unity_killed import Machine
from loggers.zygote import Zygote

from catalogger import clean, convert, log_model
from catalogger.errors import CataloggerError, RegistryError
from catalogger.loggers.mlflow_registry import MlflowRegistry
from catalogger.loggers.unity import UnityRegistry

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own advice
SOURCE: dict[str, Any] = {"dtype": "float32", "hidden": 512, "layers": 4, "shards": 4, "vocabulary": 6000}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 checkpoint that takes long enough to be cast that one can look on."""
    folder: Path = checkpoints.llama(tmp_path_factory.mktemp("wide") / "llama", **SOURCE)
    return folder


@pytest.fixture(scope="module")
def right(wide: Path) -> dict[str, str]:
    """The weight files that the change of it makes, by their digests."""
    convert(wide, wide.parent / "right", dtype="bfloat16", max_shard_size="3MB")
    return {f"model/{path}": digest for path, digest in tree(wide.parent / "right").items() if "safetensors" in path}


def _changed(cache: Path | None = None) -> list[Path]:
    cache = cache or Path(os.environ["XDG_CACHE_HOME"])
    return list((cache / "catalogger/changed").glob("*"))


def _shards(files: dict[str, str]) -> dict[str, str]:
    return {path: digest for path, digest in files.items() if "safetensors" in path}


def test_in_every_catalog(catalog: Catalog, tmp_path: Path) -> None:
    """Merged, sent once, and known again on a machine that has never seen it: there the base is read, not merged."""
    base = checkpoints.llama(tmp_path / "base", hidden=64, shards=2)
    adapter = train(base, tmp_path / "adapter", **Q_V)
    convert(base, tmp_path / "merged", adapter=adapter)
    made = {f"model/{path}": digest for path, digest in tree(tmp_path / "merged").items() if "safetensors" in path}
    done = log(base, catalog, adapter=adapter)
    (held,) = catalog.versions()
    assert (done.action, held.status, _shards(catalog.digests(held))) == ("registered", "READY", made)
    assert done.weights == ("linked" if catalog.kind == "oss-folder" else "uploaded")
    assert _changed() == []
    sent = catalog.sent()
    with another_machine(tmp_path / "other"):
        again = log(base, catalog, adapter=adapter)
        assert _changed() == []
    assert (again.action, again.version, again.fingerprint) == ("unchanged", done.version, done.fingerprint)
    assert again.bytes.written == again.bytes.sent == catalog.sent() - sent == 0
    assert len(catalog.versions()) == 1


def test_sending_fails_and_the_next_run_goes_on(catalog: Catalog, tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnityRegistry, "_send", _refuse)
        with pytest.raises(RegistryError, match="no luck") as caught:
            log(source, catalog, dtype="bfloat16")
    (folder,) = _changed()
    assert f'The changed weights stay in "{folder}"' in caught.value.fix
    done = log(source, catalog, dtype="bfloat16")
    assert done.change
    assert (done.change["taken_up"], len(catalog.versions()), _changed()) == (3, 1, [])


def _refuse(*_: object) -> None:
    raise RegistryError("no luck")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_logged_and_not_registered_is_picked_up(tmp_path: Path, work: Path) -> None:
    """Stopped between logging and registering: the next run registers what is there."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32", shards=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowRegistry, "register", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            log_model("llama-chat", source=source, name=NAME, dtype="bfloat16")
    placed = set(work.rglob("*.safetensors"))
    assert (len(placed), len(_changed())) == (2, 1)
    done = log_model("llama-chat", source=source, name=NAME, dtype="bfloat16")
    assert (done.action, done.version, done.weights) == ("registered", "1", "in place")
    assert (set(work.rglob("*.safetensors")), _changed()) == (placed, [])
    client = mlflow.MlflowClient(done.tracking_uri)
    runs = [client.get_run(run.info.run_id) for run in client.search_runs(["0"])]
    assert not [tag for run in runs for tag in run.data.tags if tag.startswith("catalogger.logged")]


def _kill(machine: Machine, pattern: str, count: int) -> None:
    """SIGKILL the job when so many such files stand where the weights are made."""
    machine.start()
    while len(list((machine.folder / "cache/catalogger/changed").glob(f"*/work/{pattern}"))) < count:
        done = machine.zygote.wait(0)
        assert done is None, f"the job ended first: {done}"
    machine.zygote.kill()
    assert machine.zygote.wait() == {"killed": True}, "it was in the middle"


@pytest.mark.parametrize("finished", [0, 1, 4, 7, 10])
def test_killed_in_the_middle_of_the_change(
    finished: int, zygote: Zygote, wide: Path, right: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL when so many files are whole; the same command then goes on with these, and ends with one version."""
    asked: dict[str, Any] = {"dtype": "bfloat16", "max_shard_size": "3MB", "aliases": ["champion"]}
    machine = Machine(zygote, tmp_path / "machine", wide, **asked)
    before = tree(wide)
    folder = machine.folder / "cache/catalogger/changed"
    _kill(machine, "*.sha256" if finished else "*.part", max(1, finished))
    whole = len(list(folder.glob("*/work/*.safetensors")))
    assert whole >= finished - 1
    outcome = machine.run()
    assert (outcome["action"], outcome["version"]) == ("registered", "1")
    assert whole - 1 <= outcome["change"]["taken_up"] <= whole
    assert _shards(tree(Path(outcome["location"]))) == right
    client = mlflow.MlflowClient(f"sqlite:///{machine.work / 'mlflow.db'}")
    assert len(client.search_model_versions(f"name='{NAME}'")) == 1
    assert (machine.leftovers(), _changed(machine.folder / "cache")) == ([], [])
    assert tree(wide) == before


def test_what_a_killed_run_has_left_is_cleaned(zygote: Zygote, wide: Path, tmp_path: Path) -> None:
    machine = Machine(zygote, tmp_path / "machine", wide, dtype="bfloat16", max_shard_size="3MB")
    _kill(machine, "*.sha256", 1)
    cache = machine.folder / "cache"
    (folder,) = _changed(cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        store = f"sqlite:///{machine.work / 'mlflow.db'}"
        found = clean(tracking_uri=store, older_than=0)
        assert str(folder) in str(found)
        clean(tracking_uri=store, older_than=0, yes=True)
    assert _changed(cache) == []


def test_a_disk_that_fills_in_the_middle(wide: Path, right: dict[str, str], tmp_path: Path, work: Path) -> None:
    """A limit on the size of a file stands in for the disk's end: the embedding is larger, all other files are not."""
    mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}").search_experiments()
    script = "from catalogger.cli.main import main; main()"
    options = ["--source", str(wide), "--name", NAME, "--dtype", "bfloat16", "--max-shard-size", "3MB"]
    command = [sys.executable, "-c", script, "--recipe", "llama-chat", *options]
    limit = (4_000_000, 4_000_000)
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )
    assert (done.returncode, done.stdout) == (6, ""), done.stderr
    assert "File too large" in done.stderr
    assert "which goes on from there" in done.stderr
    again = subprocess.run([*command, "-o", "json"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert _shards(tree(Path(document["location"]))) == right
    assert _changed() == []


def test_numbers_that_do_not_fit_are_counted_and_said(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    tensors, name = all_tensors(source), "model.layers.0.mlp.up_proj.weight"
    code, shape, content = tensors[name]
    assert isinstance(content, bytes)
    first = b"\xff\xff\x7f\x7f" + b"\0\0\xc0\x7f" * 2
    write_safetensors(source / "model.safetensors", tensors | {name: (code, shape, first + content[len(first) :])})
    done = log_model("llama-chat", source=source, name=NAME, dtype="bfloat16")
    assert done.change
    assert (done.change["overflowed"], done.change["nan"]) == ({name: 1}, {name: 2})
    assert f'1 numbers were too large for the dtype and are infinite now, in "{name}"' in done.notes
    assert f'2 numbers are NaN, as they were before, in "{name}"' in done.notes


def test_what_cannot_be_written_is_a_disk_error(tmp_path: Path, work: Path) -> None:
    """The place where the weights are made is a file of somebody else's."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "catalogger"
    cache.mkdir(parents=True)
    (cache / "changed").touch()
    with pytest.raises(CataloggerError, match="Cannot write") as caught:
        log_model("llama-chat", source=source, name=NAME, dtype="bfloat16")
    assert caught.value.exit_code == 6
    assert list(work.rglob("*.safetensors")) == []
