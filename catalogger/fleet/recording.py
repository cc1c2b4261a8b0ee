"""A run's outcome as an MLflow run: counts, the manifest's digest, the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from catalogger.loggers.stores import Stores, pointed_at, translated

_COUNTS = ("changed", "unchanged", "failed", "seconds")


def record(document: Mapping[str, Any], page: str, addresses: Mapping[str, str]) -> str:
    """Write the run to the experiment that MLflow would log to, and give its id.  Raises what the store raises."""
    import mlflow

    stores = Stores(addresses["tracking_uri"], addresses["registry_uri"])
    with pointed_at(stores), translated(stores):
        status = "FINISHED" if not document["failed"] else "FAILED"
        run = mlflow.start_run(run_name="catalogger sync", tags=_tags(document))
        try:
            mlflow.log_metrics({key: float(document[key]) for key in _COUNTS})
            mlflow.log_text(json.dumps(document, indent=2, ensure_ascii=False), "report.json")
            mlflow.log_text(page, "report.html")
        finally:
            mlflow.end_run(status)
        return str(run.info.run_id)


def _tags(document: Mapping[str, Any]) -> dict[str, str]:
    manifest = document["manifest"]
    files = ", ".join(manifest["files"])
    return {"catalogger.manifest_digest": manifest["digest"], "catalogger.manifest": files[:5000]}
