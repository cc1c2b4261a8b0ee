"""What a run would change, entry by entry: versions, aliases, tags, endpoints.  Nothing is changed here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from catalogger.checkpoints.hub import commit_of
from catalogger.checkpoints.source import hub_reference
from catalogger.errors import CataloggerError, CheckpointError, UsageError
from catalogger.fleet.crew import Crew, Done, Task, disk_of
from catalogger.fleet.entries import Wanted
from catalogger.fleet.manifest import CHALLENGER, Entry
from catalogger.loggers.provenance import ignored_of, request_digest
from catalogger.loggers.registry import (
    FINGERPRINT,
    IGNORED,
    RECIPE,
    REMOTE_CODE,
    REQUEST,
    REVISION,
    SOURCE,
    SOURCE_KIND,
    WRITTEN_FOR,
    Standing,
)
from catalogger.loggers.standing import Look, folder_fingerprint
from catalogger.loggers.stores import Stores
from catalogger.serving.asked import endpoint_name
from catalogger.serving.deploying import AS_ASKED

Kind = Literal["version", "alias", "tag", "endpoint"]
_AT_ONCE = 8  # entries that are looked at together
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Change:
    """One thing that would change, or was changed."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Step:
    """What is to be done for one entry.

    version: the one that holds the content already.  aliases: what is to point at it.  needs: bytes by file system.
    """

    wanted: Wanted
    standing: Standing | None = None
    settled: bool = False
    version: str | None = None
    aliases: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    needs: Mapping[str, int] = field(default_factory=dict)
    plan: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    findings: tuple[Mapping[str, Any], ...] = ()
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def registers(self) -> bool:
        """Whether version, aliases or tags are to be made true."""
        return any(c.kind != "endpoint" for c in self.changes)

    def failed(self, error: CataloggerError) -> Step:
        return replace(self, error=error.document(), changes=())


