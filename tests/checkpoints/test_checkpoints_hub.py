"""Opening a repository by metadata only, with the real client and a loopback Hub that stumbles on request."""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints.client import go_offline, point_at
from checkpoints.shard_bytes import files, folder, safetensors_bytes, table, weights
from fakes.checkpoints import sparse_llama_405b
from fakes.hub import Hub
from fakes.secrets import secret

from catalogger.checkpoints import open_source
from catalogger.checkpoints.folder import LARGEST_SMALL
from catalogger.errors import AccessDenied, CheckpointError, NetworkUnreachable, RepositoryNotFound

NAME = "org/tiny"
TOKEN = secret("a user of the Hub", "hugging face")
SIZE = 100_000_000  # enough to tell, little enough that reading all of it by mistake ends


def _sparse(path: Path, header: bytes, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)


@pytest.fixture
def giant(tmp_path: Path) -> Path:
    """A repository with 100 MB of holes for weights."""
    at = folder(tmp_path / "repo", files())
    _sparse(at / "model.safetensors", safetensors_bytes(table({"w": ("U8", [SIZE])}), 0), SIZE)
    return at


def test_facts_are_those_of_the_folder(hub: Hub, tmp_path: Path) -> None:
    content = files(**{"README.md": b"---\nlicense: mit\n---\n", "modeling_x.py": b"x = 1\n", "model.onnx": b"x"})
    commit = hub.add(NAME, content)
    there, here = open_source(NAME), open_source(str(folder(tmp_path / "same", content)))
    assert (there.origin.kind, there.origin.location, there.origin.revision) == ("hub", NAME, commit)
    assert there.root is None
    facts = ("small", "left_out", "licence", "architecture", "dtype", "parameters", "weight_bytes")
    assert {f: getattr(there, f) for f in facts} == {f: getattr(here, f) for f in facts}
    assert [s.tensors for s in there.shards] == [s.tensors for s in here.shards]
    assert [s.header_sha256 for s in there.shards] == [s.header_sha256 for s in here.shards]


def test_every_digest_is_known_before_anything_is_fetched(hub: Hub) -> None:
    hub.add(NAME, files())
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in files().items()}
    assert {f.path: f.sha256 for f in open_source(NAME).files} == digests


def test_weights_do_not_move(hub: Hub, giant: Path) -> None:
    hub.add(NAME, giant, digests={"model.safetensors": "0" * 64})
    found = open_source(NAME)
    assert found.parameters == SIZE
    assert found.shards[0].file.sha256 == "0" * 64
    assert 0 < hub.sent < 200_000


def test_405b_opens_with_less_than_40_mb(hub: Hub, tmp_path: Path) -> None:
    repo = sparse_llama_405b(tmp_path / "repo")
    hub.add(NAME, repo, digests={p.name: f"{n:064x}" for n, p in enumerate(repo.glob("*.safetensors"))})
    found = open_source(NAME)
    assert len(found.shards) == 191
    assert [s.file.path for s in found.shards if s.problem or s.expected != s.file.size] == []
    assert found.parameters > 405e9
    assert found.weight_bytes > 810e9
    assert hub.sent < 40e6


class DeafHub(Hub):
    """A server that sends whole files whatever range is asked for, as some mirrors do."""

    def _route(self, call: Any) -> Any:
        return super()._route(replace(call, range=None))


def test_server_that_ignores_ranges_does_not_make_us_read_everything(client: pytest.MonkeyPatch, giant: Path) -> None:
    with DeafHub() as hub:
        point_at(client, hub.url)
        hub.add(NAME, giant, digests={"model.safetensors": "0" * 64})
        assert open_source(NAME).parameters == SIZE
        whole = [r for r in hub.requests if r.range]
        assert [(r.status, r.path.rsplit("/", 1)[-1]) for r in whole] == [(200, "model.safetensors")]
        assert hub.sent < 50_000_000  # what fits into the buffers of sockets, not all of it


def test_header_beyond_the_first_guess(hub: Hub) -> None:
    content = weights(**{f"layer.{number}": [2] for number in range(3000)})
    hub.add(NAME, files(**{"model.safetensors": content}))
    (shard,) = open_source(NAME).shards
    assert (shard.problem, shard.expected, len(shard.tensors)) == (None, len(content), 3000)
    assert len([r for r in hub.requests if r.range]) == 2


def test_branch_tag_and_commit_are_one_commit(hub: Hub) -> None:
    old = hub.add(NAME, files(**{"generation_config.json": b"{}"}))
    hub.tag(NAME, "v1", old)
    hub.move(NAME, "feature/x", old)
    new = hub.add(NAME, files())
    wanted = {"": new, "@main": new, "@v1": old, "@feature/x": old, f"@{old}": old, f"@{new}": new}
    assert {at: open_source(NAME + at).origin.revision for at in wanted} == wanted
    assert "generation_config.json" in open_source(f"{NAME}@v1").small
    assert "generation_config.json" not in open_source(NAME).small


