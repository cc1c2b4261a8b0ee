"""What is installed here and what that can do, who answers and who they think you are, and room on the disks.

Nothing is changed and no model is looked at; one thing that is wrong keeps nothing else from being examined.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from catalogger.checkpoints.hub import cache_root, who_am_i
from catalogger.errors import CataloggerError, DiskError, human, masked
from catalogger.files.digests import cache_folder
from catalogger.files.place import existing
from catalogger.lines import as_table, as_text
from catalogger.loggers.glance import artifacts_to_be
from catalogger.loggers.registries import open_unity
from catalogger.loggers.stores import Stores, choose_stores, require_reachable, sqlite_file
from catalogger.remote.workspace import workspace
from catalogger.validators import Facts, environment, run_rules
from catalogger.validators.facts import installed
from catalogger.validators.mlflow_versions import CAPABILITIES, has, looked_at

Status = Literal["fine", "wrong", "note", "not checked"]
_SHOWN = ("transformers", "torch", "huggingface_hub", "databricks-sdk", "boto3", "safetensors", "tokenizers")
_WORST = (7, 6, 5, 4, 2)
_PROBE = "main.default.catalogger"
_WORDS = {
    "transformers_llm_tasks": "logs chat and completions",
    "embeddings_task": "logs embeddings as llm/v1/embeddings",
    "files_api": "uploads by the Files API",
    "logged_models": "has logged models",
    "json_example": "writes input examples as they are given",
}


@dataclass(frozen=True)
class Examined:
    """One thing: what was found, and how to mend it where it is wrong."""

    subject: str
    status: Status
    said: str
    fix: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Diagnosis:
    """All that was examined."""

    examined: tuple[Examined, ...]

    @property
    def exit_code(self) -> int:
        """0, or that of the worst thing that is wrong."""
        codes = {one.exit_code for one in self.examined if one.status == "wrong"}
        return next((code for code in _WORST if code in codes), 0)

    def document(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {"healthy": self.exit_code == 0, "examined": [asdict(one) for one in self.examined]}

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line that people read."""
        rows = []
        for one in self.examined:
            status = "" if one.status == "fine" else f"{one.status}: "
            fix = f" ({' '.join(one.fix.split())})" if one.fix else ""
            rows.append((one.subject, f"{status}{one.said}{fix}"))
        return rows

    def __str__(self) -> str:
        return as_text(self.rows())

    def _repr_html_(self) -> str:
        return as_table(self.rows())


def doctor(*, tracking_uri: str | None = None, registry_uri: str | None = None) -> Diagnosis:
    """Examine this machine and what it talks to: the stores are those that the main job would take.

    Raises UsageError for an address that is none; everything else is in the diagnosis.
    """
    stores = choose_stores(tracking_uri, registry_uri)
    return Diagnosis((*_software(), *_mlflow(), *_stores(stores), _examine("hub", _hub), *_disks(stores)))


def _software() -> Iterator[Examined]:
    own = installed("catalogger") or "not installed"
    yield Examined("catalogger", "fine", f"{own}, Python {platform.python_version()}, {platform.system()}")
    there = [f"{name} {version}" for name in _SHOWN if (version := installed(name))]
    missing = [name for name in _SHOWN if not installed(name)]
    yield Examined("packages", "fine", ", ".join(there) + (f"; without {', '.join(missing)}" if missing else ""))


def _mlflow() -> Iterator[Examined]:
    """The MLflow that is installed, what it can do, and what the rules find of it and Transformers together."""
    version = environment().mlflow
    if version == "0":
        yield Examined("mlflow", "wrong", "is not installed", "pip install mlflow", 2)
        return
    kind = "" if installed("mlflow") else " (skinny)"
    newer = "" if looked_at(version) else "; it is newer than those that were looked at"
    yield Examined("mlflow", "fine", f"{version}{kind}{newer}")
    can = [words for capability, words in _WORDS.items() if has(capability, version)]
    cannot = [f"{words} (from {CAPABILITIES[c].since} on)" for c, words in _WORDS.items() if not has(c, version)]
    yield Examined("it can", "fine", "; ".join(can) or "nothing of what is asked here")
    if cannot:
        yield Examined("it cannot", "note", "; ".join(cannot))
    for finding in run_rules(Facts(environment()), only=("EN",)).findings:
        wrong = finding.severity == "error"
        said = f"{finding.code} {finding.subject} {finding.message}"
        yield Examined("pair", "wrong" if wrong else "note", said, finding.fix, 2 if wrong else 0)


def _stores(stores: Stores) -> Iterator[Examined]:
    default = " (the embedded default)" if stores.is_default else ""
    yield _examine("tracking", lambda: _tracking(stores) + default)
    if stores.registry_uri != stores.tracking_uri:
        yield _examine("registry", lambda: _registry(stores))


def _tracking(stores: Stores) -> str:
    uri = masked(stores.tracking_uri)
    if stores.tracking_uri.startswith("databricks"):
        return f"{uri}: {_me(stores.tracking_uri)}"
    require_reachable(Stores(stores.tracking_uri, stores.tracking_uri))
    file = sqlite_file(stores.tracking_uri)
    return f"{uri}: {'answers' if file is None else 'is there' if file.exists() else 'will be made'}"


def _registry(stores: Stores) -> str:
    uri = masked(stores.registry_uri)
    if stores.kind == "databricks":
        return f"{uri}: {_me(stores.registry_uri)}"
    require_reachable(Stores(stores.registry_uri, stores.registry_uri))
    if stores.kind == "oss":
        open_unity(stores).surface.look(_PROBE)
    return f"{uri}: answers"


def _me(uri: str) -> str:
    """Whom the workspace takes the caller for."""
    rest = workspace(uri)
    name = rest.call("GET", "/api/2.0/preview/scim/v2/Me").get("userName")
    return f"{rest.base} answers, to {name or 'somebody without a name'}"


def _hub() -> str:
    address, name = who_am_i()
    return f"{address} answers, to {name or 'nobody in particular: HF_TOKEN is not set'}"


def _disks(stores: Stores) -> Iterator[Examined]:
    """Where files go, each disk with its room; folders that cannot be written are wrong."""
    places = {"downloads": cache_root(), "memory": cache_folder(), "temporary": Path(tempfile.gettempdir())}
    if artifacts := artifacts_to_be(stores):
        places["artifacts"] = artifacts
    for subject, folder in places.items():
        yield _examine(subject, partial(_room, folder))


def _room(folder: Path) -> str:
    there = existing(folder)
    if not os.access(there, os.W_OK | os.X_OK):
        raise DiskError(f'"{there}" cannot be written.', "Change its permissions, or name another folder.")
    return f"{folder}: {human(shutil.disk_usage(there).free)} free"


def _examine(subject: str, look: Callable[[], str]) -> Examined:
    try:
        return Examined(subject, "fine", look())
    except CataloggerError as error:
        return Examined(subject, "wrong", error.message, error.fix, error.exit_code)
