"""Runs a notebook cell by cell in a real kernel; only `dbutils` and `%pip` are stand-ins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from leaks import heard
from nbclient import NotebookClient

from catalogger.notebook import as_jupyter

STAND_INS = """
import json as _json
from types import SimpleNamespace as _Namespace

_given = _json.loads({given!r})
_made, _asked_for = {{}}, []


class _Widgets:
    def text(self, name, default):
        _made[name] = default

    def dropdown(self, name, default, choices):
        assert default in choices
        _made[name] = default

    def get(self, name):
        return str(_given.get(name, _made[name]))  # a widget that was not made is an error


dbutils = _Namespace(widgets=_Widgets(), library=_Namespace(restartPython=lambda: _asked_for.append("restart")))
get_ipython().register_magic_function(lambda line: _asked_for.append(line), "line", "pip")
"""


@dataclass(frozen=True)
class Ran:
    """What the cells left: the outputs of each, text or HTML, and what was installed or restarted."""

    outputs: tuple[tuple[Mapping[str, Any], ...], ...]

    def html(self) -> list[str]:
        """All HTML that was shown, in order."""
        return [str(o["data"]["text/html"]) for cell in self.outputs for o in cell if "text/html" in o.get("data", {})]

    def text(self) -> str:
        """All that was printed."""
        return "".join(str(o["text"]) for cell in self.outputs for o in cell if o["output_type"] == "stream")


def run(source: Path, given: Mapping[str, Any], folder: Path) -> Ran:
    """Run the notebook with these values of its widgets.  Raises CellExecutionError where a cell fails."""
    document = as_jupyter(source.read_text())
    first = {"cell_type": "code", "source": STAND_INS.format(given=json.dumps(dict(given)))}
    last = {"cell_type": "code", "source": "print('asked for', _asked_for)"}
    plain: dict[str, Any] = {"metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**first, **plain, "id": "first"}, *document["cells"], {**last, **plain, "id": "last"}]
    notebook = nbformat.from_dict({**document, "cells": cells})  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = tuple(tuple(cell.get("outputs", ())) for cell in notebook["cells"])
    heard("outputs of a notebook", json.dumps(outputs))
    return Ran(outputs)
