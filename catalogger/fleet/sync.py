"""Make true what a manifest says: plan every entry, then register, point and deploy what differs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from catalogger.errors import UsageError, after_registration, masked
from catalogger.files.rate import Rate
from catalogger.fleet.crew import Crew, Done, Task
from catalogger.fleet.entries import Consent
from catalogger.fleet.outcome import Action, EntryOutcome, SyncOutcome
from catalogger.fleet.planning import Planner, Step
from catalogger.fleet.reading import Wish, read_manifests
from catalogger.fleet.report import report
from catalogger.loggers.standing import look_at
from catalogger.loggers.stores import Stores, choose_stores
from catalogger.progress import Progress, Silent
from catalogger.remote.workspace import runtime_credentials


def sync(
    manifests: str | Path | Sequence[str | Path],
    *,
    variables: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    dry_run: bool = False,
    jobs: int = 1,
    max_rate: float | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    debug: bool = False,
    progress: Progress | None = None,
) -> SyncOutcome:
    """Register what the manifests want and is not there yet; what is as it should be is left alone.

    variables: values of `${NAME}` in the manifests.
    only: names of the entries to look at; all of them by default.
    jobs: how many entries are done at a time, each in a process of its own.
    max_rate: bytes per second that all of them together fetch, and send, to other machines.
    trust_remote_code, allow_pickle: consent to what entries ask for; a manifest alone does not give it.

    Every entry is planned before any is done.  The failure of one is in its outcome and ends no other.
    Raises ManifestInvalid and UsageError before anything was looked at, and what an unreachable registry raises.
    """
    began, progress = time.monotonic(), progress or Silent()
    if jobs < 1:
        raise UsageError(f"--jobs {jobs} is no number of jobs.", "Give 1 or more.")
    if max_rate is not None and not max_rate > 0:
        raise UsageError(f"--max-rate {max_rate:g} lets nothing through.", "Give bytes per second, as 200MB.")
    files = [manifests] if isinstance(manifests, str | Path) else list(manifests)
    wish = read_manifests(files, variables or {}, Consent(trust_remote_code, allow_pickle)).only(only)
    run = _Run(wish, choose_stores(tracking_uri, registry_uri), progress, dry_run=dry_run)
    with _crew(jobs, progress, max_rate, debug=debug) as crew:
        outcome = run.through(crew)
        outcome = replace(outcome, seconds=time.monotonic() - began)
        return run.recorded(outcome, crew)


@contextmanager
def _crew(jobs: int, progress: Progress, max_rate: float | None, *, debug: bool) -> Iterator[Crew]:
    with _paced(max_rate) as pace:
        crew = Crew(jobs, progress, {**runtime_credentials(), **pace}, debug=debug)
        try:
            yield crew
        finally:
            crew.close()


@contextmanager
def _paced(max_rate: float | None) -> Iterator[Mapping[str, str]]:
    """Variables by which the workers keep to one rate together."""
    if max_rate is None:
        yield {}
        return
    with tempfile.NamedTemporaryFile(prefix="catalogger-rate-") as file:
        # Xet's own client fetches past the pace
        yield {**Rate(max_rate, Path(file.name)).environment(), "HF_HUB_DISABLE_XET": "1"}


class _Run:
    """One run over the entries."""

    def __init__(self, wish: Wish, stores: Stores, progress: Progress, *, dry_run: bool) -> None:
        self._wish, self._stores, self._progress, self._dry_run = wish, stores, progress, dry_run
        self._interrupted = False

    def through(self, crew: Crew) -> SyncOutcome:
        """Plan all, then do what is to be done."""
        count = len(self._wish.entries)
        self._progress.say(f"Looking at {count} {'entry' if count == 1 else 'entries'}")
        planner = Planner(self._stores, look_at(self._stores), crew)
        steps = planner.plan(self._wish.entries)
        self._interrupted = planner.interrupted
        done: dict[str, Done] = {}
        if not self._dry_run and not self._interrupted:
            tasks = [task for step in steps if (task := _task(step, planner))]
            if tasks:
                self._progress.say(f"{len(tasks)} of {count} are to be changed")
            try:
                crew.run(tasks, lambda task, what: done.update({task.name: what}))
            except KeyboardInterrupt:
                self._interrupted = True
        return SyncOutcome(
            entries=tuple(_outcome(step, done.get(step.wanted.name)) for step in steps),
            files=self._wish.files,
            digest=self._wish.digest,
            registry_uri=masked(self._stores.registry_uri),
            dry_run=self._dry_run,
            interrupted=self._interrupted,
        )

    def recorded(self, outcome: SyncOutcome, crew: Crew) -> SyncOutcome:
        """The outcome, logged as an MLflow run where it is worth one: a run that changed nothing leaves nothing."""
        if outcome.dry_run or outcome.interrupted or not outcome.names("registered", "updated", "failed"):
            return outcome
        addresses = {"tracking_uri": self._stores.tracking_uri, "registry_uri": self._stores.registry_uri}
        job = {"verb": "record", "document": outcome.document(), "page": report(outcome), "stores": addresses}
        told: list[Done] = []
        try:
            crew.run([Task("record", job)], lambda _, done: told.append(done))
        except KeyboardInterrupt:
            return replace(outcome, interrupted=True)
        if told and told[0].result:
            return replace(outcome, run_id=told[0].result["run_id"])
        why = told[0].error["message"] if told and told[0].error else "it was stopped"
        self._progress.say(f"The run could not be recorded: {why}")
        return outcome


def _task(step: Step, planner: Planner) -> Task | None:
    """The job that makes the entry true; None where nothing is to be done."""
    if step.error or not step.changes:
        return None
    if step.registers:
        return Task(step.wanted.name, planner.registering(step), step.needs)
    return Task(step.wanted.name, {**planner.serving(step), "verb": "serve", "dry_run": False})


def _outcome(step: Step, done: Done | None) -> EntryOutcome:
    wanted = step.wanted
    plain = EntryOutcome(
        name=wanted.name,
        recipe=wanted.recipe.name,
        at=wanted.at,
        action="unchanged",
        version=step.version,
        changes=step.changes,
        outcome=step.plan,
        error=step.error,
        findings=step.findings,
        seconds=step.seconds,
    )
    if step.error or step.interrupted:
        return replace(plain, action="failed" if step.error else "interrupted")
    if done is None:
        return replace(plain, action="planned") if step.changes else plain
    result = done.result or {}
    outcome = result.get("outcome") or done.outcome or step.plan
    action: Action = "failed" if done.error else "interrupted" if done.interrupted else "updated"
    if action == "updated" and outcome and outcome["action"] == "registered":
        action = "registered"
    error = dict(done.error) if done.error else None
    if error and done.outcome:  # only its deployment is not done: it may be later, or not
        error["exit_code"] = after_registration(int(error["exit_code"]))
    return replace(
        plain,
        action=action,
        version=outcome["version"] if outcome else step.version,
        outcome=outcome,
        deployment=result.get("deployment"),
        error=error,
        findings=done.findings,
        seconds=step.seconds + done.seconds,
    )
