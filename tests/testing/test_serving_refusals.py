"""What the loopback workspace refuses of an endpoint: nothing is created then."""

from __future__ import annotations

from typing import Any

import pytest
from testing.asking import (
    ANN,
    BOB,
    ENDPOINTS,
    LLAMA,
    OSS,
    ask,
    asked_for,
    by_units,
    create,
    done,
    ranged,
    refused,
    register,
)

from catalogger.testing import Workspace
from catalogger.testing.optimization import NOT_OPTIMIZABLE, UNIT_UNKNOWN, described, tokens
from catalogger.testing.refusal import RefusalError

CONFIG = f"{ENDPOINTS}/ep/config"
WRONG = (400, "INVALID_PARAMETER_VALUE")


def _refused(workspace: Workspace, document: dict[str, Any], *words: str, path: str = ENDPOINTS) -> None:
    before = workspace.serving.names
    refused(ask(workspace, "POST", path, document), *WRONG, *words)
    assert workspace.serving.names == before


@pytest.mark.parametrize("name", ["a.b", "", "a" * 64, "a b", "ä"])
def test_names_that_no_endpoint_can_have(serving: Workspace, name: str) -> None:
    _refused(serving, asked_for(name=name), f"'{name}'", "1 to 63")


def test_names_at_the_edge(serving: Workspace) -> None:
    for name in ("a", "A" * 63, "_-9"):
        create(serving, name=name)


@pytest.mark.parametrize("name", ["databricks-mine", "Databricks-mine"])
def test_a_reserved_prefix(serving: Workspace, name: str) -> None:
    _refused(serving, asked_for(name=name), "'databricks-' is reserved")


@pytest.mark.parametrize("name", ["Ep", "ep", "EP"])
def test_names_are_unique_without_regard_to_case(serving: Workspace, name: str) -> None:
    create(serving, name="Ep")
    answer = ask(serving, "POST", ENDPOINTS, asked_for(name=name))
    refused(answer, 409, "RESOURCE_ALREADY_EXISTS", f"'{name}'")
    assert serving.serving.names == ["Ep"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (979, 1960, "min_provisioned_throughput must be a multiple of 980, not 979"),
        (980, 1961, "max_provisioned_throughput must be a multiple of 980, not 1961"),
        (1960, 980, "(1960) must not be greater"),
        (0, 0, "max_provisioned_throughput must be positive"),
        (-980, 980, "multiple of 980, not -980"),
        ("980", 980, "whole number"),
        (True, 980, "whole number"),
        (None, 980, "Missing required field: min_provisioned_throughput"),
    ],
)
def test_throughput_that_is_none(serving: Workspace, low: Any, high: Any, words: str) -> None:
    _refused(serving, asked_for(ranged(low=low, high=high)), words)


def test_both_ends_of_the_range_are_needed(serving: Workspace) -> None:
    entity = ranged()
    del entity["max_provisioned_throughput"]
    _refused(serving, asked_for(entity), "Missing required field: max_provisioned_throughput")


def test_a_minimum_of_zero_is_a_range(serving: Workspace) -> None:
    create(serving, ranged(low=0))


@pytest.mark.parametrize("units", [0, 49, -50, None])
def test_units_that_are_no_multiple(serving: Workspace, units: Any) -> None:
    _refused(serving, asked_for(by_units(units=units)), "provisioned_model_units", path=f"{ENDPOINTS}/pt")


def test_a_model_of_units_takes_no_range(serving: Workspace) -> None:
    _refused(serving, asked_for(ranged(OSS)), f"{OSS} is not eligible for Provisioned Throughput")


@pytest.mark.parametrize("answer", [NOT_OPTIMIZABLE, {}, UNIT_UNKNOWN])
def test_what_is_not_eligible_takes_no_range(serving: Workspace, answer: Any) -> None:
    serving.serving.set_optimization(LLAMA, answer)
    _refused(serving, asked_for(), f"{LLAMA} is not eligible for Provisioned Throughput")


def test_each_path_takes_its_own_fields_only(serving: Workspace) -> None:
    _refused(serving, asked_for(by_units(low=1)), "Unknown field of a served entity: low", path=f"{ENDPOINTS}/pt")
    both = {**by_units(), "min_provisioned_throughput": 0}
    _refused(serving, asked_for(both), "min_provisioned_throughput is not supported", path=f"{ENDPOINTS}/pt")
    _refused(serving, asked_for(), "is not supported", path=f"{ENDPOINTS}/pt")
    _refused(serving, asked_for(by_units()), "provisioned_model_units is only supported")
    _refused(serving, asked_for(by_units(LLAMA)), "does not support provisioned model units", path=f"{ENDPOINTS}/pt")
    asleep = by_units(scale_to_zero_enabled=True)
    _refused(serving, asked_for(asleep), "scale_to_zero_enabled", path=f"{ENDPOINTS}/pt")


