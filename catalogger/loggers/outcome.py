"""What came of a run: what was done, what was skipped, where it is.  Prints well, renders in a notebook, is JSON on
request.
"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, Literal

from catalogger.checkpoints.normalizing.normalizing import Normalized
from catalogger.errors import human
from catalogger.lines import as_table, as_text
from catalogger.loggers.proof import Proof
from catalogger.validators import Report


@dataclass(frozen=True)
class Moved:
    """Bytes of weights: fetched from the Hub, read here, written here (into the model), sent to another machine."""

    fetched: int = 0
    read: int = 0
    written: int = 0
    sent: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Disk:
    """What the plan needs of one file system, in bytes."""

    folder: str
    needed: int
    free: int


@dataclass(frozen=True)
class Plan:
    """What would be done.  Sizes in bytes; `weights` says how the weight files would be placed; `mlmodel` is the
    file's text.
    """

    files: Mapping[str, int]
    left_out: Mapping[str, str]
    to_fetch: int
    to_write: int
    to_upload: int
    weights: str
    disks: tuple[Disk, ...]
    mlmodel: str

    def document(self) -> dict[str, Any]:
        """The plan as JSON data."""
        return {
            "files": dict(self.files),
            "left_out": dict(self.left_out),
            "bytes": {"to_fetch": self.to_fetch, "to_write": self.to_write, "to_upload": self.to_upload},
            "weights": self.weights,
            "disks": [asdict(d) for d in self.disks],
            "mlmodel": self.mlmodel,
        }


@dataclass(frozen=True)
class Outcome:
    """The result of the main job.

    `action` is `registered`, `unchanged` (this content has a version already) or `planned` (a dry run).  `version` is
    None only where a version is yet to come.  `weights` says how the weight files were placed: `linked`, `reflinked`,
    `copied`, `uploaded`, `streamed` or `in place`.  `example` is a request that the model answers.
    """

    action: Literal["registered", "unchanged", "planned"]
    name: str
    version: str | None
    model_uri: str | None
    run_id: str | None
    fingerprint: str | None
    recipe: str
    task: str
    example: Mapping[str, Any]
    source: Mapping[str, str | None]
    report: Report
    tracking_uri: str
    registry_uri: str
    location: str | None
    weights: str
    bytes: Moved
    seconds: float
    aliases: tuple[str, ...] = ()
    name_was_derived: bool = False
    store_is_default: bool = False
    plan: Plan | None = None
    proof: Proof | None = None
    normalized: Normalized | None = None
    notes: tuple[str, ...] = field(default=())
    change: Mapping[str, Any] | None = None
    """What was done, or would be, to the weights before they are logged: from what, to what, and what was counted."""
    page: str | None = None
    """Address of the version's page, for people."""

    def document(self) -> dict[str, Any]:
        """The outcome as JSON data, the form that scripts rely on."""
        document: dict[str, Any] = {
            "action": self.action,
            "name": self.name,
            "version": self.version,
            "model_uri": self.model_uri,
            "run_id": self.run_id,
            "fingerprint": self.fingerprint,
            "recipe": self.recipe,
            "task": self.task,
            "source": dict(self.source),
            **self.report.document(),
            "bytes": asdict(self.bytes),
            "weights": self.weights,
            "seconds": round(self.seconds, 3),
            "aliases": list(self.aliases),
            "endpoint": None,
            "tracking_uri": self.tracking_uri,
            "registry_uri": self.registry_uri,
            "location": self.location,
            "page": self.page,
            "proof": self.proof.document() if self.proof else None,
            "normalized": self.normalized.document() if self.normalized else None,
            "notes": list(self.notes),
            "change": dict(self.change) if self.change else None,
        }
        return document | ({"plan": self.plan.document()} if self.plan else {})

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line that people read."""
        rows: list[tuple[str, str]] = [(self.action, self._headline())]
        if self.model_uri:
            rows.append(("model URI", self.model_uri))
        rows += [("alias", f"models:/{self.name}@{alias}") for alias in self.aliases]
        rows.append(("from", " @ ".join(filter(None, (self.source["location"], self.source["revision"])))))
        rows += self._change_rows()
        rows.append(("as", f"recipe {self.recipe}, task {self.task}"))
        rows += self.normalized.rows() if self.normalized else []
        if self.page:
            rows.append(("page", self.page))
        if self.location:
            rows.append(("files in", self.location))
        default = (
            " (the embedded default: a SQLite file, artifacts in a folder beside it)" if self.store_is_default else ""
        )
        rows.append(("tracking", self.tracking_uri + default))
        if self.registry_uri != self.tracking_uri:
            rows.append(("registry", self.registry_uri))
        if self.fingerprint:
            rows.append(("fingerprint", self.fingerprint))
        rows += self.proof.rows() if self.proof else []
        if self.action != "planned":
            rows.append(("bytes", self._moved()))
            rows.append(("try it", f"{self._try_it()}   (needs torch: pip install 'catalogger[torch]')"))
        return rows + self._plan_rows() + [("note", note) for note in self.notes]

    def _change_rows(self) -> list[tuple[str, str]]:
        """What becomes of the weights, from which bytes to which."""
        if not (change := self.change):
            return []
        old, new = ((human(side["bytes"]), side["files"]) for side in (change["from"], change["to"]))
        rows = (
            [("adapter", f"{change['adapter']}, merged into {change['merged']} tensors")] if change["adapter"] else []
        )
        rows += [("cast", f"{change['cast']} tensors to {change['dtype']}")] if change["cast"] else []
        return [*rows, ("changed", f"{old[0]} in {old[1]} files to {new[0]} in {new[1]}")]

    def _headline(self) -> str:
        derived = " (no --name was given)" if self.name_was_derived else ""
        version = f" version {self.version}" if self.version else ""
        tail = {
            "registered": "",
            "unchanged": ": this content is registered already",
            "planned": ": nothing was changed",
        }
        return f"{self.name}{version}{derived}{tail[self.action]}"

    def _try_it(self) -> str:
        """The one command that loads the version and asks it something."""
        load = f"mlflow.pyfunc.load_model('{self.model_uri}').predict({self.example!r})"
        uris = f"mlflow.set_tracking_uri('{self.tracking_uri}')"
        if self.registry_uri != self.tracking_uri:
            uris += f"; mlflow.set_registry_uri('{self.registry_uri}')"
        return f'python -c "import mlflow; {uris}; print({load})"'

    def _moved(self) -> str:
        moved = self.bytes
        counts = ", ".join(f"{human(count)} {what}" for what, count in asdict(moved).items())
        return f"weights {self.weights}; {counts}; {self.seconds:.1f} s"

    def _plan_rows(self) -> list[tuple[str, str]]:
        if not self.plan:
            return []
        plan = self.plan
        rows = [
            ("would fetch", human(plan.to_fetch)),
            ("would write", f"{human(plan.to_write)}, weights {plan.weights}"),
        ]
        rows.append(("would upload", human(plan.to_upload)))
        rows += [("disk", f"{d.folder}: {human(d.needed)} needed, {human(d.free)} free") for d in plan.disks]
        rows += [("file", f"{path} ({human(size)})") for path, size in plan.files.items()]
        rows += [("left out", f"{path}: {why}") for path, why in plan.left_out.items()]
        return rows

    def __str__(self) -> str:
        return as_text(self.rows())

    def _repr_html_(self) -> str:
        text = html.escape
        found = "".join(
            f"<li><b>{f.severity} {f.code}</b> {text(f.subject)} {text(f.message)}<br><i>{text(f.fix)}</i></li>"
            for f in self.report.findings
        )
        return as_table(self.rows(), self._links()) + (f"<ul>{found}</ul>" if found else "")

    def _links(self) -> dict[str, str]:
        """Addresses by the label of their row."""
        if self.source["kind"] != "hub":
            return {}
        hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return {"from": f"{hub}/{self.source['location']}/tree/{self.source['revision']}"}
