"""Every error of catalogger, with the exit code and the sentence that the command prints.

    CataloggerError
    ├── UsageError                     2   the request itself is wrong; nothing was changed
    │   ├── RecipeNotFound
    │   ├── RecipeInvalid
    │   ├── ManifestInvalid
    │   ├── NameInvalid
    │   └── SourceInvalid
    ├── CheckpointError                2   the source is no usable checkpoint; nothing was changed
    │   ├── RepositoryNotFound
    │   ├── DigestMismatch
    │   ├── AdapterRefused
    │   └── WeightsNotFinite
    ├── CheckFailed                    2   findings of severity error; nothing was changed
    ├── ProofRefused                   2   too little memory to load the model; nothing was changed
    ├── ProofFailed                    2   the model does not load, or answers wrongly; nothing was changed
    ├── NothingRecorded                2   the version has no digests to compare with; nothing was changed
    ├── NotEligible                    2   provisioned throughput does not serve the version; nothing was created
    ├── UnitUnknown                    2   it serves the version, by a unit not known here; nothing was created
    ├── AccessDenied                   4   authentication or permission
    ├── NetworkUnreachable             5   the other side cannot be reached or does not answer in time
    │   └── StreamBroken
    ├── DiskError                      6   no room, or not writable
    │   └── NotEnoughRoom
    ├── RegistryError                  7   the registry or tracking server refused or failed
    │   └── Refused
    ├── DeploymentPending              8   the endpoint is not ready yet; the model is registered
    └── DeploymentFailed               9   the endpoint cannot be made ready; the model is registered

Each class keeps its facts as attributes and builds its own message.  Foreign exceptions are translated where they
are met, with `raise … from`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

_NAMED = re.compile(
    r"(?P<name>(?<![\w-])(?:[\w-]*authorization|[\w-]*token|[\w-]*password|[\w-]*secret|[\w-]*signature|sig"
    r"|x-amz-[\w-]+|[\w-]*api[_-]?key|upload_id)"
    r"[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^\s\"'&,;)}]+",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"\b(?:hf_[A-Za-z0-9]{8,}|dapi[0-9a-f]{16,}[\w-]*)|(?<=\b[Bb]earer )[\w.~+/=-]{12,}")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+:[^/@\s]+(?=@)")


def masked(text: str) -> str:
    """The text with everything that looks like a token, a password or a signed query replaced by `***`."""
    text = _CREDENTIALS.sub("***:***", text)
    text = _NAMED.sub(lambda found: found["name"] + "***", text)
    return _TOKENS.sub("***", text)


class CataloggerError(Exception):
    """Base of all errors.  `code` names the kind for scripts, `fix` says what to do next."""

    code: ClassVar[str] = "internal"
    exit_code: int = 1

    def __init__(self, message: str, fix: str = "") -> None:
        self.message = masked(message)
        self.fix = masked(fix)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}" if self.fix else self.message

    def document(self) -> dict[str, object]:
        """The `error` object of the JSON output."""
        return {"code": self.code, "message": self.message, "fix": self.fix, "exit_code": self.exit_code}


class UsageError(CataloggerError):
    """The request itself is wrong.  Nothing was changed."""

    code = "usage"
    exit_code = 2


class RecipeNotFound(UsageError):
    """No recipe has this name.  `near` holds the closest names, `known` all of them."""

    code = "recipe-not-found"

    def __init__(self, name: str, known: Sequence[str], near: Sequence[str]) -> None:
        self.name, self.known, self.near = name, tuple(known), tuple(near)
        hint = f" Did you mean {_choice(near)}?" if near else ""
        super().__init__(
            f'Unknown recipe "{name}".{hint}',
            f"Available: {', '.join(known)}.\nA file of your own: --recipe ./{Path(name).name}.yaml",
        )


class RecipeInvalid(UsageError):
    """A recipe file, or an override of it, breaks the schema.  `problems` holds every one of them as (line, key,
    text).
    """

    code = "recipe-invalid"

    def __init__(self, file: str, problems: Sequence[tuple[int | None, str, str]]) -> None:
        self.file, self.problems = file, tuple(problems)
        lines = [f"  {_place(file, line)}: {key + ': ' if key else ''}{text}" for line, key, text in problems]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"The recipe {file} has {count}:\n" + "\n".join(lines), "`log-model recipes NAME` shows one that is right."
        )


class ManifestInvalid(UsageError):
    """Manifest files that break the schema, or name what is not there.  `problems` holds every one of them as (file,
    line, key, text).
    """

    code = "manifest-invalid"

    def __init__(self, problems: Sequence[tuple[str, int | None, str, str]], fix: str = "") -> None:
        self.problems = tuple(problems)
        lines = [f"  {_place(file, line)}: {key + ': ' if key else ''}{text}" for file, line, key, text in problems]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"The manifest has {count}:\n" + "\n".join(lines),
            fix or "`log-model schema manifest` prints what it may hold; editors complete and check by it.",
        )


class NameInvalid(UsageError):
    """A registered-model name or alias that no Unity Catalog would take."""

    code = "name-invalid"

    def __init__(self, name: str, reason: str, fix: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f'The name "{_shortened(name)}" {reason}.', fix)


class SourceInvalid(UsageError):
    """A source that is neither a repository, a folder nor a folder of a distribution."""

    code = "source-invalid"

    def __init__(self, source: str, reason: str, fix: str = "") -> None:
        self.source, self.reason = source, reason
        super().__init__(f'The source "{_shortened(source)}" {reason}.', fix)


class NotStreamed(UsageError):
    """The registry copies a model from a folder, or to one of this machine: weights cannot pass file by file."""

    code = "not-streamed"

    def __init__(self, why: str, needs: str) -> None:
        super().__init__(
            f"The registry {why}: nothing can be streamed to it.", f"Leave --stream out: it needs {needs}."
        )


class CheckpointError(CataloggerError):
    """The source holds no usable checkpoint.  Nothing was changed."""

    code = "checkpoint"
    exit_code = 2
    thing: ClassVar[str] = "checkpoint"

    def __init__(self, location: str, reason: str, fix: str = "") -> None:
        self.location, self.reason = location, reason
        super().__init__(f'The {self.thing} "{location}" {reason}.', fix)


class RepositoryNotFound(CheckpointError):
    """The Hub knows no such repository or revision, or hides it from this token."""

    code = "repository-not-found"


class DigestMismatch(CheckpointError):
    """A file's content is not what its digest says."""

    code = "digest-mismatch"

    def __init__(self, location: str, file: str, expected: str, found: str) -> None:
        self.file, self.expected, self.found = file, expected, found
        super().__init__(
            location,
            f'has wrong bytes in "{file}": its digest is {found[:16]}…, {expected[:16]}… was expected',
            "The wrong file was removed; run the same command again to fetch it once more.",
        )


