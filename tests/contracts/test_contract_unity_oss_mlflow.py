"""What MLflow's own client makes of an open-source Unity Catalog server: the loopback one, and a real one if named."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from contracts.place import Place, folder_of
from fakes.s3 import S3Proxy, S3Server
from fakes.secrets import secret
from fakes.unity import Unity
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

SESSION = secret("the catalog's storage", "session")

pytestmark = pytest.mark.filterwarnings("ignore:.*An input example was not provided")  # its model needs none


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tracking store, whose tables are made once."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture(autouse=True)
def _tracked(tracking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(tracking)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model in a folder, with a signature."""
    schema = Schema([ColSpec("long", "x")])
    return _saved(tmp_path / "model", ModelSignature(schema, schema))


@pytest.fixture
def client(place: Place) -> MlflowClient:
    """The client of the place, which is also MLflow's own default."""
    mlflow.set_registry_uri(f"uc:{place.url}")
    return MlflowClient()


def test_a_plain_path_is_registered_and_loads(place: Place, client: MlflowClient, model: Path) -> None:
    before = _tree(model)
    version = mlflow.register_model(str(model), place.full("q"))
    assert (int(version.version), version.status, version.source) == (1, "READY", str(model))
    assert _tree(folder_of(_row(place, 1))) == before
    assert mlflow.pyfunc.load_model(f"models:/{place.full('q')}/1").predict({"x": [2]}) == [4]
    assert _tree(model) == before
    assert int(mlflow.register_model(str(model), place.full("q")).version) == 2


def test_log_and_register_in_one_call(place: Place, client: MlflowClient, tmp_path: Path) -> None:
    schema = Schema([ColSpec("long", "x")])
    mlflow.pyfunc.log_model(
        name="m",
        **_double(tmp_path),
        signature=ModelSignature(schema, schema),
        registered_model_name=place.full("q"),
    )
    assert client.get_model_version(place.full("q"), "1").status == "READY"
    assert mlflow.pyfunc.load_model(f"models:/{place.full('q')}/1").predict({"x": [2]}) == [4]


def test_the_first_load_writes_into_the_registrys_folder(place: Place, client: MlflowClient, model: Path) -> None:
    mlflow.register_model(str(model), place.full("q"))
    folder = folder_of(_row(place, 1))
    assert mlflow.artifacts.download_artifacts(f"models:/{place.full('q')}/1").rstrip("/") == str(folder)
    mlflow.pyfunc.load_model(f"models:/{place.full('q')}/1")
    new = {path for path in set(_tree(folder)) - set(_tree(model)) if "__pycache__" not in path}
    assert new == {"registered_model_meta"}


def test_tags_are_dropped_without_a_word(place: Place, client: MlflowClient, model: Path) -> None:
    version = mlflow.register_model(str(model), place.full("q"), tags={"a": "b"})
    assert version.tags == {}
    assert client.get_model_version(place.full("q"), "1").tags == {}


def test_there_are_no_aliases_tags_and_stages(place: Place, client: MlflowClient, model: Path) -> None:
    name = place.full("q")
    mlflow.register_model(str(model), name)
    calls: list[tuple[Any, ...]] = [
        (client.set_registered_model_alias, name, "champion", "1"),
        (client.delete_registered_model_alias, name, "champion"),
        (client.get_model_version_by_alias, name, "champion"),
        (client.set_registered_model_tag, name, "a", "b"),
        (client.set_model_version_tag, name, "1", "a", "b"),
        (client.delete_model_version_tag, name, "1", "a"),
        (client.rename_registered_model, name, place.full("r")),
        (mlflow.pyfunc.load_model, f"models:/{name}@champion"),
    ]
    for call, *arguments in calls:
        with pytest.raises(NotImplementedError, match="Method not implemented"):
            call(*arguments)


