"""One schema on an open-source Unity Catalog server, and plain HTTP calls to it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import requests
from fakes.unity import PREFIX


@dataclass(frozen=True)
class Place:
    """A server, and a schema of one's own in it."""

    url: str
    catalog: str
    schema: str

    @property
    def names(self) -> dict[str, Any]:
        return {"catalog_name": self.catalog, "schema_name": self.schema}

    def full(self, model: str) -> str:
        return f"{self.catalog}.{self.schema}.{model}"

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | bytes | None = None, **query: Any
    ) -> requests.Response:
        """The answer, whatever it is; bytes are sent as they are."""
        content: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        url = f"{self.url}{PREFIX}{quote(path)}"
        return requests.request(method, url, params=query, headers=headers, timeout=60, **content)

    def done(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        """The JSON object of an answer that has to be 200."""
        answer = self.ask(method, path, body, **query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def add_model(self, name: str, **more: Any) -> dict[str, Any]:
        return self.done("POST", "/models", {"name": name, **self.names, **more})

    def add_version(self, model: str, **more: Any) -> dict[str, Any]:
        return self.done("POST", "/models/versions", {"model_name": model, "source": "/s", **self.names, **more})

    def finalize(self, model: str, version: int) -> dict[str, Any]:
        body = {"full_name": self.full(model), "version": version}
        return self.done("PATCH", f"/models/{self.full(model)}/versions/{version}/finalize", body)


def new_place(url: str) -> Place:
    """A schema in a catalog that nobody else has."""
    place = Place(url, f"catalogger_{uuid.uuid4().hex[:12]}", "ml")
    place.done("POST", "/catalogs", {"name": place.catalog})
    place.done("POST", "/schemas", {"name": place.schema, "catalog_name": place.catalog})
    return place


def folder_of(version: Mapping[str, Any]) -> Path:
    """The folder that a version's files are in."""
    return Path(unquote(urlsplit(version["storage_location"]).path))
