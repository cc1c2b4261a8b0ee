"""Weights that pass from the Hub to a registry file by file: the same version as without, on little disk."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from checkpoints.adapters import Q_V, rewrite, tensors_of, train
from checkpoints.client import point_at
from fakes import checkpoints
from fakes.hub import Hub, Request
from fakes.s3 import S3Server
from fakes.secrets import secret
from huggingface_hub import constants
from loggers.catalogs import NAME, Catalog, Held, Kind, another_machine, log, opened, tree
from loggers.test_unity_killed import Machine
from loggers.zygote import Zygote

from catalogger import Outcome, clean, log_model
from catalogger.checkpoints import asking, pieces
from catalogger.checkpoints.headers import GUESS
from catalogger.errors import AccessDenied, CataloggerError, DigestMismatch, NetworkUnreachable, UsageError

KINDS: tuple[Kind, ...] = ("oss-s3", "databricks-storage", "databricks-files")
REPO, PLAIN = "org/bot", "main.ml.plain"
HEADER = f"bytes=0-{GUESS - 1}"  # what is asked for to look at a file
BESIDE = 500_000  # bytes: what the cache holds beside weights, which are much larger here
MOMENTS = 20
WIDE: dict[str, Any] = {"hidden": 512, "layers": 4, "shards": 5, "vocabulary": 6000}


in_every_storage = pytest.mark.parametrize("catalog", KINDS, indirect=True)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub, and a client with an empty cache, which asks for pieces so small that each file has some."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface/hub"))
    monkeypatch.setattr(pieces, "PIECE", 1 << 20)
    with Hub(redirect=True) as server:
        point_at(monkeypatch, server.url)
        yield server


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = checkpoints.llama(tmp_path_factory.mktemp("wide") / "llama", **WIDE)
    return folder


@contextmanager
def _most_on_disk() -> Iterator[list[int]]:
    """The largest number of bytes that stood in the cache while the block ran, looked at all the time."""
    most, stop = [0], threading.Event()

    def look() -> None:
        while not stop.is_set():
            most[0] = max(most[0], _bytes(_cache()))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        stop.set()
        watcher.join()


def _bytes(folder: Path) -> int:
    """Blocks that are taken: holes are none."""
    size = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += (Path(at) / name).stat().st_blocks * 512
    return size


def _cache() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"]) / "catalogger"


def _shards(catalog: Catalog, held: Held, name: str = NAME) -> dict[str, str]:
    return {path: digest for path, digest in catalog.digests(held, name).items() if "safetensors" in path}


def _sizes(folder: Path) -> list[int]:
    return sorted(f.stat().st_size for f in folder.glob("*.safetensors"))


def _fetched(hub: Hub) -> int:
    """Bytes of weights that the Hub has sent."""
    return sum(r.sent for r in hub.requests if r.path.startswith("/cdn/") and r.range != HEADER)


def _at_piece(number: int, do: Callable[[], object]) -> Callable[[Request], None]:
    """A hook that acts once, when the Hub is asked for so many pieces of weights."""
    seen = itertools.count(1)

    def hook(request: Request) -> None:
        if request.path.startswith("/cdn/") and request.range != HEADER and next(seen) == number:
            do()

    return hook


def _right(folder: Path) -> dict[str, str]:
    return {f"model/{path}": digest for path, digest in tree(folder).items() if path.endswith(".safetensors")}


def _nothing_left(catalog: Catalog) -> bool:
    return (catalog.versions(), [*_cache().glob("streamed/*")], catalog.unfinished()) == ([], [], 0)


def _both(catalog: Catalog, other: Path, **asked: Any) -> tuple[Outcome, int]:
    """Streamed here, and the same without on another machine under another name: both have the same bytes and the same
    fingerprint.  What came of the stream, and the most that stood here.
    """
    with _most_on_disk() as most:
        streamed = log(Path(REPO), catalog, stream=True, **asked)
    with another_machine(other):
        plain = log(Path(REPO), catalog, name=PLAIN, **asked)
    (held,), (same,) = catalog.versions(), catalog.versions(PLAIN)
    assert (streamed.action, streamed.weights, held.status) == ("registered", "streamed", "READY")
    assert streamed.fingerprint == plain.fingerprint is not None
    assert not list(_cache().glob("streamed/*"))
    assert _shards(catalog, held) == _shards(catalog, same, PLAIN) != {}
    again = log(Path(REPO), catalog, stream=True, **asked)
    assert (again.action, again.version, again.bytes.fetched) == ("unchanged", streamed.version, 0)
    return streamed, most[0]


@in_every_storage
def test_the_same_version_as_without(catalog: Catalog, hub: Hub, wide: Path, tmp_path: Path) -> None:
    hub.add(REPO, wide)
    streamed, most = _both(catalog, tmp_path / "other")
    sizes = _sizes(wide)
    assert streamed.bytes.fetched == sum(sizes)
    assert sizes[-1] < most <= 2 * sizes[-1] + BESIDE < sum(sizes)


def test_changed_on_the_way(workspace: Catalog, hub: Hub, tmp_path: Path) -> None:
    """Merged, cast and cut anew: a source and a result stand here, never more than two of the largest file."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32", **WIDE)
    adapter = train(source, tmp_path / "adapter", **Q_V)
    hub.add(REPO, source)
    asked = {"adapter": adapter, "dtype": "bfloat16", "max_shard_size": "4MB"}
    streamed, most = _both(workspace, tmp_path / "other", **asked)
    sizes = _sizes(source)
    assert sizes[-1] < most <= 2 * sizes[-1] + BESIDE < sum(sizes)
    assert streamed.change
    made = streamed.change["to"]["bytes"]
    assert (streamed.bytes.fetched, streamed.bytes.written, streamed.bytes.sent > made) == (sum(sizes), made, True)


