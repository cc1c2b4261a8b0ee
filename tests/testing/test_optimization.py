"""What the loopback workspace says of a version's throughput."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from testing.asking import BOB, ENDPOINTS, LLAMA, ask, done, refused, register

from catalogger.testing import Workspace
from catalogger.testing.optimization import (
    BOTH_UNITS,
    KEY_ABSENT,
    LLAMA_WITH_DBUS,
    NOT_OPTIMIZABLE,
    UNIT_UNKNOWN,
    described,
    tokens,
    units,
)
from catalogger.testing.refusal import RefusalError

NAME = "main.ml.x"
CHAT, EMBEDDINGS = "llm/v1/chat", "llm/v1/embeddings"


def _path(name: str, number: str = "1") -> str:
    return f"{ENDPOINTS}/get-model-optimization-info/{name}/{number}"


def _mlmodel(task: str | None, architecture: str, source: str = "", **metadata: str) -> dict[str, Any]:
    flavor = {"pipeline_model_type": architecture, "source_model_name": source}
    return {"metadata": {**({"task": task} if task else {}), **metadata}, "flavors": {"transformers": flavor}}


@pytest.mark.parametrize(
    ("mlmodel", "answer"),
    [
        (_mlmodel(CHAT, "LlamaForCausalLM"), tokens("llama")),
        (_mlmodel("llm/v1/completions", "MixtralForCausalLM"), tokens("mixtral")),
        (_mlmodel(EMBEDDINGS, "NewModel", model_type="gte-large"), tokens("gte")),
        (_mlmodel(EMBEDDINGS, "BertModel", "BAAI/bge-large-en-v1.5"), tokens("bge")),
        (_mlmodel(EMBEDDINGS, "BertModel", "/my/folder"), NOT_OPTIMIZABLE),
        (_mlmodel(EMBEDDINGS, "BertModel", "/my/folder", model_type="bge-small"), tokens("bge")),
        (_mlmodel(None, "LlamaForCausalLM"), NOT_OPTIMIZABLE),
        (_mlmodel("text-generation", "LlamaForCausalLM"), NOT_OPTIMIZABLE),
        (_mlmodel(CHAT, "Qwen2ForCausalLM"), NOT_OPTIMIZABLE),
        ({"metadata": {"task": CHAT}, "flavors": {"python_function": {}}}, NOT_OPTIMIZABLE),
        ({"flavors": {}}, NOT_OPTIMIZABLE),
    ],
)
def test_task_flavor_and_architecture_decide(
    serving: Workspace, mlmodel: Mapping[str, Any], answer: Mapping[str, Any]
) -> None:
    number = register(serving, NAME, mlmodel)
    assert done(serving, "GET", _path(NAME, number)) == answer


@pytest.mark.parametrize(
    "answer", [KEY_ABSENT, NOT_OPTIMIZABLE, UNIT_UNKNOWN, BOTH_UNITS, LLAMA_WITH_DBUS, tokens("gte"), units()]
)
def test_a_test_sets_any_answer(serving: Workspace, answer: Mapping[str, Any]) -> None:
    register(serving, NAME, described(CHAT))
    serving.serving.set_optimization(NAME, answer)
    assert done(serving, "GET", _path(NAME)) == answer
    serving.serving.set_optimization(NAME, None)
    assert done(serving, "GET", _path(NAME)) == tokens()


def test_an_error_may_be_the_answer(serving: Workspace) -> None:
    serving.serving.set_optimization(LLAMA, RefusalError(400, "BAD_REQUEST", "no such thing"))
    refused(ask(serving, "GET", _path(LLAMA)), 400, "BAD_REQUEST", "no such thing")


def test_the_version_has_to_be_there_and_ready_and_open_to_who_asks(serving: Workspace) -> None:
    refused(ask(serving, "GET", _path("system.ai.none")), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(ask(serving, "GET", _path(LLAMA, "7")), 404, "RESOURCE_DOES_NOT_EXIST")
    serving.versions(LLAMA)[0].status = "PENDING_REGISTRATION"
    refused(ask(serving, "GET", _path(LLAMA)), 400, "INVALID_STATE", "PENDING_REGISTRATION")
    serving.revoke("SCHEMA", "main.ml", "account users", "ALL PRIVILEGES")
    serving.hand_over("SCHEMA", "main.ml", "ann@example.com")
    refused(ask(serving, "GET", _path("main.ml.x"), token=BOB), 403, "PERMISSION_DENIED")


def test_a_model_without_files_here_may_be_described(serving: Workspace) -> None:
    place = {"catalog_name": "main", "schema_name": "ml"}
    done(serving, "POST", "/api/2.1/unity-catalog/models", {"name": "x", **place})
    done(serving, "POST", "/api/2.1/unity-catalog/models/versions", {"model_name": "x", "source": "/s", **place})
    done(serving, "PATCH", "/api/2.1/unity-catalog/models/main.ml.x/versions/1/finalize", {})
    assert done(serving, "GET", _path(NAME)) == NOT_OPTIMIZABLE
    serving.serving.describe(
        NAME, described(EMBEDDINGS, "NewModel") | {"metadata": {"task": CHAT, "model_type": "gte-base"}}
    )
    assert done(serving, "GET", _path(NAME)) == tokens("gte")
