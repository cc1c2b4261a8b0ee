"""Plain HTTP calls to a loopback workspace's endpoints, and versions of models that they may serve."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import yaml
from fakes.secrets import secret

from catalogger.testing import ServedVersion, Workspace

ANN, BOB = secret("Ann", "databricks"), secret("Bob", "databricks")
TOKENS = {ANN: "ann@example.com", BOB: "bob@example.com"}
ENDPOINTS = "/api/2.0/serving-endpoints"
LLAMA, OSS = "system.ai.llama", "system.ai.gpt_oss"


@dataclass(frozen=True)
class Said:
    """An answer: its headers, and a body in blocks."""

    status: int
    headers: Mapping[str, str]
    body: list[bytes]

    def blocks(self) -> Iterator[bytes]:
        yield from self.body


@dataclass
class Echo:
    """Answers with who was asked, and what."""

    asked: list[tuple[ServedVersion, str, Mapping[str, Any]]] = field(default_factory=list)

    def answer(self, entity: ServedVersion, task: str, document: Mapping[str, Any]) -> Said:
        self.asked.append((entity, task, document))
        if document.get("stream"):
            events = [b'data: {"part": 1}\n\n', b'data: {"part": 2}\n\n', b"data: [DONE]\n\n"]
            return Said(200, {"Content-Type": "text/event-stream"}, events)
        body = json.dumps({"model": entity.name, "version": entity.number, "task": task}).encode()
        return Said(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}, [body])


def ask(workspace: Workspace, method: str, path: str, document: Any = None, token: str = ANN) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.request(method, workspace.url + path, json=document, headers=headers, timeout=30)


def done(workspace: Workspace, method: str, path: str, document: Any = None, token: str = ANN) -> dict[str, Any]:
    """The JSON object of an answer that has to be 200."""
    answer = ask(workspace, method, path, document, token)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(answer: requests.Response, status: int, code: str, *words: str) -> None:
    said = answer.json()
    assert (answer.status_code, said["error_code"]) == (status, code), said
    for word in words:
        assert word in said["message"]


def ranged(entity: str = LLAMA, version: object = "1", low: Any = 980, high: Any = 1960, **more: Any) -> dict[str, Any]:
    """A served entity by tokens per second."""
    throughput = {"min_provisioned_throughput": low, "max_provisioned_throughput": high}
    return {"entity_name": entity, "entity_version": version, **throughput, **more}


def by_units(entity: str = OSS, version: object = "1", units: Any = 50, **more: Any) -> dict[str, Any]:
    return {"entity_name": entity, "entity_version": version, "provisioned_model_units": units, **more}


def asked_for(*entities: dict[str, Any], name: str = "ep", **more: Any) -> dict[str, Any]:
    """The document that asks for an endpoint."""
    return {"name": name, "config": {"served_entities": list(entities or [ranged()])}, **more}


def create(workspace: Workspace, *entities: dict[str, Any], name: str = "ep", **more: Any) -> dict[str, Any]:
    """An endpoint that serves."""
    done(workspace, "POST", ENDPOINTS, asked_for(*entities, name=name, **more))
    workspace.serving.advance(name)
    return done(workspace, "GET", f"{ENDPOINTS}/{name}")


def states(document: Mapping[str, Any]) -> tuple[str, str]:
    return document["state"]["ready"], document["state"]["config_update"]


def deployment(document: Mapping[str, Any], where: str = "config", index: int = 0) -> tuple[str, str]:
    """The state of a served entity, and its message."""
    state = document[where]["served_entities"][index]["state"]
    return state["deployment"], state["deployment_state_message"]


def register(workspace: Workspace, name: str, mlmodel: Mapping[str, Any], token: str = ANN) -> str:
    """A version with this MLmodel file, by the workspace's own surfaces; its number."""
    catalog, schema, model = name.split(".")
    place = {"catalog_name": catalog, "schema_name": schema}
    unity = "/api/2.1/unity-catalog/models"
    if workspace.model(name) is None:
        done(workspace, "POST", unity, {"name": model, **place}, token)
    version = done(workspace, "POST", f"{unity}/versions", {"model_name": model, "source": "/s", **place}, token)
    number = str(version["version"])
    path = f"/api/2.0/fs/files/Models/{catalog}/{schema}/{model}/{number}/MLmodel"
    headers = {"Authorization": f"Bearer {token}"}
    requests.put(workspace.url + path, yaml.safe_dump(dict(mlmodel)), headers=headers, timeout=30).raise_for_status()
    done(workspace, "PATCH", f"{unity}/{name}/versions/{number}/finalize", {}, token)
    return number
