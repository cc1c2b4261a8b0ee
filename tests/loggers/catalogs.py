"""Unity Catalogs on loopback, of each kind and with each way that files take, behind one face for the tests."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest
from fakes.s3 import S3Proxy, S3Server
from fakes.secrets import secret
from fakes.unity import Unity
from leaks import heard

from catalogger import Outcome, log_model
from catalogger.testing.models import Vending
from catalogger.testing.workspace import Workspace

Kind = Literal["oss-folder", "oss-s3", "databricks-storage", "databricks-files"]
KINDS: tuple[Kind, ...] = ("oss-folder", "oss-s3", "databricks-storage", "databricks-files")
NAME = "main.ml.bot"
TOKEN = secret("a user of the workspace", "databricks")
SESSION = secret("the catalog's storage", "session")


@dataclass(frozen=True)
class Held:
    """A version as the server has it, past all permissions."""

    number: str
    status: str
    location: str
    description: str
    run_id: str | None
    tags: Mapping[str, str]


class Catalog(Protocol):
    """One catalog with the schema `main.ml`."""

    kind: Kind
    uri: str

    def versions(self, name: str = NAME) -> list[Held]:
        """All versions, by number."""

    def aliases(self, name: str = NAME) -> Mapping[str, str]:
        """Version numbers by alias."""

    def digests(self, held: Held, name: str = NAME) -> dict[str, str]:
        """SHA-256 of every file of the version, by path."""

    def empty(self) -> None:
        """Take every model and file away."""

    def unfinished(self) -> int:
        """Uploads that were begun and neither finished nor taken away."""

    def sent(self) -> int:
        """Bytes of files that have come in at the servers so far."""

    def requests(self) -> int:
        """Requests that have come in at all servers so far."""

    def watch(self, hook: Callable[[str], None] | None) -> None:
        """Call the hook with the line of each request (`PUT /path?query`) before it is handled, in its own thread."""


class DatabricksCatalog:
    """A workspace; files go to S3 by vended credentials, or by the Files API."""

    def __init__(self, kind: Kind, server: Workspace, s3: S3Server, proxy: S3Proxy) -> None:
        self.kind, self.server, self.s3, self.proxy = kind, server, s3, proxy
        self.uri = "databricks-uc"
        self.by_files = kind == "databricks-files"

    def versions(self, name: str = NAME) -> list[Held]:
        return [
            Held(str(v.number), v.status, v.storage_location, v.comment, v.run_id, dict(v.tags))
            for v in self.server.versions(name)
        ]

    def aliases(self, name: str = NAME) -> Mapping[str, str]:
        model = self.server.model(name)
        return {alias: str(number) for alias, number in model.aliases.items()} if model else {}

    def digests(self, held: Held, name: str = NAME) -> dict[str, str]:
        if self.by_files:
            folder = self.server.files.root / "Models" / name.replace(".", "/") / held.number
            return tree(folder)
        return in_bucket(self.s3, held.location)

    def empty(self) -> None:
        for name in list(self.server._registry.models):
            self.server._registry.models.pop(name)
        shutil.rmtree(self.server.files.root / "Models", ignore_errors=True)

    def unfinished(self) -> int:
        return len(self.s3.uploads) + len(self.server.files.unfinished)

    def sent(self) -> int:
        by_files = sum(r.received for r in self.server.matching(r"^PUT "))
        return by_files if self.by_files else self.proxy.received(r"^PUT ")

    def requests(self) -> int:
        return len(self.server.requests) + len(self.proxy.requests)

    def watch(self, hook: Callable[[str], None] | None) -> None:
        self.server.on_request = (lambda request: hook(request.line)) if hook else None
        self.proxy.on_request = (lambda request: hook(request.line)) if hook else None


class OssCatalog:
    """An open-source server; files go to a folder of this machine, or to S3 by vended credentials."""

    def __init__(self, kind: Kind, server: Unity, s3: S3Server, proxy: S3Proxy) -> None:
        self.kind, self.server, self.s3, self.proxy = kind, server, s3, proxy
        self.uri = f"uc:{server.url}"

    def versions(self, name: str = NAME) -> list[Held]:
        return [
            Held(str(r["version"]), r["status"], r["storage_location"], r.get("comment") or "", r.get("run_id"), {})
            for r in self.server.versions(name)
        ]

    def aliases(self, name: str = NAME) -> Mapping[str, str]:
        return {}

    def digests(self, held: Held, name: str = NAME) -> dict[str, str]:
        if self.kind == "oss-folder":
            return tree(Path(held.location.removeprefix("file://")))
        return in_bucket(self.s3, held.location)

    def empty(self) -> None:
        self.server.empty("main.ml")

    def unfinished(self) -> int:
        return len(self.s3.uploads)

    def sent(self) -> int:
        return self.proxy.received(r"^PUT ")

    def requests(self) -> int:
        return len(self.server.requests) + len(self.proxy.requests)

    def watch(self, hook: Callable[[str], None] | None) -> None:
        self.server.on_request = (lambda request: hook(request.line)) if hook else None
        self.proxy.on_request = (lambda request: hook(request.line)) if hook else None


@contextmanager
def opened(kind: Kind, s3: S3Server, folder: Path) -> Iterator[Any]:
    """The catalog, with the environment variables that lead to it."""
    with ExitStack() as stack:
        proxy = stack.enter_context(S3Proxy(s3))
        proxy.tokens.add(SESSION)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("MLFLOW_S3_ENDPOINT_URL", proxy.endpoint)
        patch.setenv("CATALOGGER_RETRY_SECONDS", "20")
        bucket = f"s3://{s3.bucket}/{folder.parent.name}"
        if kind.startswith("oss"):
            root = folder.as_uri() if kind == "oss-folder" else bucket
            unity = stack.enter_context(Unity(root, keys=(s3.access_key, s3.secret_key, SESSION)))
            unity.add_schema("main.ml")
            yield OssCatalog(kind, unity, s3, proxy)
            return
        keys = {"access_key_id": s3.access_key, "secret_access_key": s3.secret_key, "session_token": SESSION}
        vending = Vending(bucket, {"aws_temp_credentials": keys})
        workspace = stack.enter_context(
            Workspace(folder, vending, tokens={TOKEN: "me@example.org"}, sdk_uploads=kind == "databricks-files")
        )
        workspace.add_schema("main.ml")
        patch.setenv("DATABRICKS_HOST", workspace.url)
        patch.setenv("DATABRICKS_TOKEN", TOKEN)
        yield DatabricksCatalog(kind, workspace, s3, proxy)


def in_bucket(s3: S3Server, location: str) -> dict[str, str]:
    """SHA-256 of every object below the location, by path."""
    prefix = location.removeprefix(f"s3://{s3.bucket}/") + "/"
    keys = [key for key in s3.objects if key.startswith(prefix)]
    return {k.removeprefix(prefix): hashlib.sha256(s3.content(k)).hexdigest() for k in keys}


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below the folder, by path."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@contextmanager
def another_machine(folder: Path) -> Iterator[None]:
    """Another working folder, home and cache: nothing of what was done before is known there."""
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        (folder / "work").mkdir(parents=True)
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        os.chdir(folder / "work")
        try:
            yield
        finally:
            os.chdir(before)


def log(source: Path, catalog: Catalog, **more: Any) -> Outcome:
    """The main job for this catalog."""
    uri = more.pop("registry_uri", catalog.uri)
    outcome = log_model("llama-chat", source=source, name=more.pop("name", NAME), registry_uri=uri, **more)
    heard("an outcome", f"{outcome} {outcome.document()}")
    return outcome
