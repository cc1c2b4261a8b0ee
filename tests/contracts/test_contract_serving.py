"""What databricks-sdk, MLflow's deployment client and OpenAI's client make of the loopback workspace's endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testing.asking import ANN, ENDPOINTS, LLAMA, OSS, TOKENS, Echo, create, ranged

from catalogger.testing import Build, Workspace
from catalogger.testing.optimization import tokens, units

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Workspace]:
    """Whose endpoints are ready at the first look, which spares the SDK's pauses."""
    with Workspace(tmp_path, tokens=TOKENS, answers=Echo(), build=Build(looks=0)) as workspace:
        workspace.serving.add_base_model(LLAMA, tokens(), versions=2)
        workspace.serving.add_base_model(OSS, units())
        yield workspace


@pytest.fixture
def client(serving: Workspace) -> WorkspaceClient:
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient(host=serving.url, token=ANN)


def _config(version: str = "1", entity: str = LLAMA) -> Any:
    from databricks.sdk.service.serving import EndpointCoreConfigInput, ServedEntityInput

    return EndpointCoreConfigInput(name="ep", served_entities=[ServedEntityInput(**ranged(entity, version))])


def _units(amount: int) -> Any:
    from databricks.sdk.service.serving import PtEndpointCoreConfig, PtServedModel

    served = PtServedModel(entity_name=OSS, entity_version="1", provisioned_model_units=amount)
    return PtEndpointCoreConfig(served_entities=[served])


def test_the_sdk_asks_for_the_optimization_answer(client: WorkspaceClient) -> None:
    path = f"{ENDPOINTS}/get-model-optimization-info/{LLAMA}/1"
    assert client.api_client.do("GET", path) == tokens()


def test_the_sdk_creates_updates_and_deletes(client: WorkspaceClient) -> None:
    from databricks.sdk.errors import NotFound
    from databricks.sdk.service import serving as sdk

    tag = sdk.EndpointTag("team", "search")
    found = client.serving_endpoints.create_and_wait("ep", config=_config(), tags=[tag], description="for tests")
    assert found.state == sdk.EndpointState(sdk.EndpointStateConfigUpdate.NOT_UPDATING, sdk.EndpointStateReady.READY)
    (entity,) = found.config.served_entities
    assert (entity.name, entity.entity_name, entity.entity_version, entity.creator) == (
        "llama-1",
        LLAMA,
        "1",
        "ann@example.com",
    )
    assert (entity.min_provisioned_throughput, entity.max_provisioned_throughput) == (980, 1960)
    assert entity.state.deployment == sdk.ServedModelStateDeployment.DEPLOYMENT_READY
    assert (found.task, found.description, found.tags) == ("llm/v1/chat", "for tests", [tag])
    assert found.permission_level == sdk.ServingEndpointDetailedPermissionLevel.CAN_MANAGE

    updated = client.serving_endpoints.update_config_and_wait("ep", served_entities=_config("2").served_entities)
    assert (updated.config.served_entities[0].entity_version, updated.config.config_version) == ("2", 2)
    client.serving_endpoints.delete("ep")
    with pytest.raises(NotFound, match="'ep' does not exist"):
        client.serving_endpoints.get("ep")


def test_the_sdk_creates_and_updates_by_model_units(client: WorkspaceClient) -> None:
    calls = client.serving_endpoints
    found = calls.create_provisioned_throughput_endpoint_and_wait("pt", _units(50))
    assert found.config.served_entities[0].provisioned_model_units == 50
    updated = calls.update_provisioned_throughput_endpoint_config_and_wait("pt", _units(100))
    assert updated.config.served_entities[0].provisioned_model_units == 100


def test_the_sdk_sees_a_build_under_way_and_a_failed_one(serving: Workspace, client: WorkspaceClient) -> None:
    from databricks.sdk.errors import OperationFailed
    from databricks.sdk.service.serving import EndpointStateConfigUpdate, ServedModelStateDeployment

    serving.serving.order("ep", Build("failed", looks=2, message="the container crashed"))
    client.serving_endpoints.create("ep", config=_config())
    pending = client.serving_endpoints.get("ep")
    assert pending.state.config_update == EndpointStateConfigUpdate.IN_PROGRESS
    assert pending.pending_config.served_entities[0].state.deployment == ServedModelStateDeployment.DEPLOYMENT_CREATING
    serving.serving.advance("ep")
    with pytest.raises(OperationFailed, match="UPDATE_FAILED"):
        client.serving_endpoints.wait_get_serving_endpoint_not_updating("ep")
    (entity,) = client.serving_endpoints.get("ep").pending_config.served_entities
    assert (entity.state.deployment, entity.state.deployment_state_message) == (
        ServedModelStateDeployment.DEPLOYMENT_FAILED,
        "the container crashed",
    )


