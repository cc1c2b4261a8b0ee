"""Sizes as people write them: `1GB`, `500 MB`."""

from __future__ import annotations

import re
from collections.abc import Mapping

DECIMAL: Mapping[str, int] = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
BINARY: Mapping[str, int] = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def bytes_of(text: str, units: Mapping[str, int] = DECIMAL) -> float | None:
    """The number of bytes; None where the text is no number, or its unit is none of these, in capitals."""
    found = _SIZE.fullmatch(text)
    unit = units.get(found[2].upper()) if found else None
    return float(found[1]) * unit if found and unit else None
