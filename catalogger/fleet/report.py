"""The report of a run over many models as a page of HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from catalogger.errors import DiskError
from catalogger.fleet.outcome import Action, EntryOutcome, SyncOutcome
from catalogger.lines import as_link
from catalogger.page import page

_WITHOUT_WORDS = dict.fromkeys(get_args(Action), "") | {
    "unchanged": "as it should be",
    "interrupted": "stopped before it was done",
}
_CLASSES = {"registered": "good", "updated": "good", "failed": "bad", "interrupted": "bad", "planned": "note"}


def report(outcome: SyncOutcome) -> str:
    """A page that needs nothing beside it."""
    title = "Plan of a run" if outcome.dry_run else "Models registered and updated"
    text = html.escape
    files = ", ".join(f"<code>{text(f)}</code>" for f in outcome.files)
    head = (
        f"<h1>{title}</h1><p>{text(outcome.summary())}</p>"
        f"<p class='soft'>{files} · manifest digest <code>{outcome.digest[:16]}</code>"
        f" · registry <code>{text(outcome.registry_uri)}</code></p>"
    )
    return page(title, head + table(outcome))


def table(outcome: SyncOutcome) -> str:
    """The entries, for a page or a notebook."""
    names = "".join(f"<th>{name}</th>" for name in ("model", "recipe", "outcome", "version", "what and why", "seconds"))
    rows = "".join(_row(entry) for entry in outcome.entries)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table>"


def write_report(outcome: SyncOutcome, file: Path) -> None:
    """Write the page.  Raises DiskError."""
    try:
        file.write_text(report(outcome), encoding="utf-8")
    except OSError as error:
        raise DiskError(f'The report "{file}" cannot be written: {error.strerror}.', "Name another file.") from error


def _row(entry: EntryOutcome) -> str:
    text = html.escape
    lines = "".join(f"<li>{text(line)}</li>" for line in entry.lines())
    endpoint = _endpoint(entry.deployment)
    cells = [
        f"<b>{text(entry.name)}</b><br><span class='soft'>{text(entry.at)}</span>",
        f"<span class='whole'>{text(entry.recipe)}</span>",
        f"<span class='{_CLASSES.get(entry.action, 'soft')}'>{entry.action}</span>",
        text(entry.version or "none"),
        (f"<ul>{lines}</ul>" if lines else f"<span class='soft'>{_WITHOUT_WORDS[entry.action]}</span>") + endpoint,
        f"{entry.seconds:.1f}",
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _endpoint(deployment: Mapping[str, object] | None) -> str:
    if deployment is None:
        return ""
    name = f"endpoint {deployment['endpoint']}"
    return f"<p>{as_link(str(deployment['url']), name)}</p>"
