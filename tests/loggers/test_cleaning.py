"""What did not end is found and taken away; what catalogger did not make, or is at work in, stays whatever its name."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from fakes import checkpoints
from fakes.s3 import S3Server
from loggers.catalogs import NAME, Catalog, log, opened, tree

from catalogger import Cleaning, clean, log_model
from catalogger.files.place import same_file_system
from catalogger.files.temporary import MARKER, marked, take_away, whose
from catalogger.loggers.keeper_unity import UnityKeeper
from catalogger.loggers.keepers import kept_at
from catalogger.loggers.lock import registration_lock
from catalogger.loggers.record import Logged
from catalogger.loggers.unity import UnityRegistry
from catalogger.progress import Silent


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made: the test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _interrupted(llama: Path, catalog: Catalog) -> None:
    """A version that stays pending, with all of its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnityRegistry, "_finalize", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            log(llama, catalog)


def _foreign(catalog: Catalog) -> str:
    """A pending version that somebody else made."""
    with kept_at(None, catalog.uri) as keeper:
        assert isinstance(keeper, UnityKeeper)
        logged = Logged("", None, "", "dbfs:/somewhere", "", None, {})  # type: ignore[arg-type]
        return keeper._surface.create(NAME, "dbfs:/somewhere", logged, "Somebody's.").number


def _kinds(done: Cleaning) -> dict[str, str]:
    return {one.found.what.replace(f"{NAME} ", ""): one.row()[0] for one in done.things}


def test_pending_versions_of_ours_go_and_others_stay(catalog: Catalog, llama: Path) -> None:
    _interrupted(llama, catalog)
    theirs = _foreign(catalog)
    (ours, other) = catalog.versions()
    seen = catalog.digests(ours)
    assert {"version 1 (PENDING_REGISTRATION)": "stays"}.items() <= _kinds(clean(registry_uri=catalog.uri)).items()

    listed = clean([NAME], registry_uri=catalog.uri, older_than=0)
    expected = {"version 1 (PENDING_REGISTRATION)": "left over", f"version {theirs} (PENDING_REGISTRATION)": "stays"}
    assert _kinds(listed) == expected
    assert listed.document()["bytes"]["left"] > sum(file.stat().st_size for file in llama.glob("*.safetensors"))
    assert (len(catalog.versions()), catalog.digests(ours)) == (2, seen), "to list changes nothing"

    done = clean([NAME], yes=True, registry_uri=catalog.uri, older_than=0)
    assert _kinds(done) == {**expected, "version 1 (PENDING_REGISTRATION)": "removed"}
    assert done.exit_code == 0
    assert [held.number for held in catalog.versions()] == [other.number]
    assert catalog.digests(ours) == {}
    outcome = log(llama, catalog)
    assert outcome.action == "registered"
    assert {one.row()[0] for one in clean([NAME], yes=True, registry_uri=catalog.uri, older_than=0).things} == {"stays"}
    assert outcome.version in [held.number for held in catalog.versions()], "what is READY stays"


@pytest.mark.parametrize("catalog", ["oss-s3"], indirect=True)
def test_unfinished_uploads_of_the_version_end(catalog: Catalog, llama: Path) -> None:
    _interrupted(llama, catalog)
    s3 = catalog.s3  # type: ignore[attr-defined]
    (held,) = catalog.versions()
    ours = held.location.removeprefix(f"s3://{s3.bucket}/")
    for key in (f"{ours}/model/more.safetensors", f"{ours}-of-somebody/model/more.safetensors"):
        upload = s3.client().create_multipart_upload(Bucket=s3.bucket, Key=key)["UploadId"]
        s3.client().upload_part(Bucket=s3.bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 1000)
    before = sum(len(s3.content(k)) for k in s3.objects if k.startswith(f"{ours}/"))
    assert clean([NAME], registry_uri=catalog.uri, older_than=0).left[0].found.size == before + 1000
    assert catalog.unfinished() == 2
    clean([NAME], yes=True, registry_uri=catalog.uri, older_than=0)
    (left,) = s3.client().list_multipart_uploads(Bucket=s3.bucket)["Uploads"]
    assert left["Key"].startswith(f"{ours}-of-somebody/")
    s3.client().abort_multipart_upload(Bucket=s3.bucket, Key=left["Key"], UploadId=left["UploadId"])


@pytest.mark.parametrize("catalog", ["oss-folder"], indirect=True)
def test_a_version_that_a_run_is_at_work_on_stays(catalog: Catalog, llama: Path) -> None:
    _interrupted(llama, catalog)
    with registration_lock(catalog.uri, NAME, Silent()):
        (one,) = clean([NAME], yes=True, registry_uri=catalog.uri, older_than=0).things
    assert (one.removed, one.found.ours, "under way on this machine" in one.found.why) == (False, False, True)
    assert len(catalog.versions()) == 1


