"""A look at a logged model before its weights are there: what MLflow will say of it is known without them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from catalogger.checkpoints import open_logged
from catalogger.files.temporary import temporary
from catalogger.loggers.record import Job, write_small_files
from catalogger.loggers.request import LOGGED
from catalogger.validators import Facts, run_rules


def rehearse(job: Job, facts: Facts, ignore: Iterable[str]) -> None:
    """Write the small files of the job's model into a folder that goes away, and run the rules on it.

    Raises CheckFailed.  What else is found is told when the model is really written.
    """
    from mlflow.models import Model

    with temporary("rehearsal") as folder:
        write_small_files(job, Model(), folder / "model")
        model = open_logged(folder / "model", weights=job.checkpoint)
        ignored = [code for code in ignore if code.startswith(LOGGED)]
        run_rules(replace(facts, model=model), ignored, only=LOGGED).raise_on_error()
