"""Where people look at a registered version in a browser."""

from __future__ import annotations

from urllib.parse import quote

from catalogger.errors import masked
from catalogger.loggers.stores import Stores


def page_of(stores: Stores, name: str, number: str) -> str | None:
    """The address of the version's page in the workspace or on the MLflow server; None where there is none."""
    if stores.kind == "databricks":
        from catalogger.remote.workspace import workspace

        path = "/".join(map(quote, name.split(".")))
        return f"{workspace(stores.registry_uri).base}/explore/data/models/{path}/version/{number}"
    if stores.registry_uri.startswith(("http://", "https://")):
        return f"{masked(stores.registry_uri).rstrip('/')}/#/models/{quote(name)}/versions/{number}"
    return None