def test_licence_of_the_repository(hub: Hub) -> None:
    hub.add(NAME, files(), licence="llama3.1")
    assert open_source(NAME).licence == "llama3.1"


def test_second_opening_moves_no_file(hub: Hub) -> None:
    hub.add(NAME, files())
    open_source(NAME)
    before = len(hub.requests)
    open_source(NAME)
    moved = [r.path for r in hub.requests[before:] if r.method == "GET" and "/resolve/" in r.path]
    assert [path.rsplit("/", 1)[-1] for path in moved] == ["model.safetensors"]  # its header, which nobody keeps


def test_small_file_in_large_file_storage(hub: Hub) -> None:
    content = b'{"a": "' + b"x" * 10_000_000 + b'"}'
    hub.add(NAME, files(**{"tokenizer.json": content}))
    assert open_source(NAME).small["tokenizer.json"] == content


def test_too_large_a_small_file_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    at = folder(tmp_path / "repo", files())
    _sparse(at / "tokenizer.json", b"", LARGEST_SMALL + 1)
    hub.add(NAME, at)
    with pytest.raises(CheckpointError, match=r'has a "tokenizer.json" of 64\.0 MB'):
        open_source(NAME)
    assert [r.path for r in hub.requests if "/resolve/" in r.path] == []


def test_no_config(hub: Hub) -> None:
    hub.add(NAME, {"model.safetensors": weights(w=[1]), "transformer/config.json": b"{}"})
    with pytest.raises(CheckpointError, match=r"has no config\.json") as refused:
        open_source(NAME)
    assert refused.value.fix == "There is one below it: transformer."


def test_corrupt_small_file_is_fetched_again(hub: Hub) -> None:
    hub.add(NAME, files())
    hub.corrupt("*/config.json")
    assert open_source(NAME).small["config.json"] == files()["config.json"]


def test_small_file_that_is_always_corrupt(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, files())
    hub.corrupt("*/config.json", times=99)
    with pytest.raises(CheckpointError, match=r'has wrong bytes in "config.json"'):
        open_source(NAME)
    assert list((tmp_path / "hub").rglob("config.json")) == []


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize(
    ("pattern", "method"),
    [("/api/models/*", "*"), ("*/config.json", "HEAD"), ("*/config.json", "GET"), ("*/model.safetensors", "GET")],
)
def test_hub_that_stumbles_once(hub: Hub, pattern: str, method: str, status: int) -> None:
    commit = hub.add(NAME, files())
    hub.fail(pattern, status=status, method=method, retry_after=0)
    found = open_source(NAME)
    assert (found.origin.revision, found.parameters) == (commit, 4)
    assert [r.status for r in hub.requests if r.status >= 400] == [status]


def test_cut_in_the_middle_of_a_header(hub: Hub) -> None:
    hub.add(NAME, files())
    hub.cut("*/model.safetensors", after=20)
    assert open_source(NAME).parameters == 4


def test_hub_that_does_not_recover(hub: Hub) -> None:
    hub.add(NAME, files())
    hub.fail("/api/models/*", status=503, times=99, retry_after=0)
    with pytest.raises(NetworkUnreachable) as refused:
        open_source(NAME)
    assert refused.value.exit_code == 5
    assert NAME in refused.value.message


def _refused(error: type[Exception], source: str = NAME) -> Any:
    with pytest.raises(error) as refused:
        open_source(source)
    assert TOKEN not in str(refused.value) + repr(refused.value) + str(getattr(refused.value, "document", str)())
    return refused.value


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def test_gated_without_a_token(hub: Hub) -> None:
    hub.add(NAME, files(), gated=True)
    error = _refused(AccessDenied)
    assert error.message == f'The repository "{NAME}" is gated. No token was sent, or it is not valid.'
    how = "with your account, then set HF_TOKEN to a token of that account."
    assert error.fix == f"Accept the licence at {hub.url}/{NAME} {how}"
    assert error.exit_code == 4


@pytest.mark.usefixtures("token")
def test_gated_with_a_token_that_has_no_access(hub: Hub) -> None:
    hub.add(NAME, files(), gated=True)
    error = _refused(AccessDenied, f"{NAME}@main")
    assert error.message == (
        f'The repository "{NAME}" at revision "main" is gated. The token that was sent has no access.'
    )


@pytest.mark.usefixtures("token")
def test_gated_with_a_token_that_has_access(hub: Hub) -> None:
    hub.accepted.add(TOKEN)
    hub.add(NAME, files(), gated=True)
    found = open_source(NAME)
    assert found.parameters == 4
    assert all(r.authorised for r in hub.requests)
    assert TOKEN not in repr(found)


