"""Rows of a label and a text, as a terminal and a notebook show them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping

Rows = Iterable[tuple[str, str]]
_ADDRESS = re.compile(r"https?://[^\s\"'<>]+")
_CELL = "style='text-align:left;vertical-align:top;padding:.2em .8em .2em 0;overflow-wrap:anywhere'"


def as_text(rows: Rows) -> str:
    """One line a row, the texts below each other."""
    return "\n".join(f"{label:<12} {text}" for label, text in rows)


def as_table(rows: Rows, links: Mapping[str, str] | None = None) -> str:
    """The rows as an HTML table in the colours of the page around it; `links` gives addresses by label."""
    targets = links or {}
    cells = "".join(
        f"<tr><th {_CELL}>{html.escape(label)}</th><td {_CELL}>{_linked(said, targets.get(label))}</td></tr>"
        for label, said in rows
    )
    return f"<table>{cells}</table>"


def as_block(text: str) -> str:
    """The text as HTML, its lines and columns as they are."""
    return f"<pre>{html.escape(text)}</pre>"


def as_link(address: str, text: str) -> str:
    """A link, where the address is one of the web; else the text alone."""
    if not _ADDRESS.fullmatch(address):
        return html.escape(text)
    return f'<a href="{html.escape(address)}" target="_blank" rel="noopener">{html.escape(text)}</a>'


def _linked(text: str, address: str | None) -> str:
    return as_link(address or text, text)
