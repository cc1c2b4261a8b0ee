"""Log, register, serve, query: what comes out of a workspace is what Transformers computes of the checkpoint.

The same endpoints answer an OpenAI client.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import checkpoints
from fakes.secrets import secret
from testing.truth import Truth, first_states, tokens_of

from catalogger import Endpoint, log_model
from catalogger.errors import AccessDenied, DeploymentPending, NetworkUnreachable, UsageError
from catalogger.remote.patience import VARIABLE
from catalogger.serving.replies import Usage
from catalogger.testing import NO_CAPACITY, NO_CREDENTIALS, Build, ModelAnswers, Workspace

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from openai import OpenAI

TOKEN, OTHER = secret("a user of the workspace", "databricks"), secret("nobody", "databricks")
RECIPES = {"chat": "llama-chat", "completions": "mistral-completions", "bge": "bge-embeddings"}
MESSAGES = [{"role": "user", "content": "What is a shard?"}]
PROMPTS = ["The registry keeps", "What is the capital of France?"]


@dataclass(frozen=True)
class Served:
    """A workspace that serves one endpoint of each task, named as the keys of RECIPES, and their checkpoints."""

    workspace: Workspace
    checkpoints: Mapping[str, Path]

    @property
    def client(self) -> WorkspaceClient:
        from databricks.sdk import WorkspaceClient

        return WorkspaceClient(host=self.workspace.url, token=TOKEN)

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(self.client, name)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    world = tmp_path_factory.mktemp("served")
    made = {
        "chat": checkpoints.llama(world / "chat", shards=2),
        "completions": checkpoints.mistral(world / "completions", task_template=False),
        "bge": checkpoints.bert(world / "bge", pooling="cls"),
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        ModelAnswers() as answers,
        Workspace(
            world / "files",
            NO_CREDENTIALS,
            tokens={TOKEN: "me@example.org", OTHER: "other@example.org"},
            sdk_uploads=True,
            answers=answers,
            build=Build(looks=0),
        ) as workspace,
    ):
        workspace.add_schema("main.ml")
        patch.chdir(world)
        patch.setenv("HOME", str(world))
        patch.setenv("XDG_CACHE_HOME", str(world / "cache"))
        patch.setenv("DATABRICKS_HOST", workspace.url)
        patch.setenv("DATABRICKS_TOKEN", TOKEN)
        served = Served(workspace, made)
        for name, recipe in RECIPES.items():
            _serve(served, name, recipe)
        yield served


def _serve(served: Served, name: str, recipe: str) -> None:
    """Register the checkpoint, and have the workspace serve it under its own name."""
    overrides = ["metadata.model_type=bge-small"] if name == "bge" else []
    outcome = log_model(
        recipe,
        source=served.checkpoints[name],
        name=f"main.ml.{name}",
        tracking_uri="sqlite:///mlflow.db",
        registry_uri="databricks-uc",
        overrides=overrides,
    )
    assert outcome.action == "registered"
    entity = {
        "entity_name": outcome.name,
        "entity_version": outcome.version,
        "min_provisioned_throughput": 0,
        "max_provisioned_throughput": 980,
    }
    body = {"name": name, "config": {"served_entities": [entity]}}
    served.client.api_client.do("POST", "/api/2.0/serving-endpoints", body=body)


def test_a_chat_from_checkpoint_to_answer(served: Served) -> None:
    truth = Truth(served.checkpoints["chat"])
    prompt = truth.prompt(MESSAGES)
    tokens, logprobs = truth.greedy(prompt, 10)
    answer = served.endpoint("chat").chat(MESSAGES, max_tokens=10, top_logprobs=2)
    assert (answer.text, answer.finish_reason) == (truth.text(tokens), "length")
    expected = [float(row[token]) for token, row in zip(tokens, logprobs, strict=True)]
    assert [token.logprob for token in answer.logprobs] == pytest.approx(expected, abs=1e-6)
    assert answer.usage == Usage(len(prompt), 10, len(prompt) + 10)
    stream = served.endpoint("chat").chat(MESSAGES, max_tokens=10, top_logprobs=2, stream=True)
    assert stream.whole() == answer


def test_completions_from_checkpoint_to_answer(served: Served) -> None:
    folder = served.checkpoints["completions"]
    truth = Truth(folder)
    expected = [truth.text(truth.greedy(prompt, 10)[0]) for prompt in tokens_of(folder, PROMPTS)]
    endpoint = served.endpoint("completions")
    assert endpoint.complete(PROMPTS, max_tokens=10, temperature=0).texts == expected
    assert endpoint.complete(PROMPTS[0], max_tokens=10, stream=True).whole().text == expected[0]


def test_embeddings_from_checkpoint_to_answer(served: Served) -> None:
    """BGE endpoints normalise, and a query carries its recipe's instruction."""
    instructed = f"Represent this sentence for searching relevant passages: {PROMPTS[0]}"
    *passages, query = [_scaled(vector) for vector in first_states(served.checkpoints["bge"], [*PROMPTS, instructed])]
    endpoint = served.endpoint("bge")
    assert endpoint.embed(PROMPTS, batch_size=1).vectors == [pytest.approx(vector, abs=1e-6) for vector in passages]
    assert endpoint.embed(PROMPTS[0], recipe="bge-small").vectors == [pytest.approx(query, abs=1e-6)]


