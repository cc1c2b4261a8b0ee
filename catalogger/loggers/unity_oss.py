"""The calls of an open-source Unity Catalog server: `uc:http://host:port`.

Source: the server's interface `/api/2.1/unity-catalog`, and how release 0.6.0 was seen to answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from catalogger.errors import Refused, RegistryError, UsageError, masked
from catalogger.loggers.privileges import needing
from catalogger.loggers.record import Logged
from catalogger.loggers.surface import Row
from catalogger.remote.rest import Rest
from catalogger.remote.storage import Storage
from catalogger.remote.vended import needed_package
from catalogger.validators.facts import Place

TOKEN = "MLFLOW_UC_OSS_TOKEN"  # noqa: S105  the variable's name
_API = "/api/2.1/unity-catalog"
_PAGE = 100  # entries asked for at a time
_PAGES = 10  # of models, looked through for a name that differs in case only
OpenStorage = Callable[[str, Callable[[], Mapping[str, Any]]], Storage]


class OssSurface:
    """One server.  `open_storage` makes a storage of a location and of the call for its credentials."""

    gaps = frozenset({"aliases", "tags"})

    def __init__(self, registry_uri: str, open_storage: OpenStorage) -> None:
        base = registry_uri.removeprefix("uc:")
        self.words = masked(f"Unity Catalog at {base}")
        self._rest = Rest(base, _authorization)
        self._open = open_storage

    def page(self, name: str, number: str) -> str | None:
        return None

    def look(self, name: str) -> Place:
        catalog, schema, _ = name.split(".")
        found = self._found(f"/catalogs/{catalog}")
        inside = self._found(f"/schemas/{catalog}.{schema}") if found is not None else None
        there = inside is not None
        rows = self.versions(name) if there else []
        root = rows[-1].location if rows else _root(inside) or _root(found)
        return Place(
            registry=self.words,
            catalog_exists=found is not None,
            schema_exists=there if found is not None else None,
            storage=root,
            similar=tuple(self._similar(name)) if there and not rows else (),
            needs=needed_package(root) if root else None,
        )

    def versions(self, name: str) -> list[Row]:
        with needing("look at", name):
            try:
                return [_row(v) for v in self._pages(f"/models/{name}/versions", "model_versions")]
            except Refused as error:
                if error.status == 404:
                    return []
                raise

    def version(self, name: str, number: str) -> Row:
        with needing("look at", name):
            return _row(self._rest.call("GET", f"{_API}/models/{name}/versions/{number}"))

    def ensure_model(self, name: str, description: str) -> None:
        if self._found(f"/models/{name}") is not None:
            return
        catalog, schema, model = name.split(".")
        body = {"name": model, "catalog_name": catalog, "schema_name": schema, "comment": description}
        with needing("create", name):
            try:
                self._rest.call("POST", f"{_API}/models", body)
            except Refused as error:
                if error.status == 409:
                    return
                if error.reason == "FAILED_PRECONDITION":
                    raise RegistryError(
                        f"{self.words} has no storage for models: {error.said}",
                        "Set storage-root.models in its server.properties, or a storage_root on the schema.",
                    ) from error
                raise

    def create(self, name: str, source: str, logged: Logged, description: str) -> Row:
        catalog, schema, model = name.split(".")
        body = {"model_name": model, "catalog_name": catalog, "schema_name": schema, "source": source}
        body |= {"run_id": logged.run_id, "comment": description}
        with needing("create a version of", name):
            return _row(self._rest.call("POST", f"{_API}/models/versions", body, once=True))

    def describe(self, name: str, number: str, description: str) -> None:
        body = {"full_name": name, "version": int(number), "comment": description}
        with needing("create a version of", name):
            self._rest.call("PATCH", f"{_API}/models/{name}/versions/{number}", body)

    def finalize(self, name: str, number: str) -> None:
        body = {"full_name": name, "version": int(number)}
        with needing("create a version of", name):
            self._rest.call("PATCH", f"{_API}/models/{name}/versions/{number}/finalize", body)

    def delete(self, name: str, number: str) -> None:
        with needing("create a version of", name):
            self._rest.call("DELETE", f"{_API}/models/{name}/versions/{number}")

    def storage(self, name: str, row: Row, *, write: bool) -> Storage:
        catalog, schema, model = name.split(".")
        body = {"catalog_name": catalog, "schema_name": schema, "model_name": model, "version": int(row.number)}
        body["operation"] = "READ_WRITE_MODEL_VERSION" if write else "READ_MODEL_VERSION"

        def credentials() -> Mapping[str, Any]:
            with needing("write files of" if write else "read files of", name):
                return self._rest.call("POST", f"{_API}/temporary-model-version-credentials", body)

        return self._open(row.location, credentials)

    def aliases(self, name: str) -> Mapping[str, str]:
        return {}

    def set_alias(self, name: str, alias: str, number: str) -> None:
        raise NotImplementedError("open-source servers have no aliases")

    def delete_alias(self, name: str, alias: str) -> None:
        raise NotImplementedError("open-source servers have no aliases")

    def set_tag(self, name: str, number: str, key: str, value: str) -> None:
        raise NotImplementedError("open-source servers have no tags")

    def model_tags(self, name: str) -> Mapping[str, str]:
        return {}

    def set_model_tag(self, name: str, key: str, value: str) -> None:
        raise NotImplementedError("open-source servers have no tags")

    def names(self, within: str | None) -> list[str]:
        catalog, _, schema = (within or "").partition(".")
        query = {"catalog_name": catalog, "schema_name": schema} if within else {}
        with needing("look at", within or "its catalogs"):
            found = list(self._pages("/models", "registered_models", query))
        return sorted(f"{m['catalog_name']}.{m['schema_name']}.{m['name']}" for m in found)

    def _found(self, path: str) -> dict[str, Any] | None:
        """The object; None where the server says that there is none."""
        try:
            return self._rest.call("GET", f"{_API}{path}")
        except Refused as error:
            if error.status == 404 and error.reason:
                return None
            if error.status == 404:
                raise UsageError(
                    f'"{self._rest.base}" is no Unity Catalog server: it does not know {_API}.',
                    "Is the address right? An MLflow server is named by its own address, without uc:.",
                ) from error
            with needing("look at", path.rpartition("/")[2]):
                raise

    def _similar(self, name: str) -> Iterator[str]:
        catalog, schema, model = name.split(".")
        query = {"catalog_name": catalog, "schema_name": schema}
        for found in self._pages("/models", "registered_models", query, _PAGES):
            other = str(found.get("name", ""))
            if other != model and other.lower() == model.lower():
                yield other

    def _pages(
        self, path: str, key: str, query: Mapping[str, Any] | None = None, most: int | None = None
    ) -> Iterator[dict[str, Any]]:
        token, pages = "", 0
        while most is None or pages < most:
            asked = {"max_results": _PAGE, **(query or {}), **({"page_token": token} if token else {})}
            answer = self._rest.call("GET", f"{_API}{path}", query=asked)
            yield from answer.get(key) or []
            token, pages = str(answer.get("next_page_token") or ""), pages + 1
            if not token:
                return


def _authorization() -> dict[str, str]:
    token = os.environ.get(TOKEN, "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def _row(found: Mapping[str, Any]) -> Row:
    return Row(
        number=str(found.get("version")),
        status=str(found.get("status")),
        location=str(found.get("storage_location")),
        description=str(found.get("comment") or ""),
        run_id=found.get("run_id"),
        created=float(found.get("created_at") or 0) / 1000,
    )


def _root(securable: Mapping[str, Any] | None) -> str | None:
    return str(securable.get("storage_root") or "") or None if securable else None
