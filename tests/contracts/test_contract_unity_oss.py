"""What an open-source Unity Catalog server answers by plain HTTP: on the loopback one, and on a real one if named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from contracts.place import Place, folder_of
from fakes.secrets import secret
from fakes.unity import PREFIX, Unity

BAD_NAME = "Name cannot contain a period, space, forward-slash, or control characters"
ADMIN, ANN, BOB = (secret(user) for user in ("admin", "ann", "bob"))


def refused(answer: requests.Response, status: int, code: str, message: str) -> None:
    """Exactly this refusal, in the one form that all have."""
    document = answer.json()
    assert (answer.status_code, document["error_code"], document["message"]) == (status, code, message)
    assert [(d["@type"], d["reason"]) for d in document["details"]] == [("google.rpc.ErrorInfo", code)]


def plain(answer: requests.Response, status: int) -> None:
    """An answer of the web server itself, which is not JSON."""
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert not answer.text.lstrip().startswith(("{", "["))


# Catalogs and schemas


def test_catalogs_and_schemas_are_made_listed_and_removed(place: Place) -> None:
    other = place.catalog + "_2"
    made = place.done("POST", "/catalogs", {"name": other, "comment": ""})
    assert (made["name"], made["comment"]) == (other, "")
    assert place.done("GET", f"/catalogs/{other}")["id"] == made["id"]
    assert {place.catalog, other} <= {c["name"] for c in place.done("GET", "/catalogs")["catalogs"]}
    place.done("POST", "/schemas", {"name": "one", "catalog_name": other})
    assert [s["full_name"] for s in place.done("GET", "/schemas", catalog_name=other)["schemas"]] == [f"{other}.one"]
    assert place.done("GET", f"/schemas/{other}.one")["catalog_name"] == other

    text = "Cannot delete catalog with schemas. Use force=true to force deletion."
    refused(place.ask("DELETE", f"/catalogs/{other}"), 400, "FAILED_PRECONDITION", text)
    assert place.ask("DELETE", f"/schemas/{other}.one").status_code == 200
    assert place.ask("DELETE", f"/catalogs/{other}").status_code == 200
    refused(place.ask("GET", f"/catalogs/{other}"), 404, "CATALOG_NOT_FOUND", f"Catalog not found: {other}")


def test_a_duplicate_catalog_or_schema_is_refused(place: Place) -> None:
    catalog = place.ask("POST", "/catalogs", {"name": place.catalog})
    refused(catalog, 400, "CATALOG_ALREADY_EXISTS", f"Catalog already exists: {place.catalog}")
    schema = place.ask("POST", "/schemas", {"name": "ml", "catalog_name": place.catalog})
    refused(schema, 400, "SCHEMA_ALREADY_EXISTS", "Schema already exists: ml")


def test_a_schema_with_models_goes_only_by_force(place: Place) -> None:
    place.add_model("q")
    schema = f"/schemas/{place.catalog}.ml"
    refused(place.ask("DELETE", schema), 400, "FAILED_PRECONDITION", "Cannot delete schema with models")
    assert place.ask("DELETE", schema, force="true").status_code == 200
    text = f"Schema not found: {place.catalog}.ml"
    refused(place.ask("GET", f"/models/{place.full('q')}"), 404, "SCHEMA_NOT_FOUND", text)


# Models


def test_a_duplicate_model_is_refused(place: Place) -> None:
    made = place.add_model("q", comment="first")
    assert (made["full_name"], made["comment"]) == (place.full("q"), "first")
    text = f"Registered model already exists: {place.full('q')}"
    refused(place.ask("POST", "/models", {"name": "q", **place.names}), 409, "ALREADY_EXISTS", text)
    assert place.done("GET", f"/models/{place.full('q')}")["id"] == made["id"]


def test_a_missing_schema_or_catalog_is_named(place: Place) -> None:
    schema = place.ask("POST", "/models", {"name": "q", **place.names, "schema_name": "nope"})
    refused(schema, 404, "SCHEMA_NOT_FOUND", f"Schema not found: {place.catalog}.nope")
    catalog = place.ask("POST", "/models", {"name": "q", "catalog_name": "nope", "schema_name": "ml"})
    refused(catalog, 404, "CATALOG_NOT_FOUND", "Catalog not found: nope")
    refused(place.ask("GET", "/models/nope.ml.q"), 404, "CATALOG_NOT_FOUND", "Catalog not found: nope")


@pytest.mark.parametrize("name", ["a b", "a/b", "a.b", "a%b", "é", "a\tb"])
def test_a_name_with_other_characters_is_refused(place: Place, name: str) -> None:
    refused(place.ask("POST", "/models", {"name": name, **place.names}), 400, "INVALID_ARGUMENT", BAD_NAME)


def test_a_name_may_have_255_characters(place: Place) -> None:
    place.add_model("x" * 255)
    long = place.ask("POST", "/models", {"name": "x" * 256, **place.names})
    refused(long, 400, "INVALID_ARGUMENT", "Name cannot be longer than 255 characters")
    empty = place.ask("POST", "/models", {"name": "", **place.names})
    refused(empty, 400, "INVALID_ARGUMENT", "Name cannot be empty")


def test_case_makes_another_name(place: Place) -> None:
    assert place.add_model("q")["id"] != place.add_model("Q")["id"]
    place.add_model("a-b_c@D")


@pytest.mark.parametrize("name", ["q", "ml.q", "a.b.c.d"])
def test_a_name_with_other_than_three_levels_is_refused(place: Place, name: str) -> None:
    refused(place.ask("GET", f"/models/{name}"), 400, "INVALID_ARGUMENT", f"Invalid registered model name: {name}")


def test_a_missing_model_or_version_is_named(place: Place) -> None:
    place.add_model("q")
    model = place.ask("GET", f"/models/{place.full('nope')}")
    refused(model, 404, "NOT_FOUND", f"Registered model not found: {place.full('nope')}")
    version = place.ask("GET", f"/models/{place.full('q')}/versions/99")
    refused(version, 404, "NOT_FOUND", f"Model version not found: {place.full('q')}/99")
    created = place.ask("POST", "/models/versions", {"model_name": "nope", "source": "/s", **place.names})
    refused(created, 404, "NOT_FOUND", "Registered model not found: nope")


def test_unknown_fields_are_ignored(place: Place) -> None:
    made = place.add_model("q", colour="red")
    assert "colour" not in made
    assert "tags" not in place.add_version("q", tags=[{"key": "a", "value": "b"}])


@pytest.mark.parametrize("body", [b"{", b"", b"[1"])
def test_a_malformed_body_is_refused(place: Place, body: bytes) -> None:
    answer = place.ask("POST", "/models", body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_ARGUMENT")
    assert answer.json()["message"].startswith("failed to parse a JSON document")


def test_a_comment_may_be_empty_but_not_missing(place: Place) -> None:
    model, version = f"/models/{place.full('q')}", f"/models/{place.full('q')}/versions/1"
    assert place.add_model("q", comment="")["comment"] == ""
    place.add_version("q", comment="first")
    for path in (model, version):
        assert place.done("PATCH", path, {"comment": "other"})["comment"] == "other"
        assert place.done("PATCH", path, {"comment": ""})["comment"] == ""
        assert place.done("GET", path)["comment"] == ""
        refused(place.ask("PATCH", path, {}), 400, "INVALID_ARGUMENT", "No updated fields defined.")


def test_a_model_is_renamed_to_a_free_name(place: Place) -> None:
    place.add_model("q")
    place.add_model("taken")
    taken = place.ask("PATCH", f"/models/{place.full('q')}", {"new_name": "taken"})
    refused(taken, 409, "ALREADY_EXISTS", f"Registered model already exists: {place.full('taken')}")
    assert place.done("PATCH", f"/models/{place.full('q')}", {"new_name": "r"})["full_name"] == place.full("r")
    assert place.ask("GET", f"/models/{place.full('q')}").status_code == 404


def test_a_model_with_versions_goes_only_by_force_and_begins_anew(place: Place) -> None:
    place.add_model("q")
    place.add_version("q")
    path = f"/models/{place.full('q')}"
    text = "Unable to delete a registered model with existing model versions: q"
    refused(place.ask("DELETE", path), 409, "ABORTED", text)
    assert place.ask("DELETE", path, force="true").status_code == 200
    assert place.ask("GET", path).status_code == 404
    place.add_model("q")
    assert place.add_version("q")["version"] == 1
    assert place.ask("DELETE", f"{path}/versions/1").status_code == 200
    assert place.ask("DELETE", path).status_code == 200


# Versions


def test_a_new_version_is_pending_and_has_a_folder(place: Place) -> None:
    model = place.add_model("q")
    version = place.add_version("q", run_id="r", comment="c", source="/some/where")
    facts = {"version": 1, "status": "PENDING_REGISTRATION", "source": "/some/where", "run_id": "r", "comment": "c"}
    assert version.items() >= {**facts, "model_name": "q", **place.names}.items()
    assert version["storage_location"].startswith("file:///")
    assert version["storage_location"].endswith(f"/__unitystorage/models/{model['id']}/versions/{version['id']}")
    assert list(folder_of(version).iterdir()) == []
    assert place.done("GET", f"/models/{place.full('q')}/versions/1") == version


def test_a_version_is_finalized_once(place: Place) -> None:
    place.add_model("q")
    place.add_version("q")
    assert place.finalize("q", 1)["status"] == "READY"
    assert place.done("GET", f"/models/{place.full('q')}/versions/1")["status"] == "READY"
    again = place.ask(
        "PATCH", f"/models/{place.full('q')}/versions/1/finalize", {"full_name": place.full("q"), "version": 1}
    )
    text = f"Model version not in a pending registration state: {place.full('q')}/1"
    refused(again, 400, "INVALID_ARGUMENT", text)


def test_the_body_says_which_version_is_finalized(place: Place) -> None:
    place.add_model("q")
    place.add_version("q")
    place.add_version("q")
    body = {"full_name": place.full("q"), "version": 2}
    assert place.done("PATCH", f"/models/{place.full('q')}/versions/1/finalize", body)["version"] == 2
    assert _listed(place, "status") == ["PENDING_REGISTRATION", "READY"]


@pytest.mark.parametrize("operation", ["READ_MODEL_VERSION", "READ_WRITE_MODEL_VERSION"])
def test_no_credentials_are_given_for_files(place: Place, operation: str) -> None:
    place.add_model("q")
    place.add_version("q")
    text = "Cannot request credentials on a model version with a file based storage location"
    refused(_credentials(place, operation), 400, "INVALID_ARGUMENT", f"{text}: {place.full('q')}/1")


def test_a_deleted_number_is_not_used_again_and_its_files_stay(place: Place) -> None:
    place.add_model("q")
    place.add_version("q")
    version = place.add_version("q")
    (folder_of(version) / "weights").write_text("w")
    path = f"/models/{place.full('q')}/versions/2"
    assert place.ask("DELETE", path).status_code == 200
    refused(place.ask("DELETE", path), 404, "NOT_FOUND", f"Model version not found: {place.full('q')}/2")
    assert (folder_of(version) / "weights").read_text() == "w"
    assert place.add_version("q")["version"] == 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/aliases/champion"),
        ("GET", "/aliases/champion"),
        ("POST", "/tags"),
        ("GET", "/versions/1/tags"),
    ],
)
def test_there_are_no_aliases_and_tags(place: Place, method: str, path: str) -> None:
    place.add_model("q")
    plain(place.ask(method, f"/models/{place.full('q')}{path}", {}), 404)


def test_a_wrong_method_is_told_in_plain_text(place: Place) -> None:
    plain(place.ask("PUT", "/models", {}), 405)
    plain(place.ask("POST", f"/models/{place.full('q')}/versions/1/finalize", {}), 405)


def test_versions_are_listed_by_number_page_by_page(place: Place) -> None:
    place.add_model("q")
    for _ in range(11):
        place.add_version("q")
    assert _listed(place, "version") == list(range(1, 12))
    path = f"/models/{place.full('q')}/versions"
    one = place.done("GET", path, max_results=9)
    two = place.done("GET", path, max_results=9, page_token=one["next_page_token"])
    assert [v["version"] for v in one["model_versions"] + two["model_versions"]] == list(range(1, 12))
    assert not two.get("next_page_token")
    refused(_list(place, max_results=-1), 400, "INVALID_ARGUMENT", "maxResults must be greater than or equal to 0")
    bad = _list(place, page_token="x")  # noqa: S106
    refused(bad, 400, "INVALID_ARGUMENT", "Invalid page token received: x")


def test_models_are_listed_by_name_page_by_page(place: Place) -> None:
    for name in ("c", "a", "b"):
        place.add_model(name)
    one = place.done("GET", "/models", **place.names, max_results=2)
    two = place.done("GET", "/models", **place.names, max_results=2, page_token=one["next_page_token"])
    assert [m["name"] for m in one["registered_models"] + two["registered_models"]] == ["a", "b", "c"]
    assert not two.get("next_page_token")
    half = place.ask("GET", "/models", catalog_name=place.catalog)
    refused(half, 400, "INVALID_ARGUMENT", "Cannot specify catalog w/o schema for list registered models.")
    ours = [m for m in _all_models(place) if m["catalog_name"] == place.catalog]
    assert sorted(m["name"] for m in ours) == ["a", "b", "c"]


# Several at once


def test_twenty_versions_at_once_are_twenty_rows(place: Place) -> None:
    place.add_model("q")
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: place.add_version("q"), range(20)))
    assert len({v["id"] for v in made}) == 20
    assert all(folder_of(v).is_dir() for v in made)
    assert {v["id"] for v in _list(place).json()["model_versions"]} == {v["id"] for v in made}


def test_of_ten_models_at_once_some_are_made_and_the_others_refused(place: Place) -> None:
    body = {"name": "q", **place.names}
    with ThreadPoolExecutor(10) as pool:
        statuses = Counter(a.status_code for a in pool.map(lambda _: place.ask("POST", "/models", body), range(10)))
    assert set(statuses) <= {200, 409}
    assert statuses[200] >= 1
    assert place.ask("GET", f"/models/{place.full('q')}").status_code == 200


def test_versions_at_once_may_have_one_number(unity: Unity) -> None:
    """All answers by number are then about the first of them, which nobody but the server knows."""
    place = Place(unity.url, "main", "ml")
    place.add_model("q")
    unity.duplicate(20)
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: place.add_version("q"), range(20)))
    assert {v["version"] for v in made} == {1}
    assert len({v["storage_location"] for v in made}) == 20
    first = _list(place).json()["model_versions"][0]["id"]
    path = "/models/main.ml.q/versions/1"
    assert place.done("PATCH", path, {"comment": "whose?"})["id"] == first
    assert place.finalize("q", 1)["id"] == first
    assert place.done("GET", path)["id"] == first
    assert sorted(_listed(place, "status")) == ["PENDING_REGISTRATION"] * 19 + ["READY"]
    assert place.add_version("q")["version"] == 2


def test_models_at_once_may_have_one_name(unity: Unity) -> None:
    place = Place(unity.url, "main", "ml")
    unity.duplicate(2, "model")
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: place.add_model("q"), range(2)))
    listed = place.done("GET", "/models", **place.names)["registered_models"]
    assert {m["id"] for m in listed} == {m["id"] for m in made}
    assert place.done("GET", "/models/main.ml.q")["id"] == listed[0]["id"]


# Storage


def test_without_storage_no_model_is_made() -> None:
    with Unity(None) as unity:
        unity.add_schema("main.ml")
        answer = Place(unity.url, "main", "ml").ask(
            "POST", "/models", {"name": "q", "catalog_name": "main", "schema_name": "ml"}
        )
    assert (answer.status_code, answer.json()["error_code"]) == (400, "FAILED_PRECONDITION")


def test_a_catalog_may_have_storage_of_its_own(tmp_path: Path) -> None:
    root = (tmp_path / "own").as_uri()
    with Unity(None) as unity:
        place = Place(unity.url, "main", "ml")
        catalog = place.done("POST", "/catalogs", {"name": "main", "storage_root": root})
        place.done("POST", "/schemas", {"name": "ml", "catalog_name": "main"})
        model = place.add_model("q")
    assert catalog["storage_location"] == f"{root}/__unitystorage/catalogs/{catalog['id']}"
    assert model["storage_location"] == f"{catalog['storage_location']}/models/{model['id']}"


def test_credentials_for_s3_are_for_reading_once_a_version_is_ready() -> None:
    given = (secret("S3", "access key"), secret("S3", "secret key"), secret("S3", "session"))
    with Unity("s3://bucket/prefix", keys=given) as unity:
        unity.add_schema("main.ml")
        place = Place(unity.url, "main", "ml")
        place.add_model("q")
        assert place.add_version("q")["storage_location"].startswith("s3://bucket/prefix/__unitystorage/models/")
        keys = dict(zip(("access_key_id", "secret_access_key", "session_token"), given, strict=True))
        for operation in ("READ_MODEL_VERSION", "READ_WRITE_MODEL_VERSION"):
            assert _credentials(place, operation).json()["aws_temp_credentials"] == keys
        place.finalize("q", 1)
        assert _credentials(place, "READ_MODEL_VERSION").status_code == 200
        text = "Cannot request read/write credentials on a model version that has been finalized: main.ml.q/1"
        refused(_credentials(place, "READ_WRITE_MODEL_VERSION"), 400, "INVALID_ARGUMENT", text)


# Authorization


def test_who_is_not_known_is_refused(guarded: Unity) -> None:
    refused(_as(guarded, None, "GET", "/catalogs"), 401, "UNAUTHENTICATED", "No authorization found.")
    refused(_as(guarded, secret("nobody"), "GET", "/catalogs"), 401, "UNAUTHENTICATED", "Invalid access token.")
    guarded.grants.users.discard("bob")
    refused(_as(guarded, BOB, "GET", "/catalogs"), 403, "PERMISSION_DENIED", "User not allowed: bob")


def test_a_model_is_made_by_whom_the_grants_allow(guarded: Unity) -> None:
    model = {"name": "q", "catalog_name": "main", "schema_name": "ml"}
    grants = [("catalog/main", "USE CATALOG"), ("schema/main.ml", "USE SCHEMA"), ("schema/main.ml", "CREATE MODEL")]
    for path, privilege in grants:
        refused(_as(guarded, ANN, "POST", "/models", model), 403, "PERMISSION_DENIED", "Access denied.")
        changes = {"changes": [{"principal": "ann", "add": [privilege], "remove": []}]}
        refused(_as(guarded, ANN, "PATCH", f"/permissions/{path}", changes), 403, "PERMISSION_DENIED", "Access denied.")
        granted = _as(guarded, ADMIN, "PATCH", f"/permissions/{path}", changes)
        assert granted.status_code == 200
        assert privilege in granted.json()["privilege_assignments"][0]["privileges"]
    made = _as(guarded, ANN, "POST", "/models", model)
    assert (made.status_code, made.json()["owner"]) == (200, "ann")
    assert _as(guarded, ANN, "POST", "/models", model).status_code == 409
    mine = _as(guarded, ANN, "GET", "/permissions/schema/main.ml").json()
    assert mine == {"privilege_assignments": [{"principal": "ann", "privileges": ["CREATE MODEL", "USE SCHEMA"]}]}


def test_a_version_of_anothers_model_needs_its_owner(guarded: Unity) -> None:
    guarded.grant("ann", "USE CATALOG", "USE SCHEMA", "CREATE MODEL", on="main")
    guarded.grant("bob", "USE CATALOG", "USE SCHEMA", "CREATE MODEL", on="main")
    names = {"catalog_name": "main", "schema_name": "ml"}
    version = {"model_name": "q", "source": "/s", **names}
    assert _as(guarded, ANN, "POST", "/models", {"name": "q", **names}).status_code == 200
    refused(_as(guarded, BOB, "POST", "/models/versions", version), 403, "PERMISSION_DENIED", "Access denied.")
    refused(_as(guarded, BOB, "GET", "/models/main.ml.q"), 403, "PERMISSION_DENIED", "Access denied.")
    guarded.grant("bob", "EXECUTE", on="main.ml.q")
    assert _as(guarded, BOB, "GET", "/models/main.ml.q").status_code == 200
    assert _as(guarded, BOB, "POST", "/models/versions", version).status_code == 403
    assert _as(guarded, ANN, "POST", "/models/versions", version).json()["created_by"] == "ann"


def test_a_list_shows_what_one_may_see(guarded: Unity) -> None:
    for user, name in (("ann", "a"), ("bob", "b")):
        guarded.grant(user, "USE CATALOG", "USE SCHEMA", "CREATE MODEL", on="main")
        body = {"name": name, "catalog_name": "main", "schema_name": "ml"}
        assert _as(guarded, secret(user), "POST", "/models", body).status_code == 200
    listed = _as(guarded, ANN, "GET", "/models?catalog_name=main&schema_name=ml").json()["registered_models"]
    assert [m["name"] for m in listed] == ["a"]


@pytest.fixture
def unity(tmp_path: Path) -> Iterator[Unity]:
    with Unity((tmp_path / "root").as_uri()) as unity:
        unity.add_schema("main.ml")
        yield unity


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Unity]:
    """A server with authorization, and a schema of the administrator's."""
    tokens = {ADMIN: "admin", ANN: "ann", BOB: "bob"}
    with Unity((tmp_path / "root").as_uri(), tokens=tokens) as unity:
        unity.add_schema("main.ml")
        yield unity


def _as(
    unity: Unity, token: str | None, method: str, path: str, body: dict[str, Any] | None = None
) -> requests.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return requests.request(method, f"{unity.url}{PREFIX}{path}", json=body, headers=headers, timeout=60)


def _credentials(place: Place, operation: str) -> requests.Response:
    body = {"model_name": "q", "version": 1, "operation": operation, **place.names}
    return place.ask("POST", "/temporary-model-version-credentials", body)


def _list(place: Place, **query: Any) -> requests.Response:
    return place.ask("GET", f"/models/{place.full('q')}/versions", **query)


def _listed(place: Place, fact: str) -> list[Any]:
    return [version[fact] for version in _list(place).json()["model_versions"]]


def _all_models(place: Place) -> Iterator[dict[str, Any]]:
    """Every model of the server, two to a page."""
    query: dict[str, Any] = {"max_results": 2}
    while True:
        page = place.done("GET", "/models", **query)
        yield from page["registered_models"]
        if not page.get("next_page_token"):
            return
        query["page_token"] = page["next_page_token"]
