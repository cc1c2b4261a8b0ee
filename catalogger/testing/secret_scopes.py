"""The secret scopes of a loopback workspace: values, and who may read and write them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from catalogger.testing.refusal import RefusalError, missing

_LEVELS = ("READ", "WRITE", "MANAGE")
Document = dict[str, Any]


@dataclass
class _Scope:
    acls: dict[str, str]
    values: dict[str, bytes] = field(default_factory=dict, repr=False)


class SecretScopes:
    """By name. Whoever makes a scope manages it."""

    def __init__(self) -> None:
        self._scopes: dict[str, _Scope] = {}

    def create(self, user: str, scope: str) -> None:
        if scope in self._scopes:
            raise RefusalError(400, "RESOURCE_ALREADY_EXISTS", f"Scope {scope} already exists!")
        self._scopes[scope] = _Scope({user: "MANAGE"})

    def listed(self) -> list[Document]:
        return [{"name": name, "backend_type": "DATABRICKS"} for name in self._scopes]

    def allow(self, user: str, scope: str, principal: str, permission: str) -> None:
        self._find(user, scope, "MANAGE").acls[principal] = permission

    def put(self, user: str, scope: str, key: str, value: str) -> None:
        self._find(user, scope, "WRITE").values[key] = value.encode()

    def get(self, user: str, scope: str, key: str) -> Document:
        """The value in base64, as dbutils alone asks for it."""
        values = self._find(user, scope, "READ").values
        if key not in values:
            raise missing(f"Secret does not exist with scope: {scope} and key: {key}")
        return {"key": key, "value": base64.b64encode(values[key]).decode()}

    def keys(self, user: str, scope: str) -> list[Document]:
        return [{"key": key} for key in sorted(self._find(user, scope, "READ").values)]

    def _find(self, user: str, scope: str, needed: str) -> _Scope:
        if (found := self._scopes.get(scope)) is None:
            raise missing(f"Scope {scope} does not exist!")
        level = found.acls.get(user)
        if level is None or _LEVELS.index(level) < _LEVELS.index(needed):
            raise RefusalError(403, "PERMISSION_DENIED", f"User {user} does not have {needed} permission on {scope}")
        return found