def test_small_files_are_joined_on_the_way(workspace: Catalog, hub: Hub, wide: Path, tmp_path: Path) -> None:
    hub.add(REPO, wide)
    streamed, most = _both(workspace, tmp_path / "other", max_shard_size="14MB")
    assert streamed.change
    assert (streamed.change["from"]["files"], streamed.change["to"]["files"]) == (5, 3)
    assert most <= 2 * 14_100_000 + BESIDE < sum(_sizes(wide))


def test_local_weights_are_changed_file_by_file(workspace: Catalog, tmp_path: Path) -> None:
    """Nothing is fetched, and the result never stands here as a whole."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32", **WIDE)
    with _most_on_disk() as most:
        done = log(source, workspace, stream=True, dtype="bfloat16")
    assert done.change
    made = done.change["to"]["bytes"]
    assert (done.action, done.weights, done.bytes.fetched, done.bytes.written) == ("registered", "streamed", 0, made)
    assert most[0] <= _sizes(source)[-1] + BESIDE < made


def test_what_is_in_the_cache_is_not_fetched(workspace: Catalog, hub: Hub, wide: Path) -> None:
    hub.add(REPO, wide)
    log(Path(REPO), workspace, name=PLAIN)
    before = _fetched(hub)
    done = log(Path(REPO), workspace, stream=True)
    assert (done.action, done.weights, _fetched(hub) - before) == ("registered", "streamed", 0)


def test_a_file_is_sent_while_it_arrives(workspace: Catalog, hub: Hub, wide: Path, tmp_path: Path) -> None:
    """The last piece of the only file is held back until its first part has come in at the registry's storage."""
    source = checkpoints.big_llama(tmp_path / "one", 0.05, shards=1)
    size = _sizes(source)[-1]
    hub.add(REPO, source)
    arrived = threading.Event()
    workspace.watch(lambda line: arrived.set() if "partNumber" in line else None)
    hub.on_request = lambda r: _wait(arrived) if (r.range or "").endswith(f"-{size - 1}") else None
    done = log(Path(REPO), workspace, stream=True)
    assert (done.action, arrived.is_set()) == ("registered", True)


def _wait(event: threading.Event) -> None:
    assert event.wait(60), "nothing was sent before all was here"


@in_every_storage
def test_a_file_that_came_wrong_comes_once_more(catalog: Catalog, hub: Hub, wide: Path) -> None:
    hub.add(REPO, wide)
    hub.on_request = _at_piece(3, lambda: hub.corrupt("/cdn/*"))
    done = log(Path(REPO), catalog, stream=True)
    (held,) = catalog.versions()
    assert (done.action, held.status) == ("registered", "READY")
    assert _right(wide).items() <= _shards(catalog, held).items()
    assert done.bytes.fetched == sum(_sizes(wide))


def test_a_file_that_comes_wrong_twice_leaves_nothing(workspace: Catalog, hub: Hub, wide: Path) -> None:
    hub.add(REPO, wide)
    hub.on_request = _at_piece(9, lambda: hub.corrupt("/cdn/*", times=1000))
    with pytest.raises(DigestMismatch, match="has wrong bytes in") as failed:
        log(Path(REPO), workspace, stream=True)
    assert failed.value.exit_code == 2
    assert _nothing_left(workspace)


