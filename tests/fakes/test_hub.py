"""The fake Hub held to its contract by the real huggingface_hub client."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from fakes.secrets import secret

from .hub import BLOCK, PAGE, Hub

NAME = "org/tiny"
WEIGHTS = bytes(range(256)) * 4096
FILES = {"config.json": b'{"model_type": "tiny"}\n', "sub/dir/vocab.txt": b"a\nb\n", "model.safetensors": WEIGHTS}
GOOD, OTHER = secret("good", "hugging face"), secret("other", "hugging face")
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


class Client:
    """The real client, pointed at one Hub and one empty cache."""

    def __init__(self, hub: Hub, cache: Path, token: str | bool = False) -> None:
        self.api = HfApi(endpoint=hub.url, token=token)
        self.cache = cache

    def file(self, path: str, revision: str | None = None) -> bytes:
        return Path(self.api.hf_hub_download(NAME, path, revision=revision, cache_dir=self.cache)).read_bytes()

    def snapshot(self) -> Path:
        return Path(self.api.snapshot_download(NAME, cache_dir=self.cache))


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub, tmp_path / "cache")


def _get(hub: Hub, path: str, wanted: str) -> tuple[int, bytes, str | None]:
    reply = get_session().get(hf_hub_url(NAME, path, endpoint=hub.url), headers={"Range": wanted})
    return reply.status_code, reply.content, reply.headers.get("Content-Range")


def test_model_info_has_sizes_digests_and_licence(hub: Hub, client: Client) -> None:
    commit = hub.add(NAME, FILES, licence="apache-2.0")
    info = client.api.model_info(NAME, files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert info.sha == commit
    assert (info.private, info.gated, info.tags) == (False, False, ["license:apache-2.0"])
    assert info.card_data is not None
    assert info.card_data.license == "apache-2.0"
    assert {path: sibling.size for path, sibling in siblings.items()} == {p: len(c) for p, c in FILES.items()}
    # git hash-object of the same bytes; git-lfs keeps the sha256 and its pointer file's blob instead
    assert siblings["sub/dir/vocab.txt"].blob_id == "422c2b7ab3b3c668038da977e4e93a5fc623169c"
    assert siblings["sub/dir/vocab.txt"].lfs is None
    assert siblings["model.safetensors"].lfs is not None
    assert siblings["model.safetensors"].lfs.sha256 == SHA256


def test_info_without_files_metadata_only_names_files(hub: Hub, client: Client) -> None:
    hub.add(NAME, FILES)
    assert {(s.rfilename, s.size) for s in client.api.repo_info(NAME).siblings or []} == {(p, None) for p in FILES}


def test_commit_id_comes_from_the_content(hub: Hub) -> None:
    first = hub.add(NAME, FILES)
    assert hub.add(NAME, {**FILES, "config.json": b"{}"}) != first
    assert hub.add("org/other", dict(reversed(FILES.items()))) == first
    assert len(first) == 40


def test_tree_lists_folders_and_files(hub: Hub, client: Client) -> None:
    hub.add(NAME, FILES)

    def listed(path: str | None = None, *, recursive: bool = False) -> set[str]:
        return {entry.path for entry in client.api.list_repo_tree(NAME, path, recursive=recursive)}

    assert listed() == {"config.json", "model.safetensors", "sub"}
    assert listed("sub") == {"sub/dir"}
    assert listed(recursive=True) == {*FILES, "sub", "sub/dir"}
    with pytest.raises(EntryNotFoundError):
        listed("nowhere")


def test_tree_has_sizes_and_digests(hub: Hub, client: Client) -> None:
    hub.add(NAME, FILES)
    tree = {entry.path: entry for entry in client.api.list_repo_tree(NAME, recursive=True)}
    weights = tree["model.safetensors"]
    assert (weights.size, weights.lfs.sha256, weights.lfs.size) == (len(WEIGHTS), SHA256, len(WEIGHTS))
    assert tree["sub/dir/vocab.txt"].blob_id == "422c2b7ab3b3c668038da977e4e93a5fc623169c"


def test_long_tree_comes_in_pages(hub: Hub, client: Client) -> None:
    paths = [f"{number:05}.txt" for number in range(2 * PAGE + 1)]
    hub.add(NAME, dict.fromkeys(paths, b"x"))
    assert [entry.path for entry in client.api.list_repo_tree(NAME, recursive=True)] == paths
    assert len(hub.requests) == 3


def test_branch_tag_and_commit_resolve(hub: Hub, client: Client) -> None:
    old = hub.add(NAME, {"config.json": b"old"})
    hub.tag(NAME, "v1", old)
    hub.move(NAME, "refs/pr/1", old)
    new = hub.add(NAME, {"config.json": b"new"})
    revisions = {None: new, "main": new, "v1": old, "refs/pr/1": old, old: old, new: new}
    assert {revision: client.api.model_info(NAME, revision=revision).sha for revision in revisions} == revisions
    assert {r: client.file("config.json", r) for r in revisions} == {
        r: b"old" if commit == old else b"new" for r, commit in revisions.items()
    }


def test_moved_branch_is_followed(hub: Hub, client: Client) -> None:
    old = hub.add(NAME, {"config.json": b"old"})
    new = hub.add(NAME, {"config.json": b"new"})
    assert client.file("config.json") == b"new"
    hub.move(NAME, "main", old)
    assert client.file("config.json") == b"old"
    assert client.api.model_info(NAME).sha == old != new
    with pytest.raises(ValueError, match="has no commit"):
        hub.move(NAME, "main", "0" * 40)


@pytest.mark.parametrize("on_disk", [True, False])
def test_snapshot_has_the_same_bytes(hub: Hub, client: Client, tmp_path: Path, on_disk: bool) -> None:
    for path, content in FILES.items():
        (tmp_path / "repo" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / path).write_bytes(content)
    commit = hub.add(NAME, tmp_path / "repo" if on_disk else FILES)
    folder = client.snapshot()
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert (folder.name, found) == (commit, FILES)


def test_file_metadata(hub: Hub) -> None:
    commit = hub.add(NAME, FILES)
    url = hf_hub_url(NAME, "model.safetensors", endpoint=hub.url)
    facts = get_hf_file_metadata(url, token=False, endpoint=hub.url)
    assert (facts.commit_hash, facts.etag, facts.size) == (commit, SHA256, len(WEIGHTS))
    assert [(r.method, r.status, r.sent) for r in hub.requests] == [("HEAD", 200, 0)]


@pytest.mark.parametrize(
    ("wanted", "part"),
    [("bytes=10-19", slice(10, 20)), ("bytes=1048570-", slice(1048570, None)), ("bytes=-7", slice(-7, None))],
)
def test_ranged_read(hub: Hub, wanted: str, part: slice) -> None:
    hub.add(NAME, FILES)
    status, content, where = _get(hub, "model.safetensors", wanted)
    first, past, _ = part.indices(len(WEIGHTS))
    assert (status, content) == (206, WEIGHTS[part])
    assert where == f"bytes {first}-{past - 1}/{len(WEIGHTS)}"
    assert [(r.range, r.status, r.sent) for r in hub.requests] == [(wanted, 206, past - first)]


@pytest.mark.parametrize("wanted", ["bytes=1048576-", "bytes=9-3", "bytes=-0"])
def test_range_out_of_bounds_is_416(hub: Hub, wanted: str) -> None:
    hub.add(NAME, FILES)
    assert _get(hub, "model.safetensors", wanted) == (416, b"", f"bytes */{len(WEIGHTS)}")


def test_range_of_a_sparse_giant_moves_only_the_range(hub: Hub, client: Client, tmp_path: Path) -> None:
    size = 3_000_000_000
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "repo" / "model.safetensors"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(file.tell() + size)
    hub.add(NAME, path.parent, digests={"model.safetensors": SHA256})
    assert client.api.parse_safetensors_file_metadata(NAME, "model.safetensors").parameter_count == {"U8": size}
    assert _get(hub, "model.safetensors", "bytes=2999999990-2999999999")[1] == bytes(10)
    assert 0 < hub.sent < BLOCK
    (weights,) = client.api.list_repo_tree(NAME)
    assert weights.lfs.sha256 == SHA256  # as given, not read from the file
    with pytest.raises(ValueError, match="typo"):
        hub.add(NAME, path.parent, digests={"typo": SHA256})


def test_redirected_lfs_comes_from_another_origin_without_token(tmp_path: Path) -> None:
    with Hub(redirect=True) as hub:
        hub.accepted.add(GOOD)
        hub.add(NAME, FILES, gated=True)
        url = hf_hub_url(NAME, "model.safetensors", endpoint=hub.url)
        facts = get_hf_file_metadata(url, token=GOOD, endpoint=hub.url)
        assert (facts.etag, facts.size) == (SHA256, len(WEIGHTS))
        assert not facts.location.startswith(hub.url)
        folder = Client(hub, tmp_path, token=GOOD).snapshot()
        assert (folder / "model.safetensors").read_bytes() == WEIGHTS
        cdn = [r for r in hub.requests if r.path.startswith("/cdn/")]
        assert [(r.path, r.authorised, r.status, r.sent) for r in cdn] == [(f"/cdn/{SHA256}", False, 200, len(WEIGHTS))]
        assert all(r.authorised for r in hub.requests if r not in cdn)


def test_503_is_retried_by_the_client(hub: Hub, client: Client) -> None:
    hub.add(NAME, FILES)
    hub.fail("*/resolve/*/conf*", status=503)
    hub.fail("*/resolve/*/other*", status=500)
    assert client.file("config.json") == FILES["config.json"]
    assert [r.status for r in hub.requests] == [503, 200, 200]


def test_fault_is_used_up_after_its_times_and_only_for_its_method(hub: Hub, client: Client) -> None:
    hub.add(NAME, FILES)
    hub.fail("/api/models/*", status=502, times=2)
    hub.fail("*/config.json", status=400, method="GET")  # no client retries a 400
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="ordered fault 502"):
            client.api.model_info(NAME)
    assert client.api.model_info(NAME).id == NAME
    with pytest.raises(HfHubHTTPError, match="ordered fault 400"):
        client.file("config.json")
    assert client.file("config.json") == FILES["config.json"]


def test_retry_after_is_sent(hub: Hub) -> None:
    hub.fail("*", status=429, retry_after=7)
    reply = get_session().get(f"{hub.url}/api/models/{NAME}")
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "7")


def test_cut_download_resumes_with_a_range(hub: Hub, client: Client, tmp_path: Path) -> None:
    size = 2 * DOWNLOAD_CHUNK_SIZE
    path = tmp_path / "repo" / "model.bin"
    path.parent.mkdir()
    path.write_bytes(bytes(size - 1) + b"!")
    hub.add(NAME, path.parent)
    hub.cut("*/model.bin", after=size)  # not longer than that, so never cut
    hub.cut("*/model.bin", after=size - 1)
    try:
        content = client.file("model.bin")
    except OSError:  # huggingface_hub 0.3x gives up and resumes on the next call; 2.x resumes by itself after 1 s
        content = client.file("model.bin")
    assert content == path.read_bytes()
    # The client keeps whole chunks only: of a chunk that was cut it writes nothing.
    gets = [(r.range, r.status, r.sent) for r in hub.requests if r.method == "GET"]
    rest = size - DOWNLOAD_CHUNK_SIZE
    assert gets == [(None, 200, size - 1), (f"bytes={DOWNLOAD_CHUNK_SIZE}-", 206, rest)]


def test_cut_drops_the_connection_at_the_byte(hub: Hub) -> None:
    hub.add(NAME, FILES)
    hub.cut("*/model.safetensors", after=1000)
    with closing(HTTPConnection("127.0.0.1", urlsplit(hub.url).port, timeout=5)) as connection:
        connection.request("GET", f"/{NAME}/resolve/main/model.safetensors")
        with pytest.raises(IncompleteRead) as cut:
            connection.getresponse().read()
    assert cut.value.partial == WEIGHTS[:1000]


def test_corrupt_body_has_the_right_length_and_one_wrong_byte(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.add(NAME, FILES)
    hub.corrupt("*/model.safetensors")
    content = client.file("model.safetensors")
    assert len(content) == len(WEIGHTS)
    assert sum(a != b for a, b in zip(content, WEIGHTS, strict=True)) == 1
    assert Client(hub, tmp_path / "second").file("model.safetensors") == WEIGHTS


def test_gated_repo_shows_its_facts_and_keeps_its_files(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.accepted.add(GOOD)
    hub.add(NAME, FILES, gated=True)
    assert client.api.model_info(NAME).gated == "manual"
    with pytest.raises(GatedRepoError, match="Please log in") as stranger:
        client.file("config.json")
    with pytest.raises(GatedRepoError, match="not in the authorized list") as refused:
        Client(hub, tmp_path, token=OTHER).file("config.json")
    assert (stranger.value.response.status_code, refused.value.response.status_code) == (401, 403)
    assert Client(hub, tmp_path, token=GOOD).file("config.json") == FILES["config.json"]
    assert [r.authorised for r in hub.requests][-1] is True


def test_private_repo_opens_with_its_token_only(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.add(NAME, FILES, private=True, token=GOOD)
    hub.add("org/other", FILES, private=True, token=OTHER)
    mine, other = (Client(hub, tmp_path / str(number), token) for number, token in enumerate((GOOD, OTHER)))
    assert mine.api.model_info(NAME).private is True
    assert mine.file("config.json") == FILES["config.json"]
    for stranger, status in ((client, 401), (other, 404)):
        with pytest.raises(RepositoryNotFoundError) as refused:
            stranger.api.model_info(NAME)
        assert refused.value.response.status_code == status
        with pytest.raises(RepositoryNotFoundError):
            stranger.file("config.json")


def test_unknown_repo(hub: Hub, client: Client, tmp_path: Path) -> None:
    hub.accepted.add(GOOD)
    with pytest.raises(RepositoryNotFoundError, match="Invalid username or password") as stranger:
        client.api.model_info(NAME)
    with pytest.raises(RepositoryNotFoundError) as known:
        Client(hub, tmp_path, token=GOOD).api.model_info(NAME)
    with pytest.raises(RepositoryNotFoundError) as unknown:
        Client(hub, tmp_path, token=OTHER).api.model_info(NAME)
    assert known.value.server_message == "Repository not found"
    assert [e.value.response.status_code for e in (stranger, known, unknown)] == [401, 404, 401]
    with pytest.raises(RepositoryNotFoundError):
        client.snapshot()


def test_unknown_revision(hub: Hub, client: Client) -> None:
    hub.add(NAME, FILES)
    with pytest.raises(RevisionNotFoundError, match="Invalid rev id: nope"):
        client.api.model_info(NAME, revision="nope")
    with pytest.raises(RevisionNotFoundError):
        client.file("config.json", "nope")


def test_unknown_entry(hub: Hub, client: Client) -> None:
    hub.add(NAME, FILES)
    with pytest.raises(EntryNotFoundError):
        client.file("nope.json")
    assert client.api.file_exists(NAME, "config.json")
    assert not client.api.file_exists(NAME, "nope.json")


def test_whoami_knows_good_tokens(hub: Hub, client: Client) -> None:
    hub.accepted.add(GOOD)
    assert client.api.whoami(token=GOOD)["name"] == "tester"
    with pytest.raises(OSError, match="Invalid user token"):
        client.api.whoami(token=OTHER)


def test_unknown_endpoint_is_loud(hub: Hub) -> None:
    assert get_session().get(f"{hub.url}/api/datasets/org/data").status_code == 501


def test_stopped_hub_leaves_no_thread_and_no_listener(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with Hub() as hub:
        hub.add(NAME, FILES)
        client = Client(hub, tmp_path)
        assert client.api.model_info(NAME).id == NAME  # and keeps its connection open
        assert set(threading.enumerate()) - before
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(hub.url).port or 0))


@pytest.mark.parametrize("path", ["/api/agent-harnesses", "/api/telemetry/x/y"])
def test_what_the_client_asks_for_itself_is_not_counted(hub: Hub, path: str) -> None:
    assert get_session().head(hub.url + path).status_code == 404
    assert hub.requests == ()
