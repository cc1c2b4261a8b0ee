"""Fetching the weights: each file verified, broken transfers resumed, the pinned commit and no other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from checkpoints.client import go_offline
from checkpoints.shard_bytes import files, safetensors_bytes, table, weights
from fakes.hub import Hub
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from catalogger.checkpoints import fetch, open_source
from catalogger.checkpoints.hub import to_fetch
from catalogger.errors import AccessDenied, CataloggerError, DigestMismatch, NetworkUnreachable
from catalogger.files.digests import DigestMemory

NAME = "org/tiny"
WEIGHTS = "model.safetensors"


def _large(size: int) -> bytes:
    """A right file of about this size, whose bytes differ from chunk to chunk."""
    head = safetensors_bytes(table({"w": ("U8", [size])}), 0)
    return head + os.urandom(size)


def _cached(tmp_path: Path, path: str = WEIGHTS) -> list[Path]:
    return list((tmp_path / "hub").glob(f"models--org--tiny/snapshots/*/{path}"))


def _blobs(tmp_path: Path) -> set[str]:
    return {p.name for p in (tmp_path / "hub").glob("models--org--tiny/blobs/*")}


def test_weights_arrive_and_are_a_folder_then(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add(NAME, files())
    opened = open_source(NAME)
    assert to_fetch(opened) == len(files()[WEIGHTS])
    found = fetch(opened, DigestMemory())
    assert found.root == tmp_path / "hub" / "models--org--tiny" / "snapshots" / commit
    assert {f.path: (found.root / f.path).read_bytes() for f in found.files} == files()
    assert to_fetch(found) == 0
    assert (found.origin, found.files, found.shards) == (opened.origin, opened.files, opened.shards)


def test_every_shard_arrives(hub: Hub) -> None:
    shards = {f"model-{n:05}-of-00009.safetensors": weights(**{f"w{n}": [n]}) for n in range(1, 10)}
    hub.add(NAME, {"config.json": b"{}", **shards})
    found = fetch(open_source(NAME), DigestMemory())
    assert found.root is not None
    assert {p.name: p.read_bytes() for p in found.root.glob("*.safetensors")} == shards


def test_what_is_left_out_is_not_fetched(hub: Hub) -> None:
    hub.add(NAME, files(**{"pytorch_model.bin": b"pickle", "original/consolidated.pth": b"x", "model.gguf": b"x"}))
    found = fetch(open_source(NAME), DigestMemory())
    assert found.root is not None
    assert {p.relative_to(found.root).as_posix() for p in found.root.rglob("*")} == set(files())


def test_second_fetch_moves_no_byte(hub: Hub) -> None:
    hub.add(NAME, files())
    fetch(open_source(NAME), DigestMemory())
    again = open_source(NAME)
    assert to_fetch(again) == 0
    before = hub.sent
    fetch(again, DigestMemory())
    assert hub.sent == before


def test_opening_what_is_fetched_reads_the_headers_here(hub: Hub) -> None:
    hub.add(NAME, files())
    fetch(open_source(NAME), DigestMemory())
    before = len(hub.requests)
    assert open_source(NAME).parameters == 4
    assert [r.path for r in hub.requests[before:] if r.method == "GET" and "/resolve/" in r.path] == []


def test_folder_is_not_fetched(work: Path) -> None:
    for path, content in files().items():
        (work / path).write_bytes(content)
    opened = open_source(".")
    assert fetch(opened, DigestMemory()) is opened
    assert to_fetch(opened) == 0


def test_corrupt_once_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, files())
    opened = open_source(NAME)
    hub.corrupt(f"*/{WEIGHTS}")
    fetch(opened, DigestMemory())
    (path,) = _cached(tmp_path)
    assert path.read_bytes() == files()[WEIGHTS]


def test_corrupt_always_leaves_nothing_behind(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, files())
    opened = open_source(NAME)
    hub.corrupt(f"*/{WEIGHTS}", times=99)
    with pytest.raises(DigestMismatch) as refused:
        fetch(opened, DigestMemory())
    sha256 = hashlib.sha256(files()[WEIGHTS]).hexdigest()
    assert (refused.value.file, refused.value.expected) == (WEIGHTS, sha256)
    assert refused.value.found not in ("", sha256)
    assert refused.value.exit_code == 2
    assert _cached(tmp_path) == []
    assert not {name for name in _blobs(tmp_path) if name.startswith(sha256)}


def test_after_a_corrupt_fetch_the_same_command_works(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, files())
    opened = open_source(NAME)
    hub.corrupt(f"*/{WEIGHTS}", times=2)
    with pytest.raises(DigestMismatch):
        fetch(opened, DigestMemory())
    fetch(open_source(NAME), DigestMemory())
    (path,) = _cached(tmp_path)
    assert path.read_bytes() == files()[WEIGHTS]


def test_one_corrupt_shard_of_many(hub: Hub, tmp_path: Path) -> None:
    shards = {f"model-{n:05}-of-00005.safetensors": weights(**{f"w{n}": [n]}) for n in range(1, 6)}
    hub.add(NAME, {"config.json": b"{}", **shards})
    opened = open_source(NAME)
    hub.corrupt("*/model-00003*", times=99)
    with pytest.raises(DigestMismatch, match="model-00003-of-00005"):
        fetch(opened, DigestMemory())
    kept = _cached(tmp_path, "*.safetensors")
    assert "model-00003-of-00005.safetensors" not in {p.name for p in kept}
    assert all(p.read_bytes() == shards[p.name] for p in kept)


def test_wrong_bytes_in_the_cache_are_found_by_who_distrusts(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, files())
    fetch(open_source(NAME), DigestMemory())
    (path,) = _cached(tmp_path)
    path.resolve().write_bytes(files()[WEIGHTS][:-1] + b"!")
    fetch(open_source(NAME), DigestMemory(distrust=True))
    assert path.read_bytes() == files()[WEIGHTS]


def test_file_of_another_size_in_the_cache_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, files())
    fetch(open_source(NAME), DigestMemory())
    (path,) = _cached(tmp_path)
    path.resolve().write_bytes(b"short")
    again = open_source(NAME)
    assert to_fetch(again) == len(files()[WEIGHTS])
    fetch(again, DigestMemory())
    assert path.read_bytes() == files()[WEIGHTS]


def test_refetch_while_the_hub_is_down_is_a_sentence(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, files())
    fetch(open_source(NAME), DigestMemory())
    opened = open_source(NAME)
    (path,) = _cached(tmp_path)
    path.resolve().write_bytes(files()[WEIGHTS][:-1] + b"!")
    hub.fail(f"*/{WEIGHTS}", status=503, times=99, retry_after=0)
    with pytest.raises(NetworkUnreachable, match=NAME):
        fetch(opened, DigestMemory(distrust=True))


def test_cut_connection_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    content = _large(2 * DOWNLOAD_CHUNK_SIZE)
    hub.add(NAME, files(**{WEIGHTS: content}))
    opened = open_source(NAME)
    before = hub.sent
    hub.cut(f"*/{WEIGHTS}", after=len(content) - 1)
    fetch(opened, DigestMemory())
    (path,) = _cached(tmp_path)
    assert path.read_bytes() == content
    assert hub.sent - before < 1.6 * len(content)
    resumed = [r for r in hub.requests if r.method == "GET" and r.range and r.range.endswith("-")]
    assert [(r.range, r.status) for r in resumed] == [(f"bytes={2 * DOWNLOAD_CHUNK_SIZE}-", 206)]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_hub_that_stumbles_once(hub: Hub, tmp_path: Path, method: str, status: int) -> None:
    hub.add(NAME, files())
    opened = open_source(NAME)
    hub.fail(f"*/{WEIGHTS}", status=status, method=method, retry_after=0)
    fetch(opened, DigestMemory())
    (path,) = _cached(tmp_path)
    assert path.read_bytes() == files()[WEIGHTS]


def test_access_that_is_taken_away_in_between(hub: Hub) -> None:
    hub.add(NAME, files())
    opened = open_source(NAME)
    hub.add(NAME, files(), gated=True)
    with pytest.raises(AccessDenied, match="is gated") as refused:
        fetch(opened, DigestMemory())
    assert opened.origin.revision is not None
    assert opened.origin.revision in refused.value.message


def test_branch_that_moves_in_between(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add(NAME, files())
    opened = open_source(f"{NAME}@main")
    hub.add(NAME, files(**{WEIGHTS: weights(w=[9, 9]), "config.json": b'{"other": 1}'}))
    found = fetch(opened, DigestMemory())
    assert found.root is not None
    assert found.root.name == commit
    assert {p.name: p.read_bytes() for p in found.root.iterdir()} == files()
    assert open_source(f"{NAME}@main").origin.revision != commit


def test_offline_between_open_and_fetch(hub: Hub, client: pytest.MonkeyPatch) -> None:
    hub.add(NAME, files())
    opened = open_source(NAME)
    go_offline(client)
    with pytest.raises(NetworkUnreachable, match=NAME):
        fetch(opened, DigestMemory())
    go_offline(client, offline=False)
    fetch(opened, DigestMemory())
    go_offline(client)
    assert fetch(opened, DigestMemory()).root is not None


def test_cache_that_is_removed_in_between(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, files())
    opened = open_source(NAME)
    for path in _cached(tmp_path, "config.json"):
        path.unlink()
    with pytest.raises(CataloggerError, match="vanished from the Hub's cache"):
        fetch(opened, DigestMemory())


@pytest.mark.parametrize("path", ["pytorch_model.bin", "pytorch_model-x.pkl"])
def test_pickled_weights_arrive_when_they_are_allowed(hub: Hub, tmp_path: Path, path: str) -> None:
    """A `.bin` is in large-file storage; an odd name under 10 MB is not, and has Git's digest only."""
    hub.add(NAME, {"config.json": b"{}", path: b"pickle"})
    opened = open_source(NAME, allow_pickle=True)
    assert [(s.file.path, bool(s.file.sha256 or s.file.blob)) for s in opened.shards] == [(path, True)]
    fetch(opened, DigestMemory())
    (cached,) = _cached(tmp_path, path)
    assert cached.read_bytes() == b"pickle"


@pytest.mark.parametrize("path", ["pytorch_model.bin", "pytorch_model-x.pkl"])
def test_pickled_weights_are_verified(hub: Hub, tmp_path: Path, path: str) -> None:
    hub.add(NAME, {"config.json": b"{}", path: b"pickle"})
    opened = open_source(NAME, allow_pickle=True)
    hub.corrupt(f"*/{path}", times=99)
    with pytest.raises(DigestMismatch) as refused:
        fetch(opened, DigestMemory())
    assert refused.value.expected
    assert _cached(tmp_path, path) == []
