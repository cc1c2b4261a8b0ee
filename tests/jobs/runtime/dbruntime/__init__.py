"""A stand-in for the runtime of a Databricks task: task values, and credentials that are the task's process's only.

`databricks.sdk.runtime` takes `dbutils` from here where this package can be imported, as it does in a task.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class TaskValues:
    """Values for later tasks, kept in the file that $TASK_VALUES names."""

    def set(self, key: str, value: Any) -> None:
        file = Path(os.environ["TASK_VALUES"])
        values = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**values, key: value}))


class Jobs:
    """`dbutils.jobs`."""

    taskValues = TaskValues()  # noqa: N815  as Databricks writes it


class DbUtils:
    """`dbutils`, as far as tasks use it."""

    jobs = Jobs()

    @property
    def secrets(self) -> Any:
        """The SDK's own, which asks the workspace."""
        from databricks.sdk.dbutils import RemoteDbUtils

        return RemoteDbUtils().secrets


class UserNamespaceInitializer:
    """What the SDK asks for the names of a task."""

    @staticmethod
    def getOrCreate() -> UserNamespaceInitializer:  # noqa: N802  as Databricks writes it
        return UserNamespaceInitializer()

    def get_namespace_globals(self) -> dict[str, Any]:
        return {"dbutils": DbUtils()}
