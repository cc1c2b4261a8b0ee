"""The mark of a model that is logged and not registered yet, so that the next run finds it: a tag of its run."""

from __future__ import annotations

from collections.abc import Callable

from catalogger.loggers.outcome import Moved
from catalogger.loggers.record import Logged


def mark(name: str, digest: str, uri: str, location: str) -> dict[str, str]:
    """The tag of the run, for a model of this content that is to be registered as `name`."""
    return {_key(digest): f"{name} {uri} {location}"}


def find(name: str, digest: str, is_whole: Callable[[str], bool]) -> Logged | None:
    """The model of this content that a run has logged for the name, and whose location `is_whole`."""
    import mlflow

    key = _key(digest)
    # A checked name holds letters, digits, _ and dots only, so that it can stand in a filter.
    mine = f"tags.`{key}` LIKE '{name} %'"
    for run in mlflow.search_runs(filter_string=mine, output_format="list", search_all_experiments=True):
        _, uri, location = run.data.tags[key].split(" ", 2)
        if is_whole(location):
            model_id = uri.removeprefix("models:/") if uri.startswith("models:/") else None
            return Logged(uri, model_id, run.info.run_id, location, "in place", Moved(), {})
    return None


def forget(run_id: str, digest: str) -> None:
    """Take the mark off the run."""
    import mlflow

    mlflow.MlflowClient().delete_tag(run_id, _key(digest))


def _key(digest: str) -> str:
    return f"catalogger.logged.{digest[:16]}"
