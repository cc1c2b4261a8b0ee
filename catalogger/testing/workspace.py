"""A loopback Databricks workspace: Unity Catalog models with state, the Files API, tracking by a real MLflow server.

It speaks what the unmodified clients ask (MLflow's `databricks-uc` stores, databricks-sdk), answers what a workspace
was seen or read to answer, and must not know anything of the rest of catalogger.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlsplit

from catalogger.testing import deploying_api, invocations, mlflow_api, native, serving_api
from catalogger.testing.deploying_api import Deployed
from catalogger.testing.endpoints import Build
from catalogger.testing.files_api import PRESIGNED, FilesApi
from catalogger.testing.files_replies import Reply as FileReply
from catalogger.testing.grants import EVERYONE, Kind
from catalogger.testing.invocations import Answers, Invocations
from catalogger.testing.jobs import Jobs
from catalogger.testing.models import NO_CREDENTIALS, Model, Registry, Vending, Version
from catalogger.testing.orders import Fault, Orders, Record, Request
from catalogger.testing.refusal import RefusalError, document, wrong
from catalogger.testing.server import Call, Reply, server
from catalogger.testing.serving import Serving

ORG_ID = "1234567890123456"

_TRACKING = re.compile(r"/api/[23]\.0/mlflow/")
_FS = "/api/2.0/fs/"
_FILE = re.compile(r"/Models/([^/]+)/([^/]+)/([^/]+)/(\d+)(?=/|$)", re.IGNORECASE)
_ASKED_PATH = re.compile(rf"{_FS}(?:files|directories)(/.*)")
_PROXIED = re.compile(rb'"mlflow-artifacts:/+(?:[^/"]+:\d+/)?(\d+)/(models/)?')  # experiment, and whether of a model

_Action = TypeVar("_Action")


class Workspace:
    """The workspace, started by `with`. `tokens` gives the user of each token; files are below `root`.

    `tracking` is the address of an MLflow server that is asked for runs and logged models; their files lie behind the
    Files API, as they do in a workspace. `sdk_uploads` is what the workspace says to MLflow's probe for the upload by
    the Files API: unless it is told, that it wants it where it gives no credentials. `vending` may be exchanged at any
    time. `on_request` is called with each request before it is handled, in the request's own thread. `answers` answers
    the queries of endpoints; `build` is how these are built unless `serving` is told otherwise. `deployed` holds jobs,
    workspace files and secret scopes, as a bundle's deployment leaves them.
    """

    def __init__(
        self,
        root: Path,
        vending: Vending = NO_CREDENTIALS,
        *,
        tokens: Mapping[str, str],
        tracking: str | None = None,
        sdk_uploads: bool | None = None,
        port: int = 0,
        answers: Answers | None = None,
        build: Build | None = None,
    ) -> None:
        self.on_request: Callable[[Request], None] | None = None
        self.record = Record()
        self.order = Orders(self._vanish)
        self.sdk_uploads = vending.blocked if sdk_uploads is None else sdk_uploads
        self._tokens = dict(tokens)
        self._tracking = urlsplit(tracking).netloc if tracking else None
        self._registry = Registry(vending)
        self._lock = threading.RLock()
        self._server = server(self, port)
        self.url = self._server.url
        self.files = FilesApi(root, lambda: self.url)
        self.deployed = Deployed(Jobs(lambda: self.url))
        self.serving = Serving(self._registry, root, self._lock, build or Build())
        self._invocations = Invocations(self.serving, answers)

    def __enter__(self) -> Workspace:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    # What a test sets and sees

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the clients find the workspace, with its first token."""
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_TOKEN": next(iter(self._tokens))}

    @property
    def vending(self) -> Vending:
        return self._registry.vending

    @vending.setter
    def vending(self, vending: Vending) -> None:
        with self._lock:
            self._registry.vending = vending

    @property
    def metastore(self) -> bool:
        """Whether a metastore is assigned to the workspace."""
        return self._registry.grants.metastore

    @metastore.setter
    def metastore(self, there: bool) -> None:
        with self._lock:
            self._registry.grants.metastore = there

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, oldest first; a snapshot."""
        return self.record.all()

    def matching(self, pattern: str) -> list[Request]:
        """The requests whose line (`GET /path?query`) holds the pattern, a regular expression."""
        return [request for request in self.requests if re.search(pattern, request.line)]

    def add_schema(self, full_name: str, *, owner: str = "admins", everyone: bool = True) -> None:
        """A schema, and its catalog where there is none; everyone may do everything in it unless told otherwise."""
        with self._lock:
            self._registry.add_schema(full_name, owner)
        if everyone:
            self.grant("CATALOG", full_name.partition(".")[0], EVERYONE, "USE CATALOG")
            self.grant("SCHEMA", full_name, EVERYONE, "ALL PRIVILEGES")

    def grant(self, kind: Kind, name: str, principal: str, *privileges: str) -> None:
        """Kinds: CATALOG, SCHEMA, FUNCTION (a model is one)."""
        with self._lock:
            self._registry.grants.change((kind, name.lower()), principal, add=privileges)

    def revoke(self, kind: Kind, name: str, principal: str, *privileges: str) -> None:
        with self._lock:
            self._registry.grants.change((kind, name.lower()), principal, remove=privileges)

    def hand_over(self, kind: Kind, name: str, owner: str) -> None:
        """Make someone else the owner."""
        with self._lock:
            self._registry.grants.owners[kind, name.lower()] = owner

    def model(self, full_name: str) -> Model | None:
        """The registered model as the workspace has it, past all permissions."""
        return self._registry.models.get(full_name.lower())

    def versions(self, full_name: str) -> list[Version]:
        """Its versions by number; none where it is not there."""
        model = self.model(full_name)
        return [model.versions[number] for number in sorted(model.versions)] if model else []

    # What the server asks for

    def begin(self, call: Call) -> tuple[int, Fault | None]:
        """Record the request; its index, and the fault that was ordered for it."""
        user = self._tokens.get(_token(call) or "")
        request = Request(
            call.method, call.line, unquote(call.path), user, call.headers.get("x-databricks-lineage-identifier"), {}
        )
        if not _is_streamed(call.path):
            request = replace(request, document=call.fields_of_body(), received=call.body.length)
        index = self.record.add(request)
        if self.on_request:
            self.on_request(request)
        return index, self.order.take(call.line)

    def answer(self, call: Call) -> Reply:
        try:
            reply = self._route(call)
        except RefusalError as refusal:
            reply = refusal.reply
        except KeyError as field:
            reply = wrong(f"Missing required field: {field.args[0]}").reply
        own = {} if call.path.startswith(PRESIGNED) else {"x-databricks-org-id": ORG_ID}
        return _Headed(reply, own)

    def _vanish(self, name: str) -> None:
        with self._lock:
            self._registry.vanish(name)

    def _route(self, call: Call) -> Reply:
        if call.path == "/.well-known/databricks-config":
            return document({"error_code": "ENDPOINT_NOT_FOUND", "message": "Not Found"}, 404)
        if call.path.startswith(PRESIGNED):
            return self._pass_to_files(call, call.path)
        user = self._authenticated(call)
        if call.path.startswith(_FS):
            return self._files(call, user)
        if call.path == "/api/2.0/preview/scim/v2/Me":
            return document(_me(user))
        if call.path.startswith((serving_api.PREFIX, serving_api.PERMISSIONS)):
            return self._endpoints(call, user)
        if call.path.startswith(invocations.PREFIX) and call.method == "POST":
            return self._invocations.answer(call, user)
        if call.path.startswith(mlflow_api.PREFIX):
            return self._mlflow(call, user)
        if call.path.startswith(native.PREFIX):
            return self._native(call, user)
        if found := deploying_api.find(call.method, call.path):
            with self._lock:
                return deploying_api.answer(found[0], self.deployed, user, call, found[1])
        if self._tracking and _TRACKING.match(call.path):
            return _passed_on(call, self._tracking)
        raise _unknown(call)

    def _authenticated(self, call: Call) -> str:
        """The user of the token.  A personal one that is none is answered in its own way, with a number for a code."""
        token = _token(call)
        if token is None:
            message = "Credential was not sent or was of an unsupported type for this API."
            raise RefusalError(401, "UNAUTHENTICATED", message)
        if (user := self._tokens.get(token)) is None:
            if token.startswith("dapi"):
                raise RefusalError(403, 403, "Invalid access token. [ReqId: 00000000-0000-0000-0000-000000000000]")
            raise RefusalError(401, "UNAUTHENTICATED", "Invalid Token")
        return user

    def _mlflow(self, call: Call, user: str) -> Reply:
        if call.path == mlflow_api.PREFIX + mlflow_api.PROBE:
            return document({"is_databricks_sdk_models_artifact_repository_enabled": self.sdk_uploads})
        action = mlflow_api.find(call.method, call.path)
        if action is None:
            raise _unknown(call)
        with self._lock:
            return document(action(self._registry, user, call.fields()))

    def _native(self, call: Call, user: str) -> Reply:
        action, fields = _found(native.find(call.method, call.path), call)
        with self._lock:
            return document(action(self._registry, user, fields))

    def _endpoints(self, call: Call, user: str) -> Reply:
        action, fields = _found(serving_api.find(call.method, call.path), call)
        with self._lock:
            self.serving.check_region()
            return document(action(self.serving, user, fields))

    def _files(self, call: Call, user: str) -> Reply:
        """The files of versions are guarded as the versions are; others are anyone's."""
        path = call.path
        if asked := _ASKED_PATH.fullmatch(path):
            path = path.removesuffix(asked[1]) + self._guarded(unquote(asked[1]), call.method, user)
        return self._pass_to_files(call, path)

    def _guarded(self, path: str, method: str, user: str) -> str:
        """The path as it is stored, for someone who may do this with it."""
        if not (found := _FILE.match(path)):
            return path
        catalog, schema, name, number = found.groups()
        with self._lock:
            full_name = f"{catalog}.{schema}.{name}"
            self._registry.check_files(user, full_name, number, write=method not in ("GET", "HEAD"))
        return f"/Models/{catalog.lower()}/{schema.lower()}/{name.lower()}/{number}{path[found.end() :]}"

    def _pass_to_files(self, call: Call, path: str) -> Reply:
        reply = self.files.handle(
            call.method, path, call.query, call.headers, cast(BinaryIO, call.body), call.body.length
        )
        if reply is None:
            raise _unknown(call)
        return reply


