"""A Databricks workspace by its REST interface, with the credentials that the SDK finds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from catalogger.errors import AccessDenied, NetworkUnreachable, UsageError
from catalogger.remote.patience import TryAgain
from catalogger.remote.rest import TIMEOUT, Rest

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.core import Config


_OWN = ("DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID", "DATABRICKS_AUTH_TYPE", "DATABRICKS_CONFIG_PROFILE")
"""Any of these says how to sign in, to every process."""


def workspace_config(uri: str) -> Config:
    """The SDK's configuration for `databricks…://PROFILE`, or for the environment where no profile is named.

    Raises UsageError where the SDK is not installed, and AccessDenied where it finds no credentials.
    """
    try:
        from databricks.sdk.core import Config
    except ImportError as error:
        raise UsageError(
            "A Databricks workspace needs the Databricks SDK, which is not installed.",
            "pip install 'catalogger[databricks]'",
        ) from error
    profile = uri.partition("://")[2] or None
    try:
        config = Config(profile=profile)
        config.authenticate()
    except ValueError as error:
        asked = f'the profile "{profile}"' if profile else "the environment"
        raise AccessDenied(
            f"No Databricks credentials were found in {asked}.",
            "Set DATABRICKS_HOST and DATABRICKS_TOKEN, or log in by `databricks auth login`.",
        ) from error
    return config


def workspace_client(profile: str | None = None) -> WorkspaceClient:
    """The SDK's client by its unified authentication.  Raises what `workspace_config` raises."""
    config = workspace_config(f"databricks://{profile}" if profile else "databricks")
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient(config=config)


def workspace(uri: str) -> Rest:
    """Calls to the workspace.  Raises what `workspace_config` raises."""
    if (personal := _personal(uri)) is not None:
        return personal
    return workspace_rest(workspace_config(uri))


def workspace_rest(config: Config, timeout: tuple[float, float] = TIMEOUT) -> Rest:
    """Calls to the workspace of a configuration; `timeout` as for `Rest`."""
    return Rest(str(config.host), lambda: credentials(config), timeout)


def runtime_credentials() -> dict[str, str]:
    """Variables by which the processes that this one starts sign in as it does: the credentials of a Databricks runtime
    are in this process's memory only.  None where others are set, which such processes find by themselves.
    """
    if "DATABRICKS_RUNTIME_VERSION" not in os.environ or any(name in os.environ for name in _OWN):
        return {}
    try:
        from databricks.sdk.core import Config

        config = Config()
        kind, _, token = config.authenticate().get("Authorization", "").partition(" ")
    except (ImportError, ValueError):  # whoever needs credentials says that there are none
        return {}
    if config.auth_type != "runtime" or kind != "Bearer":
        return {}
    return {"DATABRICKS_HOST": str(config.host), "DATABRICKS_TOKEN": token}


def credentials(config: Config) -> dict[str, str]:
    """A request's headers of authorization, renewed where they have expired.  Raises AccessDenied and TryAgain."""
    from requests import RequestException

    try:
        return dict(config.authenticate())
    except ValueError as error:
        raise AccessDenied(f'"{config.host}" gave no new token.', "Log in again.") from error
    except RequestException as error:
        unreachable = f'"{config.host}" cannot be reached for a new token.'
        raise TryAgain(NetworkUnreachable(unreachable, "Check the network, then run it again.")) from error


def _personal(uri: str) -> Rest | None:
    """By host and personal token of the environment, which the SDK takes first; without it, 50 MB are not needed."""
    host, token = (os.environ.get(f"DATABRICKS_{name}", "").strip() for name in ("HOST", "TOKEN"))
    chosen = any(os.environ.get(f"DATABRICKS_{name}") for name in ("AUTH_TYPE", "CONFIG_PROFILE"))
    if not (host and token) or chosen or "://" in uri:
        return None
    address = host if "://" in host else f"https://{host}"
    return Rest(address, lambda: {"Authorization": f"Bearer {token}"})
