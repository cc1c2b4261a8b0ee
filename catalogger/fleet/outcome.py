"""What came of a run over many models: what was done, what was not, why.  Prints as a table, is JSON on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from catalogger.errors import CataloggerError
from catalogger.fleet.planning import Change

Action = Literal["registered", "updated", "unchanged", "planned", "failed", "interrupted"]
_WORST = (1, 7, 6, 5, 4, 2, 9, 8)
"""Exit codes, the worst first, where entries failed in several ways."""
WOULD_CHANGE = 3
INTERRUPTED = 130


@dataclass(frozen=True)
class EntryOutcome:
    """What came of one entry.

    `action` is `registered` (a new version), `updated` (alias, tags or endpoint), `unchanged`, `planned` (a dry run
    that would change it), `failed` or `interrupted`.  `outcome`, `deployment` and `error` are the documents of the
    single commands.
    """

    name: str
    recipe: str
    at: str
    action: Action
    version: str | None = None
    changes: tuple[Change, ...] = ()
    outcome: Mapping[str, Any] | None = None
    deployment: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    findings: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """The entry as JSON data."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "at": self.at,
            "action": self.action,
            "version": self.version,
            "changes": [{"kind": c.kind, "text": c.text} for c in self.changes],
            "outcome": self.outcome,
            "deployment": self.deployment,
            "error": self.error,
            "findings": list(self.findings),
            "seconds": round(self.seconds, 3),
        }

    def lines(self) -> list[str]:
        """What people read of it."""
        lines = [f"{c.kind}: {c.text}" for c in self.changes]
        wrong = [f for f in self.findings if f.get("severity") == "error"]
        lines += [f"{f['code']} {f['subject']}: {f['message']}" for f in wrong]
        if self.error:
            said = f"{self.error['message']} {self.error['fix']}"
            lines += [line.strip() for line in said.splitlines() if line.strip()]
        return lines


@dataclass(frozen=True)
class SyncOutcome:
    """The result of `sync`.

    `digest` is over the manifests' content and their variables.  `run_id` is the MLflow run that records it, where
    something was done or failed.
    """

    entries: tuple[EntryOutcome, ...]
    files: tuple[str, ...]
    digest: str
    registry_uri: str
    dry_run: bool = False
    interrupted: bool = False
    run_id: str | None = None
    seconds: float = 0.0

    def names(self, *actions: Action) -> list[str]:
        """The entries that ended so."""
        return [e.name for e in self.entries if e.action in actions]

    @property
    def pending(self) -> list[str]:
        """Names of the entries that would change, or of which that is not known."""
        return self.names("planned", "failed", "interrupted")

    def exit_code(self, *, check: bool = False) -> int:
        """Of the command; `check`: 3 where something would change."""
        if self.interrupted:
            return INTERRUPTED
        codes = {int(e.error["exit_code"]) for e in self.entries if e.error}
        if codes:
            return next((code for code in _WORST if code in codes), CataloggerError.exit_code)
        return WOULD_CHANGE if check and self.names("planned") else 0

    def document(self) -> dict[str, Any]:
        """The outcome as JSON data, the form that scripts rely on."""
        return {
            "manifest": {"files": list(self.files), "digest": self.digest},
            "registry_uri": self.registry_uri,
            "dry_run": self.dry_run,
            "interrupted": self.interrupted,
            "changed": len(self.names("registered", "updated", "planned")),
            "unchanged": len(self.names("unchanged")),
            "failed": len(self.names("failed", "interrupted")),
            "entries": [e.document() for e in self.entries],
            "run_id": self.run_id,
            "seconds": round(self.seconds, 3),
        }

    def summary(self) -> str:
        """How many ended how."""
        counts: dict[str, int] = {}
        for entry in self.entries:
            counts[entry.action] = counts.get(entry.action, 0) + 1
        said = ", ".join(f"{count} {action}" for action, count in counts.items()) or "no entries"
        tail = "; nothing was changed" if self.dry_run else ""
        return f"{said}{tail} ({self.seconds:.1f} s)"

    def __str__(self) -> str:
        width = max((len(e.name) for e in self.entries), default=0)
        lines = []
        for entry in self.entries:
            version = f" version {entry.version}" if entry.version else ""
            lines.append(f"{entry.name:<{width}}  {entry.action}{version}")
            lines += [f"    {line}" for line in entry.lines()]
        return "\n".join([*lines, self.summary()])

    def _repr_html_(self) -> str:
        from catalogger.fleet.report import table

        return table(self)
