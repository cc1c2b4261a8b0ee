"""An endpoint that is ready is asked something, and its answer is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from serving.deployments import Answers, to

from catalogger.errors import DeploymentFailed
from catalogger.serving.deploying import Terms
from catalogger.testing import Workspace
from catalogger.testing.optimization import tokens

GTE = "system.ai.gte"


def vector(*numbers: float) -> Mapping[str, Any]:
    """The answer of an embedding model to one text."""
    return {"data": [{"index": 0, "embedding": list(numbers)}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}


@pytest.fixture
def gte(space: Workspace, answers: Answers) -> str:
    space.serving.add_base_model(GTE, tokens("gte"), task="llm/v1/embeddings")
    answers.document = vector(3.0, 4.0)
    return f"{GTE}/1"


@pytest.mark.parametrize(("numbers", "normalised"), [((3.0, 4.0), False), ((0.6, 0.8), True)])
def test_a_vector_is_said_to_be_normalised_or_not(
    client: WorkspaceClient, answers: Answers, gte: str, numbers: tuple[float, ...], normalised: bool
) -> None:
    answers.document = vector(*numbers)
    done = to(client, gte)
    assert done.smoke
    assert (done.smoke.dimension, done.smoke.normalised) == (2, normalised)
    assert f"2 finite numbers, {'' if normalised else 'not '}normalised" in str(done)


@pytest.mark.parametrize("numbers", [(), (0.0, 0.0), (float("nan"), 1.0)])
def test_a_vector_that_is_none_fails(
    client: WorkspaceClient, answers: Answers, gte: str, numbers: tuple[float, ...]
) -> None:
    answers.document = vector(*numbers)
    with pytest.raises(DeploymentFailed, match="does not answer as it should"):
        to(client, gte)


def test_a_vector_has_the_dimension_that_is_known(client: WorkspaceClient, gte: str) -> None:
    assert to(client, gte, terms=Terms(poll=0.001, dimension=2)).state == "ready"
    with pytest.raises(DeploymentFailed, match="has 2 numbers, and the model's have 1024"):
        to(client, gte, terms=Terms(poll=0.001, dimension=1024))


def test_embeddings_have_no_log_probabilities_to_prove(client: WorkspaceClient, answers: Answers, gte: str) -> None:
    with pytest.raises(DeploymentFailed, match="embeddings, which have no log probabilities"):
        to(client, gte, terms=Terms(poll=0.001, logprobs=True))
    assert answers.asked == []


def test_an_endpoint_that_sleeps_is_woken(space: Workspace, client: WorkspaceClient) -> None:
    to(client)
    space.serving.sleep("ep")
    done = to(client)
    assert done.smoke
    assert done.smoke.text == "A layer."


def test_a_task_that_nobody_knows_is_told_and_not_asked(
    space: Workspace, client: WorkspaceClient, answers: Answers
) -> None:
    space.serving.add_base_model("system.ai.painter", tokens(), task="llm/v1/images")
    done = to(client, "system.ai.painter/1")
    assert (done.smoke, done.notes) == (None, ("it was asked nothing: its task is llm/v1/images",))
    assert answers.asked == []


def test_the_outcome_is_a_table_in_a_notebook(client: WorkspaceClient, answers: Answers) -> None:
    answers.document = {"choices": [{"index": 0, "message": {"content": "<b>"}, "finish_reason": "stop"}]}
    table = to(client)._repr_html_()
    assert table.startswith("<table>")
    assert "endpoint ep: ready" in table
    assert "&lt;b&gt;" in table


def test_an_answer_that_is_none_fails_the_deployment(
    space: Workspace, client: WorkspaceClient, answers: Answers
) -> None:
    answers.document = {"choices": []}
    with pytest.raises(DeploymentFailed, match="does not answer as it should"):
        to(client)
    assert space.serving.names == ["ep"]


def test_log_probabilities_are_proved_where_they_are_asked_for(
    space: Workspace, client: WorkspaceClient, answers: Answers
) -> None:
    with pytest.raises(DeploymentFailed, match="no log probabilities"):
        to(client, terms=Terms(logprobs=True, poll=0.001))
    content = [{"token": "A", "logprob": -0.5}]
    choice = {"message": {"content": "A"}, "finish_reason": "length", "logprobs": {"content": content}}
    answers.document = {"choices": [choice]}
    done = to(client, terms=Terms(logprobs=True, poll=0.001))
    assert done.smoke
    assert (done.smoke.logprobs, answers.asked[-1]["logprobs"]) == (1, True)
