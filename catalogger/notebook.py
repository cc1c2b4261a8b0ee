"""Notebooks: their parameters, in Databricks and elsewhere, and Databricks' source format as a Jupyter notebook.

python -m catalogger.notebook notebooks/llama_chat.py > llama_chat.ipynb
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FROM_ENVIRONMENT = "CATALOGGER_VAR_"
"""Before the name of a variable that is meant for a notebook, or for a manifest."""
_YES, _NO = "yes", "no"


def parameters(**defaults: str | int | float | bool) -> SimpleNamespace:
    """The values of a notebook's parameters, each of the type of its default.

    In Databricks a widget is made for each, so that a job or a person gives it; elsewhere `CATALOGGER_VAR_<NAME>` of
    the environment gives it, else it is the default.  Raises ValueError for a number that is none.
    """
    widgets = _widgets()
    return SimpleNamespace(**{name: _value(widgets, name, default) for name, default in defaults.items()})


def local_disk(name: str) -> str:
    """A folder for what is fetched: on the local disk of a Databricks machine, else in the user's cache."""
    disk = Path("/local_disk0")
    return str(disk / name if disk.is_dir() else Path.home() / ".cache" / name)


def _value(widgets: Any, name: str, default: str | int | float | bool) -> str | int | float | bool:
    shown = (_YES if default else _NO) if isinstance(default, bool) else str(default)
    if widgets is None:
        said = os.environ.get(f"{FROM_ENVIRONMENT}{name.upper()}", shown)
    else:
        if isinstance(default, bool):
            widgets.dropdown(name, shown, [_YES, _NO])
        else:
            widgets.text(name, shown)
        said = widgets.get(name)
    return said.strip().lower() in (_YES, "true", "1") if isinstance(default, bool) else type(default)(said)


def _widgets() -> Any:
    """The widgets of the notebook that this runs in; None outside of Databricks."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    dbutils = shell.user_ns.get("dbutils") if shell else None
    return dbutils.widgets if dbutils is not None else None


def as_jupyter(source: str) -> dict[str, Any]:
    """A notebook in Databricks' source format as the document of a Jupyter notebook (nbformat 4).

    Raises ValueError for text that is no such notebook.
    """
    head, *lines = source.splitlines()
    if head != "# Databricks notebook source":
        raise ValueError("the first line is not: # Databricks notebook source")
    texts = re.split(r"^# COMMAND -+$", "\n".join(lines), flags=re.MULTILINE)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [_cell(number, text.strip("\n")) for number, text in enumerate(texts)]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


def _cell(number: int, text: str) -> dict[str, Any]:
    text = re.sub(r"^# MAGIC ?", "", text, flags=re.MULTILINE)
    plain = {"id": f"cell-{number}", "metadata": {}}
    if text.startswith("%md"):
        return {"cell_type": "markdown", "source": text.removeprefix("%md").strip("\n "), **plain}
    return {"cell_type": "code", "source": text, "outputs": [], "execution_count": None, **plain}


if __name__ == "__main__":
    print(json.dumps(as_jupyter(Path(sys.argv[1]).read_text(encoding="utf-8")), indent=1))  # noqa: T201
