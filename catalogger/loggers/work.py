"""One checked request on its way to a version: look, fetch, prove, place, log, register; or only the plan of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogger.checkpoints import LoggedModel, borrowed_repos, fetch, with_borrowed_code
from catalogger.errors import human
from catalogger.files.digests import Tick, cache_folder
from catalogger.files.temporary import marked, temporary
from catalogger.files.workers import Workers
from catalogger.loggers import mlmodel, unfinished
from catalogger.loggers.changing import Making, hash_all, what_moved
from catalogger.loggers.early import Early
from catalogger.loggers.elsewhere import words
from catalogger.loggers.layout import (
    Layout,
    effect,
    fingerprint,
    layout,
    remembered,
    shape_digest,
    source_path,
    stand_at,
)
from catalogger.loggers.lock import make_embedded, registration_lock
from catalogger.loggers.manifest import manifest
from catalogger.loggers.mlflow_registry import MlflowRegistry
from catalogger.loggers.offer import Offer
from catalogger.loggers.outcome import Moved, Outcome, Plan
from catalogger.loggers.package import point_at, pointer, restore
from catalogger.loggers.plan import artifact_folder, make_plan, require_room, way
from catalogger.loggers.proof import Proof, findings_kept
from catalogger.loggers.prove import needed_memory, prove, require_provable, staged
from catalogger.loggers.provenance import description, version_tags
from catalogger.loggers.record import Job, Logged, log, preview
from catalogger.loggers.registries import open_registry, open_unity
from catalogger.loggers.registry import FINGERPRINT, SHAPE, Registry, Version
from catalogger.loggers.rehearsal import rehearse
from catalogger.loggers.request import LOGGED, NAMED, Request
from catalogger.loggers.stores import local_folder, pointed_at, translated
from catalogger.loggers.streaming import Stream, not_streamed
from catalogger.loggers.surface import Mark
from catalogger.loggers.told import Told
from catalogger.loggers.unity import UnityRegistry
from catalogger.remote.storage import Sending
from catalogger.validators import Existing, Facts, Report, run_rules


class Work:
    """One checked request on its way to a version."""

    def __init__(self, request: Request, facts: Facts, report: Report, making: Making | None = None) -> None:
        self._making = making
        self.request, self.checkpoint, self.facts, self.report = request, facts.opened, facts, report
        self._mlflow = facts.at_hand.mlflow
        self._moved = Moved()
        self._workers = Workers()
        self._early = Early(request, self._workers, lambda: self._job(), lambda: self._shape())
        self._proof: Proof | None = None
        self._package: Path | None = None
        self._stream: Stream | None = None
        self._notes: tuple[str, ...] = (words(request.target),) if request.target else ()
        self.fields: dict[str, Any] = {}
        self.layout = Layout(())

    @property
    def _sends(self) -> bool:
        """Whether the registry takes the files itself."""
        return self.request.stores.kind != "mlflow"

    @property
    def _light(self) -> bool:
        """Whether the model is logged without its weights."""
        return self._sends and self.request.tracking == "auto"

    def plan(self) -> Outcome:
        """What would be done.  Nothing is changed: a store that is not there is not made."""
        if self._making:
            self.checkpoint = self._making.recognised(self.checkpoint, self.request.memory, {})
        self._lay_out()
        stores, known = self.request.stores, None
        with self._stores():
            if not (self._sends or stores.exist):
                self._check(self.facts, NAMED)
            else:
                registry = open_registry(stores, upload=self.request.upload)
                self._look_at_name(registry)
                known = self._registered(registry)
            self._begin_stream()
            plan = self._plan(preview(self._job()))
        if known:
            plan = replace(plan, to_fetch=0, to_write=0, to_upload=0, weights="in place", disks=())
        return self._outcome("planned", known, None, plan=plan)

    def do(self) -> Outcome:
        """Look whether this content is registered; else fetch, place, log and register it."""
        request = self.request
        self._lay_out()
        with (
            registration_lock(request.stores.registry_uri, request.name, request.progress) as alone,
            self._standing(alone=alone),
            self._early.begun(alone=alone),
        ):
            if not self._sends:
                with self._stores(make=True):
                    registry = MlflowRegistry(request.stores)
                    return self._unchanged(registry) or self._log_and_register(registry)
            unity = open_unity(
                request.stores,
                upload=request.upload,
                weights=request.weights,
                ours=self.checkpoint.ours,
                workers=self._workers,
            )
            if unchanged := self._unchanged(unity):
                return unchanged  # before MLflow is imported, which takes seconds
            if request.stores.kind == "oss" and (self._root() or "file:").startswith("file:"):
                self._early.hash()
            with self._packing(alone=alone), self._stores(make=True):
                return self._log_and_send(unity)

    @contextmanager
    def _stores(self, *, make: bool = False) -> Iterator[None]:
        if make:
            make_embedded(self.request.stores)
        with pointed_at(self.request.stores), translated(self.request.stores):
            yield

    def _unchanged(self, registry: Registry) -> Outcome | None:
        """What there is of this content already, with alias and tags made true; None where there is nothing."""
        request = self.request
        newest = self._look_at_name(registry)
        if self._making:
            self._learn(self._making, is_new=newest is None)
        unknown = self._fingerprint() is None and not (self._early.hashing or self._making)
        if unknown and registry.versions_with(request.name, SHAPE, self._shape()):
            self._early.ahead = None
            self._early.hash()
        self.layout, read = self._early.finish(self.layout)
        self._moved += read
        known = self._registered(registry)
        if not known:
            self._notes += what_moved(registry, request.name, self.checkpoint)
            return None
        digest = self._fingerprint() or known.tags[FINGERPRINT]
        self._notes += registry.make_true(request.name, known, request.aliases, self._tags(digest))
        return self._outcome("unchanged", known, None)

    @contextmanager
    def _packing(self, *, alone: bool) -> Iterator[None]:
        """The package's folder; where no other run can be at work, what a killed one left there goes away first."""
        if not alone:
            with temporary("package") as folder:
                self._package = folder / "model"
                yield
            return
        with marked(cache_folder() / "packages" / self.request.stores.folder_of(self.request.name)) as folder:
            self._package = folder / "model"
            yield

    @contextmanager
    def _standing(self, *, alone: bool) -> Iterator[None]:
        """What is made of the weights, or passes through this machine, stands inside."""
        self._begin_stream()
        made = self._stream or self._making
        with made.standing(alone=alone) if made else nullcontext():
            yield

    def _begin_stream(self) -> None:
        """Raises UsageError where the weights cannot pass, with the room that it takes without."""
        if not self.request.stream:
            return
        source = self._making.change.source if self._making else self.checkpoint
        if not self._sends or (root := self._root() or "").startswith("file:"):
            with self._stores():
                raise not_streamed(self.request.stores, root if self._sends else None, self._plan())
        if source.root is not None and not self._making:
            self._notes += ("the weights are on this machine: there is nothing to stream",)
            return
        self._stream = Stream(self.checkpoint, self._making, self.request.stores, self.request.name)
        if self._making:
            self._making.folder = self._stream.folder

    def _plan(self, mlmodel: str = "") -> Plan:
        stores, root = self.request.stores, self._root()
        return make_plan(self._job(), stores, mlmodel, sends=self._sends, root=root, stream=self._stream)

    def _log_and_register(self, registry: MlflowRegistry) -> Outcome:
        earlier = self._logged_before()
        if not earlier or self.request.prove or self._making:
            self._fetch(writes=not earlier)
        if self.request.prove:
            self._proof = self._prove()
        return self._register(registry, earlier or self._log())

    def _log_and_send(self, registry: UnityRegistry) -> Outcome:
        """The registry gets the files, the tracking server a logged model that says where they are."""
        earlier = self._logged_before()
        self._fetch(writes=True)
        if self.request.prove:
            self._proof = self._prove()
        return self._send(registry, earlier or self._log())

    def prove(self) -> Proof:
        """Fetch what is not here, and load the model as it would be logged.  Nothing is logged."""
        self._lay_out()
        with self._stores():
            self._fetch(writes=False)
            return self._prove()

    def _prove(self) -> Proof:
        with findings_kept(self.report), temporary("proof") as folder:
            return prove(
                staged(self._job(), folder / "model"),
                self.request.recipe.recipe.task,
                weight_bytes=self.checkpoint.weight_bytes,
                trust_remote_code=self.request.trust_remote_code,
                progress=self.request.progress,
            )

    def _look_at_name(self, registry: Registry) -> Existing | None:
        """Compare with the newest version of the name, which is given."""
        newest = registry.newest(self.request.name)
        self._check(replace(self.facts, target=replace(self.facts.goal, existing=newest)), NAMED)
        return newest

    def _lint(self, model: LoggedModel) -> None:
        """Look at the model as it was written, before a weight is placed."""
        self._check(replace(self.facts, model=model), LOGGED)

    def _check(self, facts: Facts, only: tuple[str, ...]) -> None:
        ignored = [code for code in self.request.ignore if code.startswith(only)]
        report = run_rules(facts, ignored, only=only)
        if report.findings:
            self.request.progress.say("\n".join(map(str, report.findings)))
        self.report += report
        report.raise_on_error()

    def _register(self, registry: MlflowRegistry, logged: Logged) -> Outcome:
        self.layout = self.layout.with_digests(logged.digests)
        digest = self._fingerprint()
        if digest is None or not stand_at(logged.location, self.layout):
            raise RuntimeError(f"the logged model at {logged.location} is not whole")
        tags = self._tags(digest)
        self.request.progress.say(f"Registering {self.request.name}")
        version = registry.register(self.request.name, logged, tags, description(self.request.recipe, self.checkpoint))
        registry.make_true(self.request.name, version, self.request.aliases, tags)
        unfinished.forget(logged.run_id, self._mark(self.layout) or digest)
        return self._outcome("registered", version, logged)

    def _send(self, registry: UnityRegistry, logged: Logged) -> Outcome:
        request, size = self.request, self.layout.size
        self.layout = self.layout.with_digests(logged.digests)
        self.layout, read = self._early.so_far(self.layout)
        self._moved += read
        through = f", at most {human(self._stream.needed)} of it here at once" if self._stream else ""
        request.progress.say(f"Registering {request.name}: {human(size)} to {registry.surface.words}{through}")
        here = () if self._stream else self.layout.weights
        before = {i.path: source_path(self.checkpoint, i).stat() for i in here}
        with request.progress.bar("files", size) as tick:
            done = registry.register(request.name, logged, self._offer(), tick)
        self.layout = self._with_sent(done.sent.digests)
        learned = [i for i in self.layout.weights if i.path in before and i.path in done.sent.digests and i.sha256]
        request.memory.remember((source_path(self.checkpoint, i), i.sha256 or "", before[i.path]) for i in learned)
        digest = self._fingerprint()
        if digest is None:
            raise RuntimeError("the files were sent, and their digests are not known")
        self._notes += done.notes + registry.make_true(request.name, done.version, request.aliases, self._tags(digest))
        point_at(logged, f"models:/{request.name}/{done.version.number}", self._mlflow)
        unfinished.forget(logged.run_id, self._shape())
        sent = done.sent
        moved = Moved(read=logged.moved.read + sent.read, written=logged.moved.written + sent.written, sent=sent.sent)
        if self._stream:
            self._notes += self._stream.notes()
            how, moved = "streamed", moved + self._stream.moved
        else:
            how = "uploaded" if sent.sent else "copied" if sent.written >= self.layout.weight_bytes else "linked"
        return self._outcome("registered", done.version, replace(logged, moved=moved, weights=how))

    def _offer(self) -> Offer:
        if self._package is None:
            raise RuntimeError("there is no package to send")
        text, stream = description(self.request.recipe, self.checkpoint), self._stream
        places = {i.path: stream.folder if stream else source_path(self.checkpoint, i) for i in self.layout.weights}
        weights = [Sending(i.path, places[i.path], i.size, i.sha256) for i in self.layout.weights]
        mark = Mark(self._shape(), self._fingerprint())
        return Offer(self._package, weights, mark, text, self._sealed, stream.files if stream else None)

    def _sealed(self, sent: Mapping[str, str]) -> tuple[Mark, Mapping[str, Any]]:
        """The mark and the manifest of the model, now that every digest is known."""
        whole = self._with_sent(sent)
        said = self._said(whole)
        return Mark(self._shape(), said["fingerprint"]), said

    def _said(self, whole: Layout) -> Mapping[str, Any]:
        """The manifest of the model, of which every digest is known."""
        recipe = self.request.recipe.recipe
        digest = fingerprint(whole, recipe, self.fields) or ""
        return manifest(digest, effect(recipe, self.fields, whole), self._tags(digest), self.request.aliases, whole)

    def _with_sent(self, digests: Mapping[str, str]) -> Layout:
        known = {i.weights or "": digests[i.path] for i in self.layout.weights if i.path in digests}
        return self.layout.with_digests(known | (self._stream.written.digests if self._stream else {}))

    def _root(self) -> str | None:
        place = self.facts.target.place if self.facts.target else None
        return place.storage if place else None

    def _lay_out(self) -> None:
        recipe, checkpoint = self.request.recipe, self.checkpoint
        target = self.facts.environment
        transformers = mlmodel.wanted_version("transformers", target, recipe.recipe.transformers)
        self.fields = mlmodel.flavor(recipe, checkpoint, target.mlflow, transformers)
        plain = layout(checkpoint, recipe.recipe, str(self.fields["source_model_name"]))
        plain = replace(plain, written_for=target.asked)
        self.layout = remembered(plain, checkpoint, self.request.memory)

    def _registered(self, registry: Registry) -> Version | None:
        """The newest version with this content whose files are still there; by what it is made from, where it is."""
        by_shape = self.layout.made is not None
        digest = self._shape() if by_shape else self._fingerprint()
        tag = SHAPE if by_shape else FINGERPRINT
        versions = registry.versions_with(self.request.name, tag, digest) if digest else []
        return next((v for v in versions if registry.is_whole(v, self.layout)), None)

    def _logged_before(self) -> Logged | None:
        """A model of this content that an interrupted run has logged and not registered.

        Where the weights are not logged, what is logged is known by its shape.
        """
        digest = self._mark(self.layout)
        found = unfinished.find(self.request.name, digest, self._taken_up) if digest else None
        if not found:
            return None
        self.request.progress.say("This content was logged by an earlier run that did not finish; registering that")
        digests = {i.weights: i.sha256 for i in self.layout.weights if i.weights and i.sha256}
        return replace(found, digests=digests)

    def _taken_up(self, location: str) -> bool:
        folder = local_folder(location)
        if self._package is None:
            return stand_at(location, self.layout)
        if folder is None and not self._light:
            return False  # it would have to be fetched whole
        return restore(self._package, folder, location, self.layout)

    def _fetch(self, *, writes: bool) -> None:
        """Bring the weights here, once it is known that there is room for them, and for the model where it `writes`."""
        request = self.request
        if self._making or self._stream:
            rehearse(self._job(), self.facts, request.ignore)
        plan = self._plan()
        if writes and not self._early.ahead:  # which has looked, and has taken of that room since
            require_room(plan)
        if self._stream:
            return
        if plan.to_fetch:
            request.progress.say(f"Fetching {human(plan.to_fetch)}")
            self._moved += Moved(fetched=plan.to_fetch)
        if self._making:
            self._make(self._making)
        else:
            self.checkpoint = fetch(self.checkpoint, request.memory)

    def _make(self, making: Making) -> None:
        """The weights as they will be logged, with their digests."""
        self.checkpoint = making.make(self.checkpoint, self.request.memory, self.request.progress)
        self.layout = self.layout.with_digests(making.written.digests)
        self._moved += Moved(read=making.written.read, written=making.written.written)

    def _learn(self, making: Making, *, is_new: bool) -> None:
        """Know what the weights are made from, by every digest.  Where nothing has the name yet, and there is no room
        to make them, nothing need be read.
        """
        if is_new and not self._stream:
            making.require_room()
        learned = hash_all(making, self.request.memory, self._workers, self.request.progress)
        self._moved += Moved(read=sum(path.stat().st_size for path in learned))
        self.checkpoint = making.recognised(self.checkpoint, self.request.memory, learned)
        self._lay_out()

    def _log(self) -> Logged:
        request, size = self.request, self.layout.weight_bytes
        how = way(self._job(), artifact_folder(request.stores))
        light = self._light
        request.progress.say(
            "Logging the model without its weights" if light else f"Logging {human(size)} of weights ({how})"
        )
        if light:
            return log(self._job(), self._seal)
        with request.progress.bar("weights", size) as tick:
            return log(self._job(tick), self._seal)

    def _seal(self, digests: Mapping[str, str], location: str, uri: str) -> Mapping[str, str]:
        digest = self._mark(self.layout.with_digests(digests))
        return unfinished.mark(self.request.name, digest, uri, location) if digest else {}

    def _job(self, tick: Tick = lambda _: None) -> Job:
        request, points_to = self.request, None
        if self._light:
            points_to = pointer(request.name, request.stores.registry_uri, self._shape(), self.checkpoint, self.layout)
        return Job(
            request.name.rpartition(".")[2],
            request.recipe,
            self.checkpoint,
            self.layout,
            self.fields,
            self._mlflow,
            self.facts.environment,
            request.weights,
            request.memory,
            self._workers,
            tick,
            self._lint,
            self._early.ahead,
            self._package,
            points_to,
            None if self._sends else lambda digests: self._said(self.layout.with_digests(digests)),
            self._making,
        )

    def _mark(self, whole: Layout) -> str | None:
        """What a run that is not finished is known by: its content, or its shape where that alone is known before."""
        if self._sends or self._making:
            return self._shape()
        return fingerprint(whole, self.request.recipe.recipe, self.fields)

    def _fingerprint(self) -> str | None:
        return fingerprint(self.layout, self.request.recipe.recipe, self.fields)

    def _shape(self) -> str:
        return shape_digest(self.layout, self.request.recipe.recipe, self.fields)

    def _tags(self, digest: str) -> dict[str, str]:
        request = self.request
        return version_tags(
            request.recipe,
            self.checkpoint,
            digest,
            self._shape(),
            request.ignore,
            request.tags,
            self.layout.written_for,
        )

    def _outcome(
        self, action: Any, version: Version | None, logged: Logged | None, plan: Plan | None = None
    ) -> Outcome:
        told = Told(
            self.request,
            self.checkpoint,
            self.report,
            self._fingerprint(),
            self._moved,
            self._notes,
            self._proof,
            self._making,
        )
        return told.outcome(action, version, logged, plan)


def work_on(request: Request, facts: Facts, report: Report, making: Making | None = None) -> Work:
    """The work on a checkpoint that was checked, with the code that it borrows brought in.

    Raises UsageError or ProofRefused where a proof is asked for that cannot be made here.
    """
    checkpoint = facts.opened
    if request.prove:
        require_provable(needed_memory(checkpoint.weight_bytes))
    if borrowed := borrowed_repos(checkpoint) and facts.wanted.remote_code:
        checkpoint = with_borrowed_code(checkpoint, borrowed.repo, borrowed.revision)
    return Work(request, replace(facts, checkpoint=checkpoint), report, making)
