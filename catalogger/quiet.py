"""MLflow, Alembic and Transformers tell much that is not ours to tell: this is what keeps them quiet in a process."""

from __future__ import annotations

import logging
import os
import sys
import warnings

_TALKATIVE = ("mlflow", "alembic", "huggingface_hub", "transformers", "databricks")


def quiet(*, debug: bool) -> None:
    """Keep other libraries quiet in this process, which is ours; `debug` lets them talk."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if debug:
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
