"""Which tracking store and registry a job talks to, and MLflow's errors as ours."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse
from urllib.request import getproxies

from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    DiskError,
    NetworkUnreachable,
    RegistryError,
    UsageError,
    masked,
)
from catalogger.files.place import existing

_WORKSPACE = re.compile(r"databricks(://[^/\s]+)?")
_DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")
_PATIENCE = 10  # seconds for a connection
_OTHER_STORE = "Change to a folder that is writable, or name another store by --tracking-uri."
EMBEDDED = "mlflow.db"
"""The file of the embedded default, in the working folder: where MLflow itself looks for it."""


@dataclass(frozen=True)
class Stores:
    """Both addresses; `is_default` when nobody named one."""

    tracking_uri: str
    registry_uri: str
    is_default: bool = False

    @property
    def kind(self) -> Literal["mlflow", "oss", "databricks"]:
        """Who the registry is: MLflow's own, or an open-source or a Databricks Unity Catalog."""
        if self.registry_uri.startswith("uc:"):
            return "oss"
        return "databricks" if self.registry_uri.startswith("databricks-uc") else "mlflow"

    @property
    def file(self) -> Path | None:
        """The database file of an SQLite tracking store."""
        return sqlite_file(self.tracking_uri)

    def folder_of(self, name: str) -> str:
        """The name of a folder of the cache for work on this model of this registry, the same in every run."""
        return hashlib.sha256(f"{self.registry_uri} {name}".encode()).hexdigest()[:16]

    @property
    def exist(self) -> bool:
        """Whether asking the stores changes nothing: an SQLite store that is not there would be created."""
        files = (sqlite_file(self.tracking_uri), sqlite_file(self.registry_uri))
        return all(file is None or file.exists() for file in files)


def choose_stores(tracking_uri: str | None, registry_uri: str | None) -> Stores:
    """What was asked for, else the environment, else what the notebook has set, else a runtime's own, else the
    embedded default.

    Raises UsageError for a registry that catalogger cannot register to.
    """
    mlflow = sys.modules.get("mlflow")
    set_here = mlflow.get_tracking_uri() if mlflow and mlflow.is_tracking_uri_set() else None
    said = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or set_here
    if not said and "DATABRICKS_RUNTIME_VERSION" in os.environ:
        said = "databricks"
    tracking = said or f"sqlite:///{Path.cwd() / EMBEDDED}"
    registry = (
        registry_uri
        or os.environ.get("MLFLOW_REGISTRY_URI")
        or (_registry_set_here() if set_here == said else None)
        or tracking
    )
    if registry == tracking and _WORKSPACE.fullmatch(registry):
        registry = registry.replace("databricks", "databricks-uc", 1)
    return Stores(tracking, _registry(registry), is_default=said is None)


def _registry(uri: str) -> str:
    """The registry's address.  Raises UsageError for one that is no target."""
    if _WORKSPACE.fullmatch(uri):
        raise UsageError(
            f'The registry "{uri}" is the workspace\'s old one, outside of Unity Catalog.',
            f"Name Unity Catalog: --registry-uri {uri.replace('databricks', 'databricks-uc', 1)}",
        )
    if not uri.startswith(("uc:", "databricks-uc")):
        return uri
    if re.fullmatch(r"databricks-uc(://[^/\s]+)?", uri):
        return uri
    parsed = urlparse(uri.removeprefix("uc:"))
    if not uri.startswith("uc:") or parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise UsageError(
            f'"{uri}" is no address of a Unity Catalog.',
            "Write databricks-uc, databricks-uc://PROFILE or uc:http://HOST:PORT.",
        )
    return uri.rstrip("/")


def require_reachable(stores: Stores) -> None:
    """Raises DiskError or NetworkUnreachable at once for what MLflow itself would try again for minutes."""
    for uri in dict.fromkeys((stores.tracking_uri, stores.registry_uri)):
        if file := sqlite_file(uri):
            _require_writable(file)
        elif (address := uri.removeprefix("uc:")).startswith(("http://", "https://")) and not getproxies():
            _require_listener(address)


def require_usable(stores: Stores) -> None:
    """Raises UsageError for a database where `mlflow-skinny` is all that is installed, which reaches none."""
    for uri in (stores.tracking_uri, stores.registry_uri):
        if uri.startswith(_DATABASES) and find_spec("sqlalchemy") is None:
            raise UsageError(
                f'"{masked(uri)}" is a database, and mlflow-skinny comes without what reaches one.',
                "pip install mlflow, or name a server: --tracking-uri databricks",
            )