def test_throughput_for_an_external_model(serving: Workspace) -> None:
    entity = {"name": "x", "external_model": {"name": "gpt"}, "min_provisioned_throughput": 0}
    _refused(serving, asked_for(entity), "provisioned throughput is not supported for endpoints with external models")


def test_compute_has_to_be_asked_for(serving: Workspace) -> None:
    plain = {"entity_name": LLAMA, "entity_version": "1"}
    _refused(serving, asked_for(plain), "Missing required field: workload_size")
    found = create(serving, {**plain, "workload_size": "Small", "scale_to_zero_enabled": True})
    assert found["endpoint_type"] == "CUSTOM_MODEL"


@pytest.mark.parametrize(
    ("entity", "words"),
    [
        (ranged("system.ai.none"), "'system.ai.none' does not exist"),
        (ranged(version="9"), "'9'"),
        (ranged(version="x"), "Invalid model version 'x'"),
        (ranged("llama"), "all three levels"),
    ],
)
def test_entities_that_are_not_there(serving: Workspace, entity: dict[str, Any], words: str) -> None:
    answer = ask(serving, "POST", ENDPOINTS, asked_for(entity))
    assert answer.status_code in (400, 404)
    assert words in answer.json()["message"]
    assert serving.serving.names == []


def test_no_entities_and_too_many(serving: Workspace) -> None:
    _refused(serving, {"name": "ep", "config": {}}, "Missing required field: served_entities")
    many = [ranged(name=f"n{number}") for number in range(16)]
    _refused(serving, asked_for(*many), "at most 15")


def test_a_version_has_to_be_ready(serving: Workspace) -> None:
    serving.versions(LLAMA)[1].status = "PENDING_REGISTRATION"
    answer = ask(serving, "POST", ENDPOINTS, asked_for(ranged(version="2")))
    refused(answer, 400, "INVALID_STATE", "PENDING_REGISTRATION")
    assert serving.serving.names == []


def _split(*shares: int, names: tuple[str, ...] = ("llama-1", "llama-2")) -> dict[str, Any]:
    routes = [
        {"served_model_name": name, "traffic_percentage": share} for name, share in zip(names, shares, strict=True)
    ]
    document = asked_for(ranged(), ranged(version="2"))
    document["config"]["traffic_config"] = {"routes": routes}
    return document


@pytest.mark.parametrize(
    ("shares", "words"), [((50, 49), "must be 100, not 99"), ((100, 1), "must be 100, not 101"), ((101, -1), "between")]
)
def test_traffic_that_is_not_whole(serving: Workspace, shares: tuple[int, int], words: str) -> None:
    _refused(serving, _split(*shares), words)


def test_traffic_of_several_entities_has_to_be_split(serving: Workspace) -> None:
    _refused(serving, asked_for(ranged(), ranged(version="2")), "must be 100, not 0")
    _refused(serving, _split(50, 50, names=("llama-1", "nobody")), "'nobody' names no served entity")
    _refused(serving, asked_for(ranged(), ranged()), "'llama-1' is not unique")


def test_entities_of_one_endpoint_have_one_task(serving: Workspace) -> None:
    serving.serving.add_base_model("system.ai.gte", tokens("gte"), task="llm/v1/embeddings")
    document = asked_for(ranged(), ranged("system.ai.gte"))
    shares = [{"served_model_name": name, "traffic_percentage": 50} for name in ("llama-1", "gte-1")]
    document["config"]["traffic_config"] = {"routes": shares}
    _refused(serving, document, "same task", "llm/v1/embeddings")


def test_a_tier_without_provisioned_throughput(serving: Workspace) -> None:
    serving.serving.throughput = False
    answer = ask(serving, "POST", ENDPOINTS, asked_for())
    refused(answer, 400, "BAD_REQUEST", "Endpoint creation with provisioned throughput is not supported")
    assert serving.serving.names == []


def test_a_region_without_model_serving(serving: Workspace) -> None:
    serving.serving.region = "moon-1"
    for method, path in (("POST", ENDPOINTS), ("GET", ENDPOINTS), ("POST", "/serving-endpoints/ep/invocations")):
        refused(ask(serving, method, path, asked_for()), 400, "FEATURE_DISABLED", "'moon-1'")


def test_who_is_not_a_member_creates_nothing(serving: Workspace) -> None:
    serving.serving.leave("ann@example.com")
    refused(ask(serving, "POST", ENDPOINTS, asked_for()), 403, "PERMISSION_DENIED", "workspace-access")
    assert serving.serving.names == []


