"""The name that a model is registered under, checked before anything else is done.

Strictest common form of Databricks Unity Catalog, open-source Unity Catalog and MLflow's own registry.
"""

from __future__ import annotations

import re

from catalogger.errors import NameInvalid

_PART = re.compile(r"[A-Za-z0-9_]+")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,255}")
LONGEST = 255
_RESERVED = {
    "system": "is in the platform's own catalog",
    "hive_metastore": "is in the workspace's old metastore, which is no catalog of Unity Catalog",
    "__databricks_internal": "is in the platform's own catalog",
}


def check_name(name: str) -> str:
    """The name, if it is a `catalog.schema.model`.  Raises NameInvalid."""
    parts = name.split(".")
    if len(parts) != 3:
        count = "1 part" if len(parts) == 1 else f"{len(parts)} parts"
        raise NameInvalid(
            name,
            f"has {count}; a Unity Catalog name has three",
            "Write catalog.schema.model, for example main.ml.gte_large.",
        )
    for role, part in zip(("catalog", "schema", "model"), parts, strict=True):
        if not part:
            raise NameInvalid(
                name, f"has an empty {role}", "Write catalog.schema.model, for example main.ml.gte_large."
            )
        if len(part) > LONGEST:
            raise NameInvalid(
                name, f"has a {role} of {len(part)} characters; {LONGEST} are allowed", "Choose a shorter one."
            )
        if not _PART.fullmatch(part):
            wrong = next(c for c in part if not _PART.fullmatch(c))
            raise NameInvalid(
                name,
                f'has "{wrong}" in its {role}',
                f'Letters, digits and _ are allowed: "{re.sub(r"[^A-Za-z0-9_]+", "_", part)}".',
            )
    return name


def reserved(name: str) -> str | None:
    """Why nothing can be registered under the catalog or schema of this name; None where it can."""
    catalog, schema, *_ = [*name.lower().split("."), "", ""]
    if catalog in _RESERVED:
        return _RESERVED[catalog]
    return "is in a schema of views that every catalog has" if schema == "information_schema" else None


def check_alias(alias: str) -> str:
    """The alias, if every registry takes it.  Raises NameInvalid."""
    if not _ALIAS.fullmatch(alias):
        raise NameInvalid(alias, "is no alias", "Letters, digits, _ and - are allowed, 255 at most.")
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        raise NameInvalid(alias, "is reserved", "Aliases like champion or challenger are usual.")
    return alias


def default_name(recipe: str) -> str:
    """`main.default.<recipe>` with the recipe's name made fit for Unity Catalog."""
    return "main.default." + re.sub(r"[^A-Za-z0-9_]+", "_", recipe)[:LONGEST]


def grant(privilege: str, kind: str, securable: str) -> str:
    """The SQL statement that gives the privilege.  To the permission system, a model is a function."""
    quoted = ".".join(f"`{part}`" for part in securable.split("."))
    return f"GRANT {privilege} ON {'FUNCTION' if kind == 'model' else kind.upper()} {quoted} TO `<you>`;"