def test_a_token_opens_the_hub_and_is_shown_to_nobody_else(
    workspace: Catalog, hub: Hub, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = secret("a reader of the stream", "hugging face")
    hub.add(REPO, wide, private=True, token=token)
    monkeypatch.setenv("HF_TOKEN", token)
    assert log(Path(REPO), workspace, stream=True).action == "registered"
    asked = {r.authorised for r in hub.requests if "/resolve/" in r.path}
    stored = {r.authorised for r in hub.requests if r.path.startswith("/cdn/")}
    assert (asked, stored) == ({True}, {False})


def test_connections_that_break_are_gone_on_with(workspace: Catalog, hub: Hub, wide: Path) -> None:
    hub.add(REPO, wide)
    hub.on_request = _at_piece(2, lambda: hub.cut("/cdn/*", after=700_000, times=3))
    assert log(Path(REPO), workspace, stream=True).action == "registered"
    assert _fetched(hub) <= sum(_sizes(wide)) + 3 * (1 << 20)
    (held,) = workspace.versions()
    assert _right(wide).items() <= _shards(workspace, held).items()


@pytest.mark.parametrize(("status", "kind", "code"), [(403, AccessDenied, 4), (503, NetworkUnreachable, 5)])
def test_a_hub_that_fails_in_the_middle(
    workspace: Catalog,
    hub: Hub,
    wide: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    kind: type[Exception],
    code: int,
) -> None:
    """What was sent is known to the next run, which fetches the rest; and so is what was fetched of a file."""
    monkeypatch.setattr(asking, "_TRIES", 1)
    hub.add(REPO, wide)
    hub.on_request = _at_piece(12, lambda: hub.fail("/cdn/*", status=status, times=1000))
    with pytest.raises(kind) as failed:
        log(Path(REPO), workspace, stream=True)
    assert isinstance(failed.value, CataloggerError)
    assert failed.value.exit_code == code
    assert "version 1 stays pending" in str(failed.value)
    assert "the same command goes on from there" in str(failed.value)
    assert [v.status for v in workspace.versions()] == ["PENDING_REGISTRATION"]
    hub.on_request, before = None, _fetched(hub)
    hub._faults.clear()
    done = log(Path(REPO), workspace, stream=True)
    (held,) = workspace.versions()
    assert (done.version, held.status) == ("1", "READY")
    assert _right(wide).items() <= _shards(workspace, held).items()
    assert _fetched(hub) - before < sum(_sizes(wide)) - before + 4 * (1 << 20)
    assert not list(_cache().glob("streamed/*"))


@in_every_storage
def test_all_is_sent_and_the_registry_fails(
    catalog: Any, hub: Hub, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched again, also where a registry tells no checksum of what it has."""
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "1")
    hub.add(REPO, wide)
    catalog.server.order.fail(r"(PATCH|POST) .*/finalize", 503, times=1000)
    with pytest.raises(NetworkUnreachable, match="stays pending"):
        log(Path(REPO), catalog, stream=True)
    catalog.server.order._faults.clear()
    before, sent = _fetched(hub), catalog.sent()
    done = log(Path(REPO), catalog, stream=True)
    (held,) = catalog.versions()
    assert (done.action, held.status, _fetched(hub) - before) == ("registered", "READY", 0)
    assert catalog.sent() - sent < 100_000
    assert "5 files of an earlier run were taken up" in done.notes
    assert _right(wide).items() <= _shards(catalog, held).items()


def test_the_base_moves_between_two_runs(workspace: Catalog, hub: Hub, wide: Path, tmp_path: Path) -> None:
    """What was sent and fetched of the old commit is not taken for that of the new one, which has the same sizes."""
    hub.add(REPO, wide)
    hub.on_request = _at_piece(12, lambda: hub.fail("/cdn/*", status=403, times=1000))
    with pytest.raises(AccessDenied):
        log(Path(REPO), workspace, stream=True)
    hub.on_request = None
    hub._faults.clear()
    moved = checkpoints.llama(tmp_path / "moved", seed=8, **WIDE)
    hub.add(REPO, moved)
    done = log(Path(REPO), workspace, stream=True)
    (held,) = workspace.versions()
    assert (done.version, held.status, done.bytes.fetched) == ("1", "READY", sum(_sizes(moved)))
    assert _right(moved).items() <= _shards(workspace, held).items()


def test_numbers_that_the_change_breaks_leave_nothing(workspace: Catalog, hub: Hub, tmp_path: Path) -> None:
    """Seen when files before it are in the registry's storage already."""
    source = checkpoints.llama(tmp_path / "source", **WIDE)
    adapter = train(source, tmp_path / "adapter", r=8, lora_alpha=16, target_modules=["q_proj"])
    tensors = tensors_of(adapter / "adapter_model.safetensors")
    last = next(name for name in tensors if "layers.3." in name and "lora_B" in name)
    code, shape, content = tensors[last]
    assert isinstance(content, bytes)
    rewrite(adapter, tensors | {last: (code, shape, b"\0\0\xc0\x7f" + content[4:])})
    hub.add(REPO, source)
    seen: list[str] = []
    workspace.watch(seen.append)
    with pytest.raises(
        CataloggerError, match=f'"{REPO}" has 512 numbers in .* that became NaN by the change'
    ) as failed:
        log(Path(REPO), workspace, adapter=adapter, stream=True)
    assert failed.value.exit_code == 2
    assert any("model-00001-of" in line and line.startswith("PUT") for line in seen)
    assert _nothing_left(workspace)


def test_a_disk_that_fills_in_the_middle(workspace: Catalog, hub: Hub, tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the disk's end: the last file is larger, all others are not."""
    source = checkpoints.llama(tmp_path / "source", **WIDE)
    largest = _sizes(source)[-1]
    hub.add(REPO, source)
    stopped = _command(largest - 100_000, hub)
    assert stopped.returncode == 6, stopped.stderr
    assert "File too large" in stopped.stdout
    assert "goes on where it stopped" in stopped.stdout
    again = _command(2 * largest, hub)
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    (held,) = workspace.versions()
    assert (document["weights"], held.status, held.number) == ("streamed", "READY", document["version"])
    assert _right(source).items() <= _shards(workspace, held).items()
    assert not list(_cache().glob("streamed/*"))


def test_interrupted_and_run_again(workspace: Catalog, hub: Hub, wide: Path) -> None:
    """Ctrl-C when the fourth file is asked for: two were sent by then, as there is room for two more."""
    hub.add(REPO, wide)
    running: list[subprocess.Popen[str]] = []
    hub.on_request = _at_piece(4, lambda: running[0].send_signal(signal.SIGINT))
    stopped = _command(1 << 30, hub, running)
    assert (stopped.returncode, "Run the same command again" in stopped.stderr) == (130, True), stopped.stderr
    assert [v.status for v in workspace.versions()] == ["PENDING_REGISTRATION"]
    hub.on_request, before = None, _fetched(hub)
    again = _command(1 << 30, hub)
    (held,) = workspace.versions()
    assert (again.returncode, held.status, held.number) == (0, "READY", "1"), again.stderr
    assert _right(wide).items() <= _shards(workspace, held).items()
    assert _fetched(hub) - before < sum(_sizes(wide)), "what was sent is not fetched again"
    assert not list(_cache().glob("streamed/*"))


def _command(
    limit: int, hub: Hub, running: list[subprocess.Popen[str]] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command as in a terminal, whose files may not be larger than the limit; `running` gets its process."""
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += "from catalogger.cli.main import main; main()"
    options = [
        "--recipe",
        "llama-chat",
        "--source",
        REPO,
        "--name",
        NAME,
        "--registry-uri",
        "databricks-uc",
        "-o",
        "json",
    ]
    command, pipe = [sys.executable, "-c", script, *options, "--stream"], subprocess.PIPE
    with subprocess.Popen(
        command,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env={**os.environ, "HF_ENDPOINT": hub.url},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    ) as process:
        if running is not None:
            running.append(process)
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_a_plan_needs_two_files_of_room(workspace: Catalog, hub: Hub, tmp_path: Path) -> None:
    """810 GB, of which this machine has not a tenth."""
    source = checkpoints.sparse_llama_405b(tmp_path / "giant")
    hub.add(REPO, source, digests={f.name: f"{n:064x}" for n, f in enumerate(source.glob("*.safetensors"))})
    planned = log(Path(REPO), workspace, stream=True, dry_run=True)
    sizes = _sizes(source)
    assert planned.plan
    assert (planned.plan.weights, planned.plan.to_fetch) == ("streamed", sum(sizes))
    assert sum(disk.needed for disk in planned.plan.disks) < 2 * sizes[-1] + 100_000_000
    assert "weights streamed" in str(planned)


def test_registries_that_copy_from_a_folder_say_what_they_need(oss: Any, hub: Hub, wide: Path, work: Path) -> None:
    hub.add(REPO, wide)
    before = _fetched(hub)
    with pytest.raises(UsageError, match="MLflow's own, which copies a whole folder") as refused:
        log_model("llama-chat", source=REPO, name=NAME, stream=True)
    assert "Leave --stream out: it needs 31.2 MB in" in refused.value.fix
    assert not list(work.iterdir())
    with pytest.raises(UsageError, match="keeps its files on this machine") as refused:
        log(Path(REPO), oss, stream=True)
    assert "Leave --stream out: it needs" in refused.value.fix
    assert _fetched(hub) == before
    assert oss.versions() == []


@pytest.mark.parametrize(
    ("asked", "why"),
    [({"prove": True}, "--prove needs all"), ({"tracking": "full"}, "--tracking full needs all")],
)
def test_what_needs_all_of_the_weights_is_refused(
    workspace: Catalog, hub: Hub, asked: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        log(Path(REPO), workspace, stream=True, **asked)
    assert hub.requests == ()


def test_what_a_stopped_stream_has_left_is_cleaned(workspace: Catalog, hub: Hub, wide: Path) -> None:
    hub.add(REPO, wide)
    hub.on_request = _at_piece(12, lambda: hub.fail("/cdn/*", status=403, times=1000))
    with pytest.raises(AccessDenied):
        log(Path(REPO), workspace, stream=True)
    (left,) = _cache().glob("streamed/*")
    assert str(left) in str(clean(registry_uri=workspace.uri, older_than=0))
    clean(registry_uri=workspace.uri, older_than=0, yes=True)
    assert not left.exists()


@pytest.mark.parametrize("kind", ["databricks-storage", "databricks-files"])
def test_killed_at_any_moment(
    kind: Kind, hub: Hub, s3_server: S3Server, zygote: Zygote, wide: Path, tmp_path: Path
) -> None:
    """SIGKILL at 20 moments, each that of a request to the Hub, the workspace or the storage: the same command goes on
    then, and ends with one right version, no rest of any kind, and hardly more than two files fetched again.
    """
    hub.add(REPO, wide)
    said = {"huggingface_hub.constants.ENDPOINT": hub.url, "catalogger.checkpoints.pieces.PIECE": pieces.PIECE}
    said["huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE"] = constants.HUGGINGFACE_CO_URL_TEMPLATE
    with opened(kind, s3_server, tmp_path / "catalog") as catalog:
        machine = Machine(
            zygote, tmp_path / "machine", Path(REPO), said, registry_uri=catalog.uri, aliases=["champion"], stream=True
        )
        total = _killed_at(machine, catalog, hub, None)
        first = machine.zygote.wait()
        assert first
        assert first["action"] == "registered", first
        catalog.empty()
        for k in range(MOMENTS):
            machine.begin_anew()
            before = _fetched(hub)
            _killed_at(machine, catalog, hub, total * 9 * (k + 1) // (10 * MOMENTS))
            assert machine.zygote.wait() == {"killed": True}, k
            outcome = machine.run()
            (held,) = catalog.versions()
            assert (held.status, outcome["version"]) == ("READY", held.number), k
            assert outcome["fingerprint"] == first["fingerprint"], k
            assert _right(wide).items() <= _shards(catalog, held).items(), k
            assert (catalog.aliases(), catalog.unfinished()) == ({"champion": held.number}, 0), k
            assert machine.leftovers() == [], k
            assert not list((machine.folder / "cache/catalogger").glob("streamed/*")), k
            assert _fetched(hub) - before <= sum(_sizes(wide)) + 2 * _sizes(wide)[-1], k
            catalog.empty()


def _killed_at(machine: Machine, catalog: Catalog, hub: Hub, moment: int | None) -> int:
    """Start it, and kill it at the n-th request to any server; how many there were."""
    count, counting = 0, threading.Lock()

    def look(_: object) -> None:
        nonlocal count
        with counting:
            count += 1
            if count == moment:
                machine.zygote.kill()

    catalog.watch(look)
    hub.on_request = look
    machine.start()
    machine.zygote.ended()
    catalog.watch(None)
    hub.on_request = None
    return count
