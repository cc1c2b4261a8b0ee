"""What is registered is compared with what was recorded, in every registry: each byte, and nothing passed unread."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from loggers.catalogs import NAME, Catalog, DatabricksCatalog, OssCatalog, log

from catalogger import log_model, verify
from catalogger.errors import NothingRecorded, UsageError
from catalogger.loggers.verifying import Verified

SHARD = "model/model-00001-of-00002.safetensors"


def _states(found: Verified) -> dict[str, str]:
    return {file.path: file.state for file in found.files}


def _rewritten(catalog: Catalog, path: str, change: Callable[[bytes], bytes | None]) -> None:
    """Change a file of the only version where it stands, past the registry."""
    (held,) = catalog.versions()
    if isinstance(catalog, OssCatalog) and catalog.kind == "oss-folder":
        _rewrite(Path(held.location.removeprefix("file://")) / path, change)
    elif isinstance(catalog, DatabricksCatalog) and catalog.by_files:
        _rewrite(catalog.server.files.root / "Models" / NAME.replace(".", "/") / held.number / path, change)
    else:
        s3 = catalog.s3  # type: ignore[attr-defined]
        key = f"{held.location.removeprefix(f's3://{s3.bucket}/')}/{path}"
        changed = change(s3.content(key))
        if changed is None:
            s3.client().delete_object(Bucket=s3.bucket, Key=key)
        else:
            s3.client().put_object(Bucket=s3.bucket, Key=key, Body=changed)


def _rewrite(file: Path, change: Callable[[bytes], bytes | None]) -> None:
    changed = change(file.read_bytes())
    file.unlink()
    if changed is not None:
        file.write_bytes(changed)


def _flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_every_file_of_a_catalog_is_compared(catalog: Catalog, llama: Path) -> None:
    log(llama, catalog)
    (held,) = catalog.versions()
    Path("mlflow.db").unlink()
    found = verify(NAME, registry_uri=catalog.uri)
    assert not Path("mlflow.db").exists(), "no tracking store is needed, and none is made"
    assert found.passed
    assert set(_states(found)) == set(catalog.digests(held)), "MLmodel, requirements and the manifest too"
    assert set(_states(found).values()) == {"same"}
    assert (found.version, len(found.fingerprint or "")) == ("1", 64)

    _rewritten(catalog, SHARD, _flipped)
    _rewritten(catalog, "MLmodel", lambda content: content + b"\n")
    _rewritten(catalog, "components/tokenizer/tokenizer.json", lambda _: None)
    found = verify(f"{NAME}/1", registry_uri=catalog.uri)
    wrong = {file.path: file.state for file in found.wrong}
    assert wrong == {SHARD: "differs", "MLmodel": "differs", "components/tokenizer/tokenizer.json": "missing"}
    assert "digest" in next(file.why for file in found.wrong if file.path == SHARD)
    assert not found.passed


def test_what_is_not_recorded_is_not_passed(oss: OssCatalog, llama: Path) -> None:
    log(llama, oss)
    (held,) = oss.versions()
    folder = Path(held.location.removeprefix("file://"))
    (folder / "extra.bin").write_bytes(b"anything")
    found = verify(NAME, registry_uri=oss.uri)
    assert _states(found)["extra.bin"] == "not checked"
    assert "not checked  extra.bin (8 B): no digest of it is recorded" in str(found)
    assert found.document()["counts"]["not checked"] == 1


def test_a_manifest_that_was_changed_with_its_file_does_not_help(oss: OssCatalog, llama: Path) -> None:
    """Whoever changes a file can change the digest beside it; the fingerprint is in the registry."""
    log(llama, oss)
    (held,) = oss.versions()
    folder = Path(held.location.removeprefix("file://"))
    _rewrite(folder / SHARD, _flipped)
    found = verify(NAME, registry_uri=oss.uri)
    (wrong,) = found.wrong
    manifest = json.loads((folder / "catalogger.json").read_text())
    manifest["files"][SHARD]["sha256"] = _digest(folder / SHARD)
    (folder / "catalogger.json").write_text(json.dumps(manifest))
    (wrong,) = verify(NAME, registry_uri=oss.uri).wrong
    assert (wrong.path, "the registry's fingerprint" in wrong.why) == ("catalogger.json", True)


def _digest(file: Path) -> str:
    from catalogger.files.digests import sha256_file

    return sha256_file(file)


def test_the_embedded_default(llama: Path) -> None:
    outcome = log_model("llama-chat", source=llama, name=NAME, aliases=["champion"])
    found = verify(f"models:/{NAME}@champion")
    assert found.passed
    states = _states(found)
    assert states.pop("MLmodel") == "not checked", "MLflow may write it after its digest could be taken"
    assert {SHARD, "requirements.txt", "catalogger.json"} <= set(states)
    assert set(states.values()) == {"same"}
    _rewrite(Path(str(outcome.location)) / SHARD, _flipped)
    assert [file.path for file in verify(NAME).wrong] == [SHARD]


def test_a_tracking_server_with_files_of_its_own(llama: Path, mlflow_server: str) -> None:
    log_model("llama-chat", source=llama, name=NAME, tracking_uri=mlflow_server)
    found = verify(NAME, tracking_uri=mlflow_server)
    assert found.passed
    assert _states(found)[SHARD] == "same"
    assert "not checked" not in [state for path, state in _states(found).items() if path != "MLmodel"]


def test_other_peoples_versions_are_not_called_right(work: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    client.create_registered_model("theirs")
    client.create_model_version("theirs", str(work))
    with pytest.raises(NothingRecorded, match="was not registered by catalogger"):
        verify("theirs")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("main.ml.nobody", 'no model "main.ml.nobody"'),
        (f"{NAME}/9", "no version 9"),
        (f"{NAME}@best", 'no alias "best"'),
        ("a/b/c", "names no registered model"),
    ],
)
def test_what_is_not_there(work: Path, model: str, words: str) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    client.create_registered_model(NAME)
    client.create_model_version(NAME, str(work))
    with pytest.raises(UsageError, match=words):
        verify(model)


def test_no_store_is_made_by_looking(work: Path) -> None:
    with pytest.raises(UsageError, match="no registry yet"):
        verify(NAME)
    assert list(work.iterdir()) == []


def test_parts_are_read_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the file: no part is larger than the limit, and the digest is that of all."""
    from catalogger.files.workers import Workers
    from catalogger.remote import reading
    from catalogger.remote.folder import FolderStorage

    (tmp_path / "file").write_bytes(bytes(range(256)) * 100)
    monkeypatch.setattr(reading, "_PART", 1000)
    asked: list[int] = []
    storage = FolderStorage(tmp_path.as_uri(), Workers())
    part: Any = storage.part

    def counted(path: str, start: int, count: int) -> Any:
        asked.append(count)
        return part(path, start, count)

    monkeypatch.setattr(storage, "part", counted)
    found = reading.Reading(storage).digest("file", 25600, lambda _: None)
    assert found == _digest(tmp_path / "file")
    assert (max(asked), sum(asked)) == (1000, 25600)
