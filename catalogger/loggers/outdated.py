"""Which registered models are behind the branch that they came from, or that their adapter did.

The registry says what was recorded, the Hub which commit the branch is now: one request a repository.  Nothing is
changed, and no file of a model is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar

from catalogger.checkpoints.hub import branches
from catalogger.errors import CataloggerError, NetworkUnreachable, UsageError
from catalogger.lines import as_block, as_text
from catalogger.loggers.keeper import Keeper
from catalogger.loggers.keepers import asked_names, is_ours, kept, there
from catalogger.loggers.registry import ADAPTER, ASKED_ADAPTER, ASKED_REVISION, REVISION, SOURCE, SOURCE_KIND
from catalogger.loggers.stores import choose_stores
from catalogger.loggers.surface import READY
from catalogger.progress import Progress, Silent

State = Literal["up to date", "behind", "pinned", "not checked"]
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class AdapterFreshness:
    """How a version stands to the adapter that was merged into it; the fields are those of `Freshness`."""

    source: str
    state: State
    asked: str | None = None
    recorded: str | None = None
    now: str | None = None
    why: str = ""

    def __str__(self) -> str:
        return _told(self)


@dataclass(frozen=True)
class Freshness:
    """The newest version of one model, and how it stands to its source: the base, where an `adapter` was merged.

    `asked` is the branch or tag that it was resolved from, `recorded` the commit that this was then, `now` the commit
    that it is.  `why` says why it was not checked, or what `pinned` means here.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    source: str
    state: State
    asked: str | None = None
    recorded: str | None = None
    now: str | None = None
    why: str = ""
    adapter: AdapterFreshness | None = None

    @property
    def is_behind(self) -> bool:
        """Whether its source or its adapter has moved on."""
        return "behind" in (self.state, self.adapter and self.adapter.state)

    def rows(self) -> list[tuple[str, str]]:
        """The state and a sentence, of the source and of an adapter."""
        rows = [(str(self.state), str(self))]
        if self.adapter:
            rows.append((self.adapter.state, f"{self.name} version {self.version} with the adapter {self.adapter}"))
        return rows

    def __str__(self) -> str:
        aliases = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.name} version {self.version}{aliases} from {_told(self)}"


_Part = TypeVar("_Part", AdapterFreshness, Freshness)


@dataclass(frozen=True)
class Outdated:
    """All models that were looked at, by name."""

    models: tuple[Freshness, ...]

    @property
    def behind(self) -> tuple[Freshness, ...]:
        """Those whose source or adapter has moved on."""
        return tuple(model for model in self.models if model.is_behind)

    def document(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {"models": [asdict(model) for model in self.models], "behind": len(self.behind)}

    def __str__(self) -> str:
        return as_text(row for model in self.models for row in model.rows())

    def _repr_html_(self) -> str:
        return as_block(str(self))


def outdated(
    names: Sequence[str] = (),
    *,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    progress: Progress | None = None,
) -> Outdated:
    """Say which registered models are behind their source or adapter: their newest versions, as far as these are ours.

    names: models, or `catalog.schema`s with all that is in them; by default the whole registry.
    Raises UsageError where a model that is named is not there or was not made by catalogger, and NetworkUnreachable
    where the Hub could not be asked about any of them.
    """
    told, stores = progress or Silent(), choose_stores(tracking_uri, registry_uri)
    if not (names or there(stores)):
        return Outdated(())
    with kept(stores) as keeper:
        asked = asked_names(keeper, names)
        found = [one for name in asked if (one := _recorded(keeper, name, named=name in names))]
    parts = [part for one in found for part in (one, one.adapter) if part]
    repos = sorted({part.source for part in parts if part.state == "behind"})
    if repos:
        told.say(f"Asking the Hub about {len(repos)} {'repository' if len(repos) == 1 else 'repositories'}")
    now = {repo: _asked(repo) for repo in repos}
    unreachable = [told for told in now.values() if isinstance(told, NetworkUnreachable)]
    if repos and len(unreachable) == len(repos):
        raise unreachable[0]
    judged = (replace(one, adapter=_judged(one.adapter, now)) if one.adapter else one for one in found)
    return Outdated(tuple(_judged(one, now) for one in judged))


def _recorded(keeper: Keeper, name: str, *, named: bool) -> Freshness | None:
    """What the newest version says of its source; `behind` until the Hub was asked.  None for what is not ours."""
    rows = keeper.rows(name)
    ready = [row for row in rows if row.status == READY]
    if not ready or not is_ours(ready[-1]):
        if not named:
            return None
        what = "is not there" if not rows else "has no newest version that catalogger made"
        raise UsageError(f'The model "{name}" {what}.', "Look at its spelling.")
    row = keeper.row(name, ready[-1].number)
    tags = row.tags or {}
    aliases = () if "aliases" in keeper.gaps else keeper.aliases(name).items()
    plain = Freshness(
        name=name,
        version=row.number,
        aliases=tuple(sorted(alias for alias, number in aliases if number == row.number)),
        source=tags.get(SOURCE, "unknown"),
        state="not checked",
        asked=tags.get(ASKED_REVISION),
        recorded=tags.get(REVISION),
    )
    adapter = _adapter(tags[ADAPTER], tags.get(ASKED_ADAPTER)) if ADAPTER in tags else None
    return _sorted(replace(plain, adapter=adapter), tags.get(SOURCE_KIND))


def _adapter(recorded: str, asked: str | None) -> AdapterFreshness:
    """What the tags say of the adapter; a folder's has no branch, and may have any name."""
    place, _, commit = recorded.rpartition("@")
    if asked is None and not _COMMIT.fullmatch(commit):
        return _sorted(AdapterFreshness(recorded, "not checked"), "folder")
    return _sorted(AdapterFreshness(place, "not checked", asked, commit), "hub")


def _sorted(one: _Part, kind: str | None) -> _Part:
    """By what the tags alone say: whether the Hub has to be asked."""
    if kind is None:
        return replace(one, why="its source is not recorded")
    if kind != "hub":
        words = {"folder": "a folder has no commits", "memory": "it was in memory", "package": "a distribution's files"}
        return replace(one, why=f"{words.get(kind, kind)}, and is not compared")
    if one.recorded is None or one.asked is None:
        return replace(one, why="its commit and branch are not recorded")
    if one.recorded.startswith(one.asked):
        return replace(one, state="pinned", why=f"it was asked for by its commit {_short(one.recorded)}")
    return replace(one, state="behind")


def _asked(repo: str) -> dict[str, str] | CataloggerError:
    try:
        return dict(branches(repo))
    except CataloggerError as error:
        return error


def _judged(one: _Part, now: dict[str, dict[str, str] | CataloggerError]) -> _Part:
    """With what the Hub said of its branch."""
    if one.state != "behind":
        return one
    told = now[one.source]
    if isinstance(told, CataloggerError):
        return replace(one, state="not checked", why=told.message)
    commit = told.get(one.asked or "")
    if commit is None:
        return replace(one, state="not checked", why=f'the repository has no branch or tag "{one.asked}" any more')
    return replace(one, state="up to date" if commit == one.recorded else "behind", now=commit)


def _told(one: AdapterFreshness | Freshness) -> str:
    """The place, the branch, and the commits or the reason."""
    at = f" @ {one.asked}" if one.asked and one.state != "pinned" else ""
    commits = {
        "behind": f": {_short(one.recorded)} was registered, {_short(one.now)} is there now",
        "up to date": f": {_short(one.recorded)}",
    }.get(one.state, f": {one.why}")
    return f"{one.source}{at}{commits}"


def _short(commit: str | None) -> str:
    return (commit or "")[:12]