@pytest.mark.parametrize("catalog", ["oss-folder"], indirect=True)
def test_one_that_ended_meanwhile_stays(catalog: Catalog, llama: Path) -> None:
    """Between the listing and the removal another run has completed it."""
    _interrupted(llama, catalog)
    from catalogger.errors import RegistryError
    from catalogger.loggers.leftovers import versions_left

    with kept_at(None, catalog.uri) as keeper:
        (left,) = versions_left(keeper, catalog.uri, NAME, 0)
        assert log(llama, catalog).action == "registered"
        with pytest.raises(RegistryError, match="is being worked on"):
            left.remove()
    assert [held.status for held in catalog.versions()] == ["READY"]


def test_in_the_embedded_default(llama: Path, work: Path) -> None:
    log_model("llama-chat", source=llama, name=NAME)
    client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    client.create_model_version(NAME, str(work))
    client.create_model_version(NAME, str(work), tags={"catalogger.fingerprint": "0" * 64})
    with sqlite3.connect(work / "mlflow.db") as database:
        database.execute("update model_versions set status = 'FAILED_REGISTRATION' where version > 1")
    database.close()
    done = clean(yes=True, older_than=0)
    assert _kinds(done) == {"version 2 (FAILED_REGISTRATION)": "stays", "version 3 (FAILED_REGISTRATION)": "removed"}
    assert sorted(int(v.version) for v in client.search_model_versions(f"name='{NAME}'")) == [1, 2]


_KILLED = """
import os, signal, sys
from catalogger import log_model
from catalogger.loggers import work
work.{moment} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
log_model("llama-chat", source=sys.argv[1], name="main.ml.bot")
"""


def test_what_a_killed_run_left_beside_the_artifacts(llama: Path, work: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED.format(moment="pointed_at"), str(llama)], check=False)
    assert done.returncode == -signal.SIGKILL
    (staging,) = work.glob(".catalogger-*")
    (one,) = clean(older_than=0).things
    assert (one.found.what, one.found.ours) == (str(staging), True)
    assert "marker" in one.found.why
    assert [one.row()[0] for one in clean(yes=True).things] == ["stays"], "it is not a day old"
    assert staging.exists()
    assert [one.removed for one in clean(yes=True, older_than=0).things] == [True]
    assert list(work.glob(".catalogger-*")) == []


_HOLDS = """
from catalogger.files.temporary import temporary
with temporary("proof") as folder:
    (folder / "half").write_bytes(b"half")
    print(folder, flush=True)
    input()
"""


_KILLED_AT_THE_WEIGHTS = """
import os, signal, sys
from pathlib import Path
from catalogger import log_model
from catalogger.loggers import changing
def killed(plan, folder, tick):
    folder.mkdir()
    (folder / "half.part").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
changing.write_weights = killed
log_model("llama-chat", source=sys.argv[1], name="main.ml.bot", registry_uri=sys.argv[2], dtype="bfloat16")
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the cache: memory, which every Linux mounts there."""
    memory = Path("/dev/shm")  # noqa: S108  nothing predictable: mkdtemp names the folder in it
    assert memory.is_dir(), "this test needs /dev/shm"
    assert not same_file_system(memory, tmp_path), "this test needs TMPDIR elsewhere than in /dev/shm"
    folder = Path(tempfile.mkdtemp(prefix="test-cleaning-", dir=memory))
    yield folder
    shutil.rmtree(folder)


def test_changed_weights_beside_the_folder_of_a_catalog(s3_server: S3Server, elsewhere: Path, tmp_path: Path) -> None:
    """A killed run has left them on the file system of the catalog's storage, which no request is made about."""
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    with opened("oss-folder", s3_server, elsewhere / "catalog") as catalog:
        log(source, catalog)
        command = [sys.executable, "-c", _KILLED_AT_THE_WEIGHTS, str(source), catalog.uri]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        (folder,) = elsewhere.rglob(".catalogger-changed-*")
        asked = catalog.requests()
        package = str(next((Path(os.environ["XDG_CACHE_HOME"]) / "catalogger" / "packages").iterdir()))
        assert {one.found.what for one in clean(older_than=0).things} == {str(folder), package}
        assert catalog.requests() == asked
        assert [one.removed for one in clean(yes=True, older_than=0).things] == [True, True]
        assert list(elsewhere.rglob(".catalogger-*")) == list(_links()) == []

        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert [link.resolve() for link in _links()] == [folder]
        done = log(source, catalog, dtype="bfloat16")
        assert (done.action, done.weights) == ("registered", "linked")
        assert list(elsewhere.rglob(".catalogger-*")) == list(_links()) == []