@pytest.mark.usefixtures("token")
def test_token_does_not_follow_a_redirect_to_another_origin(client: pytest.MonkeyPatch) -> None:
    with Hub(redirect=True) as hub:
        point_at(client, hub.url)
        hub.accepted.add(TOKEN)
        hub.add(NAME, files(), gated=True)
        assert open_source(NAME).parameters == 4
        elsewhere = [r for r in hub.requests if r.path.startswith("/cdn/")]
        assert [(r.status, r.authorised) for r in elsewhere] == [(206, False)]


def test_private(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, files(), private=True, token=TOKEN)
    error = _refused(RepositoryNotFound)
    assert error.message == f'The checkpoint "{NAME}" does not exist on the Hub, or is private.'
    assert "set HF_TOKEN to a token that may read it" in error.fix
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert open_source(NAME).parameters == 4


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("known", [True, False])
def test_no_such_repository(hub: Hub, known: bool) -> None:
    hub.accepted |= {TOKEN} if known else set()
    error = _refused(RepositoryNotFound, "org/tinny")
    assert error.message == 'The checkpoint "org/tinny" does not exist on the Hub, or is private.'
    assert f"{hub.url}/org/tinny" in error.fix
    assert error.exit_code == 2


def test_no_such_revision(hub: Hub) -> None:
    hub.add(NAME, files())
    error = _refused(RepositoryNotFound, f"{NAME}@nope")
    assert error.message == f'The checkpoint "{NAME}" has no branch, tag or commit "nope".'
    assert error.fix == f"See {hub.url}/{NAME}/commits/main."


@pytest.mark.parametrize("status", [401, 403])
def test_refused_without_a_reason(hub: Hub, status: int) -> None:
    hub.add(NAME, files())
    hub.fail("/api/models/*", status=status)
    error = _refused(AccessDenied)
    assert f"({status})" in error.message
    assert "HF_TOKEN" in error.fix


def test_file_that_vanishes_between_list_and_read(hub: Hub) -> None:
    hub.add(NAME, files())
    hub.fail("*/model.safetensors", status=404, times=9)
    with pytest.raises((CheckpointError, NetworkUnreachable)) as refused:
        open_source(NAME)
    assert NAME in refused.value.message


@pytest.fixture
def closed_port(client: pytest.MonkeyPatch) -> Iterator[int]:
    """The client points at a port where nobody listens, kept so for the test."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        port = kept.getsockname()[1]
        point_at(client, f"http://127.0.0.1:{port}")
        yield port


@pytest.mark.usefixtures("closed_port", "token")
def test_no_network() -> None:
    error = _refused(NetworkUnreachable)
    assert error.message.startswith(f'The Hub cannot be reached for "{NAME}": ')
    assert "HF_ENDPOINT" in error.fix
    assert error.exit_code == 5


def test_answer_that_is_no_hub(hub: Hub) -> None:
    """A captive portal or a proxy's page: an answer, but not the Hub's."""
    hub.fail("/api/models/*", status=418)
    error = _refused(NetworkUnreachable)
    assert "418" in error.message


def test_offline_without_a_cache(hub: Hub, client: pytest.MonkeyPatch) -> None:
    hub.add(NAME, files())
    go_offline(client)
    error = _refused(NetworkUnreachable)
    assert error.message == f'HF_HUB_OFFLINE is set and "{NAME}" is not in the cache.'
    assert hub.requests == ()


@pytest.mark.parametrize("at", ["@{commit}", "", "@main", "@v1"])
def test_offline_with_a_cache(hub: Hub, client: pytest.MonkeyPatch, at: str) -> None:
    commit = hub.add(NAME, files())
    hub.tag(NAME, "v1", commit)
    source = NAME + at.format(commit=commit)
    online = open_source(source)
    before = len(hub.requests)
    go_offline(client)
    found = open_source(source)
    assert len(hub.requests) == before
    assert (found.origin, found.small) == (online.origin, online.small)


def test_cache_that_cannot_be_made(hub: Hub, client: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    hub.add(NAME, files())
    (tmp_path / "blocked").write_text("a file where the folder should be")
    client.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "blocked" / "hub"))
    with pytest.raises(Exception, match="blocked") as refused:
        open_source(NAME)
    assert getattr(refused.value, "exit_code", None) == 6


def test_cache_that_may_not_be_written(hub: Hub, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    hub.add(NAME, files())
    for parent in (tmp_path, *tmp_path.parents[:3]):  # that of pytest's process, too, where there are several
        if parent.name.startswith(("test_", "pytest-", "popen-")):
            parent.chmod(0o755)
    open_source(NAME)  # imports all that is needed, whose files that user might not be able to read
    shutil.rmtree(tmp_path / "hub")
    (tmp_path / "hub").mkdir(mode=0o555)
    request.getfixturevalue("ordinary_user")
    with pytest.raises(Exception, match="HF_HOME names another folder") as refused:
        open_source(NAME)
    assert getattr(refused.value, "exit_code", None) == 6
