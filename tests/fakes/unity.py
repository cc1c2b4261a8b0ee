"""A loopback open-source Unity Catalog server: catalogs, schemas, models and versions with state, and ordered faults.

It answers as the real server 0.6.0 was seen to answer, and must not know anything of catalogger. It speaks on one
port, as the real server does behind its transcoder.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from catalogger.testing.orders import Fault, Orders, Record, Request
from fakes.unity_grants import Grants
from fakes.unity_http import Call as Asked
from fakes.unity_http import Reply, Server
from fakes.unity_rows import Answer, Call, Kind, Refusal, Row
from fakes.unity_rules import Metastore

PREFIX = "/api/2.1/unity-catalog"
Keys = tuple[str, str, str]

_ONE = "([^/]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("POST", "/catalogs", Metastore.create_catalog),
    ("GET", "/catalogs", Metastore.list_catalogs),
    ("GET", f"/catalogs/{_ONE}", Metastore.get_catalog),
    ("DELETE", f"/catalogs/{_ONE}", Metastore.delete_catalog),
    ("POST", "/schemas", Metastore.create_schema),
    ("GET", "/schemas", Metastore.list_schemas),
    ("GET", f"/schemas/{_ONE}", Metastore.get_schema),
    ("DELETE", f"/schemas/{_ONE}", Metastore.delete_schema),
    ("POST", "/models/versions", Metastore.create_version),
    ("POST", "/models", Metastore.create_model),
    ("GET", "/models", Metastore.list_models),
    ("GET", f"/models/{_ONE}", Metastore.get_model),
    ("PATCH", f"/models/{_ONE}", Metastore.update_model),
    ("DELETE", f"/models/{_ONE}", Metastore.delete_model),
    ("GET", f"/models/{_ONE}/versions", Metastore.list_versions),
    ("GET", f"/models/{_ONE}/versions/{_ONE}", Metastore.get_version),
    ("PATCH", f"/models/{_ONE}/versions/{_ONE}", Metastore.update_version),
    ("DELETE", f"/models/{_ONE}/versions/{_ONE}", Metastore.delete_version),
    ("PATCH", f"/models/{_ONE}/versions/{_ONE}/finalize", Metastore.finalize_version),
    ("POST", "/temporary-model-version-credentials", Metastore.credentials),
    ("GET", f"/permissions/(catalog|schema|registered_model)/{_ONE}", Metastore.get_permissions),
    ("PATCH", f"/permissions/(catalog|schema|registered_model)/{_ONE}", Metastore.update_permissions),
)


@dataclass(eq=False)
class _Meeting:
    """Creations that wait for each other; `left` have yet to come."""

    kind: Kind
    left: int
    barrier: threading.Barrier


class Unity:
    """The server, started by `with`; `stop` and `start` again keep its port and all that it knows.

    `root` is `file:///folder`, `s3://bucket/prefix`, or None for a server without storage; `keys` (access key, secret
    key, session token) are handed out for S3, and may be exchanged at any time by `rules.keys`. `tokens` gives the
    user of each token and turns authorization on; `owner` is then the user who owns the metastore. A user whom
    `grants.users` does not hold is unknown. `on_request` is called with each request before it is handled, in the
    request's own thread.
    """

    def __init__(
        self,
        root: str | None,
        *,
        keys: Keys | None = None,
        tokens: Mapping[str, str] | None = None,
        owner: str = "admin",
    ) -> None:
        self.on_request: Callable[[Request], None] | None = None
        self.record = Record()
        self.order = Orders(self._vanish)
        self.grants = Grants(owner, (tokens or {}).values())
        self.rules = Metastore(root, keys, self.grants, self._meet)
        self._tokens = tokens
        self._slow: list[tuple[str, float]] = []
        self._meetings: list[_Meeting] = []
        self._lock = threading.Lock()
        self._server = Server(self)
        self.url = self._server.url

    def __enter__(self) -> Unity:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Hang up on everybody. What is being handled is done or not, as it comes."""
        with self._lock:
            for meeting in self._meetings:
                meeting.barrier.abort()
            self._meetings.clear()
        self._server.stop()

    # What a test sets and sees

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, oldest first; a snapshot."""
        return self.record.all()

    def matching(self, pattern: str) -> list[Request]:
        """The requests whose line (`GET /path?query`) holds the pattern, a regular expression."""
        return [request for request in self.requests if re.search(pattern, request.line)]

    def add_schema(self, full_name: str) -> None:
        """A schema, and its catalog where there is none; with authorization, both are of the metastore's owner."""
        catalog, schema = full_name.split(".")
        with suppress(Refusal):
            self.rules.create_catalog(self._own_call(name=catalog))
        self.rules.create_schema(self._own_call(name=schema, catalog_name=catalog))

    def grant(self, user: str, *privileges: str, on: str) -> None:
        """`on` is the full name of a catalog, schema or model."""
        kind = ("catalog", "schema", "registered_model")[on.count(".")]
        row = self.rules.named(kind, on)
        self.grants.held |= {(user, row.id, privilege) for privilege in privileges}

    def versions(self, full_name: str) -> list[dict[str, Any]]:
        """Every row of the model, or of several of that name, by number; past all permissions and pages."""
        catalog, schema, name = full_name.split(".")
        models = [row for row in self.rules.schema(f"{catalog}.{schema}").rows if row.name == name]
        rows: list[Row] = [row for model in models for row in model.rows]
        return [row.answer() for row in sorted(rows, key=lambda row: int(row.name))]

    def empty(self, schema: str) -> None:
        """Forget every model of the schema; files stay."""
        self.rules.schema(schema).rows.clear()

    def duplicate(self, count: int, kind: Kind = "version") -> None:
        """Hold the next `count` creations of a version (or model) until all of them have looked at what is there."""
        with self._lock:
            self._meetings.append(_Meeting(kind, count, threading.Barrier(count)))

    def slow(self, pattern: str, seconds: float) -> None:
        """Wait before each of these requests is handled."""
        self._slow.append((pattern, seconds))

    # What the server asks

    def begin(self, asked: Asked) -> tuple[int, Fault | None]:
        """Record the request; its index, and the fault that was ordered for it."""
        line = f"{asked.method} {unquote(asked.target)}"
        user = (self._tokens or {}).get(_token(asked) or "")
        document = _object(asked.body) or {}
        received = len(asked.body)
        path = unquote(urlsplit(asked.target).path)
        request = Request(asked.method, line, path, user, None, document, received=received)
        index = self.record.add(request)
        if self.on_request:
            self.on_request(request)
        for pattern, seconds in self._slow:
            if re.search(pattern, line):
                self._server.stopped.wait(seconds)
        return index, self.order.take(line)

    def answer(self, asked: Asked) -> Reply:
        try:
            return self._answer(asked)
        except Refusal as refusal:
            details = [{"@type": "google.rpc.ErrorInfo", "reason": refusal.code}]
            document = {"error_code": refusal.code, "message": refusal.message, "details": details}
            return _json(refusal.status, document)

    def _answer(self, asked: Asked) -> Reply:
        url = urlsplit(asked.target)
        user = None if self._tokens is None else self._user(self._tokens, asked)
        path = url.path.removeprefix(PREFIX) if url.path.startswith(PREFIX) else ""
        fitting = [(method, found, do) for method, pattern, do in _ROUTES if (found := re.fullmatch(pattern, path))]
        if not fitting:
            return _text(404, "Status: 404\nDescription: Not Found\n")
        for method, found, do in fitting:
            if method == asked.method:
                call = Call(user, dict(parse_qsl(url.query, keep_blank_values=True)), _body(asked, user))
                answer = do(self.rules, call, *map(unquote, found.groups()))
                return _text(200, "200 OK") if answer is None else _json(200, answer)
        return _text(405, "Status: 405\nDescription: Method Not Allowed\n")

    def _user(self, tokens: Mapping[str, str], asked: Asked) -> str:
        token = _token(asked)
        if token is None:
            raise Refusal("UNAUTHENTICATED", "No authorization found.")
        if token not in tokens:
            raise Refusal("UNAUTHENTICATED", "Invalid access token.")
        if tokens[token] not in self.grants.users:
            raise Refusal("PERMISSION_DENIED", f"User not allowed: {tokens[token]}")
        return tokens[token]

    def _meet(self, kind: Kind) -> None:
        with self._lock:
            meeting = next((meeting for meeting in self._meetings if meeting.kind == kind), None)
            if meeting is None:
                return
            meeting.left -= 1
            if not meeting.left:
                self._meetings.remove(meeting)
        with suppress(threading.BrokenBarrierError):
            meeting.barrier.wait()

    def _vanish(self, name: str) -> None:
        delete = self.rules.delete_schema if "." in name else self.rules.delete_catalog
        delete(Call(None, {"force": "true"}, {}), name)

    def _own_call(self, **body: str) -> Call:
        return Call(self.grants.owner if self._tokens is not None else None, {}, body)


def _token(asked: Asked) -> str | None:
    header = asked.headers.get("authorization", "")
    return header.removeprefix("Bearer ") if header.startswith("Bearer ") else None


def _object(body: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        document = json.loads(body)
        return document if isinstance(document, dict) else None
    return None


def _body(asked: Asked, user: str | None) -> dict[str, Any]:
    """The JSON object of a request that has one; who may is asked of it, so a broken one is then refused unread."""
    if asked.method not in ("POST", "PATCH"):
        return {}
    document = _object(asked.body)
    if document is None and user is not None and asked.method == "POST":
        raise Refusal("PERMISSION_DENIED", "Authorization could not be verified for this request")
    if document is None:
        shown = asked.body[:100].decode(errors="replace")
        raise Refusal("INVALID_ARGUMENT", f"failed to parse a JSON document: '{shown}'")
    return document


def _json(status: int, document: Mapping[str, Any]) -> Reply:
    return Reply(status, "application/json; charset=utf-8", json.dumps(document).encode())


def _text(status: int, text: str) -> Reply:
    return Reply(status, "text/plain; charset=utf-8", text.encode())