def test_unheard_of_words_are_none_to_the_sdk(serving: Workspace, client: WorkspaceClient) -> None:
    serving.serving.order("ep", Build(looks=9, update="QUEUED", ready="WARMING", deployment="DEPLOYMENT_STAGING"))
    client.serving_endpoints.create("ep", config=_config())
    found = client.serving_endpoints.get("ep")
    assert (found.state.config_update, found.state.ready) == (None, None)
    assert found.pending_config.served_entities[0].state.deployment is None


def test_refusals_are_the_sdks_errors(serving: Workspace, client: WorkspaceClient) -> None:
    from databricks.sdk import errors

    with pytest.raises(errors.InvalidParameterValue, match="is not eligible for Provisioned Throughput"):
        client.serving_endpoints.create("ep", config=_config(entity=OSS))
    client.serving_endpoints.create("ep", config=_config())
    with pytest.raises(errors.ResourceAlreadyExists):
        client.serving_endpoints.create("ep", config=_config())
    serving.serving.interfere("ep", Build(looks=9))
    with pytest.raises(errors.ResourceConflict):
        client.serving_endpoints.update_config("ep", served_entities=_config().served_entities)
    serving.serving.leave("ann@example.com")
    with pytest.raises(errors.PermissionDenied):
        client.serving_endpoints.create("other", config=_config())


def test_the_sdk_lists_and_changes_each_part(serving: Workspace, client: WorkspaceClient) -> None:
    from databricks.sdk.service import serving as sdk

    found = create(serving)
    serving.serving.add_pay_per_token("databricks-bge")
    mine, databricks = client.serving_endpoints.list()
    assert (mine.name, mine.config.served_entities[0].entity_version) == ("ep", "1")
    assert databricks.config.served_entities[0].foundation_model.name == "system.ai.databricks-bge"
    assert client.serving_endpoints.patch("ep", add_tags=[sdk.EndpointTag("a", "b")]).tags == [
        sdk.EndpointTag("a", "b")
    ]
    limit = sdk.AiGatewayRateLimit(calls=5, renewal_period=sdk.AiGatewayRateLimitRenewalPeriod.MINUTE)
    assert client.serving_endpoints.put_ai_gateway("ep", rate_limits=[limit]).rate_limits == [limit]
    mails = sdk.EmailNotifications(on_update_failure=["ops@example.com"])
    assert client.serving_endpoints.update_notifications("ep", email_notifications=mails).email_notifications == mails
    entry = sdk.ServingEndpointAccessControlRequest(
        group_name="users", permission_level=sdk.ServingEndpointPermissionLevel.CAN_QUERY
    )
    client.serving_endpoints.update_permissions(found["id"], access_control_list=[entry])
    rights = client.serving_endpoints.get_permissions(found["id"]).access_control_list
    assert [(row.user_name or row.group_name, row.all_permissions[0].permission_level.value) for row in rights] == [
        ("ann@example.com", "CAN_MANAGE"),
        ("users", "CAN_QUERY"),
    ]
    assert len(client.serving_endpoints.get_permission_levels(found["id"]).permission_levels) == 3


@pytest.mark.filterwarnings("ignore:.*unclosed <socket")  # MLflow's, after a stream
def test_mlflow_creates_updates_and_asks(serving: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.deployments import get_deploy_client
    from requests import HTTPError

    for name, value in serving.environment.items():
        monkeypatch.setenv(name, value)
    client = get_deploy_client("databricks")
    created = client.create_endpoint(config={"name": "ep", "config": {"served_entities": [ranged()]}})
    assert (created.name, created.state["config_update"]) == ("ep", "NOT_UPDATING")
    updated = client.update_endpoint_config("ep", {"served_entities": [ranged(version="2")]})
    assert updated.config["served_entities"][0]["entity_version"] == "2"
    assert client.update_endpoint_tags("ep", {"add_tags": [{"key": "a", "value": "b"}]})
    assert client.update_endpoint_ai_gateway("ep", {"usage_tracking_config": {"enabled": True}})
    assert [endpoint["name"] for endpoint in client.list_endpoints()] == ["ep"]
    assert client.predict(endpoint="ep", inputs={"messages": []}) == {
        "model": LLAMA,
        "version": 2,
        "task": "llm/v1/chat",
    }
    assert list(client.predict_stream(endpoint="ep", inputs={"messages": []})) == [{"part": 1}, {"part": 2}]
    client.delete_endpoint("ep")
    with pytest.raises(HTTPError, match="404"):
        client.get_endpoint("ep")


def test_an_openai_client_is_pointed_at_the_workspace(serving: Workspace) -> None:
    import openai

    create(serving)
    client = openai.OpenAI(base_url=f"{serving.url}/serving-endpoints", api_key=ANN, max_retries=0)
    said = client.chat.completions.create(model="ep", messages=[{"role": "user", "content": "Hello"}])
    assert said.model == LLAMA
    stream = client.chat.completions.create(model="ep", messages=[], stream=True)
    assert [chunk.model_dump()["part"] for chunk in stream] == [1, 2]
    with pytest.raises(openai.BadRequestError, match="not llm/v1/embeddings"):
        client.embeddings.create(model="ep", input="x")
    serving.serving.throttle("ep")
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="ep", messages=[])
