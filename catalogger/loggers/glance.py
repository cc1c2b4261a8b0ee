"""A glance into an embedded store without MLflow, which takes seconds to import.

What is seen only decides what is begun early, never what is done: the store itself is asked before that.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from catalogger.files.place import same_file_system
from catalogger.loggers.stores import Stores, local_folder, sqlite_file


def artifacts_to_be(stores: Stores) -> Path | None:
    """The folder that holds, or will hold, the artifacts of an embedded store; None where that is not certain."""
    file = stores.file
    if file is None:
        return None
    if not file.exists():
        return Path.cwd() / "mlruns"
    folders = [local_folder(str(uri)) for (uri,) in _rows(file, "select artifact_location from experiments")]
    parents = [folder.parent for folder in folders if folder]
    if len(parents) < len(folders) or not all(same_file_system(parent, parents[0]) for parent in parents):
        return None
    return parents[0] if parents else None


def may_hold(stores: Stores, name: str, tag: str, value: str) -> bool:
    """Whether a version of the model with this tag may be registered: False only where an embedded store has none."""
    file = sqlite_file(stores.registry_uri)
    if file is None:
        return True
    if not file.exists():
        return False
    query = "select name from model_version_tags where name = ? and key = ? and value = ? union all select 'seen'"
    return _rows(file, query, name, tag, value) != [("seen",)]


def newest_tags(stores: Stores, name: str) -> tuple[str, dict[str, str]] | None:
    """Number and tags of the name's newest version in an embedded store; None where it has none."""
    file = sqlite_file(stores.registry_uri)
    if file is None or not file.exists():
        return None
    versions = "select max(version) from model_versions where name = ? and current_stage <> 'Deleted_Internal'"
    (number,) = next(iter(_rows(file, versions, name)), (None,))
    if number is None:
        return None
    tags = _rows(file, "select key, value from model_version_tags where name = ? and version = ?", name, number)
    return str(number), {str(key): str(value) for key, value in tags}


def aliases(stores: Stores, name: str) -> dict[str, str]:
    """Version numbers by alias in an embedded store."""
    file = sqlite_file(stores.registry_uri)
    query = "select alias, version from registered_model_aliases where name = ?"
    return {str(alias): str(version) for alias, version in _rows(file, query, name)} if file else {}


def _rows(file: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """The rows; none where the file is no database, is locked, or has no such table."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as database:
            return database.execute(query, values).fetchall()
    except sqlite3.Error:
        return []
