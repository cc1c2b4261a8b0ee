"""The rows of a loopback Unity Catalog, what is asked of them, and how they are named, paged and answered."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

PAGE = 100  # rows in one page of a listing, at most
NAME_LENGTH = 255
_NAME = re.compile(r"[a-zA-Z0-9_@-]+")
_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "CATALOG_ALREADY_EXISTS": 400,
    "SCHEMA_ALREADY_EXISTS": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "CATALOG_NOT_FOUND": 404,
    "SCHEMA_NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "INTERNAL": 500,
}

Kind = Literal["catalog", "schema", "model", "version"]
Answer = dict[str, Any] | None
"""A JSON object; None is answered as `200 OK` in plain text."""


class Refusal(Exception):
    """The server's no: its own code, HTTP's status for it, and its text."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, _STATUSES[code]


@dataclass(frozen=True)
class Call:
    """One request that is understood; `user` is None where authorization is off."""

    user: str | None
    query: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(eq=False)
class Row:
    """A catalog, schema, model or version; `highest` is the highest number that a version of it ever had."""

    kind: Kind
    name: str
    parent: Row | None
    facts: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    rows: list[Row] = field(default_factory=list)
    highest: int = 0

    @property
    def line(self) -> list[Row]:
        """The row and what it lies in, the catalog last."""
        return [self, *(self.parent.line if self.parent else [])]

    @property
    def full_name(self) -> str:
        return ".".join(row.name for row in reversed(self.line))

    def answer(self) -> dict[str, Any]:
        above = [row.name for row in self.line[1:]]
        if self.kind == "catalog":
            return {"id": self.id, "name": self.name, "properties": {}, **self.facts}
        if self.kind == "schema":
            names = {"schema_id": self.id, "catalog_name": above[0], "full_name": self.full_name, "properties": {}}
            return {"name": self.name, **names, **self.facts}
        if self.kind == "model":
            names = {"catalog_name": above[1], "schema_name": above[0], "full_name": self.full_name}
            return {"id": self.id, "name": self.name, **names, **self.facts}
        names = {"catalog_name": above[2], "schema_name": above[1], "model_name": above[0]}
        facts = {key: value for key, value in self.facts.items() if key != "owner"}
        return {"id": self.id, "version": int(self.name), **names, **facts}


def first(rows: Sequence[Row], name: str) -> Row | None:
    """Of rows that share a name, the oldest answers for all."""
    return next((row for row in tuple(rows) if row.name == name), None)


def missing(code: str, message: str) -> Row:
    raise Refusal(code, message)


def three(name: str) -> list[str]:
    parts = name.rstrip(".").split(".")
    if len(parts) != 3:
        raise Refusal("INVALID_ARGUMENT", f"Invalid registered model name: {name}")
    return parts


def checked(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise Refusal("INVALID_ARGUMENT", "Name cannot be empty")
    if len(name) > NAME_LENGTH:
        raise Refusal("INVALID_ARGUMENT", f"Name cannot be longer than {NAME_LENGTH} characters")
    if not _NAME.fullmatch(name):
        text = "Name cannot contain a period, space, forward-slash, or control characters"
        raise Refusal("INVALID_ARGUMENT", text)
    return name


def changed(row: Row, call: Call, **facts: Any) -> Answer:
    row.facts |= {**facts, "updated_at": int(time.time() * 1000), "updated_by": call.user}
    return row.answer()


def make_folder(row: Row) -> None:
    location = urlsplit(row.facts["storage_location"])
    if location.scheme != "file":
        return
    folder = Path(unquote(location.path))
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise Refusal("INTERNAL", f"Failed to create directory: {folder}") from error


def forced(call: Call) -> bool:
    return call.query.get("force") == "true"


def wanted(call: Call, name: str) -> str:
    if name not in call.query:
        raise Refusal("INVALID_ARGUMENT", f"Mandatory parameter/header is missing: {name}")
    return call.query[name]


def long(value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise Refusal("INVALID_ARGUMENT", f"Can't convert '{value}' to type 'Long'.") from error


def page_size(call: Call) -> int:
    asked = long(call.query.get("max_results", 0))
    if asked < 0:
        raise Refusal("INVALID_ARGUMENT", "maxResults must be greater than or equal to 0")
    return min(asked or PAGE, PAGE)


def after_token(call: Call, kind: Callable[[str], Any]) -> Any:
    """The last key of the page before; None where the first page is asked for."""
    token = call.query.get("page_token")
    try:
        return None if token is None else kind(token)
    except ValueError as error:
        raise Refusal("INVALID_ARGUMENT", f"Invalid page token received: {token}") from error


def page(what: str, rows: Iterable[Row], call: Call, key: Callable[[Row], Any], kind: Callable[[str], Any]) -> Answer:
    """Rows that share a key may be lost between two pages, as they are on the real server."""
    size, token = page_size(call), after_token(call, kind)
    page = [row for row in sorted(rows, key=key) if token is None or key(row) > token][:size]
    full = len(page) == size
    return {what: [row.answer() for row in page], "next_page_token": str(key(page[-1])) if full else None}
