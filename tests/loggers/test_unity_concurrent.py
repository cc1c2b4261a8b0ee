"""Many registrations of one model at once, on servers that give one number to many callers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes import checkpoints
from fakes.s3 import S3Server
from loggers.catalogs import NAME, Catalog, OssCatalog, another_machine, opened, tree
from loggers.zygote import Zygote

from catalogger.files.workers import Workers
from catalogger.loggers.offer import Offer
from catalogger.loggers.outcome import Moved
from catalogger.loggers.record import Logged
from catalogger.loggers.registries import open_unity
from catalogger.loggers.stores import choose_stores
from catalogger.loggers.surface import Mark
from catalogger.loggers.unity import Registered
from catalogger.remote.storage import Sending

MANY = 20


@pytest.fixture(params=["oss-folder", "oss-s3"])
def oss(request: pytest.FixtureRequest, s3_server: S3Server, tmp_path: Path) -> Iterator[OssCatalog]:
    with opened(request.param, s3_server, tmp_path / "catalog") as found:
        yield found


def _register(catalog: Catalog, folder: Path, content: str) -> Registered:
    """A small model whose weight file holds this content."""
    weights, package = folder / content, folder / f"package-{content}"
    weights.write_text(content * 1000)
    package.mkdir()
    (package / "MLmodel").write_text(f"model of {content}\n")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    sending = Sending("model/model.safetensors", weights, weights.stat().st_size, digest)
    mark = Mark("a" * 64, hashlib.sha256(content.encode()).hexdigest())

    def seal(_digests: Mapping[str, str]) -> tuple[Mark, Mapping[str, Any]]:
        return mark, {"fingerprint": mark.fingerprint, "tags": {}, "files": {}}

    logged = Logged(f"runs:/{content}/m", None, content, str(package), "copied", Moved(), {})
    with Workers() as workers:
        registry = open_unity(choose_stores(None, catalog.uri), workers=workers)
        return registry.register(NAME, logged, Offer(package, [sending], mark, "A model.", seal), lambda _: None)


def test_twenty_at_once_are_twenty_right_versions(oss: OssCatalog, tmp_path: Path) -> None:
    """All ask for a number before any of them has one; whoever shares a number takes another one, and says so."""
    oss.server.duplicate(1, "model")
    _register(oss, tmp_path, "before")
    oss.server.duplicate(MANY)
    contents = [f"content{n}" for n in range(MANY)]
    with ThreadPoolExecutor(MANY) as pool:
        done = list(pool.map(lambda c: _register(oss, tmp_path, c), contents))

    numbers = [one.version.number for one in done]
    assert len(set(numbers)) == MANY
    told = {held.location: held for held in reversed(oss.versions())}
    for one, content in zip(done, contents, strict=True):
        held = next(h for h in oss.versions() if h.number == one.version.number)  # what the number loads
        assert (held.status, held.location) == ("READY", one.version.location)
        wanted = hashlib.sha256((content * 1000).encode()).hexdigest()
        assert oss.digests(told[one.version.location])["model/model.safetensors"] == wanted
    assert sum("to another caller too" in note for one in done for note in one.notes) >= MANY - 1


def test_twenty_at_once_without_an_order_are_right_too(oss: OssCatalog, tmp_path: Path) -> None:
    contents = [f"content{n}" for n in range(MANY)]
    with ThreadPoolExecutor(MANY) as pool:
        done = list(pool.map(lambda c: _register(oss, tmp_path, c), contents))
    for one, content in zip(done, contents, strict=True):
        held = next(h for h in oss.versions() if h.number == one.version.number)
        assert held.status == "READY"
        wanted = hashlib.sha256((content * 1000).encode()).hexdigest()
        assert oss.digests(held)["model/model.safetensors"] == wanted


def test_equal_content_at_once_on_one_machine_is_one_version(catalog: Catalog, tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "llama", shards=2)
    arguments: dict[str, Any] = {
        "recipe": "llama-chat",
        "source": str(source),
        "name": NAME,
        "registry_uri": catalog.uri,
    }
    processes = [Zygote() for _ in range(3)]
    try:
        with another_machine(tmp_path / "machine"):
            for process in processes:
                process.start(Path.cwd(), **arguments)
            done = [process.wait() or {} for process in processes]
    finally:
        for process in processes:
            process.stop()
    assert [d.get("error") for d in done] == [None] * 3
    assert sorted(d["action"] for d in done) == ["registered", "unchanged", "unchanged"]
    (held,) = catalog.versions()
    assert {p: d for p, d in catalog.digests(held).items() if p.endswith(".safetensors")} == {
        f"model/{p}": d for p, d in tree(source).items() if p.endswith(".safetensors")
    }
