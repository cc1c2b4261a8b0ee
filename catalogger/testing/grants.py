"""Who may do what in a loopback workspace: owners, grants, and what is inherited from above."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from catalogger.testing.refusal import RefusalError, missing

EVERYONE = "account users"
Kind = Literal["CATALOG", "SCHEMA", "FUNCTION"]
Key = tuple[Kind, str]

_ALL = "ALL_PRIVILEGES"
_WORDS = {"CATALOG": "Catalog", "SCHEMA": "Schema", "FUNCTION": "Routine or Model"}


class Grants:
    """The owners and the grants of every securable; models are functions to it, as they are to Databricks."""

    def __init__(self) -> None:
        self.metastore = True  # False: this workspace has none
        self.owners: dict[Key, str] = {}
        self._granted: dict[Key, dict[str, set[str]]] = {}

    def change(self, key: Key, principal: str, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Privileges may be written with spaces or underscores. What is taken away goes first: ALL PRIVILEGES is
        everything.
        """
        held = self._granted.setdefault(key, {}).setdefault(principal, set())
        gone = {privilege.replace(" ", "_") for privilege in remove}
        held -= set(held) if _ALL in gone else gone
        held |= {privilege.replace(" ", "_") for privilege in add}

    def forget(self, key: Key) -> None:
        self.owners.pop(key, None)
        self._granted.pop(key, None)

    def rename(self, key: Key, new: Key) -> None:
        self.owners[new] = self.owners.pop(key)
        if key in self._granted:
            self._granted[new] = self._granted.pop(key)

    def exists(self, kind: Kind, name: str) -> None:
        """Raise what Databricks says of a securable, or of a metastore, that is not there."""
        if not self.metastore:
            raise RefusalError(404, "METASTORE_DOES_NOT_EXIST", "No metastore assigned for the current workspace.")
        if (kind, name) not in self.owners:
            if kind == "FUNCTION":
                raise missing(f"Routine or Model '{name}' does not exist.")
            raise RefusalError(404, f"{kind}_DOES_NOT_EXIST", f"{_WORDS[kind]} '{name}' does not exist.")

    def holds(self, user: str, privilege: str, kind: Kind, name: str) -> bool:
        """By ownership, by a grant, by a grant further up, or by one to everyone."""
        if self.owners.get((kind, name)) == user:
            return True
        granted = [self._granted.get(key, {}) for key in _chain(kind, name)]
        held = {privilege for of in granted for who in (user, EVERYONE) for privilege in of.get(who, ())}
        return privilege in held or (_ALL in held and privilege != "MANAGE")

    def need(self, user: str, privilege: str, kind: Kind, name: str) -> None:
        self.exists(kind, name)
        if not self.holds(user, privilege, kind, name):
            words = privilege.replace("_", " ")
            raise RefusalError(403, "PERMISSION_DENIED", f"User does not have {words} on {_WORDS[kind]} '{name}'.")

    def need_owner(self, user: str, kind: Kind, name: str) -> None:
        self.exists(kind, name)
        if self.owners[kind, name] != user and not self.holds(user, "MANAGE", kind, name):
            raise RefusalError(403, "PERMISSION_DENIED", f"User is not an owner of {_WORDS[kind]} '{name}'.")

    def assignments(self, kind: Kind, name: str, principal: str | None) -> list[dict[str, Any]]:
        """The grants on the securable itself, by principal; those of everyone stand under that group's name."""
        return [
            {"principal": who, "privileges": sorted(held)}
            for who, held in self._granted.get((kind, name), {}).items()
            if held and principal in (None, who)
        ]

    def effective(self, kind: Kind, name: str, principal: str | None) -> list[dict[str, Any]]:
        """As `assignments`, with what is inherited from above."""
        found: dict[str, list[dict[str, str]]] = {}
        for key in _chain(kind, name):
            origin = {} if key == (kind, name) else {"inherited_from_type": key[0], "inherited_from_name": key[1]}
            for who, held in self._granted.get(key, {}).items():
                if held and principal in (None, who):
                    found.setdefault(who, []).extend({"privilege": p, **origin} for p in sorted(held))
        return [{"principal": who, "privileges": privileges} for who, privileges in found.items()]


def _chain(kind: Kind, name: str) -> list[Key]:
    """The securable and all that is above it."""
    catalog, _, rest = name.partition(".")
    schema = f"{catalog}.{rest.partition('.')[0]}"
    above: list[Key] = [("SCHEMA", schema), ("CATALOG", catalog)]
    if kind == "CATALOG":
        return above[1:]
    return above if kind == "SCHEMA" else [(kind, name), *above]
