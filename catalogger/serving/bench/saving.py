"""Where a load test is put: JSON, CSV and picture, in a folder or in files by their ending."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from catalogger.errors import DiskError, UsageError
from catalogger.serving.bench.picture import FORMS, draw, require_matplotlib
from catalogger.serving.bench.results import LoadTest

_JSON, _CSV = ".json", ".csv"
_NAME = "load-test"


def files_of(places: Iterable[Path]) -> list[Path]:
    """The files to write: a folder gets all three, the picture where matplotlib is installed.

    Raises UsageError, before anything is measured, for an ending that is none, and for a picture without matplotlib.
    """
    files: list[Path] = []
    for place in places:
        if place.is_dir() or not place.suffix:
            drawn = [FORMS[0]] if importlib.util.find_spec("matplotlib") else []
            files += [place / f"{_NAME}{ending}" for ending in (_JSON, _CSV, *drawn)]
            continue
        if place.suffix not in (_JSON, _CSV, *FORMS):
            raise UsageError(
                f'"{place}" ends neither in {_JSON} nor in {_CSV}, {" or ".join(FORMS)}.', "Or name a folder for all."
            )
        if place.suffix in FORMS:
            require_matplotlib()
        files.append(place)
    return files


def save(test: LoadTest, files: Iterable[Path], against: LoadTest | None = None) -> list[Path]:
    """Write each file in the form of its ending, and give those that were written: without a step, no picture is."""
    written = []
    for file in files:
        if file.suffix in FORMS and not any(step.latency for step in test.steps):
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == _JSON:
                file.write_text(json.dumps(test.document(), indent=2) + "\n", encoding="utf-8")
            elif file.suffix == _CSV:
                file.write_text(test.csv(), encoding="utf-8")
        except OSError as error:
            raise DiskError(f'"{file}" cannot be written: {error.strerror}.', "Name another place.") from error
        if file.suffix in FORMS:
            draw(test, file, against)
        written.append(file)
    return written
