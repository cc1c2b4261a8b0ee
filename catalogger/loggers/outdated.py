"""Which registered models are behind the branch that they came from.

The registry says what was recorded, the Hub which commit the branch is now: one request a repository.  Nothing is
changed, and no file of a model is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from catalogger.checkpoints.hub import branches
from catalogger.errors import CataloggerError, NetworkUnreachable, UsageError
from catalogger.lines import as_block, as_text
from catalogger.loggers.keeper import Keeper
from catalogger.loggers.keepers import asked_names, is_ours, kept, there
from catalogger.loggers.registry import ASKED_REVISION, REVISION, SOURCE, SOURCE_KIND
from catalogger.loggers.stores import choose_stores
from catalogger.loggers.surface import READY
from catalogger.progress import Progress, Silent

State = Literal["up to date", "behind", "pinned", "not checked"]


@dataclass(frozen=True)
class Freshness:
    """The newest version of one model, and how it stands to its source.

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

    def __str__(self) -> str:
        aliases = f" ({', '.join(self.aliases)})" if self.aliases else ""
        at = f" @ {self.asked}" if self.asked and self.state != "pinned" else ""
        commits = {
            "behind": f": {_short(self.recorded)} was registered, {_short(self.now)} is there now",
            "up to date": f": {_short(self.recorded)}",
        }.get(self.state, f": {self.why}")
        return f"{self.name} version {self.version}{aliases} from {self.source}{at}{commits}"


@dataclass(frozen=True)
class Outdated:
    """All models that were looked at, by name."""

    models: tuple[Freshness, ...]

    @property
    def behind(self) -> tuple[Freshness, ...]:
        """Those whose source has moved on."""
        return tuple(model for model in self.models if model.state == "behind")

    def document(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {"models": [asdict(model) for model in self.models], "behind": len(self.behind)}

    def __str__(self) -> str:
        return as_text((model.state, str(model)) for model in self.models)

    def _repr_html_(self) -> str:
        return as_block(str(self))


def outdated(
    names: Sequence[str] = (),
    *,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    progress: Progress | None = None,
) -> Outdated:
    """Say which registered models are behind their source: their newest versions, as far as catalogger made these.

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
    repos = sorted({one.source for one in found if one.state == "behind"})
    if repos:
        told.say(f"Asking the Hub about {len(repos)} {'repository' if len(repos) == 1 else 'repositories'}")
    now = {repo: _asked(repo) for repo in repos}
    unreachable = [told for told in now.values() if isinstance(told, NetworkUnreachable)]
    if repos and len(unreachable) == len(repos):
        raise unreachable[0]
    return Outdated(tuple(_judged(one, now) for one in found))


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
    return _sorted(plain, tags.get(SOURCE_KIND))


def _sorted(one: Freshness, kind: str | None) -> Freshness:
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


def _judged(one: Freshness, now: dict[str, dict[str, str] | CataloggerError]) -> Freshness:
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


def _short(commit: str | None) -> str:
    return (commit or "")[:12]
