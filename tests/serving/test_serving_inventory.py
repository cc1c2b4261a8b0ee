"""What runs in a workspace, what is behind its alias, and how an endpoint ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command import run
from databricks.sdk import WorkspaceClient
from testing.asking import ANN, BOB, LLAMA, OSS, TOKENS, by_units, create, ranged

from catalogger.errors import AccessDenied, UsageError
from catalogger.serving.inventory import endpoints, teardown
from catalogger.testing import NO_CAPACITY, Workspace
from catalogger.testing.optimization import tokens, units

TRAFFIC = {
    "routes": [
        {"served_entity_name": "llama-1", "traffic_percentage": 90},
        {"served_entity_name": "llama-2", "traffic_percentage": 10},
    ]
}


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with Workspace(tmp_path / "root", tokens=TOKENS) as workspace:
        workspace.serving.add_base_model(LLAMA, tokens(), versions=3)
        workspace.serving.add_base_model(OSS, units())
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", ANN)
        yield workspace


@pytest.fixture
def client(space: Workspace) -> WorkspaceClient:
    return WorkspaceClient(host=space.url, token=ANN)


def _alias(space: Workspace, version: int) -> None:
    model = space.model(LLAMA)
    assert model
    model.aliases["champion"] = version


def test_every_page_is_followed_and_what_is_behind_is_known(space: Workspace, client: WorkspaceClient) -> None:
    create(space, ranged(), name="old")
    create(
        space,
        ranged(version="3", scale_to_zero_enabled=True),
        name="new",
        tags=[{"key": "made_by", "value": "catalogger"}],
    )
    config = {"served_entities": [by_units()]}
    client.api_client.do("POST", "/api/2.0/serving-endpoints/pt", body={"name": "units", "config": config})
    space.serving.advance("units")
    space.serving.add_pay_per_token("databricks-claude")
    space.serving.page_size = 1
    _alias(space, 3)
    found = {one.name: one for one in endpoints(client)}
    assert list(found) == ["new", "old", "units"]
    assert [one.ours for one in found.values()] == [True, False, False]
    assert [bool(one.behind) for one in found.values()] == [False, True, False]
    assert str(found["old"].served[0]) == f"{LLAMA}/1, 980 to 1960 tokens/s"
    assert str(found["new"].served[0]) == f"{LLAMA}/3, 980 to 1960 tokens/s, scales to zero"
    assert str(found["units"].served[0]) == f"{OSS}/1, 50 model units"
    assert found["old"].creator == "ann@example.com"
    assert len(space.matching("aliases")) == 2, "each model is asked for once"


def test_shares_of_the_traffic_are_told(space: Workspace, client: WorkspaceClient) -> None:
    config = {"served_entities": [ranged(version="1"), ranged(version="2")], "traffic_config": TRAFFIC}
    client.api_client.do("POST", "/api/2.0/serving-endpoints", body={"name": "ep", "config": config})
    space.serving.advance("ep")
    (one,) = endpoints(client)
    assert [entity.traffic for entity in one.served] == [90, 10]
    assert "10 % of the traffic" in str(one.served[1])


def test_what_is_being_built_is_listed_with_its_state(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.order("ep", NO_CAPACITY)
    config = {"served_entities": [ranged()]}
    client.api_client.do("POST", "/api/2.0/serving-endpoints", body={"name": "ep", "config": config})
    (one,) = endpoints(client)
    assert (one.state, one.served[0].model) == ("NOT_READY, IN_PROGRESS", LLAMA)


def test_a_teardown_ends_the_endpoint_and_leaves_the_model(space: Workspace, client: WorkspaceClient) -> None:
    create(space)
    teardown(client, "ep")
    assert (space.serving.names, space.model(LLAMA) is not None) == ([], True)
    with pytest.raises(UsageError, match="no endpoint"):
        teardown(client, "ep")


def test_who_may_not_manage_it_ends_nothing(space: Workspace) -> None:
    create(space)
    with pytest.raises(AccessDenied):
        teardown(WorkspaceClient(host=space.url, token=BOB), "ep")
    assert space.serving.names == ["ep"]


def test_the_commands(space: Workspace) -> None:
    assert "There are no endpoints" in run("endpoints").err
    create(space)
    _alias(space, 2)
    listed = run("endpoints")
    assert listed.code == 0
    first, second = listed.out.splitlines()
    assert first.startswith("ep: ready, llm/v1/chat, by ann@example.com, since ")
    assert second == f"    {LLAMA}/1, 980 to 1960 tokens/s; champion is version 2"
    (one,) = run("endpoints", "--behind", "-o", "json").document["endpoints"]
    assert (one["behind"], one["served"][0]["alias_version"]) == (True, "2")
    assert run("endpoints", "--behind", "--alias", "nobody").out == ""
    refused = run("teardown", "ep")
    assert (refused.code, "--yes" in refused.err, space.serving.names) == (2, True, ["ep"])
    done = run("teardown", "ep", "--yes")
    assert (done.code, done.out, space.serving.names) == (0, "ended        endpoint ep\n", [])
    assert f"serves {LLAMA}/1" in done.err
    assert "not made by catalogger, but by ann@example.com" in done.err
    assert run("teardown", "ep", "--yes").code == 2