class Planner:
    """Compares what is wanted with what is there."""

    def __init__(self, stores: Stores, look: Look, crew: Crew) -> None:
        self._stores, self._look, self._crew = stores, look, crew
        self.interrupted = False
        self._commit = cache(commit_of)

    def plan(self, entries: Sequence[Wanted]) -> list[Step]:
        """One step for each, in their order.  Those that are as they were take three requests at the most.

        After Ctrl-C, `interrupted` is set.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            glances = list(pool.map(self._glance, entries))
        steps = {step.wanted.name: step for step in glances}
        looks = [t for step in glances if not step.error and (t := self._look_closer(step))]
        upstream: dict[str, Done] = {}
        try:
            self._crew.run(looks, lambda task, done: steps.update({task.name: _looked(steps[task.name], done)}))
            moved = [task for step in steps.values() if (task := self._moved(step))]
            self._crew.run(moved, lambda task, done: upstream.update({task.name: done}))
        except KeyboardInterrupt:
            self.interrupted = True
        return [self._decided(step, upstream.get(name)) for name, step in steps.items()]

    def _glance(self, wanted: Wanted) -> Step:
        """Whether the entry is as it was, by what the newest version says of itself."""
        step = Step(wanted)
        try:
            step = replace(step, standing=self._look(wanted.name))
            if step.standing is None or not self._is_same(wanted, step.standing.tags):
                return step
            number = step.standing.number
            aliases = aliases_wanted(wanted.entry, step.standing, number)
            step = replace(step, settled=True, version=number, aliases=aliases)
            return replace(step, settled=not _differences(step))
        except CataloggerError as error:
            return step.failed(error)

    def _is_same(self, wanted: Wanted, tags: Mapping[str, str]) -> bool:
        entry = wanted.entry
        if entry.rehash or tags.get(RECIPE) != wanted.recipe.name:
            return False
        if tags.get(IGNORED) != ignored_of(entry.ignore):
            return False
        if wanted.changed:
            return False  # the job itself knows it by what the weights are made from
        if hub := hub_reference(wanted.source):
            commit = self._commit(*hub)
            digest = request_digest(wanted.recipe.recipe, hub[0], commit, entry.normalize, entry.written_for)
            return tags.get(REQUEST) == digest and self._is_code_same(wanted, tags)
        known = folder_fingerprint(
            wanted.recipe,
            wanted.source,
            allow_pickle=entry.allow_pickle,
            normalize=entry.normalize,
            written_for=entry.written_for,
        )
        return known is not None and tags.get(FINGERPRINT) == known

    def _is_code_same(self, wanted: Wanted, tags: Mapping[str, str]) -> bool:
        """Whether code that is borrowed from a repository without a fixed commit is as it was."""
        repo, at, commit = tags.get(REMOTE_CODE, "").partition("@")
        asked = wanted.recipe.recipe.remote_code
        return not at or asked is None or self._commit(repo, asked.revision) == commit

    def _look_closer(self, step: Step) -> Task | None:
        """The job that says what is to be done; none where nothing is."""
        if not step.settled:
            return Task(step.wanted.name, {**self.registering(step), "dry_run": True})
        deploy = self.serving(step)
        return Task(step.wanted.name, {**deploy, "verb": "serve", "dry_run": True}) if deploy else None

    def registering(self, step: Step) -> dict[str, Any]:
        """The job that registers, and deploys where that is asked for."""
        addresses = {"tracking_uri": self._stores.tracking_uri, "registry_uri": self._stores.registry_uri}
        options = {**step.wanted.options(), **addresses, "aliases": list(step.aliases)}
        return {"verb": "register", "options": options, **self.serving(step), "dry_run": False}

    def serving(self, step: Step) -> dict[str, Any]:
        """How the version is to be deployed; empty where it is not."""
        wanted, deploy = step.wanted, step.wanted.entry.deploy
        if deploy is None:
            return {}
        embedding = wanted.recipe.recipe.embedding
        return {
            "version": f"{wanted.name}/{step.version}",
            "deploy": deploy.model_dump(),
            "profile": self._stores.registry_uri.partition("://")[2] or None,
            "dimension": embedding.dimension if embedding else None,
        }

    def _moved(self, step: Step) -> Task | None:
        """The job that says what changed upstream, where a version of the same repository is registered."""
        before, plan = step.standing, step.plan
        if step.error or step.settled or step.version or before is None or plan is None:
            return None
        now = plan["source"]
        repo, old = before.tags.get(SOURCE), before.tags.get(REVISION)
        if now["kind"] != "hub" or repo != now["location"] or not old or old == now["revision"]:
            return None
        return Task(step.wanted.name, {"verb": "compare", "repo": repo, "old": old, "new": now["revision"]})

    def _decided(self, step: Step, upstream: Done | None) -> Step:
        if step.error or step.interrupted:
            return step
        if step.plan is not None and step.version is None:
            why = _because(step, upstream)
            if (refusal := _refusal(step, why, upstream)) is not None:
                return step.failed(refusal)
            step = replace(step, changes=(Change("version", f"new version: {why}"), *step.changes))
        step = replace(step, aliases=aliases_wanted(step.wanted.entry, step.standing, step.version))
        if step.settled:
            return step
        return replace(step, changes=(*step.changes, *_differences(step)))


def aliases_wanted(entry: Entry, standing: Standing | None, version: str | None) -> tuple[str, ...]:
    """The aliases that are to point at the version (None: one that is yet to come).

    A candidate takes none away: where one of the entry's aliases names another version, it is the challenger.
    """
    held = standing.aliases if standing else {}
    elsewhere = any(held.get(alias, version) != version for alias in entry.aliases)
    return (CHALLENGER,) if entry.on_change == "candidate" and elsewhere else entry.aliases


def _differences(step: Step) -> tuple[Change, ...]:
    """Aliases that do not point at the version, and tags that it does not have."""
    standing, version = step.standing or Standing("", {}), step.version
    target = f"version {version}" if version else "the new version"
    changes = []
    for alias in step.aliases if "aliases" not in standing.gaps else ():
        now = standing.aliases.get(alias)
        if now is None:
            changes.append(Change("alias", f"{alias} is set on {target}"))
        elif now != version:
            changes.append(Change("alias", f"{alias} moves from version {now} to {target}"))
    if version == standing.number and "tags" not in standing.gaps:
        missing = [k for k, v in step.wanted.entry.tags.items() if standing.tags.get(k) != v]
        changes += [Change("tag", f"{key} = {step.wanted.entry.tags[key]}") for key in missing]
    return tuple(changes)


def _looked(step: Step, done: Done) -> Step:
    """The step with what a closer look has found."""
    step = replace(step, seconds=done.seconds, findings=done.findings)
    if done.interrupted or done.error:
        return replace(step, error=done.error, interrupted=done.interrupted)
    result = done.result or {}
    plan, deployment = result.get("outcome"), result.get("deployment")
    endpoint = _endpoint(step.wanted, deployment, known=step.settled or bool(plan and plan["version"]))
    needs: dict[str, int] = {}
    for folder, size in result.get("disks", ()):
        if (disk := disk_of(folder)) is not None:
            needs[disk] = needs.get(disk, 0) + size
    version = step.version if step.settled else plan["version"] if plan else None
    return replace(step, plan=plan, version=version, needs=needs, changes=endpoint)


def _endpoint(wanted: Wanted, deployment: Mapping[str, Any] | None, *, known: bool) -> tuple[Change, ...]:
    if wanted.entry.deploy is None:
        return ()
    if deployment is None and not known:
        name = wanted.entry.deploy.endpoint or endpoint_name(wanted.name)
        return (Change("endpoint", f"{name} serves the new version"),)
    if deployment is None or deployment["state"] == AS_ASKED:
        return ()
    return (Change("endpoint", f"{deployment['endpoint']} {deployment['state']}"),)


def _because(step: Step, upstream: Done | None) -> str:
    """Why there is to be a new version."""
    before, plan = step.standing, step.plan or {}
    if before is None:
        return "there is none yet"
    if upstream and upstream.result:
        return f"{plan['source']['location']} moved {upstream.result['said']}"
    if FINGERPRINT not in before.tags:
        return f"version {before.number} was not made by catalogger"
    now = plan["source"]
    source, kind = before.tags.get(SOURCE), before.tags.get(SOURCE_KIND)
    if kind != now["kind"] or (kind == "hub" and source != now["location"]):
        return f"the source is another: {source} before"
    if before.tags.get(REVISION) != now["revision"]:
        return f"revision {now['revision']}, {before.tags.get(REVISION)} before"
    if before.tags.get(WRITTEN_FOR) != (asked := step.wanted.entry.written_for):
        was = before.tags.get(WRITTEN_FOR, "what was installed")
        return f"it is written for {asked or 'what is installed'}; version {before.number} was for {was}"
    same = now["kind"] == "hub"
    return (
        f"the recipe has another effect than in version {before.number}" if same else "the files or the recipe changed"
    )


def _refusal(step: Step, why: str, upstream: Done | None) -> CataloggerError | None:
    """Why a changed content is not registered, if it is not."""
    wanted = step.wanted
    if step.standing is None:
        return None
    hub = hub_reference(wanted.source)
    moving = hub is not None and not (hub[1] and _COMMIT.fullmatch(hub[1]))
    code = bool(upstream and upstream.result and upstream.result["code"])
    if moving and code and wanted.entry.trust_remote_code:
        return CheckpointError(
            wanted.source,
            f"has other Python code than the one that was consented to: {why}",
            "Look at it, then name its commit: source: ORG/REPO@COMMIT.",
        )
    if wanted.entry.on_change == "fail":
        return UsageError(
            f"{wanted.name} is to stay as it is, and its content changed: {why}.",
            "Set on_change to register or candidate, or name the former commit in source.",
        )
    return None
