"""Which privilege a refused call lacks, and the statement that grants it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from catalogger.errors import AccessDenied, Refused
from catalogger.validators.target import grant

Deed = Literal[
    "look at", "create", "create a version of", "set an alias of", "set a tag of", "read files of", "write files of"
]
_NEEDED: dict[Deed, tuple[tuple[str, str], ...]] = {
    "look at": (("USE CATALOG", "catalog"), ("USE SCHEMA", "schema")),
    "create": (("USE CATALOG", "catalog"), ("USE SCHEMA", "schema"), ("CREATE MODEL", "schema")),
    "create a version of": (("CREATE MODEL VERSION", "model"),),
    "set an alias of": (("MANAGE", "model"),),
    "set a tag of": (("APPLY TAG", "model"),),
    "read files of": (("EXECUTE", "model"),),
    "write files of": (("CREATE MODEL VERSION", "model"),),
}
"""Models are functions to the permission system; their owner needs none of the model's own."""


@contextmanager
def needing(deed: Deed, name: str) -> Iterator[None]:
    """A refusal for want of permission as AccessDenied, which names the privileges and the GRANT to ask for."""
    try:
        yield
    except Refused as error:
        if error.status != 403:
            raise
        raise denied(deed, name, error.said) from error


def denied(deed: Deed, name: str, said: str) -> AccessDenied:
    """The error for a deed that the server did not allow."""
    needed = [(privilege, kind, _securable(kind, name)) for privilege, kind in _NEEDED[deed]]
    missing = ", ".join(f"{privilege} on {kind} {securable}" for privilege, kind, securable in needed)
    owner = " or its ownership" if all(kind == "model" for _, kind, _ in needed) else ""
    grants = " ".join(grant(*one) for one in needed)
    return AccessDenied(f"Not allowed to {deed} {name} ({said}). It takes {missing}{owner}.", f"Ask for: {grants}")


def _securable(kind: str, name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[: {"catalog": 1, "schema": 2, "model": 3}[kind]])
