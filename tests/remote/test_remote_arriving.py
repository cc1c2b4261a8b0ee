"""A file is sent while it still comes, to every kind of storage: never whole before it is known to be right."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import clouds
from fakes.clouds import FOREVER, Authority
from fakes.s3 import S3Proxy, S3Server
from fakes.secrets import secret
from remote.files_workspace import LOCATION, TOKEN

from catalogger.errors import NetworkUnreachable
from catalogger.files.arriving import Arriving
from catalogger.remote.azure import azure_storage
from catalogger.remote.default_storage import default_storage
from catalogger.remote.files_api import FilesStorage
from catalogger.remote.google import google_storage
from catalogger.remote.parts import PART
from catalogger.remote.rest import Rest
from catalogger.remote.s3 import S3Credentials, S3Storage
from catalogger.remote.storage import Sending, Sent, Storage

SIZE = 4 * PART + 17
PATH = "model/weights.safetensors"
SAS = secret("a file that arrives", "sas")


@dataclass
class Far:
    """A storage, whether its server has been sent a part, and what it has of the file."""

    storage: Storage
    begun: Callable[[], bool]
    content: Callable[[], bytes]


class Bringing:
    """A file of SIZE bytes that comes when it is told to, while another thread sends it."""

    def __init__(self, far: Far, folder: Path) -> None:
        self.content = os.urandom(SIZE)
        self.arriving = Arriving(SIZE)
        self._file, self._far = folder / "coming", far
        self._file.touch()
        self.result: Sent | BaseException | None = None
        self._sender = threading.Thread(target=self._send)
        self._sender.start()

    def come(self, end: int) -> None:
        """The first bytes up to here are there."""
        with self._file.open("r+b") as file:
            file.write(self.content[:end])
        self.arriving.reached(end)

    def end(self) -> Sent | BaseException | None:
        self._sender.join(60)
        assert not self._sender.is_alive()
        return self.result

    def _send(self) -> None:
        try:
            self.result = self._far.storage.send([Sending(PATH, self._file, SIZE, None, self.arriving)], lambda _: None)
        except BaseException as failure:
            self.result = failure


@pytest.fixture(params=["s3", "files", "azure", "google", "default"])
def far(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "20")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with ExitStack() as stack:
        if request.param == "s3":
            yield _s3(request.getfixturevalue("s3_server"), request.getfixturevalue("s3"))
        elif request.param == "files":
            workspace = request.getfixturevalue("workspace")
            yield Far(
                FilesStorage(LOCATION, Rest(workspace.url, lambda: {"Authorization": f"Bearer {TOKEN}"})),
                lambda: workspace.count("^PUT") > 0,
                lambda: (tmp_path / "root" / LOCATION.lstrip("/") / PATH).read_bytes(),
            )
        else:
            yield _cloud(request.param, stack, tmp_path / "cloud", monkeypatch)


def _s3(server: S3Server, proxy: S3Proxy) -> Far:
    keys = S3Credentials(server.access_key, server.secret_key, endpoint=proxy.endpoint, region=server.region)
    storage = S3Storage(f"s3://{server.bucket}/arriving/{uuid.uuid4()}", lambda: keys)
    key = f"{storage.location.removeprefix(f's3://{server.bucket}/')}/{PATH}"
    return Far(storage, lambda: proxy.received("^PUT") > 0, lambda: server.content(key))


def _cloud(kind: str, stack: ExitStack, there: Path, monkeypatch: pytest.MonkeyPatch) -> Far:
    there.mkdir()
    if kind == "azure":
        authority = Authority(there.parent)
        server = stack.enter_context(clouds.azure(there, "models", authority))
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        storage, root = azure_storage("abfss://models@account.dfs.core.windows.net/a/1", lambda: SAS), there / "a/1"
    elif kind == "google":
        server = stack.enter_context(clouds.google(there, "bucket"))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        storage, root = google_storage("gs://bucket/a/1", lambda: SAS), there / "a/1"
    else:
        server = stack.enter_context(clouds.default(there))
        monkeypatch.setenv("DATABRICKS_HOST", server.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", SAS)
        storage, root = default_storage("main.ml.m", "1", "databricks-uc"), there / "Models/main/ml/m/1"
    server.valid[SAS] = FOREVER
    begun = lambda: any(r.method in ("PATCH", "PUT") and r.size for r in server.requests)  # noqa: E731
    return Far(storage, begun, lambda: (root / PATH).read_bytes())


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_parts_are_sent_while_the_rest_still_comes(far: Far, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """But where one request takes the whole file: none is begun before all is here."""
    coming = Bringing(far, tmp_path)
    coming.come(2 * PART + 5)
    if request.node.callspec.params["far"] == "default":
        assert not far.begun()
    else:
        _wait(far.begun)
    assert far.storage.listing().get(PATH) != SIZE
    coming.come(SIZE)
    coming.arriving.whole()
    sent = coming.end()
    assert isinstance(sent, Sent), sent
    assert far.content() == coming.content
    assert (sent.sent, sent.digests) == (SIZE, {PATH: hashlib.sha256(coming.content).hexdigest()})


def test_what_comes_and_is_not_right_never_stands_there(far: Far, tmp_path: Path) -> None:
    coming = Bringing(far, tmp_path)
    coming.come(SIZE)
    wrong = NetworkUnreachable("the other side has gone")
    coming.arriving.fail(wrong)
    assert coming.end() is wrong
    assert far.storage.listing().get(PATH) != SIZE


def test_the_last_byte_counts_when_all_is_right() -> None:
    arriving, seen = Arriving(10), list[int]()

    def read() -> None:
        for end in (4, 9, 10):
            arriving.until(end)
            seen.append(end)

    reader = threading.Thread(target=read)
    arriving.reached(10)
    reader.start()
    _wait(lambda: seen == [4, 9])
    reader.join(0.05)
    assert seen == [4, 9]
    arriving.whole()
    reader.join(60)
    assert seen == [4, 9, 10]
    arriving.fail(KeyError("too late"))
    assert arriving.failed
