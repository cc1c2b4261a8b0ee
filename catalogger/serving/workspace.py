"""Calls to the workspace of a `WorkspaceClient`, with whatever credentials the Databricks SDK has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from catalogger.errors import Refused
from catalogger.remote.rest import Rest
from catalogger.remote.workspace import workspace_rest

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

ENDPOINTS = "/api/2.0/serving-endpoints"


def rest_of(workspace: WorkspaceClient) -> Rest:
    """Patient calls to the workspace; its errors are ours."""
    return workspace_rest(workspace.config)


def endpoint_path(name: str) -> str:
    """Where the endpoint is asked about."""
    return f"{ENDPOINTS}/{quote(name, safe='')}"


def endpoint_url(host: str, name: str) -> str:
    """Its page, for people."""
    return f"{host.rstrip('/')}/ml/endpoints/{quote(name, safe='')}"


def found(rest: Rest, path: str) -> dict[str, Any] | None:
    """What is there; None where nothing is (404)."""
    try:
        return rest.call("GET", path)
    except Refused as refused:
        if refused.status == 404:
            return None
        raise