def _require_writable(file: Path) -> None:
    try:
        if file.exists():
            file.open("r+b").close()
        else:
            tempfile.TemporaryFile(dir=existing(file.parent)).close()
    except OSError as error:
        raise DiskError(f'The database "{file}" cannot be written: {error.strerror}.', _OTHER_STORE) from error


def _require_listener(uri: str) -> None:
    parsed = urlparse(uri)
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    try:
        socket.create_connection((parsed.hostname or "", port), timeout=_PATIENCE).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise NetworkUnreachable(
            f'"{uri}" cannot be reached: {reason}.', "Check the address and the network."
        ) from error


@contextmanager
def pointed_at(stores: Stores) -> Iterator[None]:
    """MLflow's global addresses are these inside, and what they were before outside.

    By environment variables where these win: MLflow's setters start its tracing, which costs memory and time.
    """
    wanted = {"MLFLOW_TRACKING_URI": stores.tracking_uri, "MLFLOW_REGISTRY_URI": stores.registry_uri}
    variables = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with _set_globally(stores):
            yield
    finally:
        for name, value in variables.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _set_globally(stores: Stores) -> Iterator[None]:
    """Override what a notebook has set by MLflow's setters, if it has, and put it back."""
    import mlflow

    tracking, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    if (tracking, registry) == (stores.tracking_uri, stores.registry_uri):
        yield
        return
    registry = _registry_set_here() or ""
    mlflow.set_tracking_uri(stores.tracking_uri)
    mlflow.set_registry_uri(stores.registry_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(registry)


@contextmanager
def translated(stores: Stores) -> Iterator[None]:
    """Errors of MLflow and its stores as ours: permission, network, disk, or the server's refusal."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except CataloggerError:
        raise
    except MlflowException as error:
        raise _of_mlflow(error, stores) from error
    except _database_errors() as error:
        raise _of_database(error, stores) from error
    except OSError as error:
        raise DiskError(
            f'Cannot write "{error.filename}": {error.strerror}.', "Is the folder writable, and is there room?"
        ) from error


def _database_errors() -> tuple[type[Exception], ...]:
    """`mlflow-skinny` comes without SQLAlchemy, and reaches no database."""
    if find_spec("sqlalchemy") is None:
        return ()
    from sqlalchemy.exc import SQLAlchemyError

    return (SQLAlchemyError,)


def local_folder(uri: str) -> Path | None:
    """The folder behind an artifact address on this machine; None for a remote one."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(uri) if parsed.scheme == "" else None


def sqlite_file(uri: str) -> Path | None:
    """The file of an `sqlite:///` address."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix).partition("?")[0]) if uri.startswith(prefix) else None


def _registry_set_here() -> str | None:
    utils = sys.modules.get("mlflow.tracking._model_registry.utils")
    return getattr(utils, "_registry_uri", None) if utils else None


def _of_mlflow(error: Exception, stores: Stores) -> CataloggerError:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    code = getattr(error, "error_code", "")
    where = (
        f'"{stores.registry_uri}"'
        if stores.registry_uri == stores.tracking_uri
        else f'"{stores.tracking_uri}" or "{stores.registry_uri}"'
    )
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED") or " 401" in text or " 403" in text:
        return AccessDenied(
            f"{where} refused: {text}",
            "Check the credentials of the tracking server (MLFLOW_TRACKING_TOKEN or …_USERNAME).",
        )
    if "API request to" in text or "Max retries exceeded" in text or "Connection" in text:
        fix = "Check the address and the network, then run the same command again."
        return NetworkUnreachable(f"{where} cannot be reached, or does not answer in time.", fix)
    if "No such file or directory" in text or "unable to open database file" in text or "readonly database" in text:
        return DiskError(f"{where} cannot be opened: {text}", "Is the folder there and writable?")
    return RegistryError(
        f"{where} refused or failed: {text}", "Run the same command again, or with --debug to see all of it."
    )


def _of_database(error: Exception, stores: Stores) -> CataloggerError:
    text = str(error).strip().splitlines()[0]
    if "unable to open" in text or "readonly" in text or "disk" in text:
        return DiskError(
            f'The database "{stores.tracking_uri}" cannot be written: {text}',
            "Is the folder there and writable, with room?",
        )
    return RegistryError(
        f'The database "{stores.tracking_uri}" failed: {text}',
        "`mlflow db upgrade` brings an older database up to date.",
    )
