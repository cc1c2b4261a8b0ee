"""Write models for other environments than the one at hand: run in one row of the matrix, looked at in the others."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from matrix.differences import CASES

from catalogger import log_model


def stage(case: str, written_for: str | None, target: Path, sources: Path | None = None) -> None:
    """The case's model, as the MLflow of that environment, or the one at hand, writes it, into the target folder.

    The checkpoint is made anew where `sources` has none.
    """
    with TemporaryDirectory() as work:
        source = sources / case if sources else CASES[case].make(Path(work) / "source")
        outcome = log_model(
            CASES[case].recipe,
            source=source,
            name="main.ml.ours",
            tracking_uri=f"sqlite:///{work}/mlflow.db",
            written_for=written_for,
        )
        shutil.copytree(str(outcome.location), target)


def main(place: Path, *asked: str) -> None:
    """Without rows, make the checkpoints; the oldest row does, as every later Transformers can read them."""
    sources = place.parents[1] / "sources"
    cases = [case for case in CASES if case != "all-minilm-l6-v2"]
    if not asked:
        for case in cases:
            CASES[case].make(sources / case)
    for row, environment in (said.split(":", 1) for said in asked):
        for case in cases:
            stage(case, environment, place / row / case, sources)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