@pytest.mark.parametrize("content", ["model without a signature", "one file", "nothing"])
def test_anything_is_accepted(place: Place, client: MlflowClient, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "anything"
    if content == "model without a signature":
        _saved(folder, None)
    else:
        folder.mkdir()
        if content == "one file":
            (folder / "weights").write_text("w")
    assert mlflow.register_model(str(folder), place.full("q")).status == "READY"
    assert _tree(folder_of(_row(place, 1))) == _tree(folder)


@pytest.mark.parametrize("name", ["q", "ml.q", "a.b.c.d"])
def test_a_name_with_other_than_three_levels_is_not_understood(client: MlflowClient, model: Path, name: str) -> None:
    with pytest.raises(ValueError, match="values to unpack"):
        mlflow.register_model(str(model), name)


def test_a_failed_upload_leaves_a_pending_version(place: Place, client: MlflowClient, model: Path) -> None:
    (model / "missing").symlink_to(model / "nowhere")
    with pytest.raises(FileNotFoundError, match="missing"):
        mlflow.register_model(str(model), place.full("q"))
    (model / "missing").unlink()
    assert int(mlflow.register_model(str(model), place.full("q")).version) == 2
    found = client.search_model_versions(f"name='{place.full('q')}'")
    assert [(int(v.version), v.status) for v in found] == [(1, "PENDING_REGISTRATION"), (2, "READY")]


def test_a_pending_version_loads_where_its_files_are_there(place: Place, client: MlflowClient, model: Path) -> None:
    place.add_model("q")
    shutil.copytree(model, folder_of(place.add_version("q")), dirs_exist_ok=True)
    assert client.get_model_version(place.full("q"), "1").status == "PENDING_REGISTRATION"
    assert mlflow.pyfunc.load_model(f"models:/{place.full('q')}/1").predict({"x": [2]}) == [4]


def test_a_description_may_be_empty_but_not_missing(place: Place, client: MlflowClient, model: Path) -> None:
    name = place.full("q")
    mlflow.register_model(str(model), name)
    client.update_model_version(name, "1", "words")
    assert client.get_model_version(name, "1").description == "words"
    client.update_model_version(name, "1", "")
    assert client.get_model_version(name, "1").description == ""
    with pytest.raises(MlflowException, match="no new field values"):
        client.update_model_version(name, "1", None)
    client.update_registered_model(name, None)
    assert client.get_registered_model(name).description == ""


def test_only_a_name_can_be_searched_for(place: Place, client: MlflowClient) -> None:
    place.add_model("q")
    assert place.full("q") in {m.name for m in client.search_registered_models()}
    with pytest.raises(MlflowException, match="'filter_string' is unsupported"):
        client.search_registered_models(f"name='{place.full('q')}'")
    assert list(client.search_model_versions(f"name='{place.full('q')}'")) == []
    with pytest.raises(MlflowException, match="Unsupported filter query"):
        client.search_model_versions("run_id='x'")


def test_versions_and_models_are_deleted(place: Place, client: MlflowClient, model: Path) -> None:
    name = place.full("q")
    mlflow.register_model(str(model), name)
    folder = folder_of(_row(place, 1))
    with pytest.raises(RestException, match="existing model versions"):
        client.delete_registered_model(name)
    client.delete_model_version(name, "1")
    client.delete_registered_model(name)
    with pytest.raises(RestException, match="Registered model not found"):
        client.get_registered_model(name)
    assert _tree(folder) == _tree(model)


def test_a_missing_schema_is_told(place: Place, client: MlflowClient, model: Path) -> None:
    with pytest.raises(RestException, match="SCHEMA_NOT_FOUND: Schema not found"):
        mlflow.register_model(str(model), f"{place.catalog}.nope.q")


# Only on the loopback server: what is ordered there, or needs another configuration


def test_registrations_at_once_may_share_a_number(tmp_path: Path) -> None:
    """The last one fails, and the number may load what the other one brought, whoever was told READY."""
    with Unity((tmp_path / "root").as_uri()) as unity:
        unity.add_schema("main.ml")
        mlflow.set_registry_uri(f"uc:{unity.url}")
        client = MlflowClient()
        client.create_registered_model("main.ml.q")
        unity.duplicate(2)
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(_create, client, _content(tmp_path, name)) for name in ("one", "two")]
        errors = [error for call in calls if (error := call.exception())]
    assert len(errors) == 1
    assert "Model version not in a pending registration state: main.ml.q/1" in str(errors[0])
    rows = unity.versions("main.ml.q")
    assert sorted(v["status"] for v in rows) == ["PENDING_REGISTRATION", "READY"]
    assert {(folder_of(v) / "weights").read_text() for v in rows} == {"one", "two"}


def test_the_token_is_sent(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Unity((tmp_path / "root").as_uri(), tokens={secret("good"): "admin"}) as unity:
        unity.add_schema("main.ml")
        mlflow.set_registry_uri(f"uc:{unity.url}")
        monkeypatch.setenv("MLFLOW_UC_OSS_TOKEN", secret("bad"))
        with pytest.raises(RestException, match="Invalid access token"):
            mlflow.register_model(str(model), "main.ml.q")
        monkeypatch.setenv("MLFLOW_UC_OSS_TOKEN", secret("good"))
        assert mlflow.register_model(str(model), "main.ml.q").status == "READY"
    assert {r.user for r in unity.matching("finalize")} == {"admin"}


def test_models_are_kept_on_s3(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with S3Server() as s3, S3Proxy(s3) as proxy:
        proxy.tokens.add(SESSION)
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", proxy.endpoint)
        with Unity(f"s3://{s3.bucket}/models", keys=(s3.access_key, s3.secret_key, SESSION)) as unity:
            unity.add_schema("main.ml")
            mlflow.set_registry_uri(f"uc:{unity.url}")
            assert mlflow.register_model(str(model), "main.ml.q").status == "READY"
            (version,) = unity.versions("main.ml.q")
            prefix = version["storage_location"].removeprefix(f"s3://{s3.bucket}/") + "/"
            assert {key.removeprefix(prefix) for key in s3.objects} == set(_tree(model))
            assert mlflow.pyfunc.load_model("models:/main.ml.q/1").predict({"x": [2]}) == [4]


_LOADER = """
class Double:
    def predict(self, table, params=None):
        return [2 * int(x) for x in table["x"]]


def _load_pyfunc(path):
    return Double()
"""


def _saved(folder: Path, signature: ModelSignature | None) -> Path:
    mlflow.pyfunc.save_model(folder, **_double(folder.parent), signature=signature)
    return folder


def _double(near: Path) -> dict[str, Any]:
    """What MLflow saves or logs: a model by a loader, which is code and one file."""
    loader = near / "load_double.py"
    loader.write_text(_LOADER)
    return {"loader_module": "load_double", "data_path": loader, "code_paths": [loader], "pip_requirements": []}


def _content(near: Path, name: str) -> Path:
    folder = near / name
    folder.mkdir()
    (folder / "weights").write_text(name)
    return folder


def _create(client: MlflowClient, folder: Path) -> None:
    client.create_model_version("main.ml.q", str(folder))


def _row(place: Place, version: int) -> dict[str, Any]:
    return place.done("GET", f"/models/{place.full('q')}/versions/{version}")


def _tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below the folder, by path."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
