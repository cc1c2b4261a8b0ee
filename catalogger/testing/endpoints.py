"""The serving endpoints of a loopback workspace: what each is, and how it gets from one configuration to the next.

Nothing here goes by a clock of its own: a build is under way for so many looks at the endpoint, or until a time that
whoever looks tells.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from catalogger.testing.models import now

READY, NOT_READY = "READY", "NOT_READY"
CAN_VIEW, CAN_QUERY, CAN_MANAGE = LEVELS = ("CAN_VIEW", "CAN_QUERY", "CAN_MANAGE")
"""From the least to the most."""
EVERYBODY = ("group_name", "users")

_STEPS = ("Creating resources for served entity.", "Initializing provisioned throughput for served entity.")
_FAILURE = "Served entity creation failed: the container did not become healthy."
_CANCELED = "The update was canceled."
_OTHER = "Aborted because another served entity failed."
_ENDS = {"ready": "NOT_UPDATING", "failed": "UPDATE_FAILED", "canceled": "UPDATE_CANCELED"}

End = Literal["ready", "failed", "canceled", "never"]
Principal = tuple[str, str]
"""One of user_name, group_name, service_principal_name; and the name."""


@dataclass(frozen=True)
class Build:
    """How a creation or an update goes: `looks` of clients find it under way, for `seconds` at least; then it ends.

    A `never` ends never, as when there is no capacity. `message` is the served entities' own, under way and after a
    failure. `update`, `ready` and `deployment` are the words for the states meanwhile, which may be unheard-of ones.
    """

    end: End = "ready"
    looks: int = 2
    seconds: float = 0
    message: str | None = None
    update: str = "IN_PROGRESS"
    ready: str | None = None
    deployment: str = "DEPLOYMENT_CREATING"


NO_CAPACITY = Build("never", message="Waiting for GPU capacity to become available.")
"""Facts call it a time-out: nothing says that it will not come."""


@dataclass(frozen=True)
class Served:
    """A served entity. `asked` are the fields of its compute as they were sent; `state` is word and message."""

    name: str
    entity_name: str
    entity_version: str
    creator: str
    asked: dict[str, Any]
    created: int = field(default_factory=now)
    state: tuple[str, str] = ("DEPLOYMENT_CREATING", _STEPS[0])


@dataclass(frozen=True)
class Config:
    """What is served, and the percentage of the queries for each."""

    served: tuple[Served, ...]
    routes: dict[str, int]
    version: int = 1
    started: int = field(default_factory=now)

    def entity(self, name: str) -> Served:
        return next(served for served in self.served if served.name == name)

    def in_state(self, deployment: str, message: str) -> Config:
        return replace(self, served=tuple(replace(one, state=(deployment, message)) for one in self.served))


@dataclass
class Endpoint:
    """`config` serves, `pending` is being built or was not. `build` is the one under way.

    `asleep` counts the queries that find it scaled to zero, `recovering` the looks that find it down, `refused` the
    queries that are over a limit (and the seconds to wait that they are told).
    """

    name: str
    creator: str
    task: str | None
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str | None] = field(default_factory=dict)
    gateway: dict[str, Any] = field(default_factory=dict)
    levels: dict[Principal, str] = field(default_factory=dict)
    config: Config | None = None
    pending: Config | None = None
    update: str = "NOT_UPDATING"
    build: Build | None = None
    until: float = 0
    asleep: int = 0
    recovering: int = 0
    refused: tuple[int, float] = (0, 0)
    weights: dict[str, int] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=now)
    updated: int = field(default_factory=now)

    def level(self, user: str) -> str | None:
        """The user's own or everybody's, whichever is more."""
        held = [self.levels.get(key) for key in (("user_name", user), ("service_principal_name", user), EVERYBODY)]
        return max((level for level in held if level), key=LEVELS.index, default=None)

    @property
    def ready(self) -> str:
        if self.build and self.build.ready:
            return self.build.ready
        return READY if self.config and not self.recovering else NOT_READY

    @property
    def serving(self) -> Config | None:
        """What is served, in its present state."""
        if self.config is None:
            return None
        if self.recovering:
            return self.config.in_state("DEPLOYMENT_RECOVERING", "The deployment is recovering.")
        return self.config.in_state("DEPLOYMENT_READY", "Scaled to zero" if self.asleep else "")

    def begin(self, config: Config, build: Build, time: float) -> None:
        """Build the configuration; the one before serves on."""
        self.pending = replace(config, version=self.config.version + 1 if self.config else 1)
        self.pending = self.pending.in_state(build.deployment, build.message or _STEPS[0])
        self.update, self.build, self.until, self.updated = build.update, build, time + build.seconds, now()
        self.settle(time)

    def look(self) -> None:
        """One look of a client: what is under way comes nearer to its end."""
        self.recovering = max(0, self.recovering - 1)
        build = self.build
        if build and self.pending and build.looks:
            self.build = replace(build, looks=build.looks - 1)
            if not build.message:
                step = _STEPS[-1] if build.looks == 1 else _STEPS[0]
                self.pending = self.pending.in_state(build.deployment, step)

    def settle(self, time: float) -> None:
        """End the build where its looks and its time are over."""
        if self.build and not self.build.looks and self.build.end != "never" and time >= self.until:
            self.finish()

    def finish(self, end: End | None = None) -> None:
        """End the build, in its own way or in that."""
        if self.build is None or self.pending is None:
            return
        end, message = end or self.build.end, self.build.message
        self.update, self.build, self.updated = _ENDS[end], None, now()
        if end == "ready":
            self.config, self.pending, self.weights = self.pending, None, {}
        elif end == "canceled":
            self.pending = self.pending.in_state("DEPLOYMENT_ABORTED", message or _CANCELED)
        else:
            failed, *others = self.pending.served
            states = [replace(failed, state=("DEPLOYMENT_FAILED", message or _FAILURE))]
            states += [replace(other, state=("DEPLOYMENT_ABORTED", _OTHER)) for other in others]
            self.pending = replace(self.pending, served=tuple(states))

    def route(self) -> Served:
        """Whose turn it is: the percentages hold exactly for every hundred queries, and nearly for any few."""
        config = self.config
        assert config is not None  # noqa: S101  whoever asks has looked
        for name, share in config.routes.items():
            self.weights[name] = self.weights.get(name, 0) + share
        chosen = max(self.weights, key=lambda name: self.weights[name])
        self.weights[chosen] -= 100
        return config.entity(chosen)
