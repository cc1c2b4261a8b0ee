"""What the tests of deployments share: a model's answers, what a job says, and the one call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from databricks.sdk import WorkspaceClient
from testing.asking import LLAMA, Said

from catalogger.serving.deploying import Terms, deploy
from catalogger.serving.deployment import Deployment
from catalogger.testing import Workspace

QUICK = Terms(poll=0.001, timeout=5)
WRITES = "^(POST|PUT|PATCH|DELETE) .*serving-endpoints(?!.*/invocations)"


class Answers:
    """The answer of a chat model, or what a test puts in its place."""

    def __init__(self) -> None:
        self.document: Mapping[str, Any] = {
            "choices": [{"index": 0, "message": {"content": "A layer."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        }
        self.asked: list[Mapping[str, Any]] = []

    def answer(self, _: object, __: str, document: Mapping[str, Any]) -> Said:
        self.asked.append(document)
        body = json.dumps(self.document).encode()
        return Said(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}, [body])


class Lines:
    """What a job says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def bar(self, label: str, total: int) -> Any:
        raise NotImplementedError


def to(client: WorkspaceClient, reference: str = f"{LLAMA}/1", **more: Any) -> Deployment:
    return deploy(client, reference, endpoint="ep", **{"terms": QUICK, **more})


def sent(space: Workspace) -> list[tuple[str, Mapping[str, Any]]]:
    return [(request.line, request.document) for request in space.matching(WRITES)]


def serves(space: Workspace) -> list[tuple[str, str, dict[str, Any]]]:
    endpoint = space.serving.endpoint("ep")
    assert endpoint
    assert endpoint.config
    return [(one.entity_name, one.entity_version, one.asked) for one in endpoint.config.served]
