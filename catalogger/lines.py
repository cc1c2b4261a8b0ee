"""Rows of a label and a text, as a terminal and a notebook show them."""

from __future__ import annotations

import html
from collections.abc import Iterable

Rows = Iterable[tuple[str, str]]


def as_text(rows: Rows) -> str:
    """One line a row, the texts below each other."""
    return "\n".join(f"{label:<12} {text}" for label, text in rows)


def as_table(rows: Rows) -> str:
    """The rows as an HTML table."""
    left, text = "style='text-align:left'", html.escape
    cells = "".join(f"<tr><th {left}>{text(label)}</th><td {left}>{text(said)}</td></tr>" for label, said in rows)
    return f"<table>{cells}</table>"
