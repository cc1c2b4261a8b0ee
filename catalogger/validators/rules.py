"""What a rule, a finding and a report are.  One rule has one code, one function and one severity a finding.

Rules are pure functions from facts to findings: they read nothing and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from catalogger.checkpoints import Checkpoint
from catalogger.errors import CheckFailed, UsageError
from catalogger.recipes import Recipe

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """What one rule says of one subject (a file, a tensor, a field), and how to fix it."""

    code: str
    severity: Severity
    subject: str
    message: str
    fix: str

    def document(self) -> dict[str, str]:
        """The finding as JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """All that the rules may look at."""

    recipe: Recipe
    checkpoint: Checkpoint
    mlflow: str
    remote_code_consent: bool = False
    pickle_allowed: bool = False


class NotChecked(Exception):
    """Raised by a rule that could not run.  Not checked is never passed."""


Check = Callable[[Facts], Iterable[Finding]]


@dataclass(frozen=True)
class Rule:
    """`title` says what is looked at, `protects` that ignoring it would lose or corrupt data."""

    code: str
    title: str
    check: Check
    protects: bool = False


_RULES: dict[str, Rule] = {}


def rule(code: str, *, protects: bool = False) -> Callable[[Check], Check]:
    """Register a function as the rule of this code.  The first line of its docstring is the title."""

    def register(check: Check) -> Check:
        if code in _RULES:
            raise ValueError(f"{code} is taken by {_RULES[code].check.__name__}")
        _RULES[code] = Rule(code, (check.__doc__ or "").strip().splitlines()[0].rstrip("."), check, protects)
        return check

    return register


def rules() -> Mapping[str, Rule]:
    """Every rule by its code."""
    return dict(sorted(_RULES.items()))


@dataclass(frozen=True)
class Report:
    """What the rules found, which ran, which could not and why, and which were ignored on request."""

    findings: tuple[Finding, ...]
    ran: tuple[str, ...]
    not_checked: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def summary(self) -> str:
        """How many findings of each severity, in words."""
        counts = [(s, sum(f.severity == s for f in self.findings)) for s in ("error", "warning", "note")]
        return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts)

    def raise_on_error(self) -> None:
        """Raises CheckFailed when a finding is an error."""
        if any(f.severity == "error" for f in self.findings):
            raise CheckFailed([f.document() for f in self.findings])


def run_rules(facts: Facts, ignore: Collection[str] = ()) -> Report:
    """Run every rule but the ignored ones.  Raises UsageError for a code that is unknown or may not be ignored."""
    _may_ignore(ignore)
    findings: list[Finding] = []
    ran, not_checked = [], {}
    for code, one in rules().items():
        if code in ignore:
            continue
        try:
            findings += one.check(facts)
            ran.append(code)
        except NotChecked as why:
            not_checked[code] = str(why)
    order: Mapping[str, int] = {"error": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda f: (order[f.severity], f.code, f.subject))
    return Report(tuple(findings), tuple(ran), not_checked, tuple(sorted(ignore)))


def _may_ignore(codes: Iterable[str]) -> None:
    for code in codes:
        if code not in _RULES:
            raise UsageError(f'There is no rule "{code}" to ignore.', f"Rules: {', '.join(rules())}.")
        if _RULES[code].protects:
            raise UsageError(f"{code} cannot be ignored: it protects data.", f"{code}: {_RULES[code].title}.")


def firsts(items: Iterable[str], most: int = 3) -> str:
    """The first few items in quotes, and how many more there are."""
    held = sorted(items)
    shown = ", ".join(f'"{item}"' for item in held[:most])
    return f"{shown} and {len(held) - most} more" if len(held) > most else shown