class AdapterRefused(CheckpointError):
    """The adapter is not whole, does not fit the base, or cannot be merged exactly.  Nothing was written."""

    code = "adapter-refused"
    thing = "adapter"


class WeightsNotFinite(CheckpointError):
    """Numbers of a tensor would be NaN after the change.  Nothing was left behind."""

    code = "weights-not-finite"

    def __init__(self, location: str, tensor: str, count: int) -> None:
        self.tensor, self.count = tensor, count
        numbers = "1 number" if count == 1 else f"{count} numbers"
        super().__init__(
            location,
            f'has {numbers} in "{tensor}" that became NaN by the change',
            "Nothing was left behind. Take an adapter from before the training broke.",
        )


class CheckFailed(CataloggerError):
    """At least one finding is an error.  `findings` holds all of them as JSON-ready mappings.  Nothing was changed.

    Where nothing but privileges is missing, the exit code is that of AccessDenied.
    """

    code = "check-failed"
    exit_code = 2

    def __init__(self, findings: Sequence[Mapping[str, object]]) -> None:
        self.findings = tuple(findings)
        wrong = [f for f in findings if f["severity"] == "error"]
        if {f["code"] for f in wrong} == {"UC007"}:
            self.exit_code = AccessDenied.exit_code
        count = "1 check" if len(wrong) == 1 else f"{len(wrong)} checks"
        super().__init__(f"{count} failed: {', '.join(str(f['code']) for f in wrong)}. Nothing was changed.")


class ProofRefused(CataloggerError):
    """To load the model takes more memory than there is.  Sizes in bytes.  Nothing was changed."""

    code = "proof-refused"
    exit_code = 2

    def __init__(self, needed: int, free: int) -> None:
        self.needed, self.free = needed, free
        super().__init__(
            f"To load the model takes about {human(needed)} of memory, and {human(free)} are available.",
            "Prove it on a larger machine, or log it without --prove.",
        )


class ProofFailed(CataloggerError):
    """The model does not load, or answers wrongly.  `lines` are the last words of the process that loaded it,
    `findings` what the rules said before.  Nothing was changed.
    """

    code = "proof-failed"
    exit_code = 2

    def __init__(self, reason: str, lines: Sequence[str] = ()) -> None:
        self.reason, self.lines = masked(reason), tuple(map(masked, lines))
        self.findings: tuple[Mapping[str, object], ...] = ()
        said = "".join(f"\n  {line}" for line in lines)
        super().__init__(
            f"The model {reason}.{said}",
            "Mend the model; where this machine is at fault and not the model, log it without --prove.",
        )


class NothingRecorded(CataloggerError):
    """A registered version of which no digests are recorded, so that nothing can be compared.  Nothing was changed."""

    code = "nothing-recorded"
    exit_code = 2

    def __init__(self, version: str, why: str) -> None:
        self.version, self.why = version, why
        super().__init__(
            f'Of "{version}" no digests are recorded: {why}.',
            "Register it by catalogger: it records one of every file.",
        )