def test_a_link_to_what_is_not_ours(tmp_path: Path, work: Path) -> None:
    """It is listed as it stands there, and stays; one that leads nowhere is nothing."""
    (tmp_path / ".catalogger-changed-0123456789abcdef").mkdir()
    links = Path(os.environ["XDG_CACHE_HOME"]) / "catalogger" / "changed"
    links.mkdir(parents=True)
    for name in ("0123456789abcdef", "fedcba9876543210"):
        (links / f".catalogger-changed-{name}").symlink_to(tmp_path / f".catalogger-changed-{name}")
    (links / "other").symlink_to(tmp_path)
    done = clean(yes=True, older_than=0)
    assert [(one.row()[0], Path(one.found.what).name) for one in done.things] == [
        ("stays", ".catalogger-changed-0123456789abcdef"),
        ("stays", "other"),
    ]
    assert (tmp_path / ".catalogger-changed-0123456789abcdef").is_dir()


def _links() -> Iterator[Path]:
    return (Path(os.environ["XDG_CACHE_HOME"]) / "catalogger" / "changed").glob("*")


@contextmanager
def _at_work() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process in a temporary folder of its own."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _HOLDS], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout
        yield process, Path(process.stdout.readline().strip()).parent
        process.kill()


def test_a_folder_stays_while_its_process_lives(place: Path) -> None:
    with _at_work() as (process, folder):
        (one,) = clean(yes=True, older_than=0).things
        assert (one.found.what, one.removed, one.found.why) == (str(folder), False, "a process is at work in it")
        assert (folder / "work" / "half").exists()
        process.kill()
        process.wait()
        (one,) = clean(yes=True, older_than=0).things
        assert one.removed
    assert list(place.iterdir()) == []


def test_other_peoples_folders_stay_whatever_their_names(place: Path, tmp_path: Path, work: Path) -> None:
    outside = tmp_path / "outside"
    with marked(outside):
        said = (outside / MARKER).read_bytes()
    for folder in (place / "catalogger-notes", work / ".catalogger-0123456789abcdef", place / "unlike"):
        folder.mkdir()
        (folder / "precious").write_bytes(b"precious")
    (place / "catalogger-notes" / MARKER).write_bytes(b"another tool's\n")
    (place / "unlike" / MARKER).write_bytes(said)  # not where catalogger works: its name is another
    outside.mkdir()
    (outside / MARKER).write_bytes(said)
    (outside / "precious").write_bytes(b"precious")
    (place / "catalogger-proof-abcdefgh").symlink_to(outside)
    linked = place / "catalogger-proof-ijklmnop"
    linked.mkdir()
    (linked / MARKER).symlink_to(outside / MARKER)
    (place / "catalogger-file").write_bytes(said)
    before = tree(tmp_path), tree(work)

    done = clean(yes=True, older_than=0)
    assert {one.row()[0] for one in done.things} == {"stays"}
    assert (tree(tmp_path), tree(work)) == before
    assert (place / "catalogger-proof-abcdefgh").is_symlink()


def test_links_in_a_folder_of_ours_go_and_what_they_lead_to_stays(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    with _at_work() as (process, folder):
        process.kill()
        process.wait()
    (folder / "link").symlink_to(outside)
    (folder / "work" / "deep").symlink_to(outside / "precious")
    assert clean(yes=True, older_than=0).things[0].removed
    assert (not folder.exists(), (outside / "precious").read_bytes()) == (True, b"precious")


def test_age_is_that_of_the_last_change_of_any_file(place: Path) -> None:
    with _at_work() as (process, folder):
        process.kill()
        process.wait()
    long_ago = time.time() - 7 * 86400
    for path in (folder / "work" / "half", folder / MARKER, folder / "work", folder):
        os.utime(path, (long_ago, long_ago))
    assert [one.found.ours for one in clean(older_than=6 * 86400).things] == [True]
    os.utime(folder / "work" / "half")
    assert [one.found.ours for one in clean(older_than=6 * 86400).things] == [False]


def test_a_half_removed_folder_is_known_again(tmp_path: Path) -> None:
    with marked(tmp_path / "once"):
        said = (tmp_path / "once" / MARKER).read_bytes()
    going = tmp_path / "once-going"
    going.mkdir()
    (going / MARKER).write_bytes(said)
    assert whose(going) == "ours"
    assert take_away(going)
    assert not going.exists()


def test_nothing_is_made_by_looking(work: Path) -> None:
    assert clean().things == ()
    assert list(work.iterdir()) == []
