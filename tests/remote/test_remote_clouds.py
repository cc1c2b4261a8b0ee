"""Azure, Google Cloud and default storage: real clients against stand-ins on loopback."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import clouds
from fakes.clouds import FOREVER, Authority, Azure, Google, Server
from fakes.secrets import MARK, secret

from catalogger.errors import (
    AccessDenied,
    CataloggerError,
    DiskError,
    NetworkUnreachable,
    RegistryError,
    UsageError,
)
from catalogger.remote.azure import azure_storage
from catalogger.remote.cloud import CloudStorage
from catalogger.remote.default_storage import default_storage
from catalogger.remote.google import google_storage
from catalogger.remote.reading import Reading
from catalogger.remote.storage import Sending, Sent, Storage

LARGE = 9_500_000  # bytes: more than two parts, and more than what Google's client sends in one request
OLD, NEW = secret("old", "sas"), secret("new", "sas")
OLD_GOOGLE, NEW_GOOGLE = secret("old", "google"), secret("new", "google")
TOKEN = secret("a user of the workspace", "databricks")
UPLOADS = {"azure": ("PATCH", "action=append"), "google": ("PUT", "upload_id="), "default": ("PUT", "^/signed/")}


@dataclass
class Cloud:
    """One storage of the three, the server behind it, and the folder that its files are in there."""

    kind: str
    server: Server
    root: Path
    make: Callable[[], CloudStorage]
    renewed: list[str]
    renew: list[str]  # what the next requests for a credential are given

    def bytes_at(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def uploads(self) -> int:
        """Bytes of files that were taken in, as a client sent them."""
        method = UPLOADS[self.kind][0]
        return sum(r.size for r in self.server.requests if r.method == method)

    @property
    def storage(self) -> CloudStorage:
        return self.make()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "5")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["azure", "google", "default"])
def cloud(
    request: pytest.FixtureRequest, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    with ExitStack() as stack:
        yield _cloud(request.param, stack, tmp_path, authority, monkeypatch)


@pytest.fixture
def azure(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with ExitStack() as stack:
        yield _cloud("azure", stack, tmp_path, authority, monkeypatch)


@pytest.fixture
def google(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with ExitStack() as stack:
        yield _cloud("google", stack, tmp_path, authority, monkeypatch)


@pytest.fixture
def default(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with ExitStack() as stack:
        yield _cloud("default", stack, tmp_path, authority, monkeypatch)


def _cloud(kind: str, stack: ExitStack, folder: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    there = folder / "cloud"
    there.mkdir()
    renewed: list[str] = []
    renew: list[str] = []

    def credential(first: str) -> Callable[[], str]:
        def give() -> str:
            given = renew.pop(0) if renew else first
            renewed.append(given)
            return given

        return give

    if kind == "azure":
        server = stack.enter_context(clouds.azure(there, "models", authority))
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        server.valid[OLD] = FOREVER
        location = "abfss://models@account.dfs.core.windows.net/a%20b/1"
        make = lambda: azure_storage(location, credential(OLD))  # noqa: E731
        return Cloud(kind, server, there / "a b/1", make, renewed, renew)
    if kind == "google":
        server = stack.enter_context(clouds.google(there, "bucket"))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        server.valid[OLD_GOOGLE] = FOREVER
        make = lambda: google_storage("gs://bucket/a/1", credential(OLD_GOOGLE))  # noqa: E731
        return Cloud(kind, server, there / "a/1", make, renewed, renew)
    server = stack.enter_context(clouds.default(there))
    monkeypatch.setenv("DATABRICKS_HOST", server.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    server.valid[TOKEN] = FOREVER
    make = lambda: default_storage("main.ml.m", "1", "databricks-uc")  # noqa: E731
    return Cloud(kind, server, there / "Models/main/ml/m/1", make, renewed, renew)


def _file(folder: Path, path: str, size: int, seed: int = 0) -> Sending:
    """A file of this size whose name here is not the one that it gets there."""
    source = folder / f"blob-{path.replace('/', '-')}"
    source.write_bytes(random.Random(seed or path).randbytes(size))  # noqa: S311
    return Sending(path, source, size)


def _send(storage: Storage, files: Sequence[Sending]) -> tuple[Sent, int]:
    """What was sent, and the bytes that were counted."""
    counts: list[int] = []
    sent = storage.send(files, counts.append)
    return sent, sum(counts)


def _sha256(file: Sending) -> str:
    return hashlib.sha256(file.source.read_bytes()).hexdigest()


def test_files_arrive_whole_and_their_unknown_digests_are_told(cloud: Cloud, tmp_path: Path) -> None:
    files = [_file(tmp_path, name, size) for name, size in (("MLmodel", 300), ("a/b c+ü.bin", LARGE), ("a/none", 0))]
    known = Sending("k", files[0].source, 300, _sha256(files[0]))
    sent, counted = _send(cloud.storage, [*files, known])
    for file in (*files, known):
        assert cloud.bytes_at(file.path) == file.source.read_bytes()
    assert sent.digests == {file.path: _sha256(file) for file in files}
    assert (sent.read, sent.written, sent.sent, counted) == (LARGE + 600, 0, LARGE + 600, LARGE + 600)


def test_listing_names_every_file_below_the_location_and_no_other(cloud: Cloud, tmp_path: Path) -> None:
    cloud.server.service.page = 2  # type: ignore[attr-defined]
    storage = cloud.storage
    assert storage.listing() == {}
    neighbour = cloud.root.with_name("12") / "not ours"
    neighbour.parent.mkdir(parents=True)
    neighbour.write_bytes(b"x")
    files = [_file(tmp_path, f"a/{number}/f", number) for number in range(5)]
    _send(storage, files)
    (cloud.root / "empty folder").mkdir()
    assert storage.listing() == {file.path: file.size for file in files}


def test_a_file_is_read_and_removed(cloud: Cloud, tmp_path: Path) -> None:
    storage = cloud.storage
    file = _file(tmp_path, "a/MLmodel", 500)
    _send(storage, [file, _file(tmp_path, "b", 5)])
    assert storage.read("a/MLmodel") == file.source.read_bytes()
    storage.remove(["a/MLmodel", "never/there"])
    assert storage.listing() == {"b": 5}


def test_a_file_is_read_in_parts(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = cloud.storage
    file = _file(tmp_path, "model/weights", 5000)
    _send(storage, [file])
    assert storage.part("model/weights", 1000, 10) == file.source.read_bytes()[1000:1010]
    monkeypatch.setattr("catalogger.remote.reading._PART", 999)
    counted: list[int] = []
    assert Reading(storage).digest("model/weights", 5000, counted.append) == _sha256(file)
    assert (max(counted), sum(counted)) == (999, 5000)
    with pytest.raises(CataloggerError):
        Reading(storage).digest("model/weights", 5500, counted.append)


def test_a_file_that_was_cut_off_while_it_was_read_is_read_again(cloud: Cloud, tmp_path: Path) -> None:
    file = _file(tmp_path, "MLmodel", 500)
    storage = cloud.storage
    _send(storage, [file])
    cloud.server.cut("GET", "MLmodel")
    assert storage.read("MLmodel") == file.source.read_bytes()


def test_a_list_that_was_cut_off_is_asked_for_again(cloud: Cloud, tmp_path: Path) -> None:
    storage = cloud.storage
    _send(storage, [_file(tmp_path, "a", 5)])
    listing = {"azure": "directory=", "google": "/o[?]", "default": "/api/2.0/fs/directories"}
    cloud.server.cut("GET", listing[cloud.kind])
    assert storage.listing() == {"a": 5}


def test_a_file_that_is_not_there_cannot_be_read(cloud: Cloud) -> None:
    with pytest.raises(RegistryError, match="404"):
        cloud.storage.read("none")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_and_counted_once(cloud: Cloud, tmp_path: Path, status: int) -> None:
    file = _file(tmp_path, "f", LARGE)
    cloud.server.fail(*UPLOADS[cloud.kind], status, retry_after="0")
    sent, counted = _send(cloud.storage, [file])
    assert cloud.bytes_at("f") == file.source.read_bytes()
    assert (counted, sent.digests["f"]) == (LARGE, _sha256(file))


@pytest.mark.parametrize("fault", ["reset", "lose"])
def test_a_connection_that_breaks_is_made_again(cloud: Cloud, tmp_path: Path, fault: str) -> None:
    file = _file(tmp_path, "f", LARGE)
    getattr(cloud.server, fault)(*UPLOADS[cloud.kind])
    sent, counted = _send(cloud.storage, [file])
    assert cloud.bytes_at("f") == file.source.read_bytes()
    assert (counted, sent.digests["f"]) == (LARGE, _sha256(file))


@pytest.mark.parametrize("kind", ["azure", "google"])
def test_a_part_that_failed_is_sent_again_and_no_other(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    cloud: Cloud = request.getfixturevalue(kind)
    cloud.server.fail(*UPLOADS[kind], 503, retry_after="0")
    _send(cloud.storage, [_file(tmp_path, "f", LARGE)])
    parts = [r.size for r in cloud.server.requests if r.size >= LARGE % (1 << 22)]
    assert sorted(parts) == [LARGE % (1 << 22), 1 << 22, 1 << 22, 1 << 22]


def test_patience_ends_where_a_longer_pause_is_asked_for(cloud: Cloud, tmp_path: Path) -> None:
    cloud.server.fail(*UPLOADS[cloud.kind], 503, retry_after="60", times=1000)
    with pytest.raises(NetworkUnreachable, match="answered 503 again and again"):
        _send(cloud.storage, [_file(tmp_path, "f", LARGE)])
    assert sum(r.status == 503 for r in cloud.server.requests) == 1  # 60 seconds are more than there is patience


def test_a_server_that_hangs_up_each_time_is_unreachable(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOGGER_RETRY_SECONDS", "0")
    cloud.server.reset(*UPLOADS[cloud.kind], times=1000)
    with pytest.raises(NetworkUnreachable, match="cannot be reached"):
        _send(cloud.storage, [_file(tmp_path, "f", LARGE)])


def test_a_certificate_of_a_stranger_is_final(azure: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(NetworkUnreachable, match="certificate") as caught:
        azure.storage.listing()
    assert "REQUESTS_CA_BUNDLE" in caught.value.fix


DENIED = {"azure": "AuthorizationPermissionMismatch", "google": "forbidden", "default": "AccessDenied"}


def test_a_missing_right_is_final(cloud: Cloud, tmp_path: Path) -> None:
    cloud.server.fail(*UPLOADS[cloud.kind], 403, DENIED[cloud.kind], times=1000)
    with pytest.raises(AccessDenied, match=f"403 {DENIED[cloud.kind]}"):
        _send(cloud.storage, [_file(tmp_path, "f", LARGE)])
    assert sum(r.status == 403 for r in cloud.server.requests) == (2 if cloud.kind == "default" else 1)


@pytest.mark.parametrize(("status", "code"), [(507, "InsufficientStorage"), (403, "storageQuotaExceeded")])
def test_a_full_storage_is_said_to_be_full(cloud: Cloud, tmp_path: Path, status: int, code: str) -> None:
    cloud.server.fail(*UPLOADS[cloud.kind], status, code, times=1000)
    with pytest.raises(RegistryError, match="The storage is full"):
        _send(cloud.storage, [_file(tmp_path, "f", LARGE)])


def test_another_refusal_tells_the_clouds_own_code(cloud: Cloud, tmp_path: Path) -> None:
    cloud.server.fail(*UPLOADS[cloud.kind], 400, "EntityTooLarge")
    with pytest.raises(RegistryError, match=r"400 EntityTooLarge: the file is larger than it takes\.\nCut the weights"):
        _send(cloud.storage, [_file(tmp_path, "f", LARGE)])


@pytest.mark.parametrize("kind", ["azure", "google"])
def test_a_location_that_is_not_there_is_refused(request: pytest.FixtureRequest, kind: str) -> None:
    request.getfixturevalue(kind)
    storage = (
        azure_storage("abfss://none@account.dfs.core.windows.net/a", lambda: OLD)
        if kind == "azure"
        else google_storage("gs://none/a", lambda: OLD_GOOGLE)
    )
    with pytest.raises(RegistryError, match=r"404 (FilesystemNotFound|notFound)"):
        storage.listing()


def test_an_expired_signature_is_renewed_in_the_middle_of_a_file(azure: Cloud, tmp_path: Path) -> None:
    azure.server.valid |= {OLD: 3, NEW: FOREVER}
    azure.renew[:] = [OLD, NEW]
    file = _file(tmp_path, "f", LARGE)
    _, counted = _send(azure.storage, [file])
    assert azure.bytes_at("f") == file.source.read_bytes()
    assert (azure.renewed, counted) == ([OLD, NEW], LARGE)
    appended = [r.credential for r in azure.server.requests if r.query.get("action") == "append" and r.status == 202]
    assert appended == [OLD, NEW, NEW]


def test_several_files_at_once_renew_a_signature_once(azure: Cloud, tmp_path: Path) -> None:
    azure.server.valid |= {OLD: 3, NEW: FOREVER}
    azure.renew[:] = [OLD, NEW]
    files = [_file(tmp_path, f"f{number}", 100) for number in range(8)]
    _send(azure.storage, files)
    assert azure.renewed == [OLD, NEW]
    assert all(azure.bytes_at(file.path) == file.source.read_bytes() for file in files)


def test_a_signature_that_is_never_right_is_final(azure: Cloud) -> None:
    azure.server.valid.clear()
    with pytest.raises(AccessDenied, match="403 AuthenticationFailed"):
        azure.storage.listing()
    assert len(azure.server.requests) == 2


def test_an_expired_token_is_renewed_in_the_middle_of_a_file(google: Cloud, tmp_path: Path) -> None:
    google.server.valid |= {OLD_GOOGLE: 3, NEW_GOOGLE: FOREVER}
    google.renew[:] = [OLD_GOOGLE, NEW_GOOGLE]
    file = _file(tmp_path, "f", LARGE)
    _, counted = _send(google.storage, [file])
    assert google.bytes_at("f") == file.source.read_bytes()
    assert (google.renewed, counted) == ([OLD_GOOGLE, NEW_GOOGLE], LARGE)
    parts = [r.credential for r in google.server.requests if r.method == "PUT" and r.status in (200, 308)]
    assert parts == [OLD_GOOGLE, NEW_GOOGLE, NEW_GOOGLE]


def test_a_token_that_is_never_right_is_final(google: Cloud) -> None:
    google.server.valid.clear()
    with pytest.raises(AccessDenied, match="401 authError"):
        google.storage.listing()


@pytest.mark.parametrize("status", [404, 410])
def test_an_upload_that_google_forgets_is_begun_anew(google: Cloud, tmp_path: Path, status: int) -> None:
    google.server.hook("PUT", "upload_id=", lambda: google.server.fail("PUT", "upload_id=", status, "notFound"))
    file = _file(tmp_path, "f", LARGE)
    sent, counted = _send(google.storage, [file])
    assert google.bytes_at("f") == file.source.read_bytes()
    assert (counted, sent.digests["f"]) == (LARGE, _sha256(file))


def test_a_part_that_google_keeps_in_part_is_sent_again(google: Cloud, tmp_path: Path) -> None:
    assert isinstance(google.server.service, Google)
    google.server.service.keeps = 1 << 18
    file = _file(tmp_path, "f", LARGE)
    sent, counted = _send(google.storage, [file])
    assert google.bytes_at("f") == file.source.read_bytes()
    assert (counted, sent.digests["f"]) == (LARGE, _sha256(file))


def test_an_expired_address_is_signed_anew(default: Cloud, tmp_path: Path) -> None:
    file = _file(tmp_path, "f", LARGE)
    default.server.fail("PUT", "^/signed/", 403, "AccessDenied")
    _, counted = _send(default.storage, [file])
    signatures = [r.credential for r in default.server.requests if r.path.startswith("/signed/")]
    assert len(set(signatures)) == 2
    assert (default.bytes_at("f"), counted) == (file.source.read_bytes(), LARGE)


def test_settings_of_netrc_are_no_part_of_a_signed_request(default: Cloud, tmp_path: Path) -> None:
    netrc = Path.home() / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {secret('netrc')}\n")
    netrc.chmod(0o600)
    _send(default.storage, [_file(tmp_path, "f", 10)])
    assert default.storage.listing() == {"f": 10}


@pytest.mark.parametrize("kind", ["azure", "google"])
def test_what_is_there_and_right_is_taken_over(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    cloud: Cloud = request.getfixturevalue(kind)
    file = _file(tmp_path, "f", LARGE)
    _send(cloud.storage, [file])
    before = cloud.uploads()
    sent, counted = _send(cloud.storage, [file])
    assert (cloud.uploads() - before, counted) == (0, LARGE)
    assert sent == Sent(LARGE, 0, 0, {"f": _sha256(file)})


def test_other_bytes_of_the_same_size_are_replaced(cloud: Cloud, tmp_path: Path) -> None:
    _send(cloud.storage, [_file(tmp_path, "f", LARGE, seed=1)])
    file = _file(tmp_path, "f", LARGE, seed=2)
    sent, counted = _send(cloud.storage, [file])
    assert cloud.bytes_at("f") == file.source.read_bytes()
    assert (sent.sent, counted, sent.digests) == (LARGE, LARGE, {"f": _sha256(file)})


def test_half_a_file_is_replaced(cloud: Cloud, tmp_path: Path) -> None:
    file = _file(tmp_path, "f", LARGE)
    _send(cloud.storage, [Sending("f", file.source, LARGE)])
    (cloud.root / "f").write_bytes(file.source.read_bytes()[:1000])
    _send(cloud.storage, [file])
    assert cloud.bytes_at("f") == file.source.read_bytes()


def test_in_azure_a_file_without_md5_is_sent_again(azure: Cloud, tmp_path: Path) -> None:
    file = _file(tmp_path, "f", 100)
    _send(azure.storage, [file])
    assert isinstance(azure.server.service, Azure)
    azure.server.service.md5.clear()
    assert _send(azure.storage, [file])[0].sent == 100


def test_default_storage_tells_no_checksum_so_a_file_is_sent_again(default: Cloud, tmp_path: Path) -> None:
    file = _file(tmp_path, "f", 100)
    _send(default.storage, [file])
    assert _send(default.storage, [file])[0].sent == 100


@pytest.mark.parametrize("kept", [100, 0])
def test_a_file_that_did_not_arrive_whole_is_an_error(cloud: Cloud, tmp_path: Path, kept: int) -> None:
    def shorten() -> None:
        (cloud.root / "f").write_bytes(b"x" * kept)

    check = {"azure": ("HEAD", "/f"), "google": ("GET", "/o/a/1/f"), "default": ("GET", r"/main/ml/m/1\?")}
    storage = cloud.storage
    other = _file(tmp_path, "other", 1)
    _send(storage, [other])
    cloud.server.hook(*UPLOADS[cloud.kind], lambda: cloud.server.hook(*check[cloud.kind], shorten))
    with pytest.raises(RegistryError, match=f'"f" did not arrive whole: the storage has {kept} bytes of {LARGE}'):
        _send(storage, [_file(tmp_path, "f", LARGE)])


def test_a_file_that_arrived_with_other_bytes_is_an_error(google: Cloud, tmp_path: Path) -> None:
    def replace() -> None:
        (google.root / "f").write_bytes(b"y" * 100)

    google.server.hook("GET", "/o/a/1/f", replace)
    with pytest.raises(RegistryError, match="other bytes than were sent"):
        _send(google.storage, [_file(tmp_path, "f", 100)])


def test_a_file_that_becomes_shorter_is_a_matter_of_the_disk(cloud: Cloud, tmp_path: Path) -> None:
    file = _file(tmp_path, "f", LARGE)
    with pytest.raises(DiskError, match=r"blob-f.*became shorter"):
        _send(cloud.storage, [Sending("f", file.source, LARGE + 1)])
    assert cloud.storage.listing().get("f", 0) == 0


def test_a_file_that_is_gone_is_a_matter_of_the_disk(cloud: Cloud, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="blob-gone"):
        _send(cloud.storage, [Sending("f", tmp_path / "blob-gone", 10)])


def test_one_failure_ends_the_others(cloud: Cloud, tmp_path: Path) -> None:
    files = [_file(tmp_path, f"f{number}", 100) for number in range(20)]
    lost = Sending("lost", tmp_path / "none", LARGE)  # the largest comes first
    with pytest.raises(DiskError):
        _send(cloud.storage, [*files, lost])
    assert len(cloud.storage.listing()) < 20


def test_no_secret_is_told(cloud: Cloud, tmp_path: Path) -> None:
    method, pattern = UPLOADS[cloud.kind]
    storage = cloud.storage
    file = _file(tmp_path, "f", LARGE)
    told = [repr(storage)]
    cloud.server.reset(method, pattern, times=1000)
    told.append(_told(lambda: storage.send([file], lambda _: None)))
    cloud.server._orders.clear()
    for status, code in ((403, DENIED[cloud.kind]), (400, "EntityTooLarge"), (503, "")):
        cloud.server.fail(method, pattern, status, code, times=1000, retry_after="60")
        told.append(_told(lambda: storage.send([file], lambda _: None)))
        cloud.server._orders.clear()
    cloud.server.stop()
    told.append(_told(storage.listing))
    secrets = {r.credential for r in cloud.server.requests} | {r.query.get("upload_id") for r in cloud.server.requests}
    for told_of in {part for s in secrets if s for part in (s, s.rpartition("sig=")[2])} | {MARK}:
        assert not any(told_of in text for text in told)


def _told(action: Callable[[], object]) -> str:
    """The whole trace, even before anything in it is masked."""
    with pytest.raises(CataloggerError) as caught:
        action()
    return "".join(traceback.format_exception(caught.value))


def test_progress_is_told_by_one_thread_at_a_time(cloud: Cloud, tmp_path: Path) -> None:
    telling = threading.Lock()

    def tick(_: int) -> None:
        assert telling.acquire(blocking=False)
        hashlib.sha256(bytes(10_000_000))  # the other threads run meanwhile
        telling.release()

    cloud.storage.send([_file(tmp_path, f"f{number}", LARGE) for number in range(4)], tick)


@pytest.mark.parametrize(("module", "maker"), [("azure", "azure_storage"), ("google.cloud", "google_storage")])
def test_a_missing_library_is_named(module: str, maker: str) -> None:
    script = f"""
import sys
sys.modules["{module}"] = None
from catalogger.errors import UsageError
from catalogger.remote.{maker.removesuffix("_storage")} import {maker}
try:
    {maker}("gs://bucket/path", lambda: "x")
except UsageError as error:
    print(error.fix)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pip install 'catalogger[databricks]'"


def test_without_credentials_default_storage_is_refused() -> None:
    with pytest.raises((AccessDenied, UsageError)):
        default_storage("main.ml.m", "1", "databricks-uc://none")
