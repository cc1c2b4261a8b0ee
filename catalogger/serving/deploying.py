"""From a registered version to an endpoint that answers: eligible, sized, created or updated, waited for, asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from catalogger.errors import AccessDenied, DeploymentFailed, Refused, UsageError
from catalogger.progress import Progress, Silent
from catalogger.remote.rest import Rest
from catalogger.serving import asked, waiting
from catalogger.serving.asked import MADE_BY, Configuration, configuration
from catalogger.serving.capacity import MANY, Capacity, Wish, capacity
from catalogger.serving.deployment import Deployment
from catalogger.serving.eligibility import asked as ask_eligibility
from catalogger.serving.entity import registered
from catalogger.serving.inventory import names
from catalogger.serving.smoke import Smoke, prove
from catalogger.serving.waiting import POLL, TIMEOUT, state_of
from catalogger.serving.workspace import endpoint_path, endpoint_url, found, rest_of

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

Action = Literal["created", "updated", "unchanged"]
_CONFLICTS = 5  # of updates that were under way one after another
_FINGERPRINT = "catalogger_fingerprint"
WOULD_CREATE, WOULD_UPDATE, AS_ASKED = "would be created", "would be updated", "is as asked"
"""What a dry run says of the endpoint."""


@dataclass(frozen=True)
class Terms:
    """How a deployment is to go; see `deploy`.

    replace: an endpoint of this name may stop serving another model.
    traffic: percentage of the queries of each version, by its number or by the name of its served entity.
    ai_gateway: options of the AI gateway; what they do not name stays as it is.
    wait, timeout, poll: whether to wait, and in seconds how long, and how long between two looks.
    rollback: put the configuration before a failed update back.
    logprobs, dimension: what the answer to the first query has to have.
    """

    replace: bool = False
    traffic: Mapping[str, int] = field(default_factory=dict)
    ai_gateway: Mapping[str, Any] | None = None
    wait: bool = True
    timeout: float = TIMEOUT
    poll: float = POLL
    rollback: bool = False
    logprobs: bool = False
    dimension: int | None = None


def deploy(
    workspace: WorkspaceClient,
    reference: str,
    *,
    endpoint: str | None = None,
    wish: Wish | None = None,
    terms: Terms | None = None,
    check_only: bool = False,
    dry_run: bool = False,
    consent: Callable[[Capacity], bool] = lambda _: True,
    progress: Progress | None = None,
) -> Deployment:
    """Serve `NAME/VERSION` or `NAME@ALIAS` on a provisioned-throughput endpoint, and see that it answers.

    endpoint: its name; without one, the model's own.
    wish: the capacity; without one, one chunk.  terms: what may be done to what is there, and how long to wait.
    check_only: ask whether it could be served, and create nothing.  dry_run: also look what would be done; the
        outcome's `state` says it.
    consent: asked before a maximum of more than four chunks is created; False ends it.

    What is there as asked is left as it is, and nothing is sent.
    Raises NotEligible, UnitUnknown and UsageError before anything is created; DeploymentPending where it is not ready
    in time, which leaves the endpoint; DeploymentFailed where it cannot get ready, or answers wrongly; AccessDenied
    where it may not.
    """
    began, progress, terms = time.monotonic(), progress or Silent(), terms or Terms()
    rest = rest_of(workspace)
    wish = wish or Wish()
    if endpoint is not None:
        asked.checked_name(endpoint)
    entity = registered(workspace, reference, timeout=terms.timeout, poll=terms.poll, progress=progress)
    said = ask_eligibility(rest, entity)
    size = capacity(said, wish)
    progress.say(str(said))
    name = endpoint or asked.endpoint_name(entity.name)
    progress.say(f"Billed by the hour: {size}")
    url = endpoint_url(str(workspace.config.host), name)
    if check_only:
        return Deployment("checked", name, url, said, size, "nothing was created", seconds=time.monotonic() - began)
    if size.chunks > MANY and not consent(size):
        raise UsageError(f"{size} are more than {MANY} chunks, and nobody agreed to them.", "Agree by --yes.")
    job = _Job(rest, name, url, terms, progress, entity.fingerprint)
    if dry_run:
        state = job.foresee(lambda present: asked.wanted(entity, size, terms.traffic, present))
        return Deployment("checked", name, url, said, size, state, seconds=time.monotonic() - began)
    action, smoke = job.run(lambda present: asked.wanted(entity, size, terms.traffic, present))
    state = "ready" if terms.wait else "not waited for"
    return Deployment(action, name, url, said, size, state, smoke, tuple(job.notes), time.monotonic() - began)


class _Job:
    """One endpoint on its way to what is wanted of it."""

    def __init__(
        self, rest: Rest, name: str, url: str, terms: Terms, progress: Progress, fingerprint: str | None
    ) -> None:
        self._rest, self._name, self._url, self._terms, self._progress = rest, name, url, terms, progress
        own = [{"key": _FINGERPRINT, "value": fingerprint}] if fingerprint else []
        self._tags = [MADE_BY, *own]
        self._creator: str | None = None
        self.notes: list[str] = []

    def run(self, wanted: Callable[[Configuration | None], Configuration]) -> tuple[Action, Smoke | None]:
        """Create, update or leave it; then wait and ask it, unless that is not to be done."""
        document: Mapping[str, Any] | None = found(self._rest, endpoint_path(self._name))
        action: Action = "created"
        before = None
        if document is None:
            document = self._create(wanted)
        else:
            action, document, before = self._update(document, wanted)
        self._settle(document)
        if not self._terms.wait:
            return action, None
        document = self._wait(document)
        self._put_back_where_failed(document, before)
        return action, self._prove(document.get("task"))

    def foresee(self, wanted: Callable[[Configuration | None], Configuration]) -> str:
        """What `run` would do now.  Nothing is changed.  Raises UsageError where it would."""
        document: Mapping[str, Any] | None = found(self._rest, endpoint_path(self._name))
        if document is None:
            self._require_no_other_spelling()
            return WOULD_CREATE
        self._require_spelling(str(document["name"]))
        state, present = state_of(document), configuration(document.get("config"))
        coming = configuration(document.get("pending_config")) if state.is_updating else present
        target = wanted(present)
        if coming and coming.is_like(target) and not state.has_failed:
            return AS_ASKED
        self._require_replaceable(coming or present, target)
        return WOULD_UPDATE

    def _create(self, wanted: Callable[[Configuration | None], Configuration]) -> Mapping[str, Any]:
        config = wanted(None)
        self._require_no_other_spelling()
        path, body = asked.creation(self._name, config, self._tags, self._terms.ai_gateway)
        try:
            return self._send("POST", path, body)
        except Refused as refused:  # made already, and the answer was lost?
            there = found(self._rest, endpoint_path(self._name))
            made = configuration((there or {}).get("pending_config") or (there or {}).get("config"))
            if there is None or made is None or not made.is_like(config):
                raise self._refused(refused) from refused
            return there

    def _update(
        self, document: Mapping[str, Any], wanted: Callable[[Configuration | None], Configuration]
    ) -> tuple[Action, Mapping[str, Any], Configuration | None]:
        """What was done, the document now, and the configuration that served before."""
        before, sent, self._creator = None, False, document.get("creator")
        for _ in range(_CONFLICTS):
            self._require_spelling(str(document["name"]))
            state, present = state_of(document), configuration(document.get("config"))
            target = wanted(present)
            coming = configuration(document.get("pending_config")) if state.is_updating else present
            if coming and coming.is_like(target) and not state.has_failed:
                # After a 409 it may be as asked because of ours, whose answer was lost.
                return ("updated", document, before) if sent else ("unchanged", document, present)
            self._require_replaceable(coming or present, target)
            if not state.is_updating:
                before, sent = present, True
                try:
                    return "updated", self._send("PUT", *asked.update(self._name, target)), before
                except Refused as refused:
                    if refused.status != 409:
                        raise self._refused(refused) from refused
            self._progress.say(f"{self._name}: another update is under way")
            document = self._wait(self._rest.call("GET", endpoint_path(self._name)))
        raise DeploymentFailed(f'The endpoint "{self._name}" is being updated by others all the time.', "Try it later.")

    def _settle(self, document: Mapping[str, Any]) -> None:
        """Tags and gateway, each by its own call where it is not as it should be."""
        there = {tag["key"]: tag.get("value") for tag in document.get("tags") or ()}
        missing = [tag for tag in self._tags if there.get(tag["key"]) != tag["value"]]
        stale = sorted({_FINGERPRINT} & set(there) - {tag["key"] for tag in self._tags})  # of what it served before
        path = endpoint_path(self._name)
        if missing or stale:
            changes = {"add_tags": missing, "delete_tags": stale}
            self._send("PATCH", f"{path}/tags", {key: change for key, change in changes.items() if change})
        gateway, present = self._terms.ai_gateway, document.get("ai_gateway") or {}
        if gateway and any(present.get(key) != value for key, value in gateway.items()):
            self._send("PUT", f"{path}/ai-gateway", {**present, **gateway})
            self.notes.append("the options of its AI gateway were set")

    def _wait(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        terms = self._terms
        try:
            return waiting.wait(
                self._rest, self._name, self._url, self._progress,
                timeout=terms.timeout, poll=terms.poll, seen=document,
            )  # fmt: skip
        except KeyboardInterrupt:
            self._progress.say(f"The endpoint {self._name} goes on by itself: {self._url}")
            raise

    def _put_back_where_failed(self, document: Mapping[str, Any], before: Configuration | None) -> None:
        state = state_of(document)
        if not (state.has_failed and self._terms.rollback and before):
            waiting.require_ready(document, self._name, self._url)
            return
        self._progress.say(f"{self._name}: putting the configuration before it back")
        try:
            after = self._wait(self._send("PUT", *asked.update(self._name, before)))
            done = "was put back and serves" if state_of(after).is_ready else "could not be put back"
        except (AccessDenied, Refused) as refused:
            done = f"could not be put back: {refused.message}"
        raise DeploymentFailed(
            f'The update of the endpoint "{self._name}" failed: {state.messages or "it says no more"}'
            f"\nThe configuration before it {done}. The model is registered.\n{self._url}",
            "The endpoint's page has the logs.",
        )

    def _require_replaceable(self, present: Configuration | None, target: Configuration) -> None:
        if present is None:
            return
        if present.by_units != target.by_units:
            raise UsageError(
                f'The endpoint "{self._name}" is of the other unit of capacity, and cannot change it.',
                "Give another name by --endpoint, or delete it first.",
            )
        others = present.names - target.names
        if others and not self._terms.replace:
            raise UsageError(
                f'The endpoint "{self._name}" serves {", ".join(sorted(others))}, which would end.',
                "Give another name by --endpoint, or agree by --replace.",
            )

    def _require_no_other_spelling(self) -> None:
        """Raises UsageError where there is an endpoint whose name differs in case only."""
        for there, _ in names(self._rest):
            if there.lower() == self._name.lower():
                self._require_spelling(there)

    def _require_spelling(self, there: str) -> None:
        if there != self._name:
            raise UsageError(
                f'There is an endpoint "{there}", whose name differs from "{self._name}" in case only.',
                "Give the one or another name by --endpoint.",
            )

    def _prove(self, task: str | None) -> Smoke | None:
        terms = self._terms
        smoke = prove(self._rest, self._name, task, logprobs=terms.logprobs, dimension=terms.dimension)
        if smoke is None:
            self.notes.append(f"it was asked nothing: its task is {task or 'not told'}")
        return smoke

    def _send(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change something.  Raises AccessDenied where that may not be."""
        try:
            return self._rest.call(method, path, body)
        except Refused as refused:
            if refused.status != 403:
                raise
            fix = "It takes the entitlement workspace-access, and EXECUTE on the model."
            if self._creator:
                fix = (
                    f"It takes CAN_MANAGE, and the rights of {self._creator}, who created the endpoint: that cannot be"
                    " changed. Give them back, or end it and create it anew, best as a service principal."
                )
            said = f'"{self._rest.base}" refuses the endpoint "{self._name}": {refused.said}'
            raise AccessDenied(said, fix) from refused

    def _refused(self, refused: Refused) -> DeploymentFailed:
        return DeploymentFailed(
            f'The workspace does not take the endpoint "{self._name}": {refused.said} The model is registered.',
            "Nothing was changed.",
        )
