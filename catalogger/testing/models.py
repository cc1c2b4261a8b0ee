"""What a loopback workspace knows: catalogs, schemas, grants, registered models, their versions, and the rules on them.

It speaks no wire format: the two surfaces of the server, MLflow's and the native one, are drawn over it. It must not
know anything of the rest of catalogger. Wording of refusals: as workspaces were seen to send it, where it was seen.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from catalogger.testing.grants import Grants
from catalogger.testing.refusal import RefusalError, missing, wrong

_PENDING, _READY = "PENDING_REGISTRATION", "READY"
_NAME = re.compile(r"[^./\s\x00-\x1f\x7f]{1,255}")
_ALIAS = re.compile(r"(?!latest$|v\d+$)[\w-]{1,255}", re.IGNORECASE)

Tags = dict[str, str]


@dataclass(frozen=True)
class Vending:
    """Where new versions are stored, and what `generate-temporary-credentials` gives for them.

    `credentials` is the answer's part that differs between clouds, as {"aws_temp_credentials": {"access_key_id": …}};
    `encryption` is its `encryption_details`. `blocked`: the workspace gives no credentials out.
    """

    location: str
    credentials: Mapping[str, Any] = field(repr=False)
    encryption: Mapping[str, Any] | None = None
    default_storage: bool = False
    lifetime: float = 3600  # seconds
    blocked: bool = False


NO_CREDENTIALS = Vending("s3://loopback/uc", {}, blocked=True)
"""Of a workspace whose files go by the Files API only."""


@dataclass
class Version:
    """One version of a model. `link` is the id of the workspace that has its run."""

    number: int
    storage_location: str
    created_by: str
    source: str = ""
    comment: str = ""
    run_id: str = ""
    link: str = ""
    model_id: str = ""
    dependencies: Any = None
    status: str = _PENDING
    tags: Tags = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: int = field(default_factory=lambda: now())
    updated: int = field(default_factory=lambda: now())


@dataclass
class Model:
    """One registered model, with its aliases (name to number) and the highest number that it ever had."""

    catalog: str
    schema: str
    name: str
    owner: str
    storage_location: str
    comment: str = ""
    tags: Tags = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    versions: dict[int, Version] = field(default_factory=dict)
    highest: int = 0
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: int = field(default_factory=lambda: now())
    updated: int = field(default_factory=lambda: now())

    @property
    def full_name(self) -> str:
        return f"{self.catalog}.{self.schema}.{self.name}"

    def aliases_of(self, number: int) -> list[str]:
        return [alias for alias, of in self.aliases.items() if of == number]


class Registry:
    """The state of one metastore. Whoever calls holds a lock around every call."""

    def __init__(self, vending: Vending) -> None:
        self.vending = vending
        self.grants = Grants()
        self.models: dict[str, Model] = {}

    # Catalogs and schemas

    def add_schema(self, full_name: str, owner: str) -> None:
        """Make the schema, and its catalog where it is not there."""
        catalog = full_name.lower().partition(".")[0]
        self.grants.owners.setdefault(("CATALOG", catalog), owner)
        self.grants.owners.setdefault(("SCHEMA", full_name.lower()), owner)

    def vanish(self, name: str) -> None:
        """Drop a catalog or a schema with all that is in it."""
        name = name.lower()
        below = f"{name}."
        for key in [key for key in self.grants.owners if key[1] == name or key[1].startswith(below)]:
            self.grants.forget(key)
        self.models = {full: model for full, model in self.models.items() if not full.startswith(below)}

    def enter(self, user: str, catalog: str, schema: str | None = None) -> None:
        """Be let into a catalog, and into a schema of it."""
        self.grants.need(user, "USE_CATALOG", "CATALOG", catalog)
        if schema is not None:
            self.grants.need(user, "USE_SCHEMA", "SCHEMA", f"{catalog}.{schema}")

    # Models

    def create_model(
        self, user: str, full_name: str, comment: str = "", tags: Mapping[str, str] | None = None
    ) -> Model:
        catalog, schema, name = _levels(full_name)
        self.enter(user, catalog, schema)
        self._need_create(user, f"{catalog}.{schema}")
        self._check_free(catalog, schema, name)
        location = f"{self.vending.location}/models/{uuid.uuid4()}"
        model = Model(catalog, schema, name, user, location, comment, dict(tags or {}))
        self.models[model.full_name] = model
        self.grants.owners["FUNCTION", model.full_name] = user
        return model

    def _need_create(self, user: str, schema: str) -> None:
        if not self.grants.holds(user, "CREATE_FUNCTION", "SCHEMA", schema):
            self.grants.need(user, "CREATE_MODEL", "SCHEMA", schema)

    def _check_free(self, catalog: str, schema: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise wrong(
                f"Invalid name '{name}': it cannot contain a period, space, forward-slash, or control characters."
            )
        if f"{catalog}.{schema}.{name}" in self.models:
            raise RefusalError(409, "RESOURCE_ALREADY_EXISTS", f"Routine or Model '{name}' already exists")

    def model(self, user: str, full_name: str, privilege: str | None = "EXECUTE") -> Model:
        """The model, for someone who holds the privilege on it or, where none is named, owns it."""
        catalog, schema, name = _levels(full_name)
        self.enter(user, catalog, schema)
        if (found := self.models.get(f"{catalog}.{schema}.{name}")) is None:
            raise missing(f"Routine or Model '{catalog}.{schema}.{name}' does not exist.")
        if privilege:
            self.grants.need(user, privilege, "FUNCTION", found.full_name)
        else:
            self.grants.need_owner(user, "FUNCTION", found.full_name)
        return found

    def update_model(self, user: str, full_name: str, comment: str | None, new_name: str | None = None) -> Model:
        model = self.model(user, full_name, None)
        if new_name:
            name = new_name.lower().rpartition(".")[2]
            self._check_free(model.catalog, model.schema, name)
            was = model.full_name
            model.name = name
            self.models[model.full_name] = self.models.pop(was)
            self.grants.rename(("FUNCTION", was), ("FUNCTION", model.full_name))
        if comment is not None:
            model.comment = comment
        model.updated = now()
        return model

    def delete_model(self, user: str, full_name: str) -> None:
        """With all its versions; a new model of its name begins at 1."""
        model = self.model(user, full_name, None)
        del self.models[model.full_name]
        self.grants.forget(("FUNCTION", model.full_name))

    def listed(self, user: str, catalog: str | None = None, schema: str | None = None) -> list[Model]:
        """The models that the user may see, in no promised order."""
        if catalog is not None:
            self.enter(user, catalog.lower(), schema.lower() if schema else None)
        return [m for m in self.models.values() if self._is_within(m, catalog, schema) and self._sees(user, m)]

    def _is_within(self, model: Model, catalog: str | None, schema: str | None) -> bool:
        return catalog in (None, model.catalog) and schema in (None, model.schema)

    def _sees(self, user: str, model: Model) -> bool:
        schema = f"{model.catalog}.{model.schema}"
        holds = self.grants.holds
        return holds(user, "USE_SCHEMA", "SCHEMA", schema) and holds(user, "EXECUTE", "FUNCTION", model.full_name)

    # Versions

    def create_version(self, user: str, full_name: str, **facts: Any) -> tuple[Model, Version]:
        model = self.model(user, full_name, "CREATE_MODEL_VERSION")
        model.highest += 1
        location = f"{model.storage_location}/versions/{uuid.uuid4()}"
        version = Version(model.highest, location, user, **facts)
        model.versions[version.number] = version
        return model, version

    def version(
        self, user: str, full_name: str, number: object, privilege: str | None = "EXECUTE"
    ) -> tuple[Model, Version]:
        model = self.model(user, full_name, privilege)
        if not str(number).isdecimal():
            raise wrong(f"Invalid model version '{number}'.")
        if (found := model.versions.get(int(str(number)))) is None:
            raise missing(f"Model version '{number}' of Routine or Model '{model.full_name}' does not exist.")
        return model, found

    def update_version(self, user: str, full_name: str, number: object, comment: str | None) -> tuple[Model, Version]:
        model, version = self.version(user, full_name, number, None)
        if comment is not None:
            version.comment = comment
        version.updated = now()
        return model, version

    def delete_version(self, user: str, full_name: str, number: object) -> None:
        """With the aliases that point at it; its number is never used again."""
        model, version = self.version(user, full_name, number, None)
        del model.versions[version.number]
        for alias in model.aliases_of(version.number):
            del model.aliases[alias]

    def finalize(self, user: str, full_name: str, number: object) -> tuple[Model, Version]:
        model, version = self.version(user, full_name, number, "CREATE_MODEL_VERSION")
        _need_pending(model, version)
        version.status, version.updated = _READY, now()
        return model, version

    def credentials(self, user: str, full_name: str, number: object, *, write: bool) -> dict[str, Any]:
        """As the answer has them, its times in milliseconds."""
        model, version = self.version(user, full_name, number, "CREATE_MODEL_VERSION" if write else "EXECUTE")
        if write:
            _need_pending(model, version)
        vending = self.vending
        if vending.blocked:
            message = "Temporary credentials for model versions are not available in this workspace."
            raise RefusalError(403, "PERMISSION_DENIED", message)
        given: dict[str, Any] = {**vending.credentials, "expiration_time": now() + int(vending.lifetime * 1000)}
        given["storage_mode"] = "DEFAULT_STORAGE" if vending.default_storage else "CUSTOMER_HOSTED"
        return given if vending.encryption is None else given | {"encryption_details": vending.encryption}

    def check_files(self, user: str, full_name: str, number: str, *, write: bool) -> None:
        """Be let at the files of a version: to read them, or to write them while it is pending."""
        model, version = self.version(user, full_name, number, "CREATE_MODEL_VERSION" if write else "EXECUTE")
        if write:
            _need_pending(model, version)

    # Aliases and tags

    def set_alias(self, user: str, full_name: str, alias: str, number: object) -> tuple[Model, Version]:
        if not _ALIAS.fullmatch(alias):
            raise wrong(f"Invalid alias name: '{alias}'.")
        model, version = self.version(user, full_name, number, None)
        model.aliases[alias] = version.number
        return model, version

    def delete_alias(self, user: str, full_name: str, alias: str) -> None:
        model = self.model(user, full_name, None)
        if model.aliases.pop(alias, None) is None:
            raise missing(f"Alias '{alias}' does not exist on Routine or Model '{model.full_name}'.")

    def by_alias(self, user: str, full_name: str, alias: str) -> tuple[Model, Version]:
        model = self.model(user, full_name)
        if (number := model.aliases.get(alias)) is None:
            raise missing(f"Alias '{alias}' does not exist on Routine or Model '{model.full_name}'.")
        return model, model.versions[number]

    def tag(
        self, user: str, full_name: str, number: object | None, add: Mapping[str, str], remove: Iterable[str]
    ) -> None:
        """Set and remove tags of a version or, where no number is given, of the model."""
        model = self.model(user, full_name, "APPLY_TAG")
        tags = model.tags if number is None else self.version(user, full_name, number, "APPLY_TAG")[1].tags
        tags |= add
        for key in remove:
            tags.pop(key, None)


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def paged(
    found: list[Any], asked: Mapping[str, Any], render: Callable[[Any], dict[str, Any]], key: str
) -> dict[str, Any]:
    """One page of a listing, as both surfaces have it."""
    token = str(asked.get("page_token") or "0")
    if not token.isdecimal():
        raise wrong("Invalid page token.")
    start, size = int(token), int(asked.get("max_results") or 0) or len(found)
    page = {key: [render(item) for item in found[start : start + size]]}
    return page | ({"next_page_token": str(start + size)} if start + size < len(found) else {})


def _levels(full_name: str) -> tuple[str, str, str]:
    parts = full_name.lower().split(".")
    if len(parts) != 3 or not all(parts):
        form = "`catalog_name.schema_name.model_name`"
        raise wrong(f"Bad model name: please specify all three levels of the model in the form {form}")
    return parts[0], parts[1], parts[2]


def _need_pending(model: Model, version: Version) -> None:
    if version.status != _PENDING:
        raise wrong(f"Model version '{version.number}' of '{model.full_name}' is not in state {_PENDING}.")