class AccessDenied(CataloggerError):
    """The other side wants a token, another token, or an accepted licence."""

    code = "access-denied"
    exit_code = 4


class NetworkUnreachable(CataloggerError):
    """The other side cannot be reached or does not answer in time."""

    code = "network"
    exit_code = 5


class StreamBroken(NetworkUnreachable):
    """An answer that came piece by piece broke off.  `text` is what had come of it."""

    code = "stream-broken"

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        super().__init__(
            f"{reason} {len(text)} characters had come.", "Ask again; what has come is not the whole answer."
        )


class DiskError(CataloggerError):
    """A file cannot be written."""

    code = "disk"
    exit_code = 6


class NotEnoughRoom(DiskError):
    """A file system has less room than the plan needs.  Sizes in bytes."""

    code = "disk-full"

    def __init__(self, folder: str, needed: int, free: int) -> None:
        self.folder, self.needed, self.free = folder, needed, free
        super().__init__(
            f'"{folder}" needs {human(needed)} and has {human(free)} free.',
            "Free some room, or choose another disk (HF_HOME for downloads, the tracking URI for the model).",
        )


class RegistryError(CataloggerError):
    """The registry or tracking server refused or failed."""

    code = "registry"
    exit_code = 7


class Refused(RegistryError):
    """The server took the request and said no.  `status` is HTTP's, `reason` the server's own code, `said` its text."""

    code = "refused"

    def __init__(self, server: str, status: int, reason: str, said: str) -> None:
        self.status, self.reason, self.said = status, reason, masked(said)
        self.exit_code = AccessDenied.exit_code if status == 403 else RegistryError.exit_code
        super().__init__(f'"{server}" answered {status}: {said}', "With --debug, all of the answer is shown.")


class NotEligible(CataloggerError):
    """The workspace does not serve the version on provisioned throughput.  `answer` is all that it said; `reasons` are
    sentences that may explain it.  Nothing was created.
    """

    code = "not-eligible"
    exit_code = 2

    def __init__(self, entity: str, answer: Mapping[str, object], reasons: Sequence[str]) -> None:
        self.entity, self.answer, self.reasons = entity, dict(answer), tuple(reasons)
        why = "".join(f"\n  {reason}" for reason in reasons)
        super().__init__(
            f'Provisioned throughput does not serve "{entity}".\nThe workspace says: {json.dumps(self.answer)}{why}',
            "Nothing was created. Choose a GPU workload, custom serving, or a model of a served family.",
        )


class UnitUnknown(CataloggerError):
    """The workspace serves the version on provisioned throughput, by a unit of capacity that is not known here.
    Nothing was created.
    """

    code = "unit-unknown"
    exit_code = 2

    def __init__(self, entity: str, answer: Mapping[str, object]) -> None:
        self.entity, self.answer = entity, dict(answer)
        super().__init__(
            f'Provisioned throughput serves "{entity}", by a unit of capacity that is not known here.\n'
            f"The workspace says: {json.dumps(self.answer)}",
            "Nothing was created. The page of serving endpoints may offer it; a newer catalogger may know the unit.",
        )


class DeploymentPending(CataloggerError):
    """The endpoint is not ready in time, or has no capacity yet.  The model is registered, the endpoint stays."""

    code = "deployment-pending"
    exit_code = 8

    def __init__(self, message: str, url: str, fix: str) -> None:
        self.url = url
        super().__init__(f"{message}\n{url}", fix)


class DeploymentFailed(CataloggerError):
    """The endpoint cannot be made ready.  The model is registered."""

    code = "deployment-failed"
    exit_code = 9


def internal(error: Exception) -> CataloggerError:
    """An error that nobody has foreseen, as ours."""
    return CataloggerError(
        f"Internal error: {type(error).__name__}: {error}",
        "This is a mistake of catalogger. --debug shows where it happened.",
    )


def findings_of(error: Exception) -> list[Mapping[str, object]]:
    """What the rules had found, where the error is about that."""
    return list(error.findings) if isinstance(error, CheckFailed | ProofFailed) else []


def after_registration(exit_code: int) -> int:
    """The exit code where a model is registered and its deployment ended with this one: it may come later, or not."""
    may_pass = exit_code in (DeploymentPending.exit_code, NetworkUnreachable.exit_code)
    return DeploymentPending.exit_code if may_pass else DeploymentFailed.exit_code


def human(size: int) -> str:
    """A size in bytes as people read it, in powers of ten: `90.9 MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _choice(names: Sequence[str]) -> str:
    quoted = [f'"{n}"' for n in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _place(file: str, line: int | None) -> str:
    return f"{file}:{line}" if line else file


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}… ({len(text)} characters)"
