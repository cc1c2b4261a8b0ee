"""How endpoints get from one configuration to the next, and what a test can order of that."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from testing.asking import (
    BOB,
    ENDPOINTS,
    LLAMA,
    ask,
    asked_for,
    by_units,
    create,
    deployment,
    done,
    ranged,
    refused,
    states,
)

from catalogger.testing import NO_CAPACITY, Build, Workspace

EP, CONFIG, UNITS_CONFIG = f"{ENDPOINTS}/ep", f"{ENDPOINTS}/ep/config", f"{ENDPOINTS}/pt/ep/config"
BUILDING, SERVES = ("NOT_READY", "IN_PROGRESS"), ("READY", "NOT_UPDATING")


def _update(workspace: Workspace, version: str = "2") -> None:
    done(workspace, "PUT", CONFIG, {"served_entities": [ranged(version=version)]})


def _served(workspace: Workspace, where: str = "config") -> str:
    return str(done(workspace, "GET", EP)[where]["served_entities"][0]["entity_version"])


def test_an_endpoint_is_ready_after_so_many_looks(serving: Workspace) -> None:
    created = done(serving, "POST", ENDPOINTS, asked_for())
    assert states(created) == BUILDING
    seen = [done(serving, "GET", EP) for _ in range(3)]
    assert [states(document) for document in seen] == [BUILDING, BUILDING, SERVES]
    assert [deployment(d, "pending_config")[0] for d in seen[:2]] == ["DEPLOYMENT_CREATING"] * 2
    assert deployment(seen[0], "pending_config") != deployment(seen[1], "pending_config"), "its message tells of steps"
    assert "config" not in seen[1]
    assert deployment(seen[2]) == ("DEPLOYMENT_READY", "")
    assert "pending_config" not in seen[2]


def test_the_document_has_what_was_asked_and_nothing_more(serving: Workspace) -> None:
    asked = asked_for(ranged(version=1, name="one"), tags=[{"key": "a", "value": "b"}, {"key": "c"}])
    done(serving, "POST", ENDPOINTS, asked)
    serving.serving.advance("ep")
    found = done(serving, "GET", EP)
    (entity,) = found["config"]["served_entities"]
    for field in ("creation_timestamp", "state"):
        del entity[field]
    assert entity == ranged(version="1", name="one", creator="ann@example.com")
    (route,) = found["config"]["traffic_config"]["routes"]
    assert route == {"served_entity_name": "one", "served_model_name": "one", "traffic_percentage": 100}
    assert found["tags"] == [{"key": "a", "value": "b"}, {"key": "c"}]
    assert (found["task"], found["creator"], found["permission_level"]) == (
        "llm/v1/chat",
        "ann@example.com",
        "CAN_MANAGE",
    )
    assert "ai_gateway" not in found


def test_an_update_leaves_the_old_configuration_serving_until_it_is_done(serving: Workspace) -> None:
    create(serving)
    _update(serving)
    assert states(done(serving, "GET", EP)) == ("READY", "IN_PROGRESS")
    assert (_served(serving), serving.serving.endpoint("ep") is not None) == ("1", True)
    serving.serving.advance("ep")
    found = done(serving, "GET", EP)
    assert (states(found), _served(serving), found["config"]["config_version"]) == (SERVES, "2", 2)


def test_an_update_of_model_units_takes_effect_at_once(serving: Workspace) -> None:
    done(serving, "POST", f"{ENDPOINTS}/pt", asked_for(by_units()))
    serving.serving.advance("ep")
    found = done(serving, "PUT", UNITS_CONFIG, {"config": {"served_entities": [by_units(units=100)]}})
    assert states(found) == SERVES
    assert found["config"]["served_entities"][0]["provisioned_model_units"] == 100


def test_a_failed_creation_says_why_in_what_is_pending(serving: Workspace) -> None:
    serving.serving.order("ep", Build("failed", looks=0, message="CUDA out of memory"))
    found = done(serving, "POST", ENDPOINTS, asked_for())
    assert states(found) == ("NOT_READY", "UPDATE_FAILED")
    assert deployment(found, "pending_config") == ("DEPLOYMENT_FAILED", "CUDA out of memory")
    assert "config" not in found


def test_a_failed_update_leaves_the_old_one_serving_and_may_be_tried_again(serving: Workspace) -> None:
    create(serving)
    serving.serving.order("ep", Build("failed", looks=1))
    _update(serving)
    assert states(done(serving, "GET", EP)) == ("READY", "IN_PROGRESS")
    found = done(serving, "GET", EP)
    assert states(found) == ("READY", "UPDATE_FAILED")
    assert (deployment(found)[0], deployment(found, "pending_config")[0]) == ("DEPLOYMENT_READY", "DEPLOYMENT_FAILED")
    assert (_served(serving), _served(serving, "pending_config")) == ("1", "2")
    _update(serving, "3")
    serving.serving.advance("ep")
    assert (states(done(serving, "GET", EP)), _served(serving)) == (SERVES, "3")


def test_where_one_of_several_entities_fails_the_others_are_aborted(serving: Workspace) -> None:
    serving.serving.order("ep", Build("failed", looks=0))
    routes = [{"served_model_name": f"llama-{n}", "traffic_percentage": 50} for n in (1, 2)]
    config = {"served_entities": [ranged(), ranged(version="2")], "traffic_config": {"routes": routes}}
    found = done(serving, "POST", ENDPOINTS, {"name": "ep", "config": config})
    assert [deployment(found, "pending_config", n)[0] for n in (0, 1)] == ["DEPLOYMENT_FAILED", "DEPLOYMENT_ABORTED"]


def test_a_canceled_update_leaves_the_old_one_serving(serving: Workspace) -> None:
    create(serving)
    _update(serving)
    serving.serving.cancel("ep")
    found = done(serving, "GET", EP)
    assert (states(found), _served(serving)) == (("READY", "UPDATE_CANCELED"), "1")
    assert deployment(found, "pending_config")[0] == "DEPLOYMENT_ABORTED"


def test_without_capacity_it_is_in_progress_for_ever(serving: Workspace) -> None:
    serving.serving.order("ep", NO_CAPACITY)
    done(serving, "POST", ENDPOINTS, asked_for())
    for _ in range(20):
        found = done(serving, "GET", EP)
        assert states(found) == BUILDING
        assert deployment(found, "pending_config") == ("DEPLOYMENT_CREATING", NO_CAPACITY.message)
    serving.serving.advance("ep")
    assert states(done(serving, "GET", EP)) == SERVES


def test_states_may_have_words_that_nobody_has_heard_of(serving: Workspace) -> None:
    serving.serving.order("ep", Build(looks=1, update="QUEUED", ready="WARMING", deployment="DEPLOYMENT_STAGING"))
    done(serving, "POST", ENDPOINTS, asked_for())
    found = done(serving, "GET", EP)
    assert (states(found), deployment(found, "pending_config")[0]) == (("WARMING", "QUEUED"), "DEPLOYMENT_STAGING")
    assert states(done(serving, "GET", EP)) == SERVES


def test_a_running_update_is_a_conflict_for_any_other(serving: Workspace) -> None:
    create(serving)
    serving.serving.interfere("ep", Build(looks=1))
    answer = ask(serving, "PUT", CONFIG, {"served_entities": [ranged(version="2")]})
    refused(answer, 409, "RESOURCE_CONFLICT", "'ep'")
    done(serving, "GET", EP)
    assert states(done(serving, "GET", EP)) == SERVES
    _update(serving)


def test_nothing_can_interfere_with_what_does_not_serve(serving: Workspace) -> None:
    done(serving, "POST", ENDPOINTS, asked_for())
    with pytest.raises(ValueError, match="ep serves nothing yet"):
        serving.serving.interfere("ep")


def test_the_recorded_creator_must_stay_in_the_workspace(serving: Workspace) -> None:
    found = create(serving)
    rights = {"access_control_list": [{"user_name": "bob@example.com", "permission_level": "CAN_MANAGE"}]}
    done(serving, "PATCH", f"/api/2.0/permissions/serving-endpoints/{found['id']}", rights)
    serving.serving.leave("ann@example.com")
    entities = {"served_entities": [ranged(version="2")]}
    answer = ask(serving, "PUT", CONFIG, entities, token=BOB)
    refused(answer, 403, "PERMISSION_DENIED", "creator 'ann@example.com'", "workspace-access")
    serving.serving.join("ann@example.com")
    assert ask(serving, "PUT", CONFIG, entities, token=BOB).status_code == 200


def test_a_recovering_endpoint_is_not_updating_and_not_ready(serving: Workspace) -> None:
    create(serving)
    serving.serving.recover("ep", looks=2)
    seen = [done(serving, "GET", EP) for _ in range(3)]
    assert [states(found) for found in seen] == [("NOT_READY", "NOT_UPDATING")] * 2 + [SERVES]
    assert deployment(seen[0])[0] == "DEPLOYMENT_RECOVERING"


def test_a_build_may_last_seconds_of_a_clock(serving: Workspace) -> None:
    time = 100.0
    serving.serving.clock = lambda: time
    serving.serving.build = Build(looks=0, seconds=30)
    done(serving, "POST", ENDPOINTS, asked_for())
    time = 129
    assert states(done(serving, "GET", EP)) == BUILDING
    assert done(serving, "GET", ENDPOINTS)["endpoints"][0]["state"]["config_update"] == "IN_PROGRESS"
    time = 130
    assert done(serving, "GET", ENDPOINTS)["endpoints"][0]["state"]["config_update"] == "NOT_UPDATING"
    assert states(done(serving, "GET", EP)) == SERVES


def test_orders_are_taken_one_after_another(serving: Workspace) -> None:
    serving.serving.order("ep", Build("failed", looks=0), Build(looks=0))
    assert states(done(serving, "POST", ENDPOINTS, asked_for()))[1] == "UPDATE_FAILED"
    assert states(done(serving, "PUT", CONFIG, {"served_entities": [ranged()]})) == SERVES
    done(serving, "PUT", CONFIG, {"served_entities": [ranged()]})
    assert states(done(serving, "GET", EP)) == ("READY", "IN_PROGRESS")


def test_a_deleted_endpoint_is_gone_and_its_name_is_free(serving: Workspace) -> None:
    create(serving)
    assert done(serving, "DELETE", EP) == {}
    refused(ask(serving, "GET", EP), 404, "RESOURCE_DOES_NOT_EXIST", "'ep'")
    create(serving)


def test_the_listing_is_whole_unless_pages_are_asked_or_ordered(serving: Workspace) -> None:
    for name in ("a", "b", "c"):
        create(serving, name=name)
    serving.serving.add_pay_per_token("databricks-gte-large-en", task="llm/v1/embeddings")
    names = [row["name"] for row in done(serving, "GET", ENDPOINTS)["endpoints"]]
    assert names == ["a", "b", "c", "databricks-gte-large-en"]
    asked = done(serving, "GET", f"{ENDPOINTS}?max_results=3")
    assert [row["name"] for row in asked["endpoints"]] == ["a", "b", "c"]
    serving.serving.page_size = 2
    first = done(serving, "GET", ENDPOINTS)
    second = done(serving, "GET", f"{ENDPOINTS}?page_token={first['next_page_token']}")
    assert [row["name"] for row in first["endpoints"] + second["endpoints"]] == names
    assert "next_page_token" not in second
    (served,) = second["endpoints"][0]["config"]["served_entities"]
    assert served == {"name": "llama-1", "entity_name": LLAMA, "entity_version": "1"}
    assert "foundation_model" in second["endpoints"][1]["config"]["served_entities"][0]


def test_one_of_many_that_create_the_same_endpoint_at_once_wins(serving: Workspace) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(serving, "POST", ENDPOINTS, asked_for()).status_code))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, *[409] * 9]


def test_each_part_of_an_endpoint_has_its_own_call(serving: Workspace) -> None:
    create(serving, tags=[{"key": "a", "value": "1"}, {"key": "b"}])
    changed = done(serving, "PATCH", f"{EP}/tags", {"add_tags": [{"key": "a", "value": "2"}], "delete_tags": ["b"]})
    assert changed == {"tags": [{"key": "a", "value": "2"}]}
    gateway = {"usage_tracking_config": {"enabled": True}}
    assert done(serving, "PUT", f"{EP}/ai-gateway", gateway) == gateway
    mails = {"email_notifications": {"on_update_failure": ["ops@example.com"]}}
    assert done(serving, "PATCH", f"{EP}/notifications", mails) == {"name": "ep", **mails}
    found = done(serving, "GET", EP)
    assert (found["ai_gateway"], found["email_notifications"]) == (gateway, mails["email_notifications"])
    assert done(serving, "PUT", f"{EP}/ai-gateway", {}) == {}
    assert "ai_gateway" not in done(serving, "GET", EP)


def test_a_build_is_not_changed_by_looking(serving: Workspace) -> None:
    """The same order can be given again."""
    order = Build(looks=1)
    serving.serving.order("ep", order, order)
    create(serving)
    _update(serving)
    assert order == replace(Build(), looks=1)
    assert [states(done(serving, "GET", EP))[1] for _ in range(2)] == ["IN_PROGRESS", "NOT_UPDATING"]
