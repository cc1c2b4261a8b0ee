"""From a registered version to an endpoint that answers, against a loopback workspace's states and refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from fakes.secrets import secret
from serving.deployments import QUICK, Lines, sent, serves, to
from testing.asking import LLAMA, OSS, create, ranged

from catalogger.errors import (
    AccessDenied,
    DeploymentFailed,
    DeploymentPending,
    NotEligible,
    RegistryError,
    UnitUnknown,
    UsageError,
)
from catalogger.serving.capacity import Capacity, Wish
from catalogger.serving.deploying import Terms, deploy
from catalogger.serving.eligibility import eligibility
from catalogger.serving.entity import registered
from catalogger.testing import NO_CAPACITY, Build, Workspace
from catalogger.testing.optimization import BOTH_UNITS, KEY_ABSENT, NOT_OPTIMIZABLE, UNIT_UNKNOWN, tokens


def test_tokens_per_second_are_created_by_exactly_this(space: Workspace, client: WorkspaceClient) -> None:
    done = to(client, wish=Wish(minimum=1960, maximum=2940))
    assert (done.action, done.state, done.smoke and done.smoke.text) == ("created", "ready", "A layer.")
    assert sent(space) == [
        (
            "POST /api/2.0/serving-endpoints",
            {
                "name": "ep",
                "config": {
                    "served_entities": [
                        {
                            "entity_name": "system.ai.llama",
                            "entity_version": "1",
                            "min_provisioned_throughput": 1960,
                            "max_provisioned_throughput": 2940,
                        }
                    ]
                },
                "tags": [{"key": "made_by", "value": "catalogger"}],
            },
        )
    ]


def test_scale_to_zero_is_sent_where_it_is_asked_for(space: Workspace, client: WorkspaceClient) -> None:
    to(client, wish=Wish(scale_to_zero=True))
    throughput = {"min_provisioned_throughput": 980, "max_provisioned_throughput": 980}
    assert serves(space)[0][2] == {**throughput, "scale_to_zero_enabled": True}


def test_model_units_are_created_by_exactly_this(space: Workspace, client: WorkspaceClient) -> None:
    assert to(client, f"{OSS}/1").action == "created"
    entity = {"entity_name": "system.ai.gpt_oss", "entity_version": "1", "provisioned_model_units": 50}
    body = {"name": "ep", "config": {"served_entities": [entity]}, "tags": [{"key": "made_by", "value": "catalogger"}]}
    assert sent(space) == [("POST /api/2.0/serving-endpoints/pt", body)]


def test_tokens_per_second_are_updated_by_exactly_this(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    assert to(client, f"{LLAMA}/2", wish=Wish(tokens_per_second=1000)).action == "updated"
    entity = {
        "entity_name": "system.ai.llama",
        "entity_version": "2",
        "min_provisioned_throughput": 1960,
        "max_provisioned_throughput": 1960,
    }
    assert sent(space)[1:] == [("PUT /api/2.0/serving-endpoints/ep/config", {"served_entities": [entity]})]


def test_model_units_are_updated_by_exactly_this(space: Workspace, client: WorkspaceClient) -> None:
    to(client, f"{OSS}/1")
    assert to(client, f"{OSS}/1", wish=Wish(units=100, no_burst=True)).action == "updated"
    entity = {
        "entity_name": "system.ai.gpt_oss",
        "entity_version": "1",
        "provisioned_model_units": 100,
        "burst_scaling_enabled": False,
    }
    asked = {"config": {"served_entities": [entity]}}
    assert sent(space)[1:] == [("PUT /api/2.0/serving-endpoints/pt/ep/config", asked)]


@pytest.mark.parametrize("reference", [f"{LLAMA}/1", f"{OSS}/1"])
def test_an_endpoint_that_is_as_asked_takes_four_requests_and_no_write(
    space: Workspace, client: WorkspaceClient, reference: str
) -> None:
    to(client, reference)
    before = len(space.requests)
    assert to(client, reference).action == "unchanged"
    assert len(space.requests) - before <= 4
    assert len(sent(space)) == 1


def test_the_same_configuration_on_its_way_is_waited_for(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.order("ep", Build(looks=5))
    assert to(client, terms=Terms(wait=False)).state == "not waited for"
    assert to(client).action == "unchanged"
    assert len(sent(space)) == 1


def test_the_endpoint_takes_the_name_of_its_model(space: Workspace, client: WorkspaceClient) -> None:
    assert deploy(client, f"models:/{LLAMA}/2", terms=QUICK).endpoint == "llama"


def test_the_content_of_the_version_is_in_the_tags(space: Workspace, client: WorkspaceClient) -> None:
    model = space.model(LLAMA)
    assert model
    model.versions[1].comment = "A llama.\n\n(catalogger: shape 0a, fingerprint 0b1c)"
    to(client)
    endpoint = space.serving.endpoint("ep")
    assert endpoint
    assert endpoint.tags == {"made_by": "catalogger", "catalogger_fingerprint": "0b1c"}


def test_the_tag_of_content_that_is_served_no_longer_goes(space: Workspace, client: WorkspaceClient) -> None:
    model = space.model(LLAMA)
    assert model
    model.versions[1].comment = "(catalogger: shape 0a, fingerprint 0b1c)"
    to(client)
    to(client, f"{LLAMA}/2")
    endpoint = space.serving.endpoint("ep")
    assert endpoint
    assert endpoint.tags == {"made_by": "catalogger"}


def test_every_change_of_state_is_told_once_with_the_entities_message(
    space: Workspace, client: WorkspaceClient
) -> None:
    space.serving.order("ep", Build(looks=4))
    lines = Lines()
    to(client, progress=lines)
    told = [line for line in lines.said if line.startswith("ep: ")]
    building = "ep: NOT_READY, IN_PROGRESS: llama-1 DEPLOYMENT_CREATING"
    assert told == [
        f"{building} Creating resources for served entity.",
        f"{building} Initializing provisioned throughput for served entity.",
        "ep: READY, NOT_UPDATING: llama-1 DEPLOYMENT_READY",
    ]


def test_states_that_nobody_knows_are_told_and_waited_through(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.order("ep", Build(looks=2, update="WARMING_UP", deployment="DEPLOYMENT_DREAMING"))
    lines = Lines()
    assert to(client, progress=lines).state == "ready"
    assert any("WARMING_UP" in line and "DEPLOYMENT_DREAMING" in line for line in lines.said)


def test_no_capacity_in_time_leaves_the_endpoint_for_the_next_run(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.order("ep", NO_CAPACITY)
    with pytest.raises(DeploymentPending, match="GPU capacity") as caught:
        to(client, terms=Terms(poll=0.001, timeout=0.01))
    assert f"{space.url}/ml/endpoints/ep" in str(caught.value)
    assert caught.value.exit_code == 8
    assert space.serving.names == ["ep"]
    space.serving.advance("ep")
    assert to(client).action == "unchanged"


def test_a_failure_for_want_of_capacity_is_pending_too(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.order("ep", Build("failed", message="Timed out: no GPU capacity."))
    with pytest.raises(DeploymentPending, match="account team"):
        to(client)
    assert to(client).action == "updated"
    assert serves(space)[0][:2] == (LLAMA, "1")


def test_a_failed_creation_says_that_nothing_is_served(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.order("ep", Build("failed", message="The container is not healthy."))
    with pytest.raises(DeploymentFailed, match=r"not healthy\. Nothing is served") as caught:
        to(client)
    assert caught.value.exit_code == 9
    assert space.serving.names == ["ep"]


def test_a_failed_update_says_that_the_old_one_serves(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    space.serving.order("ep", Build("failed"))
    with pytest.raises(DeploymentFailed, match="The configuration before it still serves"):
        to(client, f"{LLAMA}/2")
    assert serves(space)[0][:2] == (LLAMA, "1")
    assert to(client, f"{LLAMA}/2").action == "updated"
    assert serves(space)[0][:2] == (LLAMA, "2")


def test_a_canceled_update_is_called_so(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    space.serving.order("ep", Build("canceled"))
    with pytest.raises(DeploymentFailed, match="was canceled"):
        to(client, f"{LLAMA}/2")


def test_rollback_puts_the_configuration_before_it_back(space: Workspace, client: WorkspaceClient) -> None:
    to(client, wish=Wish(maximum=1960))
    space.serving.order("ep", Build("failed"))
    with pytest.raises(DeploymentFailed, match="was put back and serves"):
        to(client, f"{LLAMA}/2", terms=Terms(poll=0.001, timeout=5, rollback=True))
    endpoint = space.serving.endpoint("ep")
    assert endpoint
    assert (endpoint.update, serves(space)[0][1]) == ("NOT_UPDATING", "1")
    assert serves(space)[0][2]["max_provisioned_throughput"] == 1960


def test_a_rollback_that_is_refused_hides_no_failure(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    space.serving.order("ep", Build("failed", message="Not healthy."))
    space.order.fail("PUT .*/config", 400, skip=1)
    with pytest.raises(DeploymentFailed, match=r"Not healthy\.\nThe .* could not be put back: .*ordered fault 400"):
        to(client, f"{LLAMA}/2", terms=Terms(poll=0.001, timeout=5, rollback=True))


def test_an_update_of_somebody_else_is_waited_for(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    space.serving.interfere("ep", Build(looks=3))
    assert to(client, f"{LLAMA}/2").action == "updated"
    assert serves(space)[0][1] == "2"


def test_a_conflict_that_comes_in_between_is_waited_for(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    space.order.fail("PUT .*/config", 409, code="RESOURCE_CONFLICT")
    assert to(client, f"{LLAMA}/2").action == "updated"


def test_a_creation_whose_answer_is_lost_is_no_error(space: Workspace, client: WorkspaceClient) -> None:
    space.order.reset("POST .*serving-endpoints", "after")
    assert to(client).action == "created"
    assert space.serving.names == ["ep"]


def test_an_update_whose_answer_is_lost_is_an_update(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    space.order.reset("PUT .*/config", "after")
    assert to(client, f"{LLAMA}/2").action == "updated"
    assert serves(space)[0][1] == "2"


def test_an_endpoint_that_somebody_ends_is_waited_for_no_longer(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.order("ep", Build("never"))

    class Ending(Lines):
        def say(self, text: str) -> None:
            super().say(text)
            if "DEPLOYMENT_CREATING" in text:
                space.serving.delete("ann@example.com", "ep")

    with pytest.raises(DeploymentFailed, match="is gone"):
        to(client, progress=Ending())


def test_other_models_are_replaced_only_where_that_is_agreed(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.add_base_model("system.ai.other", tokens())
    create(space, ranged("system.ai.other"))
    with pytest.raises(UsageError, match=r"serves system\.ai\.other"):
        to(client)
    assert serves(space)[0][0] == "system.ai.other"
    assert to(client, terms=Terms(replace=True, poll=0.001)).action == "updated"
    assert serves(space)[0][0] == LLAMA


def test_an_endpoint_keeps_its_unit(space: Workspace, client: WorkspaceClient) -> None:
    to(client, f"{OSS}/1")
    with pytest.raises(UsageError, match="other unit of capacity"):
        to(client, terms=Terms(replace=True))


def test_traffic_is_split_between_versions(space: Workspace, client: WorkspaceClient) -> None:
    to(client, wish=Wish(maximum=1960))
    terms = Terms(traffic={"1": 90, "2": 10}, poll=0.001)
    assert to(client, f"{LLAMA}/2", terms=terms).action == "updated"
    endpoint = space.serving.endpoint("ep")
    assert endpoint
    assert endpoint.config
    assert endpoint.config.routes == {"llama-1": 90, "llama-2": 10}
    assert [asked["max_provisioned_throughput"] for _, _, asked in serves(space)] == [1960, 980]
    assert to(client, f"{LLAMA}/2", terms=terms).action == "unchanged"


@pytest.mark.parametrize(
    ("traffic", "words"),
    [
        ({"1": 90, "2": 20}, "sum up to 110"),
        ({"1": 100}, "gives version 2 no share"),
        ({"7": 50, "2": 50}, '"7", which is not served'),
        ({"2": 50, "llama-2": 50}, '"llama-2" two shares'),
    ],
)
def test_traffic_that_does_not_add_up_is_refused(
    space: Workspace, client: WorkspaceClient, traffic: dict[str, int], words: str
) -> None:
    to(client)
    with pytest.raises(UsageError, match=words):
        to(client, f"{LLAMA}/2", terms=Terms(traffic=traffic))
    assert len(sent(space)) == 1


def test_gateway_options_go_along_and_are_set_where_they_differ(space: Workspace, client: WorkspaceClient) -> None:
    usage = {"usage_tracking_config": {"enabled": True}}
    to(client, terms=Terms(ai_gateway=usage, poll=0.001))
    assert sent(space)[0][1]["ai_gateway"] == usage
    assert to(client, terms=Terms(ai_gateway=usage, poll=0.001)).notes == ()
    off = {"usage_tracking_config": {"enabled": False}}
    assert to(client, terms=Terms(ai_gateway=off, poll=0.001)).action == "unchanged"
    assert sent(space)[1:] == [("PUT /api/2.0/serving-endpoints/ep/ai-gateway", off)]


def test_what_the_gateways_file_does_not_name_stays(space: Workspace, client: WorkspaceClient) -> None:
    limits = [{"calls": 10, "key": "user", "renewal_period": "minute"}]
    to(client, terms=Terms(ai_gateway={"rate_limits": limits}, poll=0.001))
    usage = {"usage_tracking_config": {"enabled": True}}
    to(client, terms=Terms(ai_gateway=usage, poll=0.001))
    endpoint = space.serving.endpoint("ep")
    assert endpoint
    assert endpoint.gateway == {"rate_limits": limits, **usage}


def test_more_than_four_chunks_are_asked_about(space: Workspace, client: WorkspaceClient) -> None:
    asked: list[Capacity] = []

    def refuse(capacity: Capacity) -> bool:
        asked.append(capacity)
        return False

    with pytest.raises(UsageError, match="more than 4 chunks"):
        to(client, wish=Wish(maximum=5 * 980), consent=refuse)
    assert [capacity.chunks for capacity in asked] == [5]
    to(client, wish=Wish(maximum=4 * 980), consent=refuse)
    assert len(asked) == 1


def test_what_is_billed_is_told_before_anything_is_created(space: Workspace, client: WorkspaceClient) -> None:
    lines, writes = Lines(), list[int]()

    class Watching(Lines):
        def say(self, text: str) -> None:
            super().say(text)
            if text.startswith("Billed"):
                writes.append(len(sent(space)))

    lines = Watching()
    to(client, wish=Wish(minimum=0, maximum=1960), progress=lines)
    billed = "0 to 1960 tokens/s, input and output together (2 x 980 at the most, nothing while it is scaled to zero)"
    assert f"Billed by the hour: {billed}" in lines.said
    assert writes == [0]


@pytest.mark.parametrize(
    ("answer", "unit", "chunk"), [(tokens(chunk=970), "tokens_per_second", 970), (BOTH_UNITS, "model_units", 50)]
)
def test_the_answer_of_the_workspace_says_the_unit(
    space: Workspace, client: WorkspaceClient, answer: Any, unit: str, chunk: int
) -> None:
    space.serving.servable.answers[LLAMA] = answer
    done = to(client, check_only=True)
    assert (done.action, done.capacity.unit, done.capacity.chunk) == ("checked", unit, chunk)
    assert sent(space) == []


@pytest.mark.parametrize("answer", [NOT_OPTIMIZABLE, KEY_ABSENT])
def test_nothing_is_created_for_what_is_not_eligible(space: Workspace, client: WorkspaceClient, answer: Any) -> None:
    space.serving.servable.answers[LLAMA] = answer
    said = eligibility(client, f"{LLAMA}/1")
    assert (said.eligible, said.unit) == (False, None)
    assert json.dumps(dict(answer)) in str(said)
    with pytest.raises(NotEligible) as caught:
        to(client)
    assert caught.value.exit_code == 2
    assert sent(space) == []


def test_a_unit_that_nobody_knows_is_not_called_not_eligible(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.servable.answers[LLAMA] = UNIT_UNKNOWN
    assert eligibility(client, f"{LLAMA}/1").eligible
    with pytest.raises(UnitUnknown, match=r"serves .* by a unit of capacity that is not known") as caught:
        to(client)
    assert caught.value.exit_code == 2
    assert sent(space) == []


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"maximum": 1000}, "no multiple of 980"),
        ({"minimum": 500, "maximum": 980}, "no multiple of 980"),
        ({"minimum": 1960, "maximum": 980}, "above"),
        ({"maximum": 0}, "no capacity"),
        ({"maximum": -980}, "no capacity"),
        ({"units": 50}, "not by model units"),
    ],
)
def test_capacity_that_is_none_is_refused(
    space: Workspace, client: WorkspaceClient, wish: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        to(client, wish=Wish(**wish))
    assert sent(space) == []


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"units": 70}, "Give 50 or 100"),
        ({"units": 0}, "no capacity"),
        ({"maximum": 980}, "units"),
        ({"scale_to_zero": True}, "no scale to zero"),
    ],
)
def test_units_that_are_none_are_refused(
    space: Workspace, client: WorkspaceClient, wish: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        to(client, f"{OSS}/1", wish=Wish(**wish))
    assert words in str(caught.value)
    assert sent(space) == []


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"maximum": 980, "units": 50}, "more than one way"),
        ({"minimum": 980}, "without --max-throughput"),
        ({"tokens_per_second": 0}, "no capacity"),
        ({"tokens_per_second": float("nan")}, "no capacity"),
    ],
)
def test_a_wish_that_contradicts_itself_is_refused(wish: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Wish(**wish)


@pytest.mark.parametrize("name", ["a.b", "x" * 64, "databricks-mine", "", "a b"])
def test_a_name_that_the_workspace_does_not_take_is_refused_before_it_is_asked(
    space: Workspace, client: WorkspaceClient, name: str
) -> None:
    with pytest.raises(UsageError, match="endpoint name"):
        deploy(client, f"{LLAMA}/1", endpoint=name, terms=QUICK)
    assert space.matching("serving-endpoints") == []


def test_a_name_that_differs_in_case_only_is_refused(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    with pytest.raises(UsageError, match="in case only"):
        deploy(client, f"{LLAMA}/1", endpoint="EP", terms=QUICK)
    assert space.serving.names == ["ep"]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (f"{LLAMA}/9", "no version 9"),
        (f"{LLAMA}@best", 'no alias "best"'),
        ("system.ai.nobody/1", "no model"),
        ("llama/1", "names no version"),
        (LLAMA, "names no version"),
    ],
)
def test_a_version_that_is_not_there(space: Workspace, client: WorkspaceClient, reference: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        to(client, reference)
    assert sent(space) == []


def test_an_alias_means_its_version(space: Workspace, client: WorkspaceClient) -> None:
    model = space.model(LLAMA)
    assert model
    model.aliases["champion"] = 3
    assert to(client, f"{LLAMA}@champion").eligibility.entity.version == "3"


def test_a_version_is_waited_for_until_it_is_ready(space: Workspace, client: WorkspaceClient) -> None:
    model = space.model(LLAMA)
    assert model
    version = model.versions[1]
    version.status = "PENDING_REGISTRATION"

    class Finishing(Lines):
        def say(self, text: str) -> None:
            super().say(text)
            version.status = "READY"

    lines = Finishing()
    assert registered(client, f"{LLAMA}/1", poll=0.001, progress=lines).version == "1"
    assert lines.said == [f"Waiting for {LLAMA}/1: PENDING_REGISTRATION"]


def test_a_version_that_does_not_get_ready_is_not_deployed(space: Workspace, client: WorkspaceClient) -> None:
    model = space.model(LLAMA)
    assert model
    model.versions[1].status = "PENDING_REGISTRATION"
    with pytest.raises(RegistryError, match="is PENDING_REGISTRATION still"):
        to(client, terms=Terms(poll=0.001, timeout=0.01))
    model.versions[1].status = "FAILED_REGISTRATION"
    with pytest.raises(RegistryError, match=r"The registration of .* failed"):
        to(client)
    assert sent(space) == []


def test_a_workspace_without_provisioned_throughput_says_so(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.throughput = False
    with pytest.raises(DeploymentFailed, match="provisioned throughput is not supported"):
        to(client)


def test_a_region_without_serving_says_so(space: Workspace, client: WorkspaceClient) -> None:
    space.serving.region = "antarctica"
    with pytest.raises(DeploymentFailed, match="antarctica"):
        to(client)
    assert space.serving.names == []


def test_a_creator_who_left_is_told(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    space.serving.leave("ann@example.com")
    with pytest.raises(AccessDenied, match=r"the rights of ann@example\.com, who created the endpoint"):
        to(client, f"{LLAMA}/2")


def test_a_token_that_is_none(space: Workspace) -> None:
    with pytest.raises(AccessDenied):
        to(WorkspaceClient(host=space.url, token=secret("nobody", "databricks")))