def _scaled(vector: list[float]) -> list[float]:
    return [number / math.hypot(*vector) for number in vector]


# An OpenAI client


@pytest.fixture
def openai(served: Served) -> Iterator[OpenAI]:
    """As Databricks' documentation has one made for its endpoints."""
    from openai import OpenAI

    with OpenAI(api_key=TOKEN, base_url=f"{served.workspace.url}/serving-endpoints", max_retries=0) as client:
        yield client


def test_an_openai_client_chats(served: Served, openai: OpenAI) -> None:
    own = served.endpoint("chat").chat(MESSAGES, max_tokens=8, top_logprobs=2)
    asked: dict[str, Any] = {
        "model": "chat",
        "messages": MESSAGES,
        "max_tokens": 8,
        "logprobs": True,
        "top_logprobs": 2,
    }
    said = openai.chat.completions.create(**asked)
    (choice,) = said.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (own.text, "assistant", "length")
    assert (said.usage.total_tokens, said.object) == (own.usage and own.usage.total_tokens, "chat.completion")
    told = [(t.token, t.logprob, bytes(t.bytes), len(t.top_logprobs)) for t in choice.logprobs.content]
    assert told == [(t.token, t.logprob, t.content, 2) for t in own.logprobs]

    chunks = list(openai.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == own.text
    assert chunks[-1].usage.total_tokens == said.usage.total_tokens


def test_an_openai_client_completes(served: Served, openai: OpenAI) -> None:
    own = served.endpoint("completions").complete(PROMPTS, max_tokens=8)
    said = openai.completions.create(model="completions", prompt=PROMPTS, max_tokens=8)
    assert [choice.text for choice in said.choices] == own.texts
    chunks = openai.completions.create(model="completions", prompt=PROMPTS[0], max_tokens=8, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == own.text


def test_an_openai_client_embeds(served: Served, openai: OpenAI) -> None:
    own = served.endpoint("bge").embed(PROMPTS)
    said = openai.embeddings.create(model="bge", input=PROMPTS)
    assert [row.embedding for row in said.data] == own.vectors
    assert said.usage.prompt_tokens == own.usage.prompt_tokens


def test_an_openai_client_is_refused_as_it_knows(openai: OpenAI) -> None:
    from openai import BadRequestError, NotFoundError

    with pytest.raises(BadRequestError, match="task"):
        openai.completions.create(model="chat", prompt="?")
    with pytest.raises(NotFoundError):
        openai.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "?"}])


# What a workspace does


def test_a_busy_and_a_sleeping_endpoint_are_asked_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "20")
    endpoint = served.endpoint("chat")
    served.workspace.serving.throttle("chat", queries=1, retry_after=0.01)
    served.workspace.serving.sleep("chat", queries=1)
    asked = len(served.workspace.matching("/invocations"))
    assert endpoint.chat(MESSAGES, max_tokens=2).text is not None
    assert len(served.workspace.matching("/invocations")) == asked + 3


def test_an_endpoint_that_asks_for_more_time_than_patience_has(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    served.workspace.serving.throttle("chat", queries=1, retry_after=60)
    with pytest.raises(NetworkUnreachable, match="Exceeded the rate limit"):
        served.endpoint("chat").chat(MESSAGES)


def test_endpoints_that_are_not_there_not_ready_or_not_ones_own(served: Served) -> None:
    from databricks.sdk import WorkspaceClient

    with pytest.raises(UsageError, match='There is no endpoint "nobody"'):
        served.endpoint("nobody").chat(MESSAGES)
    with pytest.raises(AccessDenied, match="CAN_QUERY"):
        Endpoint(WorkspaceClient(host=served.workspace.url, token=OTHER), "chat").chat(MESSAGES)
    with pytest.raises(AccessDenied, match="does not know the token"):
        Endpoint(WorkspaceClient(host=served.workspace.url, token=TOKEN[:-1]), "chat").chat(MESSAGES)
    served.workspace.serving.order("waiting", NO_CAPACITY)
    entity = {"entity_name": "main.ml.chat", "entity_version": "1", "min_provisioned_throughput": 0}
    config = {"served_entities": [{**entity, "max_provisioned_throughput": 980}]}
    served.client.api_client.do("POST", "/api/2.0/serving-endpoints", body={"name": "waiting", "config": config})
    with pytest.raises(DeploymentPending, match="NOT_READY, IN_PROGRESS"):
        served.endpoint("waiting").chat(MESSAGES)


def test_a_request_that_the_model_refuses(served: Served) -> None:
    with pytest.raises(UsageError, match="temperature is to be a number from 0 to 2"):
        served.endpoint("chat").chat(MESSAGES, temperature=3)
