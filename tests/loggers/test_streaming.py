"""Weights that pass from the Hub to a registry file by file: the same version as without, on little disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checkpoints.adapters import Q_V, train
from fakes import checkpoints
from fakes.hub import Hub
from fakes.s3 import S3Server
from loggers.catalogs import NAME, Catalog, Kind, another_machine, log, opened

from catalogger import Outcome
from catalogger.checkpoints import pieces

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own advice
KINDS: tuple[Kind, ...] = ("oss-s3", "databricks-storage", "databricks-files")
REPO = "org/bot"
BESIDE = 300_000  # bytes: what the cache holds beside weights, which are much larger here


@pytest.fixture(params=KINDS)
def catalog(request: pytest.FixtureRequest, s3_server: S3Server, tmp_path: Path) -> Iterator[Catalog]:
    with opened(request.param, s3_server, tmp_path / "catalog") as found:
        yield found


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub, and a client that asks for pieces that are small enough for these files to have some."""
    with Hub(redirect=True) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
                            server.url + "/{repo_id}/resolve/{revision}/{filename}")  # fmt: skip
        monkeypatch.setattr(pieces, "PIECE", 1 << 20)
        yield server


@contextmanager
def _most_on_disk(folder: Path) -> Iterator[list[int]]:
    """The largest number of bytes that stood below the folder while the block ran, looked at all the time."""
    most, stop = [0], threading.Event()

    def look() -> None:
        while not stop.is_set():
            most[0] = max(most[0], _bytes(folder))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        stop.set()
        watcher.join()


def _bytes(folder: Path) -> int:
    size = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.stat(os.path.join(at, name)).st_blocks * 512  # noqa: PTH118  holes take no room
            except FileNotFoundError:
                pass
    return size


def _cache() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"]) / "catalogger"


def _weights(catalog: Catalog) -> list[dict[str, str]]:
    return [{p: d for p, d in catalog.digests(v).items() if "safetensors" in p} for v in catalog.versions()]


def _both(catalog: Catalog, hub: Hub, other: Path, **asked: Any) -> tuple[Outcome, Outcome, int]:
    """Streamed here, and the same without on another machine and for another name: what came of both, and the most
    that stood here.
    """
    with _most_on_disk(_cache()) as most:
        streamed = log(Path(REPO), catalog, stream=True, **asked)
    with another_machine(other):
        plain = log(Path(REPO), catalog, name="main.ml.plain", **asked)
    return streamed, plain, most[0]


def test_the_same_version_as_without(catalog: Catalog, hub: Hub, tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", hidden=512, layers=4, shards=5, vocabulary=6000)
    hub.add(REPO, source)
    streamed, plain, most = _both(catalog, hub, tmp_path / "other")
    sizes = sorted(f.stat().st_size for f in source.glob("*.safetensors"))
    assert (streamed.action, streamed.weights, streamed.bytes.fetched) == ("registered", "streamed", sum(sizes))
    assert streamed.fingerprint == plain.fingerprint
    assert sizes[-1] < most <= 2 * sizes[-1] + BESIDE < sum(sizes)
    (held,) = catalog.versions()
    (same,) = catalog.versions("main.ml.plain")
    assert held.status == "READY"
    ours, theirs = ({p: d for p, d in catalog.digests(v).items() if "safetensors" in p} for v in (held, same))
    assert ours == theirs
    assert not list(_cache().glob("streamed/*"))
    again = log(Path(REPO), catalog, stream=True)
    assert (again.action, again.version) == ("unchanged", streamed.version)
