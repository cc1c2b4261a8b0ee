"""Model serving of a loopback workspace: its endpoints, who may do what with them, and what a test can order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from catalogger.testing.endpoint_rules import check_endpoint_name, config_of, is_throughput, task_of
from catalogger.testing.endpoints import (
    CAN_MANAGE,
    CAN_QUERY,
    CAN_VIEW,
    EVERYBODY,
    LEVELS,
    Build,
    Config,
    Endpoint,
    Served,
)
from catalogger.testing.grants import EVERYONE
from catalogger.testing.models import Registry
from catalogger.testing.optimization import Answer, described
from catalogger.testing.refusal import RefusalError, missing
from catalogger.testing.servable import Servable

_ADMIN = "admins"
_WORDS = {CAN_VIEW: "View", CAN_QUERY: "Query", CAN_MANAGE: "Manage"}
_SETTINGS = ("email_notifications", "budget_policy_id", "description", "route_optimized")


class Serving:
    """What a test sets and sees of the endpoints; `build` is how they are built unless one was ordered.

    `region` is one without model serving, `throughput` whether the workspace's tier has provisioned throughput,
    `page_size` the most endpoints that one page of the listing has. `clock` gives the time in seconds, for builds
    that last some and for rate limits.
    """

    def __init__(
        self,
        registry: Registry,
        root: Path,
        lock: threading.RLock,
        build: Build,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.build = build
        self.region: str | None = None
        self.throughput = True
        self.page_size: int | None = None
        self.clock = clock
        self.lock = lock
        self.servable = Servable(registry, root)
        self._registry = registry
        self._endpoints: dict[str, Endpoint] = {}
        self._ordered: dict[str, list[Build]] = {}
        self._left: set[str] = set()

    # What a test sets and sees

    def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint as the workspace has it, past all permissions."""
        return self._endpoints.get(name)

    @property
    def names(self) -> list[str]:
        return sorted(self._endpoints)

    def order(self, name: str, *builds: Build) -> None:
        """How the next creations and updates of the endpoint go, one after another."""
        with self.lock:
            self._ordered.setdefault(name, []).extend(builds)

    def advance(self, name: str) -> None:
        """End what is under way: the build, in its own way (one that would never end gets ready), and a recovery."""
        with self.lock:
            endpoint = self._endpoints[name]
            endpoint.recovering = 0
            endpoint.finish("ready" if endpoint.build and endpoint.build.end == "never" else None)

    def cancel(self, name: str) -> None:
        """Somebody cancels the running update, as the page of the endpoint lets one."""
        with self.lock:
            self._endpoints[name].finish("canceled")

    def interfere(self, name: str, build: Build | None = None) -> None:
        """Somebody else's update of the endpoint, to what it serves already."""
        with self.lock:
            endpoint = self._endpoints[name]
            if endpoint.config is None:
                raise ValueError(f"{name} serves nothing yet")
            endpoint.begin(endpoint.config, build or self.build, self.clock())

    def sleep(self, name: str, queries: int = 1) -> None:
        """Scale to zero: so many queries find it asleep and are told 503; the last of them has woken it."""
        with self.lock:
            self._endpoints[name].asleep = queries

    def recover(self, name: str, looks: int = 1) -> None:
        """Go down; so many looks find it recovering."""
        with self.lock:
            self._endpoints[name].recovering = looks + 1

    def throttle(self, name: str, queries: int = 1, retry_after: float = 1) -> None:
        """So many queries are over the rate limit, and told to wait so many seconds."""
        with self.lock:
            self._endpoints[name].refused = (queries, retry_after)

    def leave(self, user: str) -> None:
        """The user loses `workspace-access`: endpoints that they created cannot be updated by anybody."""
        with self.lock:
            self._left.add(user)

    def join(self, user: str) -> None:
        with self.lock:
            self._left.discard(user)

    def set_optimization(self, full_name: str, answer: Answer | None) -> None:
        """What `get-model-optimization-info` answers for the model; None gives back what its files say."""
        with self.lock:
            self.servable.answers.pop(full_name.lower(), None)
            if answer is not None:
                self.servable.answers[full_name.lower()] = answer

    def describe(self, full_name: str, mlmodel: Mapping[str, Any]) -> None:
        """The MLmodel file of a model whose files are not behind the Files API."""
        with self.lock:
            self.servable.descriptions[full_name.lower()] = mlmodel

    def add_base_model(self, full_name: str, answer: Answer, *, task: str = "llm/v1/chat", versions: int = 1) -> None:
        """A model of Databricks' own, as `system.ai.…`: it has no files, and everyone may execute it."""
        with self.lock:
            self._registry.add_schema(full_name.rpartition(".")[0], _ADMIN)
            self._registry.create_model(_ADMIN, full_name)
            for number in range(1, versions + 1):
                self._registry.create_version(_ADMIN, full_name)
                self._registry.finalize(_ADMIN, full_name, number)
            for key in (("CATALOG", full_name.partition(".")[0]), ("SCHEMA", full_name.rpartition(".")[0])):
                self._registry.grants.change((key[0], key[1].lower()), EVERYONE, add=[f"USE {key[0]}", "EXECUTE"])
        self.describe(full_name, described(task))
        self.set_optimization(full_name, answer)

    def add_pay_per_token(self, name: str, *, task: str = "llm/v1/chat") -> None:
        """An endpoint of Databricks' own, paid by the token, as every workspace lists some (`databricks-…`)."""
        with self.lock:
            served = Served(name, f"system.ai.{name}", "", "Databricks", {})
            endpoint = Endpoint(name, "Databricks", task, "FOUNDATION_MODEL_API", levels={EVERYBODY: CAN_QUERY})
            endpoint.config = Config((served,), {name: 100})
            self._endpoints[name] = endpoint

    # What is asked over HTTP. The caller holds the lock.

    def check_region(self) -> None:
        if self.region is not None:
            message = f"Model serving is not supported in the region '{self.region}' of this workspace."
            raise RefusalError(400, "FEATURE_DISABLED", message)

    def find(self, user: str, name: str, level: str = CAN_VIEW) -> Endpoint:
        """The endpoint, for someone who has at least that level."""
        if (endpoint := self._endpoints.get(name)) is None:
            raise missing(f"The endpoint with name '{name}' does not exist.")
        _need(endpoint, user, level)
        endpoint.settle(self.clock())
        return endpoint

    def by_id(self, user: str, number: str, level: str) -> Endpoint:
        """As permissions name endpoints."""
        for endpoint in self._endpoints.values():
            if endpoint.id == number:
                _need(endpoint, user, level)
                return endpoint
        raise missing(f"The endpoint with id '{number}' does not exist.")

    def visible(self, user: str) -> list[Endpoint]:
        found = [endpoint for endpoint in self._endpoints.values() if endpoint.level(user)]
        for endpoint in found:
            endpoint.settle(self.clock())
        return found

    def create(self, user: str, asked: Mapping[str, Any], *, units: bool) -> Endpoint:
        """Begin to build a new endpoint, of which the user is the recorded creator for ever."""
        self._check_member(user)
        name = str(asked["name"])
        check_endpoint_name(name)
        if name.lower() in {there.lower() for there in self._endpoints}:
            raise RefusalError(409, "RESOURCE_ALREADY_EXISTS", f"Endpoint with name '{name}' already exists.")
        config = self._config(user, asked["config"], units=units)
        kind = "FOUNDATION_MODEL_API" if is_throughput(config) else "CUSTOM_MODEL"
        endpoint = Endpoint(name, user, task_of(self.servable, user, config), kind)
        endpoint.levels["user_name", user] = CAN_MANAGE
        endpoint.settings = {field: asked[field] for field in _SETTINGS if field in asked}
        endpoint.tags = {tag["key"]: tag.get("value") for tag in asked.get("tags") or ()}
        endpoint.gateway = dict(asked.get("ai_gateway") or {})
        self._endpoints[name] = endpoint
        endpoint.begin(config, self._next_build(name), self.clock())
        return endpoint

    def update(self, user: str, name: str, asked: Mapping[str, Any], *, units: bool) -> Endpoint:
        """Begin to build what is asked in place of what serves; of model units it takes effect at once."""
        endpoint = self.find(user, name, CAN_MANAGE)
        if endpoint.build:
            message = f"Endpoint '{name}' is being updated. Wait for the update to finish, then try again."
            raise RefusalError(409, "RESOURCE_CONFLICT", message)
        self._check_member(user)
        self._check_creator(endpoint.creator, endpoint)
        config = self._config(user, asked, units=units)
        try:
            endpoint.task = task_of(self.servable, endpoint.creator, config)
        except RefusalError as refusal:
            if refusal.reply.status != 403:
                raise
            raise _creator_lost(endpoint, str(refusal)) from None
        at_once = Build(looks=0) if units else None
        endpoint.begin(config, self._next_build(name, at_once), self.clock())
        return endpoint

    def delete(self, user: str, name: str) -> None:
        self.find(user, name, CAN_MANAGE)
        del self._endpoints[name]

    def _config(self, user: str, asked: Mapping[str, Any], *, units: bool) -> Config:
        config = config_of(self.servable, user, asked, units=units)
        if is_throughput(config) and not self.throughput:
            message = "Endpoint creation with provisioned throughput is not supported in this workspace."
            raise RefusalError(400, "BAD_REQUEST", message)
        return config

    def _check_member(self, user: str) -> None:
        if user in self._left:
            message = f"User '{user}' does not have the entitlement 'workspace-access'."
            raise RefusalError(403, "PERMISSION_DENIED", message)

    def _check_creator(self, creator: str, endpoint: Endpoint) -> None:
        if creator in self._left:
            raise _creator_lost(endpoint, "They are not a member with the entitlement 'workspace-access'.")

    def _next_build(self, name: str, default: Build | None = None) -> Build:
        ordered = self._ordered.get(name)
        return ordered.pop(0) if ordered else default or self.build


def _need(endpoint: Endpoint, user: str, level: str) -> None:
    held = endpoint.level(user)
    if held is None or LEVELS.index(held) < LEVELS.index(level):
        message = f"User '{user}' does not have '{_WORDS[level]}' permission on the endpoint '{endpoint.name}'."
        raise RefusalError(403, "PERMISSION_DENIED", message)


def _creator_lost(endpoint: Endpoint, why: str) -> RefusalError:
    message = f"The creator '{endpoint.creator}' of the endpoint '{endpoint.name}' lacks permissions. {why}"
    return RefusalError(403, "PERMISSION_DENIED", message)
