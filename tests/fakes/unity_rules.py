"""What a Unity Catalog server 0.6.0 does: catalogs, schemas, models and their versions, without HTTP.

Order of checks, texts and the missing lock around version numbers are those of the real server.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from fakes.unity_grants import PRIVILEGES, Grants
from fakes.unity_rows import (
    Answer,
    Call,
    Kind,
    Refusal,
    Row,
    after_token,
    changed,
    checked,
    first,
    forced,
    long,
    make_folder,
    missing,
    page,
    page_size,
    three,
    wanted,
)


class Metastore:
    """All rows and grants.  `root` is where models are stored, None where that is not configured.

    `keys` are handed out for a root on S3: access key, secret key, session token.
    `meet` is called by every creation of a model or version after it has looked at what is there and before it adds
    its row: nothing locks the two together.
    """

    def __init__(
        self, root: str | None, keys: tuple[str, str, str] | None, grants: Grants, meet: Callable[[Kind], None]
    ) -> None:
        self.root = root.rstrip("/") if root else None
        self.keys = keys
        self.grants = grants
        self._catalogs: list[Row] = []
        self._meet = meet
        self._lock = threading.RLock()

    # Catalogs and schemas

    def create_catalog(self, call: Call) -> Answer:
        self._need(call, self.grants.is_admin)
        name = checked(call.body.get("name"))
        with self._lock:
            if first(self._catalogs, name):
                raise Refusal("CATALOG_ALREADY_EXISTS", f"Catalog already exists: {name}")
            return self._added(call, self._catalogs, self._row("catalog", name, None, call, managed=True))

    def list_catalogs(self, call: Call) -> Answer:
        seen = [row for row in self._catalogs if self.grants.may_see_catalog(call.user, row)]
        return page("catalogs", seen, call, lambda row: row.name, str)

    def get_catalog(self, call: Call, name: str) -> Answer:
        catalog = self.catalog(name)
        self._need(call, lambda user: self.grants.may_see_catalog(user, catalog))
        return catalog.answer()

    def delete_catalog(self, call: Call, name: str) -> Answer:
        catalog = self.catalog(name)
        self._need(call, lambda user: self.grants.is_admin(user) or self.grants.has(user, catalog, "OWNER"))
        if catalog.rows and not forced(call):
            text = "Cannot delete catalog with schemas. Use force=true to force deletion."
            raise Refusal("FAILED_PRECONDITION", text)
        self._catalogs.remove(catalog)
        return None

    def create_schema(self, call: Call) -> Answer:
        catalog = self.catalog(str(call.body.get("catalog_name")))
        self._need(call, lambda user: self.grants.may_create_schema(user, catalog))
        name = checked(call.body.get("name"))
        with self._lock:
            if first(catalog.rows, name):
                raise Refusal("SCHEMA_ALREADY_EXISTS", f"Schema already exists: {name}")
            return self._added(call, catalog.rows, self._row("schema", name, catalog, call, managed=True))

    def list_schemas(self, call: Call) -> Answer:
        catalog = self.catalog(wanted(call, "catalog_name"))
        seen = [row for row in catalog.rows if self.grants.may_see_schema(call.user, row)]
        return page("schemas", seen, call, lambda row: row.name, str)

    def get_schema(self, call: Call, name: str) -> Answer:
        schema = self.schema(name)
        self._need(call, lambda user: self.grants.may_see_schema(user, schema))
        return schema.answer()

    def delete_schema(self, call: Call, name: str) -> Answer:
        schema = self.schema(name)
        self._need(call, lambda user: self.grants.is_above(user, schema) or self.grants.has(user, schema, "OWNER"))
        if schema.rows and not forced(call):
            raise Refusal("FAILED_PRECONDITION", "Cannot delete schema with models")
        schema.line[-1].rows.remove(schema)
        return None

    # Models

    def create_model(self, call: Call) -> Answer:
        body = call.body
        self._need(call, lambda user: self.grants.may_create_model(user, self._schema_of(body)))
        name = checked(body.get("name"))
        schema = self._schema_of(body)
        row = self._row("model", name, schema, call)
        row.facts["storage_location"] = f"{self._storage(schema)}/models/{row.id}"
        if first(schema.rows, name):
            raise Refusal("ALREADY_EXISTS", f"Registered model already exists: {row.full_name}")
        self._meet("model")
        make_folder(row)
        with self._lock:
            return self._added(call, schema.rows, row)

    def list_models(self, call: Call) -> Answer:
        catalog, schema = call.query.get("catalog_name"), call.query.get("schema_name")
        if bool(catalog) != bool(schema):
            given, other = ("catalog", "schema") if catalog else ("schema", "catalog")
            raise Refusal("INVALID_ARGUMENT", f"Cannot specify {given} w/o {other} for list registered models.")
        if catalog:
            rows = self.schema(f"{catalog}.{schema}").rows
        else:
            rows = [model for found in self._catalogs for schemas in found.rows for model in schemas.rows]
        seen = [row for row in rows if self.grants.may_read(call.user, row)]
        if catalog:
            return page("registered_models", seen, call, lambda row: row.name, str)
        return page("registered_models", seen, call, lambda row: row.id, lambda text: str(uuid.UUID(text)))

    def get_model(self, call: Call, name: str) -> Answer:
        return self._readable(call, name).answer()

    def update_model(self, call: Call, name: str) -> Answer:
        self._need(call, lambda user: self.grants.may_change(user, self.model(name)))
        new, comment = call.body.get("new_name"), call.body.get("comment")
        if new is not None:
            checked(new)
        if new is None and comment is None:
            raise Refusal("INVALID_ARGUMENT", "No updated fields defined.")
        schema = self.schema(".".join(three(name)[:2]))
        if new is not None and first(schema.rows, new):
            raise Refusal("ALREADY_EXISTS", f"Registered model already exists: {schema.full_name}.{new}")
        model = self.model(name)
        model.name = model.name if new is None else new
        return changed(model, call, **({} if comment is None else {"comment": comment}))

    def delete_model(self, call: Call, name: str) -> Answer:
        model = self.model(name)
        self._need(call, lambda user: self.grants.may_delete(user, model))
        if model.rows and not forced(call):
            text = f"Unable to delete a registered model with existing model versions: {model.name}"
            raise Refusal("ABORTED", text)
        assert model.parent
        model.parent.rows.remove(model)
        return None

    # Versions

    def create_version(self, call: Call) -> Answer:
        body = call.body
        self._need(call, lambda user: self.grants.may_change(user, self._model_of(body)))
        schema = self._schema_of(body)
        model = first(schema.rows, str(body.get("model_name")))
        if model is None:
            raise Refusal("NOT_FOUND", f"Registered model not found: {body.get('model_name')}")
        number = model.highest + 1
        self._meet("version")
        row = self._row("version", str(number), model, call)
        row.facts |= {
            "source": body.get("source"),
            "run_id": body.get("run_id"),
            "status": "PENDING_REGISTRATION",
            "storage_location": f"{model.facts['storage_location']}/versions/{row.id}",
        }
        make_folder(row)
        with self._lock:
            model.rows.append(row)
            model.highest = number
        return row.answer()

    def list_versions(self, call: Call, name: str) -> Answer:
        page_size(call)
        after_token(call, int)
        model = self._readable(call, name, short=True)
        return page("model_versions", model.rows, call, lambda row: int(row.name), int)

    def get_version(self, call: Call, name: str, version: str) -> Answer:
        return self.version(self._readable(call, name), long(version)).answer()

    def update_version(self, call: Call, name: str, version: str) -> Answer:
        self._need(call, lambda user: self.grants.may_change(user, self.model(name)))
        number = long(version)
        if number < 1:
            raise Refusal("INVALID_ARGUMENT", f"No valid model version specified: {number}")
        if call.body.get("comment") is None:
            raise Refusal("INVALID_ARGUMENT", "No updated fields defined.")
        row = self.version(self.model(name, short=True), number)
        return changed(row, call, comment=call.body["comment"])

    def finalize_version(self, call: Call, name: str, version: str) -> Answer:
        """Who may is asked of the model in the address; which version, of the body."""
        self._need(call, lambda user: self.grants.may_change(user, self.model(name)))
        if call.body.get("full_name") is None:
            raise Refusal("INVALID_ARGUMENT", "No three tier full name specified.")
        if call.body.get("version") is None:
            raise Refusal("INVALID_ARGUMENT", "No version specified.")
        row = self.version(self.model(call.body["full_name"], short=True), long(call.body["version"]))
        with self._lock:
            if row.facts["status"] != "PENDING_REGISTRATION":
                where = f"{call.body['full_name']}/{row.name}"
                raise Refusal("INVALID_ARGUMENT", f"Model version not in a pending registration state: {where}")
            return changed(row, call, status="READY")

    def delete_version(self, call: Call, name: str, version: str) -> Answer:
        self._need(call, lambda user: self.grants.may_delete(user, self.model(name)))
        model = self.model(name, short=True)
        model.rows.remove(self.version(model, long(version)))
        return None

    def credentials(self, call: Call) -> Answer:
        operation, number = call.body.get("operation"), long(call.body.get("version"))
        reads = operation == "READ_MODEL_VERSION"
        self._need(call, lambda user: self.grants.may_vend(user, self._model_of(call.body), reads=reads))
        model = self._model_of(call.body)
        row = self.version(model, number)
        where = f"{model.full_name}/{number}"
        if row.facts["storage_location"].startswith("file"):
            text = "Cannot request credentials on a model version with a file based storage location"
            raise Refusal("INVALID_ARGUMENT", f"{text}: {where}")
        if not reads and row.facts["status"] != "PENDING_REGISTRATION":
            text = "Cannot request read/write credentials on a model version that has been finalized"
            raise Refusal("INVALID_ARGUMENT", f"{text}: {where}")
        if self.keys is None:
            raise Refusal("FAILED_PRECONDITION", "S3 bucket configuration not found.")
        names = ("access_key_id", "secret_access_key", "session_token")
        return {"aws_temp_credentials": dict(zip(names, self.keys, strict=True)), "expiration_time": None}

    # Permissions

    def get_permissions(self, call: Call, kind: str, name: str) -> Answer:
        row = self.named(kind, name)
        owns = call.user is None or self.grants.is_admin(call.user)
        owns = owns or any((call.user, above.id, "OWNER") in self.grants.held for above in row.line)
        return self._permissions(row, lambda user: owns or user == call.user)

    def update_permissions(self, call: Call, kind: str, name: str) -> Answer:
        row = self.named(kind, name)
        self._need(call, lambda user: self.grants.is_above(user, row) or self.grants.has(user, row, "OWNER"))
        touched = set()
        for change in call.body.get("changes", ()):
            user = str(change.get("principal"))
            if user not in self.grants.users:
                raise Refusal("NOT_FOUND", f"User not found: {user}")
            touched.add(user)
            self.grants.held |= {(user, row.id, privilege) for privilege in change.get("add") or ()}
            self.grants.held -= {(user, row.id, privilege) for privilege in change.get("remove") or ()}
        return self._permissions(row, lambda user: user in touched)

    def _permissions(self, row: Row, shown: Callable[[str], bool]) -> Answer:
        held: dict[str, list[str]] = {}
        for user, identity, privilege in sorted(self.grants.held):
            if identity == row.id and privilege in PRIVILEGES and shown(user):
                held.setdefault(user, []).append(privilege)
        return {"privilege_assignments": [{"principal": u, "privileges": p} for u, p in held.items()]}

    # Looking up

    def catalog(self, name: str) -> Row:
        return first(self._catalogs, name) or missing("CATALOG_NOT_FOUND", f"Catalog not found: {name}")

    def schema(self, name: str) -> Row:
        parts = name.rstrip(".").split(".")
        if len(parts) != 2:
            raise Refusal("INVALID_ARGUMENT", f"Invalid schema full name: {name}")
        rows = self.catalog(parts[0]).rows
        return first(rows, parts[1]) or missing("SCHEMA_NOT_FOUND", f"Schema not found: {name}")

    def model(self, name: str, *, short: bool = False) -> Row:
        """`short`: some answers name a missing model without its catalog and schema."""
        catalog, schema, model = three(name)
        rows = self.schema(f"{catalog}.{schema}").rows
        return first(rows, model) or missing("NOT_FOUND", f"Registered model not found: {model if short else name}")

    def version(self, model: Row, number: int) -> Row:
        found = first(model.rows, str(number))
        return found or missing("NOT_FOUND", f"Model version not found: {model.full_name}/{number}")

    def named(self, kind: str, name: str) -> Row:
        return {"catalog": self.catalog, "schema": self.schema, "registered_model": self.model}[kind](name)

    def _schema_of(self, body: Mapping[str, Any]) -> Row:
        return self.schema(f"{body.get('catalog_name')}.{body.get('schema_name')}")

    def _model_of(self, body: Mapping[str, Any]) -> Row:
        return self.model(f"{body.get('catalog_name')}.{body.get('schema_name')}.{body.get('model_name')}")

    def _readable(self, call: Call, name: str, *, short: bool = False) -> Row:
        model = self.model(name, short=short)
        self._need(call, lambda user: self.grants.may_read(user, model))
        return model

    # Adding

    def _row(self, kind: Kind, name: str, parent: Row | None, call: Call, *, managed: bool = False) -> Row:
        now = int(time.time() * 1000)
        by = dict.fromkeys(("owner", "created_by", "updated_by"), call.user)
        row = Row(kind, name, parent, {"comment": call.body.get("comment"), "created_at": now, "updated_at": now, **by})
        if managed:
            root = (call.body.get("storage_root") or "").rstrip("/") or None
            place = f"{root}/__unitystorage/{kind}s/{row.id}" if root else None
            row.facts |= {"storage_root": root, "storage_location": place}
        return row

    def _added(self, call: Call, rows: list[Row], row: Row) -> Answer:
        rows.append(row)
        if call.user:
            self.grants.held.add((call.user, row.id, "OWNER"))
        return row.answer()

    def _storage(self, schema: Row) -> str:
        for row in schema.line:
            if row.facts["storage_location"]:
                return str(row.facts["storage_location"])
        if self.root is None:
            text = "None of catalog, schema or storage-root.tables server property has managed location configured."
            raise Refusal("FAILED_PRECONDITION", text)
        return f"{self.root}/__unitystorage"

    def _need(self, call: Call, may: Callable[[str], bool]) -> None:
        if call.user is not None and not may(call.user):
            raise Refusal("PERMISSION_DENIED", "Access denied.")
