"""What MLflow's own client and databricks-sdk make of the loopback workspace, which answers as they expect."""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import mlflow
import pytest
from fakes.s3 import S3Proxy, S3Server
from fakes.secrets import secret
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from catalogger.testing.models import Vending
from catalogger.testing.tracking import TrackingServer
from catalogger.testing.workspace import ORG_ID, Workspace

USER = "ann@example.com"
TOKEN, SESSION = secret(USER, "databricks"), secret("the workspace's storage", "session")
NAME = "main.ml.double"
SDK = "MLFLOW_USE_DATABRICKS_SDK_MODEL_ARTIFACTS_REPO_FOR_UC"
NATIVE = "MLFLOW_ENABLE_UC_NATIVE_MODEL_REGISTRY"
LEGACY_PREFIX, NATIVE_PREFIX = "/api/2.0/mlflow/unity-catalog/", "/api/2.1/unity-catalog/"

pytestmark = pytest.mark.filterwarnings("ignore:.*An input example was not provided")  # its model needs none


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    """What the clients take for the storage: it knows the session token that the workspace gives out."""
    with S3Proxy(s3) as proxy:
        proxy.tokens.add(SESSION)
        yield proxy


@pytest.fixture
def workspace(s3: S3Server, proxy: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace with the schema main.ml, found by the clients through the environment."""
    with Workspace(tmp_path / "files", vending(s3), tokens={TOKEN: USER}) as workspace:
        workspace.add_schema("main.ml")
        _point_clients(monkeypatch, workspace, proxy.endpoint)
        yield workspace


@pytest.fixture(params=["legacy", "native"])
def surface(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two surfaces MLflow speaks; a profile for each, for MLflow decides once for each address."""
    _speak(str(request.param), monkeypatch)
    return str(request.param)


@pytest.fixture(params=["vended", "files", "files by the probe", "presigned"])
def upload(request: pytest.FixtureRequest, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> str:
    """How MLflow sends files."""
    if request.param in ("vended", "files"):
        monkeypatch.setenv(SDK, str(request.param == "files").lower())
    workspace.sdk_uploads = request.param == "files by the probe"
    if request.param == "presigned":
        workspace.vending = Vending("dbstorage://here/uc", {}, default_storage=True)
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model in a folder."""
    return _saved(tmp_path / "model", ModelSignature(_columns(), _columns()))


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server."""
    with TrackingServer(tmp_path_factory.mktemp("tracking")) as server:
        yield server.url


@pytest.fixture
def tracked(
    s3: S3Server, proxy: S3Proxy, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    """A workspace that has runs and logged models too."""
    with Workspace(tmp_path / "files", vending(s3), tokens={TOKEN: USER}, tracking=tracking) as workspace:
        workspace.add_schema("main.ml")
        _point_clients(monkeypatch, workspace, proxy.endpoint)
        monkeypatch.setenv(SDK, "false")
        mlflow.set_experiment("/Shared/loopback")
        yield workspace


# Registering and loading


def test_a_folder_is_registered_and_loads_again(workspace: Workspace, surface: str, upload: str, folder: Path) -> None:
    version = mlflow.register_model(str(folder), NAME)
    assert (version.name, version.version, version.status, version.user_id) == (NAME, "1", "READY", USER)
    assert version.source == str(folder)
    assert mlflow.pyfunc.load_model(f"models:/{NAME}/1").predict({"x": [1, 2]}) == [2, 4]
    spoken = {request.path.rpartition("/unity-catalog/")[0] for request in workspace.matching(":?(create|models)$")}
    assert spoken == {"/api/2.1" if surface == "native" else "/api/2.0/mlflow"}
    emitted = [request.document["model_version_lineage_info"] for request in workspace.matching("emit-lineage$")]
    assert emitted == ([{"direction": "DOWNSTREAM"}] if upload.startswith("files") else [])


def test_files_lie_where_the_version_says(workspace: Workspace, upload: str, folder: Path, s3: S3Server) -> None:
    mlflow.register_model(str(folder), NAME)
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    (version,) = workspace.versions(NAME)
    if upload == "vended":
        prefix = version.storage_location.removeprefix(f"s3://{s3.bucket}/") + "/"
        found = {key.removeprefix(prefix): size for key, size in s3.objects.items() if key.startswith(prefix)}
    else:
        root = workspace.files.root / "Models/main/ml/double/1"
        found = {path.relative_to(root).as_posix(): path.stat().st_size for path in root.rglob("*") if path.is_file()}
    assert found == sizes


def test_the_order_of_calls(workspace: Workspace, folder: Path) -> None:
    mlflow.register_model(str(folder), NAME)
    assert _calls(workspace, LEGACY_PREFIX) == [
        "POST registered-models/create",
        "POST model-versions/create",
        "GET registered-models:is-databricks-sdk-models-artifact-repository-enabled",
        "POST model-versions/generate-temporary-credentials",
        "POST model-versions/finalize",
    ]
    (create,) = workspace.matching("model-versions/create")
    assert create.document["source"] == str(folder)
    assert create.lineage is None


def test_the_version_is_pending_while_its_files_are_sent(workspace: Workspace, surface: str, folder: Path) -> None:
    seen = []
    workspace.on_request = lambda request: (
        seen.append(workspace.versions(NAME)[0].status) if "credentials" in request.path else None
    )
    mlflow.register_model(str(folder), NAME)
    assert seen == ["PENDING_REGISTRATION"]
    assert workspace.versions(NAME)[0].status == "READY"


def test_server_side_encryption_is_obeyed(workspace: Workspace, folder: Path, s3: S3Server, proxy: S3Proxy) -> None:
    details = {"sse_encryption_details": {"algorithm": "AWS_SSE_S3"}}
    workspace.vending = Vending(f"s3://{s3.bucket}/sse", workspace.vending.credentials, details)
    mlflow.register_model(str(folder), NAME)
    headers = [{k.lower(): v for k, v in request.headers.items()} for request in proxy.matching("^PUT /models/sse/")]
    assert headers
    assert all(header["x-amz-server-side-encryption"] == "AES256" for header in headers)


@pytest.mark.parametrize(
    ("kind", "credentials"),
    [
        (
            "aws_temp_credentials",
            {"access_key_id": secret("a"), "secret_access_key": secret("b"), "session_token": secret("c")},
        ),
        ("azure_user_delegation_sas", {"sas_token": secret("azure", "sas")}),
        ("gcp_oauth_token", {"oauth_token": secret("google", "google")}),
        (
            "r2_temp_credentials",
            {"access_key_id": secret("a"), "secret_access_key": secret("b"), "session_token": secret("c")},
        ),
    ],
)
def test_mlflow_reads_the_credentials_of_every_cloud(
    workspace: Workspace, surface: str, kind: str, credentials: dict[str, str]
) -> None:
    from mlflow.store._unity_catalog.registry.rest_store import UcModelRegistryStore
    from mlflow.store._unity_catalog.registry.uc_native_rest_store import UcNativeModelRegistryStore

    workspace.vending = Vending("s3://models/uc", {kind: credentials}, lifetime=60)
    MlflowClient().create_registered_model(NAME)
    created = _post(workspace, f"{LEGACY_PREFIX}model-versions/create", {"name": NAME, "source": "/x"})
    store = (UcNativeModelRegistryStore if surface == "native" else UcModelRegistryStore)("databricks-uc", "databricks")
    found = store._get_temporary_model_version_write_credentials(NAME, created["model_version"]["version"])
    assert found.WhichOneof("credentials") == kind
    assert {name: getattr(getattr(found, kind), name) for name in credentials} == credentials
    assert 0 < found.expiration_time / 1000 - time.time() <= 60


# What goes wrong


def test_without_signature_it_is_refused_and_an_empty_model_stays(
    workspace: Workspace, surface: str, tmp_path: Path
) -> None:
    with pytest.raises(MlflowException, match="did not contain any signature metadata"):
        mlflow.register_model(str(_saved(tmp_path / "bare", None)), NAME)
    assert workspace.model(NAME) is not None
    assert workspace.versions(NAME) == []


def test_a_failed_upload_leaves_a_pending_version(workspace: Workspace, surface: str, folder: Path) -> None:
    workspace.vending = Vending(workspace.vending.location, {}, blocked=True)
    with pytest.raises(MlflowException, match="Temporary credentials"):
        mlflow.register_model(str(folder), NAME)
    assert [v.status for v in workspace.versions(NAME)] == ["PENDING_REGISTRATION"]
    assert MlflowClient().get_model_version(NAME, "1").status == "PENDING_REGISTRATION"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.ml.x", "CATALOG_DOES_NOT_EXIST: Catalog 'nowhere' does not exist."),
        ("main.nowhere.x", "SCHEMA_DOES_NOT_EXIST: Schema 'main.nowhere' does not exist."),
        ("main.ml.a b", "INVALID_PARAMETER_VALUE: Invalid name 'a b'"),
    ],
)
def test_places_that_are_not_there(workspace: Workspace, surface: str, name: str, words: str) -> None:
    with pytest.raises(MlflowException, match=words):
        MlflowClient().create_registered_model(name)


def test_a_name_needs_three_levels(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MlflowException, match=r"please specify all three levels.*legacy Workspace Model Registry"):
        MlflowClient().create_registered_model("double")
    _speak("native", monkeypatch)
    with pytest.raises(MlflowException, match="Not a valid Unity Catalog model name: 'double'"):
        MlflowClient().create_registered_model("double")


def test_a_workspace_without_metastore(workspace: Workspace, surface: str) -> None:
    workspace.metastore = False
    with pytest.raises(MlflowException, match=r"METASTORE_DOES_NOT_EXIST.*does not have Unity Catalog enabled"):
        MlflowClient().create_registered_model(NAME)


def test_privileges_are_asked_for_one_after_another(workspace: Workspace, surface: str) -> None:
    workspace.add_schema("prod.ml", everyone=False)
    client, name = MlflowClient(), "prod.ml.x"
    for kind, of, privilege, words in (
        ("CATALOG", "prod", "USE CATALOG", "User does not have USE CATALOG on Catalog 'prod'."),
        ("SCHEMA", "prod.ml", "USE SCHEMA", "User does not have USE SCHEMA on Schema 'prod.ml'."),
        ("SCHEMA", "prod.ml", "CREATE MODEL", "User does not have CREATE MODEL on Schema 'prod.ml'."),
    ):
        with pytest.raises(MlflowException, match=f"PERMISSION_DENIED: {words}"):
            client.create_registered_model(name)
        workspace.grant(kind, of, USER, privilege)  # type: ignore[arg-type]
    assert client.create_registered_model(name).name == name


def test_another_users_model_needs_privileges_of_its_own(workspace: Workspace, surface: str, folder: Path) -> None:
    workspace.add_schema("prod.ml", everyone=False)
    workspace.grant("SCHEMA", "prod.ml", USER, "USE SCHEMA", "CREATE MODEL")
    workspace.grant("CATALOG", "prod", USER, "USE CATALOG")
    client, name = MlflowClient(), "prod.ml.x"
    client.create_registered_model(name)
    workspace.hand_over("FUNCTION", name, "bob@example.com")
    with pytest.raises(MlflowException, match=r"User does not have EXECUTE on Routine or Model 'prod.ml.x'"):
        client.get_registered_model(name)
    with pytest.raises(MlflowException, match="User does not have CREATE MODEL VERSION on Routine or Model"):
        mlflow.register_model(str(folder), name)
    workspace.grant("FUNCTION", name, USER, "EXECUTE", "CREATE MODEL VERSION")
    assert mlflow.register_model(str(folder), name).status == "READY"
    with pytest.raises(MlflowException, match=r"User is not an owner of Routine or Model 'prod.ml.x'"):
        client.set_registered_model_alias(name, "champion", "1")
    with pytest.raises(MlflowException, match="User does not have APPLY TAG on Routine or Model"):
        client.set_model_version_tag(name, "1", "a", "b")


@pytest.mark.parametrize("token", [secret("nobody", "databricks"), secret("nobody")], ids=["personal", "of OAuth"])
def test_an_unknown_token_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", token)
    with pytest.raises(MlflowException, match=r"Invalid (access token|Token)"):
        MlflowClient().get_registered_model(NAME)
    assert workspace.requests[-1].status == (403 if token.startswith("dapi") else 401)


def test_what_is_missing_and_what_is_there(workspace: Workspace, surface: str) -> None:
    client = MlflowClient()
    with pytest.raises(MlflowException, match=f"RESOURCE_DOES_NOT_EXIST: Routine or Model '{NAME}' does not exist."):
        client.get_registered_model(NAME)
    client.create_registered_model(NAME)
    with pytest.raises(MlflowException, match="RESOURCE_ALREADY_EXISTS: Routine or Model 'double' already exists"):
        client.create_registered_model(NAME)
    with pytest.raises(MlflowException, match="RESOURCE_DOES_NOT_EXIST"):
        client.get_model_version(NAME, "7")
    with pytest.raises(MlflowException, match="RESOURCE_DOES_NOT_EXIST"):
        client.get_model_version_by_alias(NAME, "champion")


# Names, aliases, tags, descriptions, search, deletion


def test_a_name_in_other_letters_is_the_same(workspace: Workspace, surface: str, folder: Path) -> None:
    assert mlflow.register_model(str(folder), "Main.ML.Double").name == NAME
    assert mlflow.register_model(str(folder), NAME).version == "2"


def test_an_alias_points_at_one_version(workspace: Workspace, surface: str, folder: Path) -> None:
    client = MlflowClient()
    for _ in range(2):
        mlflow.register_model(str(folder), NAME)
    client.set_registered_model_alias(NAME, "champion", "1")
    client.set_registered_model_alias(NAME, "champion", "2")
    assert client.get_model_version_by_alias(NAME, "champion").version == "2"
    assert client.get_registered_model(NAME).aliases == {"champion": "2"}
    assert client.get_model_version(NAME, "1").aliases == []
    assert client.get_model_version(NAME, "2").aliases == ["champion"]
    assert mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict({"x": [3]}) == [6]
    client.delete_registered_model_alias(NAME, "champion")
    assert client.get_registered_model(NAME).aliases == {}


def test_tags_and_descriptions(workspace: Workspace, surface: str, folder: Path) -> None:
    client = MlflowClient()
    mlflow.register_model(str(folder), NAME, tags={"given": "at once"})
    client.set_model_version_tag(NAME, "1", "sha", "abc")
    client.delete_model_version_tag(NAME, "1", "given")
    client.set_registered_model_tag(NAME, "team", "ml")
    client.update_model_version(NAME, "1", "first")
    client.update_registered_model(NAME, "all of them")
    version, model = client.get_model_version(NAME, "1"), client.get_registered_model(NAME)
    assert (version.tags, version.description) == ({"sha": "abc"}, "first")
    assert (model.tags, model.description) == ({"team": "ml"}, "all of them")
    client.delete_registered_model_tag(NAME, "team")
    client.update_model_version(NAME, "1", "")
    assert client.get_registered_model(NAME).tags == {}
    assert client.get_model_version(NAME, "1").description == ""


def test_a_search_knows_no_aliases_and_no_tags(workspace: Workspace, surface: str, folder: Path) -> None:
    client = MlflowClient()
    mlflow.register_model(str(folder), NAME, tags={"a": "b"})
    client.set_registered_model_alias(NAME, "champion", "1")
    client.create_registered_model("main.ml.other")
    found = client.search_registered_models()
    assert sorted(model.name for model in found) == [NAME, "main.ml.other"]
    (version,) = client.search_model_versions(f"name='{NAME}'")
    assert (version.version, version.status) == ("1", "READY")
    paths = ["registered-models/search?max_results=9", f"model-versions/search?filter=name='{NAME}'"]
    native = ["models?max_results=9", f"models/{NAME}/versions"]
    below = (
        [NATIVE_PREFIX + path for path in native] if surface == "native" else [LEGACY_PREFIX + path for path in paths]
    )
    rows = [row for path in below for found in json.loads(_ask(workspace, path, None)).values() for row in found]
    assert len(rows) == 3
    assert not any("aliases" in row or "tags" in row for row in rows)


def test_a_search_has_pages(workspace: Workspace, surface: str) -> None:
    client = MlflowClient()
    names = [f"main.ml.m{number}" for number in range(5)]
    for name in names:
        client.create_registered_model(name)
    first = client.search_registered_models(max_results=3)
    second = client.search_registered_models(max_results=3, page_token=first.token)
    assert (len(first), len(second)) == (3, 2)
    assert sorted(model.name for model in [*first, *second]) == names
    assert not second.token


def test_a_number_is_never_used_again(workspace: Workspace, surface: str, folder: Path) -> None:
    client = MlflowClient()
    mlflow.register_model(str(folder), NAME)
    client.set_registered_model_alias(NAME, "champion", "1")
    client.delete_model_version(NAME, "1")
    assert client.get_registered_model(NAME).aliases == {}
    assert mlflow.register_model(str(folder), NAME).version == "2"
    client.delete_registered_model(NAME)
    with pytest.raises(MlflowException, match="does not exist"):
        client.get_registered_model(NAME)


def test_a_version_is_finalized_once(workspace: Workspace, folder: Path) -> None:
    mlflow.register_model(str(folder), NAME)
    with pytest.raises(HTTPError, match="400"):
        _post(workspace, f"{LEGACY_PREFIX}model-versions/finalize", {"name": NAME, "version": "1"})
    again = {"name": NAME, "version": "1", "operation": "MODEL_VERSION_OPERATION_READ_WRITE"}
    with pytest.raises(HTTPError, match="400"):
        _post(workspace, f"{LEGACY_PREFIX}model-versions/generate-temporary-credentials", again)


# Runs and logged models


def test_log_and_register_in_one_call(tracked: Workspace, surface: str, tmp_path: Path) -> None:
    with mlflow.start_run() as run:
        logged = mlflow.pyfunc.log_model(
            name="double",
            **_double(tmp_path),
            signature=ModelSignature(_columns(), _columns()),
            registered_model_name=NAME,
        )
    assert run.info.artifact_uri.startswith("dbfs:/databricks/mlflow-tracking/1/")
    found = mlflow.get_logged_model(logged.model_id)
    assert found.artifact_location.startswith("dbfs:/databricks/mlflow-tracking/1/logged_models/")
    (version,) = tracked.versions(NAME)
    assert (version.run_id, version.model_id, version.link) == (run.info.run_id, logged.model_id, ORG_ID)
    assert mlflow.pyfunc.load_model(logged.model_uri).predict({"x": [2]}) == [4]
    assert mlflow.pyfunc.load_model(f"models:/{NAME}/1").predict({"x": [2]}) == [4]


def test_a_run_of_a_job_gives_lineage(tracked: Workspace, surface: str, folder: Path) -> None:
    with mlflow.start_run(tags={"mlflow.databricks.jobID": "7", "mlflow.databricks.notebookID": "9"}) as run:
        pass
    client = MlflowClient()
    client.create_registered_model(NAME)
    client.create_model_version(NAME, str(folder), run_id=run.info.run_id)
    (create,) = tracked.matching("POST .*(model-versions/create|models/versions)$")
    entities = json.loads(base64.b64decode(create.lineage or ""))["entities"]
    assert entities == [{"notebook": {"id": "9"}}, {"job": {"id": "7"}}]
    assert tracked.versions(NAME)[0].link == ORG_ID


def test_an_artifact_of_a_run_is_kept_behind_the_files_api(tracked: Workspace) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("hello", "notes/hello.txt")
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/hello.txt") == "hello"
    assert list(tracked.files.root.rglob("hello.txt"))


# databricks-sdk


def test_the_sdk_reads_models_and_versions(workspace: Workspace, folder: Path) -> None:
    client, mlflow_client = _sdk(), MlflowClient()
    for _ in range(2):
        mlflow.register_model(str(folder), NAME)
    mlflow_client.set_registered_model_alias(NAME, "champion", "2")
    model = client.registered_models.get(NAME)
    assert (model.full_name, model.owner, model.aliases or []) == (NAME, USER, [])
    (alias,) = client.registered_models.get(NAME, include_aliases=True).aliases
    assert (alias.alias_name, alias.version_num) == ("champion", 2)
    version = client.model_versions.get(NAME, 1)
    assert (version.version, version.status.value, version.created_by) == (1, "READY", USER)
    assert version.storage_location == workspace.versions(NAME)[0].storage_location
    assert sorted(v.version for v in client.model_versions.list(NAME, max_results=1)) == [1, 2]
    assert client.model_versions.get_by_alias(NAME, "champion").version == 2
    assert [m.name for m in client.registered_models.list(catalog_name="main", schema_name="ml")] == ["double"]
    client.registered_models.set_alias(NAME, "challenger", 1)
    assert workspace.model(NAME).aliases == {"champion": 2, "challenger": 1}  # type: ignore[union-attr]
    client.registered_models.delete_alias(NAME, "challenger")
    client.model_versions.update(NAME, 1, comment="first")
    assert client.model_versions.get(NAME, 1).comment == "first"


def test_the_sdk_finds_places_and_privileges(workspace: Workspace) -> None:
    from databricks.sdk.errors import NotFound, PermissionDenied
    from databricks.sdk.service.catalog import PermissionsChange, Privilege

    client = _sdk()
    workspace.add_schema("prod.ml", owner=USER, everyone=False)
    assert client.current_user.me().user_name == USER
    assert client.catalogs.get("main").name == "main"
    assert client.schemas.get("main.ml").full_name == "main.ml"
    with pytest.raises(NotFound, match=r"Catalog 'nowhere' does not exist."):
        client.catalogs.get("nowhere")
    with pytest.raises(NotFound, match=r"Schema 'main.nowhere' does not exist."):
        client.schemas.get("main.nowhere")
    workspace.add_schema("closed.ml", everyone=False)
    with pytest.raises(PermissionDenied, match=r"User does not have USE CATALOG on Catalog 'closed'."):
        client.catalogs.get("closed")
    change = PermissionsChange(principal=USER, add=[Privilege.USE_SCHEMA, Privilege.CREATE_MODEL])
    workspace.grant("CATALOG", "prod", USER, "USE CATALOG")
    client.grants.update("schema", "prod.ml", changes=[change])
    (found,) = client.grants.get_effective("schema", "prod.ml", principal=USER).privilege_assignments
    origins = {held.privilege: held.inherited_from_name for held in found.privileges}
    assert origins == {Privilege.USE_SCHEMA: None, Privilege.CREATE_MODEL: None, Privilege.USE_CATALOG: "prod"}
    (own,) = client.grants.get("schema", "prod.ml", principal=USER).privilege_assignments
    assert set(own.privileges) == {Privilege.USE_SCHEMA, Privilege.CREATE_MODEL}


def test_the_sdk_moves_files_of_a_pending_version(workspace: Workspace) -> None:
    from io import BytesIO

    from databricks.sdk.errors import BadRequest, NotFound

    client = _sdk()
    MlflowClient().create_registered_model(NAME)
    with pytest.raises(NotFound):
        client.files.upload("/Models/main/ml/double/1/a.bin", BytesIO(b"abc"), overwrite=True)
    _post(workspace, f"{LEGACY_PREFIX}model-versions/create", {"name": NAME, "source": "/x"})
    client.files.upload("/Models/Main/ML/Double/1/data/a.bin", BytesIO(b"abc"), overwrite=True)
    assert client.files.download("/Models/main/ml/double/1/data/a.bin").contents.read() == b"abc"
    assert client.files.get_metadata("/Models/main/ml/double/1/data/a.bin").content_length == 3
    (entry,) = client.files.list_directory_contents("/Models/main/ml/double/1/data")
    assert (entry.path, entry.file_size) == ("/Models/main/ml/double/1/data/a.bin", 3)
    _post(workspace, f"{LEGACY_PREFIX}model-versions/finalize", {"name": NAME, "version": "1"})
    with pytest.raises(BadRequest):
        client.files.upload("/Models/main/ml/double/1/data/a.bin", BytesIO(b"abcd"), overwrite=True)


# What the tests stand on


def vending(s3: S3Server) -> Vending:
    keys = {"access_key_id": s3.access_key, "secret_access_key": s3.secret_key, "session_token": SESSION}
    return Vending(f"s3://{s3.bucket}/metastore", {"aws_temp_credentials": keys})


_LOADER = """
class Double:
    def predict(self, table, params=None):
        return [2 * int(x) for x in table["x"]]


def _load_pyfunc(path):
    return Double()
"""


def _columns() -> Schema:
    return Schema([ColSpec("long", "x")])


def _saved(folder: Path, signature: ModelSignature | None) -> Path:
    mlflow.pyfunc.save_model(folder, **_double(folder.parent), signature=signature)
    return folder


def _double(near: Path) -> dict[str, Any]:
    """What MLflow saves or logs: a model by a loader, which is code and one file."""
    loader = near / "load_double.py"
    loader.write_text(_LOADER)
    return {"loader_module": "load_double", "data_path": loader, "code_paths": [loader], "pip_requirements": []}


def _point_clients(monkeypatch: pytest.MonkeyPatch, workspace: Workspace, s3: str) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri("databricks")
    mlflow.set_registry_uri("databricks-uc")


def _speak(surface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = f"[{surface}]\nhost = {os.environ['DATABRICKS_HOST']}\ntoken = {TOKEN}\n"
    (Path.home() / ".databrickscfg").write_text(profile)
    monkeypatch.setenv(NATIVE, str(surface == "native").lower())
    mlflow.set_registry_uri(f"databricks-uc://{surface}")


def _sdk() -> Any:
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient()


def _calls(workspace: Workspace, prefix: str) -> list[str]:
    found = [request for request in workspace.requests if request.path.startswith(prefix)]
    return [f"{request.method} {request.path.removeprefix(prefix)}" for request in found]


def _post(workspace: Workspace, path: str, document: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(_ask(workspace, path, json.dumps(document).encode())))


def _ask(workspace: Workspace, path: str, body: bytes | None) -> bytes:
    request = urllib.request.Request(workspace.url + path, body, {"Authorization": f"Bearer {TOKEN}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())
