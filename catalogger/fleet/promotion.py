"""Move an alias to a version that was looked at, and back.

The model itself remembers the last promotion, in one tag that is written before the alias moves: whatever is
interrupted, tag and alias together say whether that promotion is in effect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from catalogger.errors import AccessDenied, RegistryError, UsageError
from catalogger.lines import as_block, as_text
from catalogger.loggers.checks import Checked, lint
from catalogger.loggers.keeper import Keeper
from catalogger.loggers.keepers import kept
from catalogger.loggers.lock import registration_lock
from catalogger.loggers.stores import Stores, choose_stores
from catalogger.progress import Progress, Silent
from catalogger.remote.workspace import workspace
from catalogger.serving.answering import Answered, answers_of
from catalogger.validators import check_alias

_TAG = "catalogger.promoted_"
_TOLD = re.compile(r"version (\d+) in place of (?:version (\d+)|none)")
Action = Literal["promoted", "unchanged", "planned", "undone"]


@dataclass(frozen=True)
class Promotion:
    """What became of `alias`: it pointed at the version `before`, and points at `version`; None is no version.

    `checked` is what lint found, `answers` what the endpoints said that serve the version.
    """

    action: Action
    name: str
    alias: str
    version: str | None
    before: str | None
    checked: Checked | None = None
    answers: tuple[Answered, ...] = ()
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {
            "action": self.action,
            "name": self.name,
            "alias": self.alias,
            "version": self.version,
            "before": self.before,
            "lint": self.checked.document() if self.checked else None,
            "endpoints": [answer.document() for answer in self.answers],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        rows: list[tuple[str, str]] = [(self.action, self._headline())]
        if self.checked:
            found = len(self.checked.report.findings)
            rows.append(("lint", f"no error in {found} findings" if found else "nothing found"))
        rows += [("asked", str(answer)) for answer in self.answers]
        return as_text([*rows, *(("note", note) for note in self.notes)])

    def _headline(self) -> str:
        alias, now = f'{self.name}: the alias "{self.alias}"', _said(self.version)
        if self.action == "unchanged":
            return f"{alias} points at {now} already" if self.version else f"{alias} is not set"
        if self.action == "planned":
            return f"{alias} would move from {_said(self.before)} to {now}: nothing was changed"
        return f"{alias} moved from {_said(self.before)} {'back ' if self.action == 'undone' else ''}to {now}"

    def _repr_html_(self) -> str:
        return as_block(str(self))


def promote(
    name: str,
    *,
    source: str = "challenger",
    target: str = "champion",
    undo: bool = False,
    endpoint: str | None = None,
    dry_run: bool = False,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    progress: Progress | None = None,
) -> Promotion:
    """Move the alias `target` to the version that `source` points at, after lint and a query to whoever serves it.

    endpoint: the one to ask; by default, in a Databricks workspace, every one that serves this version.
    undo: move `target` back to where it was before the last promotion instead; a second time changes nothing.

    Raises UsageError where the registry has no aliases, or there is no such alias or nothing to undo, CheckFailed for
    what lint finds, DeploymentPending and DeploymentFailed for an endpoint that does not answer: then nothing was
    changed.
    """
    told, stores = progress or Silent(), choose_stores(tracking_uri, registry_uri)
    check_alias(target)
    if undo and endpoint:
        raise UsageError("--undo asks no endpoint.", "Leave --endpoint out.")
    with registration_lock(stores.registry_uri, name, told), kept(stores) as keeper:
        _require_aliases(keeper, name)
        job = _Job(keeper, stores, name, target, told, dry_run)
        return job.undo() if undo else job.promote(source, endpoint)


def _require_aliases(keeper: Keeper, name: str) -> None:
    if "aliases" in keeper.gaps:
        raise UsageError(
            f"{keeper.words} has no aliases, so that nothing can be promoted.",
            "Name versions by their number, or register to a catalog that has aliases.",
        )
    if not keeper.rows(name):
        raise UsageError(f'There is no model "{name}" in {keeper.words}.', "Look at its spelling.")


@dataclass(frozen=True)
class _Job:
    keeper: Keeper
    stores: Stores
    name: str
    target: str
    progress: Progress
    dry_run: bool

    def promote(self, source: str, endpoint: str | None) -> Promotion:
        aliases = self.keeper.aliases(self.name)
        before, version = aliases.get(self.target), aliases.get(source)
        if version is None:
            known = ", ".join(sorted(aliases)) or "none"
            raise UsageError(f'There is no alias "{source}" of "{self.name}".', f"Its aliases are: {known}.")
        if version == before:
            return Promotion("unchanged", self.name, self.target, version, before)
        self.progress.say(f"Looking at {self.name} version {version}")
        checked = self._linted(version)
        answers, notes = self._answers(version, endpoint)
        action: Action = "planned"
        if not self.dry_run:
            self.keeper.set_model_tag(self.name, self._key, f"version {version} in place of {_said(before)}")
            self._point_at(version)
            action = "promoted"
        return Promotion(action, self.name, self.target, version, before, checked, answers, notes)

    def undo(self) -> Promotion:
        """Where the alias does not point at what the last promotion put there, that is not in effect: it was undone,
        or was interrupted before the alias moved.
        """
        now = self.keeper.aliases(self.name).get(self.target)
        told = _TOLD.fullmatch(self.keeper.model_tags(self.name).get(self._key, ""))
        if told is None:
            nothing = f'No promotion of "{self.name}" to "{self.target}" is recorded, so that none can be undone.'
            raise UsageError(nothing, f'The alias points at {_said(now)}. Set it by --from, or by "log-model --alias".')
        version, before = told.groups()
        if now == before:
            note = f"the promotion of version {version} is undone, or was never completed"
            return Promotion("unchanged", self.name, self.target, now, now, notes=(note,))
        if now != version:
            raise UsageError(
                f'The alias "{self.target}" of "{self.name}" points at {_said(now)}: something else has moved it since'
                f" version {version} was promoted.",
                f"Before that it pointed at {_said(before)}.",
            )
        if before and before not in {row.number for row in self.keeper.rows(self.name)}:
            gone = f'Version {before} of "{self.name}", which "{self.target}" pointed at before, is gone.'
            raise UsageError(gone, "Promote another one.")
        if not self.dry_run:
            self._point_at(before)
        return Promotion("planned" if self.dry_run else "undone", self.name, self.target, before, now)

    @property
    def _key(self) -> str:
        """Of the tag: an alias may hold what not every registry takes in a key."""
        return _TAG + re.sub(r"\W", "_", self.target)

    def _linted(self, version: str) -> Checked:
        checked = lint(
            f"models:/{self.name}/{version}",
            tracking_uri=self.stores.tracking_uri,
            registry_uri=self.stores.registry_uri,
            progress=self.progress,
        )
        if checked.failed():
            self.progress.say(str(checked))
        checked.report.raise_on_error()
        return checked

    def _answers(self, version: str, endpoint: str | None) -> tuple[tuple[Answered, ...], tuple[str, ...]]:
        if self.stores.kind != "databricks":
            if endpoint:
                fix = "Leave --endpoint out, or give --registry-uri databricks-uc."
                raise UsageError("Only a Databricks workspace has endpoints.", fix)
            return (), ()
        try:
            answers = answers_of(workspace(self.stores.registry_uri), self.name, version, endpoint)
        except AccessDenied as denied:
            if endpoint:
                raise
            return (), (f"no endpoint was asked: {denied.message}",)
        return answers, () if answers else (f"no endpoint serves version {version}, so that none was asked",)

    def _point_at(self, version: str | None) -> None:
        """Move the alias or take it away, and read it back."""
        if version is None:
            self.keeper.delete_alias(self.name, self.target)
        else:
            self.keeper.set_alias(self.name, self.target, version)
        if (found := self.keeper.aliases(self.name).get(self.target)) != version:
            raise RegistryError(
                f'The alias "{self.target}" of {self.name} points at {_said(found)}, not at {_said(version)}.',
                "Run the same command again.",
            )


def _said(version: str | None) -> str:
    return f"version {version}" if version else "none"
