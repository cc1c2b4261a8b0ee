"""What a job knows at its end, told as one outcome.  Nothing is looked up or changed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from catalogger.checkpoints import Checkpoint
from catalogger.errors import masked
from catalogger.loggers import mlmodel
from catalogger.loggers.changing import Making
from catalogger.loggers.outcome import Moved, Outcome, Plan
from catalogger.loggers.proof import Proof
from catalogger.loggers.record import Logged
from catalogger.loggers.registry import FINGERPRINT, Version
from catalogger.loggers.request import Request
from catalogger.validators import Report


@dataclass(frozen=True)
class Told:
    """What is known of the job; `moved` are bytes that were moved beside those of the logged model."""

    request: Request
    checkpoint: Checkpoint
    report: Report
    fingerprint: str | None
    moved: Moved
    notes: tuple[str, ...]
    proof: Proof | None
    making: Making | None

    def outcome(self, action: Any, version: Version | None, logged: Logged | None, plan: Plan | None = None) -> Outcome:
        """The outcome, with the version that there is now, and what was logged for it."""
        request, origin = self.request, self.checkpoint.origin
        making = self.making if action != "unchanged" else None
        moved = logged.moved if logged else Moved()
        return Outcome(
            action=action,
            name=request.name,
            version=version.number if version else None,
            model_uri=f"models:/{request.name}/{version.number}" if version else None,
            run_id=version.run_id if version else None,
            fingerprint=self.fingerprint or (version.tags.get(FINGERPRINT) if version else None),
            recipe=request.recipe.name,
            task=request.recipe.recipe.task,
            example=mlmodel.EXAMPLES[request.recipe.recipe.task],
            source={"kind": origin.kind, "location": origin.location, "revision": origin.revision},
            report=self.report,
            tracking_uri=masked(request.stores.tracking_uri),
            registry_uri=masked(request.stores.registry_uri),
            location=version.location if version else None,
            weights=logged.weights if logged else plan.weights if plan else "in place",
            bytes=moved + self.moved,
            seconds=0.0,
            aliases=request.aliases if action != "planned" else (),
            name_was_derived=request.name_was_derived,
            store_is_default=request.stores.is_default,
            plan=plan,
            proof=self.proof,
            normalized=self.checkpoint.normalized,
            page=version.page if version else None,
            change=making.document() if making else None,
            notes=self.notes
            + (making.notes() if making else ())
            + (
                ("not proved, as nothing new is registered: `log-model lint --prove` looks at what is there",)
                if request.prove and action == "unchanged"
                else ()
            ),
        )