def test_who_may_not_execute_the_model_serves_it_not(serving: Workspace) -> None:
    serving.add_schema("prod.ml", everyone=False)
    serving.grant("CATALOG", "prod", "ann@example.com", "ALL PRIVILEGES")
    number = register(serving, "prod.ml.x", described("llm/v1/chat"))
    document = asked_for(ranged("prod.ml.x", number))
    refused(ask(serving, "POST", ENDPOINTS, document, token=BOB), 403, "PERMISSION_DENIED")
    assert ask(serving, "POST", ENDPOINTS, document, token=ANN).status_code == 200


def test_the_creators_grants_are_looked_at_again_at_each_update(serving: Workspace) -> None:
    serving.add_schema("prod.ml", everyone=False)
    for user in ("ann@example.com", "bob@example.com"):
        serving.grant("CATALOG", "prod", user, "ALL PRIVILEGES")
    number = register(serving, "prod.ml.x", described("llm/v1/chat"), token=BOB)
    found = create(serving, ranged("prod.ml.x", number))
    rights = {"access_control_list": [{"user_name": "bob@example.com", "permission_level": "CAN_MANAGE"}]}
    done(serving, "PUT", f"/api/2.0/permissions/serving-endpoints/{found['id']}", rights)
    serving.revoke("CATALOG", "prod", "ann@example.com", "ALL PRIVILEGES")
    answer = ask(serving, "PUT", CONFIG, {"served_entities": [ranged("prod.ml.x", number)]}, token=BOB)
    refused(answer, 403, "PERMISSION_DENIED", "creator 'ann@example.com'")
    assert done(serving, "GET", f"{ENDPOINTS}/ep")["state"]["config_update"] == "NOT_UPDATING"


def test_levels_of_permission(serving: Workspace) -> None:
    found = create(serving)
    path = f"/api/2.0/permissions/serving-endpoints/{found['id']}"
    calls = {
        "CAN_VIEW": ("GET", f"{ENDPOINTS}/ep"),
        "CAN_QUERY": ("POST", "/serving-endpoints/ep/invocations"),
        "CAN_MANAGE": ("DELETE", f"{ENDPOINTS}/ep"),
    }
    assert done(serving, "GET", ENDPOINTS, token=BOB)["endpoints"] == []
    for level, (method, line) in calls.items():
        refused(ask(serving, method, line, {}, token=BOB), 403, "PERMISSION_DENIED", "'bob@example.com'")
        change = {"access_control_list": [{"group_name": "users", "permission_level": level}]}
        done(serving, "PATCH", path, change)
        assert ask(serving, method, line, {}, token=BOB).status_code == 200
    assert serving.serving.names == []


def test_permissions_need_a_principal_and_a_level(serving: Workspace) -> None:
    found = create(serving)
    path = f"/api/2.0/permissions/serving-endpoints/{found['id']}"
    for row in ({"permission_level": "CAN_VIEW"}, {"user_name": "x", "permission_level": "CAN_DANCE"}):
        refused(ask(serving, "PATCH", path, {"access_control_list": [row]}), *WRONG, "access_control_list")
    refused(ask(serving, "GET", f"{path}0"), 404, "RESOURCE_DOES_NOT_EXIST")
    levels = [row["permission_level"] for row in done(serving, "GET", f"{path}/permissionLevels")["permission_levels"]]
    assert levels == ["CAN_MANAGE", "CAN_QUERY", "CAN_VIEW"]


@pytest.mark.parametrize(
    ("gateway", "words"),
    [
        ({"rate_limit": []}, "rate_limit"),
        ({"rate_limits": [{"calls": 1, "renewal_period": "hour"}]}, "'minute'"),
        ({"rate_limits": [{"renewal_period": "minute"}]}, "calls or tokens"),
        ({"rate_limits": [{"calls": 1, "renewal_period": "minute", "key": "planet"}]}, "key of a rate limit"),
    ],
)
def test_options_of_the_gateway(serving: Workspace, gateway: dict[str, Any], words: str) -> None:
    _refused(serving, asked_for(ai_gateway=gateway), words)
    create(serving)
    refused(ask(serving, "PUT", f"{ENDPOINTS}/ep/ai-gateway", gateway), *WRONG, words)


def test_an_error_in_place_of_an_optimization_answer_refuses_the_endpoint_too(serving: Workspace) -> None:
    serving.serving.set_optimization(LLAMA, RefusalError(500, "INTERNAL_ERROR", "out of order"))
    refused(ask(serving, "POST", ENDPOINTS, asked_for()), 500, "INTERNAL_ERROR", "out of order")


def test_paths_that_are_not_there(serving: Workspace) -> None:
    refused(ask(serving, "GET", f"{ENDPOINTS}/none"), 404, "RESOURCE_DOES_NOT_EXIST", "'none'")
    refused(ask(serving, "PATCH", ENDPOINTS), 404, "ENDPOINT_NOT_FOUND")
