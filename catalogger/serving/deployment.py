"""What came of a deployment: what was done, what is served, what it answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from catalogger.lines import as_table, as_text
from catalogger.serving.capacity import Capacity
from catalogger.serving.eligibility import Eligibility
from catalogger.serving.smoke import Smoke


@dataclass(frozen=True)
class Deployment:
    """The result of `deploy`.

    `action` is `created`, `updated`, `unchanged` (the endpoint is as asked) or `checked` (nothing was to be done).
    `state` is `ready`, or `not waited for`.  `seconds` counts the whole of it.
    """

    action: Literal["created", "updated", "unchanged", "checked"]
    endpoint: str
    url: str
    eligibility: Eligibility
    capacity: Capacity
    state: str
    smoke: Smoke | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """The deployment as JSON data, the form that scripts rely on."""
        entity = self.eligibility.entity
        return {
            "action": self.action,
            "endpoint": self.endpoint,
            "url": self.url,
            "name": entity.name,
            "version": entity.version,
            "unit": self.capacity.unit,
            "chunk": self.capacity.chunk,
            "minimum": self.capacity.minimum,
            "maximum": self.capacity.maximum,
            "state": self.state,
            "optimization": dict(self.eligibility.answer),
            "smoke": self.smoke.document() if self.smoke else None,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line that people read."""
        rows = [(self.action, f"endpoint {self.endpoint}: {self.state}"), ("serves", str(self.eligibility.entity))]
        rows += [("capacity", str(self.capacity)), ("page", self.url)]
        if self.smoke:
            rows.append(("answered", str(self.smoke)))
        return rows + [("note", note) for note in self.notes]

    def __str__(self) -> str:
        return as_text(self.rows())

    def _repr_html_(self) -> str:
        return as_table(self.rows())
