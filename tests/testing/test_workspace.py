"""What a test can order of the loopback workspace, and what it sees of it, by plain HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes.secrets import secret

from catalogger.testing.models import Vending
from catalogger.testing.orders import Request
from catalogger.testing.workspace import ORG_ID, Workspace

NAME, ANN, BOB = "main.ml.x", secret("Ann", "databricks"), secret("Bob", "databricks")
LEGACY, NATIVE = "/api/2.0/mlflow/unity-catalog", "/api/2.1/unity-catalog"
CREATE = f"{LEGACY}/registered-models/create"
SECRET = secret("storage", "secret key")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    tokens = {ANN: "ann@example.com", BOB: "bob@example.com"}
    with Workspace(tmp_path, Vending("s3://models/uc", {}), tokens=tokens) as workspace:
        workspace.add_schema("main.ml")
        yield workspace


def test_a_request_is_recorded(workspace: Workspace) -> None:
    answer = _call(workspace, "POST", CREATE, {"name": NAME}, headers={"X-Databricks-Lineage-Identifier": "abc"})
    (request,) = workspace.requests
    assert (request.method, request.line, request.path) == ("POST", f"POST {CREATE}", CREATE)
    assert (request.user, request.status, request.lineage) == ("ann@example.com", 200, "abc")
    assert (request.document, request.received, request.sent) == ({"name": NAME}, 21, len(answer.content))
    assert answer.headers["x-databricks-org-id"] == ORG_ID


def test_files_are_counted_as_they_come_and_go(workspace: Workspace) -> None:
    path = "/api/2.0/fs/files/Volumes/a/b/c/big.bin"
    content = bytes(3_000_000)
    requests.put(workspace.url + path, data=content, headers=_auth(), timeout=30).raise_for_status()
    assert requests.get(workspace.url + path, headers=_auth(), timeout=30).content == content
    put, get = workspace.requests
    assert (put.received, put.sent, get.received, get.sent) == (3_000_000, 0, 0, 3_000_000)


def test_whole_numbers_are_strings_on_mlflows_surface_only(workspace: Workspace) -> None:
    (legacy,) = _call(workspace, "POST", CREATE, {"name": NAME}).json().values()
    native = _call(workspace, "GET", f"{NATIVE}/models/{NAME}").json()
    assert legacy["creation_timestamp"] == str(native["created_at"])


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [(None, 401, "UNAUTHENTICATED"), (secret("nobody", "databricks"), 403, 403), (secret("x"), 401, "UNAUTHENTICATED")],
    ids=["none", "personal", "of OAuth"],
)
def test_bad_tokens(workspace: Workspace, token: str | None, status: int, code: str | int) -> None:
    answer = _call(workspace, "GET", f"{NATIVE}/models/{NAME}", token=token)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert workspace.requests[0].user is None


def test_what_is_not_there_is_no_endpoint(workspace: Workspace) -> None:
    answer = _call(workspace, "GET", "/api/2.0/mlflow/runs/get")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert _call(workspace, "GET", "/.well-known/databricks-config", token=None).status_code == 404


def test_a_missing_field_is_a_bad_request(workspace: Workspace) -> None:
    answer = _call(workspace, "POST", CREATE, {})
    assert (answer.status_code, answer.json()["message"]) == (400, "Missing required field: name")


def test_a_listing_across_the_metastore_needs_a_page_size(workspace: Workspace) -> None:
    assert _call(workspace, "GET", f"{NATIVE}/models").status_code == 400
    assert _call(workspace, "GET", f"{NATIVE}/models?catalog_name=main&schema_name=ml").status_code == 200


def test_privileges_of_a_group_stand_under_its_name(workspace: Workspace) -> None:
    path = f"{NATIVE}/effective-permissions/schema/main.ml"
    assert _call(workspace, "GET", f"{path}?principal=ann@example.com").json() == {}
    assert _call(workspace, "GET", path).status_code == 403
    workspace.hand_over("SCHEMA", "main.ml", "ann@example.com")
    (found,) = _call(workspace, "GET", path).json()["privilege_assignments"]
    assert found["principal"] == "account users"


def test_privileges_are_inherited_and_withdrawn(workspace: Workspace) -> None:
    workspace.add_schema("prod.ml", everyone=False)
    workspace.grant("CATALOG", "prod", "ann@example.com", "USE CATALOG", "USE SCHEMA", "CREATE MODEL")
    assert _call(workspace, "POST", CREATE, {"name": "prod.ml.x"}).status_code == 200
    workspace.revoke("CATALOG", "prod", "ann@example.com", "CREATE MODEL")
    answer = _call(workspace, "POST", CREATE, {"name": "prod.ml.y"})
    assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")


def test_an_answer_before_the_action(workspace: Workspace) -> None:
    workspace.order.fail("create$", 503, headers={"Retry-After": "7"}, times=2, skip=1)
    statuses = [_call(workspace, "POST", CREATE, {"name": f"main.ml.{name}"}).status_code for name in "abcd"]
    assert statuses == [200, 503, 503, 200]
    assert workspace.model("main.ml.b") is None
    assert workspace.requests[1].status == 503


def test_an_answer_after_the_action_is_lost(workspace: Workspace) -> None:
    workspace.order.fail("create$", 504, when="after", headers={"Retry-After": "7"})
    answer = _call(workspace, "POST", CREATE, {"name": NAME})
    assert (answer.status_code, answer.headers["Retry-After"]) == (504, "7")
    assert workspace.model(NAME)


@pytest.mark.parametrize(("when", "done"), [("before", False), ("after", True)])
def test_a_reset(workspace: Workspace, when: Any, done: bool) -> None:
    workspace.order.reset("create$", when)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        _call(workspace, "POST", CREATE, {"name": NAME})
    assert bool(workspace.model(NAME)) == done
    assert workspace.requests[0].status is None


def test_a_stall_lasts_until_the_client_gives_up(workspace: Workspace) -> None:
    workspace.order.stall("create$")
    with pytest.raises(requests.Timeout):
        requests.post(workspace.url + CREATE, json={"name": NAME}, headers=_auth(), timeout=0.2)
    assert workspace.model(NAME) is None
    assert _call(workspace, "POST", CREATE, {"name": NAME}).status_code == 200


def test_a_truncated_answer(workspace: Workspace) -> None:
    workspace.order.truncate("create$")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _call(workspace, "POST", CREATE, {"name": NAME})
    assert workspace.model(NAME)


def test_a_login_page(workspace: Workspace) -> None:
    workspace.order.login_page("create$")
    answer = _call(workspace, "POST", CREATE, {"name": NAME})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Sign in" in answer.text


def test_a_schema_vanishes_in_the_middle(workspace: Workspace) -> None:
    workspace.order.vanish("main.ml", "create$", skip=1)
    assert _call(workspace, "POST", CREATE, {"name": NAME}).status_code == 200
    answer = _call(workspace, "POST", CREATE, {"name": "main.ml.y"})
    assert (answer.status_code, answer.json()["error_code"]) == (404, "SCHEMA_DOES_NOT_EXIST")
    assert workspace.model(NAME) is None


def test_the_hook_is_called_before_anything_is_done(workspace: Workspace) -> None:
    seen: list[tuple[str | None, bool]] = []

    def look(request: Request) -> None:
        seen.append((request.user, workspace.model(NAME) is None))

    workspace.on_request = look
    _call(workspace, "POST", CREATE, {"name": NAME}, token=BOB)
    assert seen == [("bob@example.com", True)]


def test_one_version_for_each_of_many_at_once(workspace: Workspace) -> None:
    _call(workspace, "POST", CREATE, {"name": NAME})
    create = f"{LEGACY}/model-versions/create"
    numbers: list[str] = []

    def register() -> None:
        answer = _call(workspace, "POST", create, {"name": NAME, "source": "/x"}).json()
        numbers.append(answer["model_version"]["version"])

    threads = [threading.Thread(target=register) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, numbers)) == list(range(1, 21))


def test_credentials_are_not_shown(workspace: Workspace) -> None:
    keys = {"aws_temp_credentials": {"access_key_id": "a", "secret_access_key": SECRET, "session_token": SECRET}}
    workspace.vending = Vending("s3://models/uc", keys)
    assert SECRET not in repr(workspace.vending)


def _auth(token: str = ANN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _call(
    workspace: Workspace,
    method: str,
    path: str,
    document: dict[str, Any] | None = None,
    *,
    token: str | None = ANN,
    headers: dict[str, str] | None = None,
) -> requests.Response:
    sent = {**(_auth(token) if token else {}), **(headers or {})}
    return requests.request(method, workspace.url + path, json=document, headers=sent, timeout=30)
