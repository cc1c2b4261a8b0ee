"""Who may do what in a loopback Unity Catalog, by the expressions of the real server 0.6.0."""

from __future__ import annotations

from collections.abc import Iterable

from fakes.unity_rows import Row

PRIVILEGES = frozenset({"USE CATALOG", "CREATE SCHEMA", "USE SCHEMA", "CREATE MODEL", "CREATE FUNCTION", "EXECUTE"})


class Grants:
    """The owner of the metastore, the users that are known, and the privileges held: (user, id of a row, privilege)."""

    def __init__(self, owner: str, users: Iterable[str]) -> None:
        self.owner = owner
        self.users = {owner, *users}
        self.held: set[tuple[str, str, str]] = set()

    def is_admin(self, user: str) -> bool:
        return user == self.owner

    def has(self, user: str, row: Row, *privileges: str) -> bool:
        """Whether the user has one of them; OWNER holds for the row itself only, the others for all that lies in it."""
        owns = "OWNER" in privileges and (user, row.id, "OWNER") in self.held
        others = [p for p in privileges if p != "OWNER"]
        return owns or any((user, above.id, p) in self.held for above in row.line for p in others)

    def is_above(self, user: str, row: Row) -> bool:
        """Whether the user owns the metastore or the catalog."""
        return self.is_admin(user) or self.has(user, row.line[-1], "OWNER")

    def may_see_catalog(self, user: str | None, catalog: Row) -> bool:
        return user is None or self.is_admin(user) or self.has(user, catalog, "OWNER", "USE CATALOG")

    def may_create_schema(self, user: str, catalog: Row) -> bool:
        if self.has(user, catalog, "OWNER"):
            return True
        return self.has(user, catalog, "USE CATALOG") and self.has(user, catalog, "CREATE SCHEMA")

    def may_see_schema(self, user: str | None, schema: Row) -> bool:
        if user is None or self.is_above(user, schema):
            return True
        uses = self.has(user, schema.line[-1], "USE CATALOG")
        return uses and self.has(user, schema, "OWNER", "USE SCHEMA")

    def may_create_model(self, user: str, schema: Row) -> bool:
        if not self.has(user, schema.line[-1], "OWNER", "USE CATALOG"):
            return False
        makes = self.has(user, schema, "CREATE MODEL", "CREATE FUNCTION")
        return self.has(user, schema, "OWNER") or (makes and self.has(user, schema, "USE SCHEMA"))

    def may_read(self, user: str | None, model: Row) -> bool:
        return user is None or self._may(user, model, "OWNER", "EXECUTE")

    def may_delete(self, user: str, model: Row) -> bool:
        return self._may(user, model, "OWNER")

    def _may(self, user: str, model: Row, *privileges: str) -> bool:
        _, schema, catalog = model.line
        if self.is_above(user, model):
            return True
        inside = self.has(user, model, *privileges) and self.has(user, schema, "USE SCHEMA")
        return self.has(user, catalog, "USE CATALOG") and (self.has(user, schema, "OWNER") or inside)

    def may_change(self, user: str, model: Row) -> bool:
        return self.may_vend(user, model, reads=False)

    def may_vend(self, user: str, model: Row, *, reads: bool) -> bool:
        _, schema, catalog = model.line
        uses = self.has(user, schema, "OWNER", "USE SCHEMA") and self.has(user, catalog, "OWNER", "USE CATALOG")
        return uses and self.has(user, model, "OWNER", *(["EXECUTE"] if reads else []))
