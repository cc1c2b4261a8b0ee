"""All knowledge of MLflow versions: what each can do, from which version on, and how that is known.

Nowhere else is a version compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeGuard

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

OLDEST = "2.11.5"
ABSENT = "0"
"""The version of what is not installed."""


@dataclass(frozen=True)
class Capability:
    """Begins with `since`, ends before `before` where it was taken away again; `source` says how the fact is known.

    `also` are single older releases that have it too: fixes that were carried back.
    """

    since: str
    source: str
    before: str | None = None
    also: tuple[str, ...] = ()


CAPABILITIES = {
    "transformers_llm_tasks": Capability(OLDEST, "run: 2.11.0 to 2.11.4 fail on components from a folder"),
    "embeddings_refused": Capability(
        "2.12.1", "run on 2.12.1; https://github.com/mlflow/mlflow/pull/11795", before="2.12.2"
    ),
    "embeddings_task": Capability("2.12.2", "run: 2.11.5, 2.12.1, 2.12.2"),
    "float32_dtype_written": Capability("2.12.1", "run: 2.11.5 leaves torch_dtype out when it is float32"),
    "json_example": Capability("2.12.1", "run: 2.11.5 writes an input example as a table, 2.12.2 as it is given"),
    "serving_payload": Capability(
        "2.15.0", "read: 2.15.0, 2.15.1; a second form of the input example, by its first name", before="2.16.0"
    ),
    "serving_example": Capability("2.16.0", "read: 2.16.0; run: 2.16.2; that form by its present name"),
    "metadata_copies": Capability(
        OLDEST, "run: 2.11.5, 2.12.2, 2.13.2, not 2.16.2; read: 2.14.3 asks for a Databricks Runtime", before="2.14.3"
    ),
    "metadata_holds_all": Capability(OLDEST, "run: 2.11.5 copies every file beside the model's own", before="2.12.0"),
    "type_hint_fields": Capability("2.20.0", "read: 2.19.0, 2.20.0; run: 2.20.4"),
    "prompts_field": Capability("2.21.0", "read: 2.20.4, 2.21.0; run: 2.21.3"),
    "files_api": Capability("2.18.0", "read in the packages", also=("2.11.5", "2.13.3", "2.17.2")),
    "logged_models": Capability(
        "3.0.0", "run: 2.22.5, 3.1.0; a model is an entity of its own, with an artifact location"
    ),
}


def is_version(said: object) -> TypeGuard[str]:
    """Whether this is the text of a version, and so one that can be asked about here."""
    try:
        return isinstance(said, str) and bool(Version(said))
    except InvalidVersion:
        return False


def has(capability: str, version: str) -> bool:
    """Whether an MLflow of this version has the capability.  Raises KeyError for an unknown capability."""
    known = CAPABILITIES[capability]
    at = Version(Version(version).base_version)
    if at in map(Version, known.also):
        return True
    return Version(known.since) <= at and (known.before is None or at < Version(known.before))


@dataclass(frozen=True)
class Pair:
    """MLflow from `mlflow[0]` up to and including `mlflow[1]` fails with a library from `since` on, by this error;
    where it `needs` the library, also without it.
    """

    mlflow: tuple[str, str]
    library: Literal["transformers", "sqlalchemy", "setuptools"]
    since: str
    error: str
    fix: str
    severity: Literal["error", "note"] = "error"
    needs: bool = False

    def meets(self, mlflow: str, library: str) -> bool:
        """Whether these two versions are such a pair; `ABSENT` is the version of what is not installed."""
        first, last = self.mlflow
        if not Version(first) <= Version(Version(mlflow).base_version) <= Version(last):
            return False
        return self.needs if library == ABSENT else Version(self.since) <= Version(library)


KNOWN_TO_FAIL = (
    # Run: 2.11.5, 2.12.2, 2.13.2; read: 2.15.1 imports it, 2.16.0 does not.  None of them asks for setuptools.
    Pair(
        ("2.11.0", "2.15.1"), "setuptools", "82.0.0",
        "ModuleNotFoundError: No module named 'pkg_resources' (setuptools before 82 brings it)",
        "pip install 'setuptools<82'", needs=True,
    ),
    # Run: 2.11.5, 2.12.2 and 3.1.0.
    Pair(
        ("2.11.0", "3.1.0"), "sqlalchemy", "2.1.0",
        "ImportError: cannot import name 'FallbackAsyncAdaptedQueuePool' from 'sqlalchemy.pool'",
        "pip install 'sqlalchemy<2.1'",
    ),
    # Run: 3.17.2 with 5.23.0; read: 3.18.0.  catalogger writes the model without that code, so that it is a note.
    Pair(
        ("3.17.2", "3.18.0"), "transformers", "5.23.0",
        "AttributeError: 'str' object has no attribute '__name__' (its own logging from a folder; catalogger's is not"
        " affected)",
        "To log a folder by MLflow itself: pip install 'transformers<5.23'",
        "note",
    ),
)  # fmt: skip


_DECLARED = (
    ("2.11.0", "4.25.1", "4.37.2"), ("2.12.1", "4.25.1", "4.39.3"), ("2.13.0", "4.25.1", "4.41.0"),
    ("2.15.1", "4.25.1", "4.42.4"), ("2.16.0", "4.25.1", "4.44.2"), ("2.17.2", "4.25.1", "4.45.0"),
    ("2.18.0", "4.25.1", "4.46.2"), ("2.19.0", "4.25.1", "4.46.3"), ("2.20.4", "4.25.1", "4.48.0"),
    ("2.21.3", "4.25.1", "4.49.0"), ("2.22.5", "4.35.2", "4.51.2"), ("3.0.1", "4.35.2", "4.51.3"),
    ("3.1.0", "4.35.2", "4.52.4"), ("3.2.0", "4.35.2", "4.54.0"), ("3.3.2", "4.38.2", "4.55.0"),
    ("3.4.0", "4.38.2", "4.56.1"), ("3.5.1", "4.38.2", "4.57.0"), ("3.6.0", "4.38.2", "4.57.1"),
    ("3.7.0", "4.38.2", "4.57.3"), ("3.9.0", "4.38.2", "4.57.5"), ("3.11.1", "4.39.0", "5.3.0"),
    ("3.12.0", "4.40.2", "5.5.3"), ("3.13.0", "4.41.1", "5.8.1"), ("3.14.0", "4.42.0", "5.10.2"),
    ("3.15.2", "4.43.4", "5.14.1"), ("3.16.1", "4.45.0", "5.16.1"), ("3.17.2", "4.45.2", "5.17.0"),
    ("3.18.0", "4.46.2", "5.20.2"),
)  # fmt: skip
"""From which MLflow on which Transformers are declared, oldest and newest (`mlflow.ml_package_versions`, run)."""


def within(version: str, wanted: str | None) -> bool:
    """Whether the version is within a range of pip's; None is any."""
    return SpecifierSet(wanted or "").contains(version, prereleases=True)


