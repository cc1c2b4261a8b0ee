"""What a rule, a finding and a report are.  One rule has one code and one function; its docstring is its page.

Rules are pure functions from facts to findings: they read nothing and change nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from catalogger.errors import CheckFailed, UsageError
from catalogger.validators.facts import Facts, NotChecked

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Found:
    """What a rule function says of one subject (a file, a tensor, a field), and how to fix it.

    `severity` only where it is another than the rule's own.
    """

    subject: str
    message: str
    fix: str
    severity: Severity | None = None


@dataclass(frozen=True)
class Finding:
    """What one rule says of one subject, as it is reported."""

    code: str
    severity: Severity
    subject: str
    message: str
    fix: str

    def document(self) -> dict[str, str]:
        """The finding as JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.severity} {self.code}: {self.subject} {self.message}\n    {self.fix}"


Check = Callable[[Facts], Iterable[Found]]


@dataclass(frozen=True)
class Rule:
    """`title` says what is looked at, `why` what it matters, `fix` what to do; `protects` that ignoring it would lose
    or corrupt data.
    """

    code: str
    severity: Severity
    title: str
    why: str
    fix: str
    check: Check
    protects: bool = False


_RULES: dict[str, Rule] = {}


def rule(code: str, severity: Severity, *, protects: bool = False) -> Callable[[Check], Check]:
    """Register a function as the rule of this code.

    The docstring's first line is the title, a last paragraph that begins with `Fix:` is the fix, the rest says why.
    """

    def register(check: Check) -> Check:
        if code in _RULES:
            raise ValueError(f"{code} is taken by {_RULES[code].check.__name__}")
        title, _, body = inspect.cleandoc(check.__doc__ or "").partition("\n")
        why, _, fix = body.partition("Fix: ")
        _RULES[code] = Rule(code, severity, title.rstrip("."), _flowing(why), _flowing(fix), check, protects)
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
        counts = [(s, sum(f.severity == s for f in self.findings)) for s in SEVERITIES]
        return ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for severity, count in counts)

    def failed(self, *, strict: bool = False) -> bool:
        """Whether a finding is an error; `strict`: or a warning."""
        return any(f.severity == "error" or (strict and f.severity == "warning") for f in self.findings)

    def raise_on_error(self) -> None:
        """Raises CheckFailed when a finding is an error."""
        if self.failed():
            raise CheckFailed([f.document() for f in self.findings])

    def unchecked(self) -> list[str]:
        """A line for each reason that kept rules from running."""
        reasons: dict[str, list[str]] = {}
        for code, why in self.not_checked.items():
            reasons.setdefault(why, []).append(code)
        return [f"not checked {spans(codes)}: {why}" for why, codes in reasons.items()]

    def document(self) -> dict[str, Any]:
        """The report as JSON data."""
        return {
            "findings": [f.document() for f in self.findings],
            "checked": list(self.ran),
            "not_checked": dict(self.not_checked),
            "ignored": list(self.ignored),
        }

    def __add__(self, other: Report) -> Report:
        """Both reports as one: a rule that ran in either of them ran."""
        ran = tuple(sorted({*self.ran, *other.ran}))
        missed = {c: why for c, why in {**self.not_checked, **other.not_checked}.items() if c not in ran}
        found = _worst_first(dict.fromkeys((*self.findings, *other.findings)))
        return Report(found, ran, missed, tuple(sorted({*self.ignored, *other.ignored})))

    def __str__(self) -> str:
        checked = f"Checked {len(self.ran)} rules ({spans(self.ran)}): {self.summary()}"
        return "\n".join([*map(str, self.findings), *self.unchecked(), checked])


def run_rules(
    facts: Facts, ignore: Collection[str] = (), *, only: tuple[str, ...] = ("",), skip: tuple[str, ...] = ()
) -> Report:
    """Run every rule but the ignored ones; `only` and `skip` are beginnings of codes.

    Raises UsageError for a code that is unknown or may not be ignored.
    """
    _may_ignore(ignore)
    findings: list[Finding] = []
    ran, not_checked = [], {}
    for code, one in rules().items():
        if code in ignore or not code.startswith(only) or code.startswith(skip):
            continue
        try:
            findings += [
                Finding(code, f.severity or one.severity, f.subject, f.message, f.fix) for f in one.check(facts)
            ]
            ran.append(code)
        except NotChecked as why:
            not_checked[code] = str(why)
    return Report(_worst_first(findings), tuple(ran), not_checked, tuple(sorted(ignore)))


def _worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.code, f.subject)))


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


def spans(codes: Iterable[str]) -> str:
    """Codes in a row drawn together: `CK001-CK012, TK001`."""
    drawn: list[tuple[str, str]] = []
    for code in codes:
        if drawn and drawn[-1][1][:2] == code[:2] and int(code[2:]) == int(drawn[-1][1][2:]) + 1:
            drawn[-1] = (drawn[-1][0], code)
        else:
            drawn.append((code, code))
    return ", ".join(first if first == last else f"{first}-{last}" for first, last in drawn)


def _flowing(text: str) -> str:
    """Paragraphs with their lines joined."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