@dataclass(frozen=True)
class _Headed:
    """A reply with more headers."""

    reply: Reply
    more: Mapping[str, str]

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return {**self.reply.headers, **self.more}

    def blocks(self) -> Iterator[bytes]:
        return self.reply.blocks()


def _token(call: Call) -> str | None:
    kind, _, token = call.headers.get("authorization", "").partition(" ")
    return token if kind == "Bearer" and token else None


def _is_streamed(path: str) -> bool:
    return path.startswith((_FS, PRESIGNED))


def _found(route: tuple[_Action, dict[str, str]] | None, call: Call) -> tuple[_Action, dict[str, Any]]:
    """The action of the route, and all that is asked of it."""
    if route is None:
        raise _unknown(call)
    action, of_path = route
    return action, call.fields() | {name: unquote(value) for name, value in of_path.items()}


def _unknown(call: Call) -> RefusalError:
    path = call.path.removeprefix("/api/2.0")
    return RefusalError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{call.method} {path}'")


def _me(user: str) -> dict[str, Any]:
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": "4711",
        "userName": user,
        "displayName": user,
        "active": True,
        "emails": [{"type": "work", "value": user, "primary": True}],
        "groups": [{"display": "users", "type": "direct", "value": "1"}],
    }


def _passed_on(call: Call, tracking: str) -> Reply:
    """The tracking server's answer, with the locations of files as a workspace has them.  Both bodies are small."""
    upstream = HTTPConnection(tracking, timeout=60)
    try:
        body = json.dumps(call.fields_of_body()) if call.body.length else None
        headers = {"Content-Type": "application/json"} if body else {}
        upstream.request(call.method, call.target, body, headers)
        answer = upstream.getresponse()
        content = _PROXIED.sub(_as_dbfs, answer.read())
    finally:
        with suppress(OSError):
            upstream.close()
    kind = answer.getheader("Content-Type") or "application/json"
    return FileReply(answer.status, {"Content-Type": kind, "Content-Length": str(len(content))}, content)


def _as_dbfs(found: re.Match[bytes]) -> bytes:
    experiment, of_model = found.groups()
    return b'"dbfs:/databricks/mlflow-tracking/%s/%s' % (experiment, b"logged_models/" if of_model else b"")