def is_later(one: str, other: str) -> bool:
    """Whether the one is of a later minor release than the other; patch releases change nothing."""
    return Version(one).release[:2] > Version(other).release[:2]


def older(one: str, other: str) -> str:
    """The older of two versions."""
    return min(one, other, key=Version)


def is_declared(mlflow: str, transformers: str) -> bool | None:
    """Whether this MLflow declares this Transformers; None where that is not known."""
    declared = declared_transformers(mlflow)
    return declared and declared[0] <= Version(transformers).release <= declared[1]


def declared_transformers(mlflow: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Oldest and newest Transformers that this MLflow declares, by the nearest release that was looked at; None for an
    MLflow outside of those.
    """
    at = Version(Version(mlflow).base_version)
    if not Version(_DECLARED[0][0]) <= at or Version(_DECLARED[-1][0]).release[:2] < at.release[:2]:
        return None
    _, least, most = max((row for row in _DECLARED if Version(row[0]) <= at), key=lambda row: Version(row[0]))
    return Version(least).release, Version(most).release


_SIGNATURES = {
    "llm/v1/chat": (
        ("CHAT-A", "2.11.0", "2.14.3"), ("CHAT-B", "2.15.1", "2.16.2"), ("CHAT-C", "2.17.2", "2.18.0"),
        ("CHAT-D", "2.19.0", "3.18.0"),
    ),
    "llm/v1/completions": (("COMPLETIONS", "2.11.0", "3.18.0"),),
    "llm/v1/embeddings": (("EMB-OLD", "2.11.0", "2.11.5"), ("EMBEDDINGS", "2.12.2", "3.18.0")),
}  # fmt: skip
"""The recorded signatures of a task, each with the first and the last release that was seen to write it (run: the
schemas of 38 releases).
"""
NEWEST = "3.18.0"
"""The newest release that was looked at."""


def looked_at(mlflow: str) -> bool:
    """Whether this MLflow is no newer than those that were looked at; patch releases change nothing."""
    return Version(mlflow).release[:2] <= Version(NEWEST).release[:2]


def signature_names(task: str, mlflow: str) -> tuple[str, ...]:
    """The recorded signatures that this MLflow may write for the task, oldest first.

    One, or both neighbours between two releases that were looked at; the newest for a newer MLflow, none for an older.
    """
    at, rows = Version(Version(mlflow).base_version), _SIGNATURES[task]
    begun = [row for row in rows if Version(row[1]) <= at]
    if not begun:
        return ()
    name, _, last = begun[-1]
    following = rows[len(begun) : len(begun) + 1]
    return (name,) if at <= Version(last) else (name, *(row[0] for row in following))


def transformers_major(version: str) -> int:
    """Transformers' generation, which decides the names of tokenizer classes and the `framework` field."""
    return Version(version).major


def names_framework(transformers: str) -> bool:
    """Whether MLflow writes the `framework` of a pipeline: those of Transformers 5 have none (run: 4.57.6, 5.17.0)."""
    return transformers_major(transformers) < 5


def tokenizer_type(tokenizer_class: str | None, transformers: str) -> str:
    """The class that this Transformers' AutoTokenizer makes of a `tokenizer_class`, which MLmodel records.

    Transformers 4 gives the fast class; 5 has one class a family, and `TokenizersBackend` for the general one.
    """
    name = (tokenizer_class or "PreTrainedTokenizerFast").removesuffix("Fast")
    general = name in ("PreTrainedTokenizer", "TokenizersBackend")
    if transformers_major(transformers) >= 5:
        return "TokenizersBackend" if general else name
    return "PreTrainedTokenizerFast" if general else f"{name}Fast"
