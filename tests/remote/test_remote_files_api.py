"""Files by a workspace's Files API: what arrives, what is tried again, and what is said where it does not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import AlreadyExists, BadRequest, NotFound
from fakes.secrets import secret
from mlflow.store.artifact.presigned_url_artifact_repo import PresignedUrlArtifactRepository
from mlflow.utils.rest_utils import MlflowHostCreds
from remote.files_workspace import (
    LARGE,
    LOCATION,
    MIB,
    TOKEN,
    Files,
    Workspace,
    arrived,
    assert_a_cut_is_noticed,
    assert_no_secret,
    assert_sent_once,
    error_body,
    storage,
    there,
)

from catalogger.errors import AccessDenied, DiskError, NetworkUnreachable, RegistryError, UsageError
from catalogger.remote.patience import PASSING
from catalogger.remote.storage import Sending
from catalogger.testing.files_api import PRESIGNED


def test_the_sdk_sends_lists_and_fetches(workspace: Workspace, files: Files) -> None:
    """The stand-in, by the real client, with nothing of ours between them."""
    client = WorkspaceClient(host=workspace.url, token=TOKEN).files
    file = files.make("large", LARGE)
    client.upload_from(f"{LOCATION}/a/large", str(file.source))
    assert client.get_metadata(f"{LOCATION}/a/large").content_length == LARGE
    client.download_to(f"{LOCATION}/a/large", "fetched", use_parallel=True)
    assert Path("fetched").read_bytes() == file.source.read_bytes()
    assert [(e.name, e.is_directory) for e in client.list_directory_contents(LOCATION)] == [("a", True)]
    assert [(e.name, e.file_size) for e in client.list_directory_contents(f"{LOCATION}/a")] == [("large", LARGE)]
    with pytest.raises(AlreadyExists):
        client.upload(f"{LOCATION}/a/large", BytesIO(b""), overwrite=False)
    with pytest.raises(BadRequest, match="not empty"):
        client.delete_directory(f"{LOCATION}/a")
    client.delete(f"{LOCATION}/a/large")
    client.delete_directory(f"{LOCATION}/a")
    with pytest.raises(NotFound):
        client.get_directory_metadata(f"{LOCATION}/a")


def test_mlflow_sends_lists_and_fetches_by_presigned_addresses(workspace: Workspace, files: Files) -> None:
    mlflow_files = PresignedUrlArtifactRepository(MlflowHostCreds(workspace.url, token=TOKEN), "main.ml.tiny", 1)
    Path("sent/a").mkdir(parents=True)
    contents = {"MLmodel": b"flavors: {}", "a/weights": os.urandom(MIB)}
    for path, content in contents.items():
        Path("sent", path).write_bytes(content)
    mlflow_files.log_artifacts("sent")
    assert [(f.path, f.is_dir) for f in mlflow_files.list_artifacts()] == [("MLmodel", False), ("a", True)]
    fetched = Path(mlflow_files.download_artifacts("", str(files.folder)))
    assert {path: (fetched / path).read_bytes() for path in contents} == contents


def test_small_and_large_files_arrive_with_the_digests_that_were_not_known(workspace: Workspace, files: Files) -> None:
    some = [
        files.make("MLmodel", b"flavors: {}\n"),
        files.make("empty", b""),
        files.make("model/model.safetensors", LARGE),
        files.make("model/other.safetensors", 8 * MIB, known=True),
        files.make("code/100%/\u00e4 b+c.py", b"pass", known=True),
    ]
    sent = storage(workspace).send(some, files.tick)
    assert arrived(workspace, *some)
    assert sent.digests == {f.path: hashlib.sha256(f.source.read_bytes()).hexdigest() for f in some[:3]}
    assert sent.read == sent.sent == sum(files.ticks) == sum(file.size for file in some)
    assert sent.written == 0
    assert workspace.api.unfinished == ()


def test_a_large_file_goes_in_parts_past_the_workspace_and_a_small_one_goes_before_it(
    workspace: Workspace, files: Files
) -> None:
    storage(workspace).send([files.make("large", LARGE), files.make("small", 8 * MIB - 1)], files.tick)
    assert workspace.count("PUT /api") == 1
    assert workspace.count(f"PUT {PRESIGNED}") == 5
    puts = [request for request in workspace.requests if request.startswith("PUT")]
    assert puts[0].partition("?")[0].endswith("/small")


def test_what_an_earlier_attempt_left_is_replaced(workspace: Workspace, files: Files) -> None:
    some = [files.make("small", 1000), files.make("large", LARGE)]
    for file in some:
        there(workspace, file.path).parent.mkdir(parents=True, exist_ok=True)
        there(workspace, file.path).write_bytes(bytes(file.size))
    storage(workspace).send(some, files.tick)
    assert arrived(workspace, *some)
    assert sum(files.ticks) == sum(file.size for file in some)


def test_an_expired_address_is_renewed(workspace: Workspace, files: Files) -> None:
    workspace.api.expire_part(1)
    workspace.api.expire_part(3, times=2)
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count(f"PUT {PRESIGNED}") == 8


def test_all_addresses_expire_while_a_file_is_sent(workspace: Workspace, files: Files) -> None:
    def expire(request: str) -> None:
        if request.startswith(f"PUT {PRESIGNED}") and "/4?" in request and workspace.count("/4[?]") == 1:
            workspace.api.expire_urls()

    workspace.on_request = expire
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count(f"PUT {PRESIGNED}.*/4[?]") == 2


@pytest.mark.parametrize("status", sorted(PASSING))
@pytest.mark.parametrize("part", [1, 4])
def test_a_part_that_fails_is_sent_again_and_counted_once(
    workspace: Workspace, files: Files, status: int, part: int
) -> None:
    workspace.api.fail_part(part, status=status, retry_after=1)
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))


def test_time_and_not_a_count_ends_the_patience_with_a_part(workspace: Workspace, files: Files) -> None:
    workspace.api.fail_part(4, status=503, times=3)
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count("initiate-upload") == 1


@pytest.mark.parametrize("status", sorted(PASSING))
def test_a_small_file_that_fails_is_sent_again_and_counted_once(
    workspace: Workspace, files: Files, status: int
) -> None:
    workspace.order("PUT /api", status=status, headers={"Retry-After": "0"})
    assert_sent_once(workspace, files, files.make("small", MIB), storage(workspace))
    assert workspace.count("PUT /api") == 2


@pytest.mark.parametrize("kind", ["reset", "stall", "lost"])
@pytest.mark.parametrize(
    "pattern",
    [f"PUT {PRESIGNED}.*/3[?]", "create-upload-part-urls", "initiate-upload", "complete-upload", "PUT /api", "HEAD"],
)
def test_a_connection_that_breaks_at_any_step_does_not_break_the_file(
    workspace: Workspace, files: Files, kind: str, pattern: str
) -> None:
    workspace.order(pattern, kind=kind)
    send = storage(workspace, timeout=(1, 1))
    size = MIB if pattern == "PUT /api" else LARGE
    assert send.send([files.make("file", size)], files.tick).digests
    assert workspace.orders[0].times == 0
    assert sum(files.ticks) == size


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["answer", "reset"])
@pytest.mark.parametrize(
    "pattern", ["PUT /api", f"PUT {PRESIGNED}.*/3[?]", "initiate-upload|PUT /api", "complete-upload"]
)
def test_patience_ends(workspace: Workspace, files: Files, pattern: str, kind: str) -> None:
    workspace.order(pattern, kind=kind, times=1000)
    file = files.make("file", MIB if pattern == "PUT /api" else LARGE)
    with pytest.raises(NetworkUnreachable) as caught:
        storage(workspace).send([file], files.tick)
    assert workspace.count(pattern) > 1
    assert workspace.api.unfinished == ()
    assert_no_secret(caught.value)
    assert not there(workspace, "file").exists()


@pytest.mark.usefixtures("impatient")
def test_patience_ends_with_the_look_at_what_arrived(workspace: Workspace, files: Files) -> None:
    workspace.order("HEAD", times=1000)
    with pytest.raises(NetworkUnreachable):
        storage(workspace).send([files.make("small", 10)], files.tick)
    assert workspace.count("HEAD") > 1


@pytest.mark.usefixtures("impatient")
def test_patience_ends_where_a_server_fails_without_a_hint_of_passing(workspace: Workspace, files: Files) -> None:
    workspace.order("PUT /api", status=500, times=1000, body=error_body("INTERNAL_ERROR", "Boom."))
    with pytest.raises(NetworkUnreachable, match="Boom"):
        storage(workspace).send([files.make("small", 10)], files.tick)
    assert workspace.count("PUT /api") > 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("size", [10, LARGE])
def test_a_workspace_that_is_not_there_cannot_be_reached(tmp_path: Path, files: Files, size: int) -> None:
    with Workspace(tmp_path / "root") as workspace:
        gone = storage(workspace)
    with pytest.raises(NetworkUnreachable) as caught:
        gone.send([files.make("file", size)], files.tick)
    assert_no_secret(caught.value)
    for call in (gone.listing, lambda: gone.read("file"), lambda: gone.remove(["file"])):
        with pytest.raises(NetworkUnreachable):
            call()


@pytest.mark.parametrize("size", [10, LARGE])
def test_an_unknown_token_is_refused_at_once(workspace: Workspace, files: Files, size: int) -> None:
    stranger = storage(workspace, secret("nobody", "databricks"))
    with pytest.raises(AccessDenied, match="Credential was not sent") as caught:
        stranger.send([files.make("file", size)], files.tick)
    assert workspace.count("PUT|POST") == 1
    assert "dapi" not in str(caught.value)
    for call in (stranger.listing, lambda: stranger.read("file"), lambda: stranger.remove(["file"])):
        with pytest.raises(AccessDenied):
            call()


WORDS = "User does not have CREATE MODEL VERSION on Model 'main.ml.tiny'."


def test_a_missing_privilege_is_told_before_a_large_file_is_begun(workspace: Workspace, files: Files) -> None:
    workspace.order("PUT /api", status=403, times=1000, body=error_body("PERMISSION_DENIED", WORDS))
    with pytest.raises(AccessDenied, match="CREATE MODEL VERSION"):
        storage(workspace).send([files.make("large", LARGE), files.make("small", 10)], files.tick)
    assert workspace.count("PUT|POST") == 1


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE"])
def test_a_missing_privilege_is_told_at_once(workspace: Workspace, files: Files, method: str) -> None:
    send = storage(workspace)
    workspace.order(method, status=403, times=1000, body=error_body("PERMISSION_DENIED", WORDS))
    calls: dict[str, Callable[[], object]] = {
        "HEAD": lambda: send.send([files.make("small", 10)], files.tick),
        "GET": send.listing,
        "DELETE": lambda: send.remove(["small"]),
    }
    with pytest.raises(AccessDenied, match="Forbidden" if method == "HEAD" else "CREATE MODEL VERSION"):
        calls[method]()
    assert workspace.count(f"{method} /api") == 1


FULL = [
    (507, error_body("RESOURCE_EXHAUSTED", "Storage quota of the metastore is exceeded.")),
    (507, b""),
    (500, error_body("INTERNAL_ERROR", "No space left on device")),
]


@pytest.mark.parametrize(("status", "body"), FULL)
def test_a_full_storage_is_told_and_not_tried_again(
    workspace: Workspace, files: Files, status: int, body: bytes
) -> None:
    workspace.order("PUT /api", status=status, body=body, times=1000)
    with pytest.raises(RegistryError, match="is full"):
        storage(workspace).send([files.make("small", 10)], files.tick)
    assert workspace.count("PUT /api") == 1


def test_a_storage_that_is_full_in_the_middle_of_a_file_keeps_nothing_of_it(workspace: Workspace, files: Files) -> None:
    workspace.api.fail_part(3, status=507)
    with pytest.raises(RegistryError, match="is full"):
        storage(workspace).send([files.make("large", LARGE)], files.tick)
    assert workspace.api.unfinished == ()
    assert not there(workspace, "large").exists()


@pytest.mark.parametrize("size", [10_000, LARGE])
def test_a_source_that_is_shorter_than_was_said_is_the_disk_s_fault(
    workspace: Workspace, files: Files, size: int
) -> None:
    file = files.make("file", size)
    os.truncate(file.source, size - 1)
    with pytest.raises(DiskError, match=r"bytes now|changed"):
        storage(workspace).send([file], files.tick)
    assert not there(workspace, "file").exists()
    assert workspace.api.unfinished == ()


def test_a_source_that_becomes_shorter_while_it_is_sent_is_the_disk_s_fault(workspace: Workspace, files: Files) -> None:
    assert_a_cut_is_noticed(workspace, files, f"PUT {PRESIGNED}")


def test_a_source_that_is_written_to_while_it_is_sent_is_the_disk_s_fault(workspace: Workspace, files: Files) -> None:
    file = files.make("large", LARGE)

    def lengthen(_: str) -> None:
        with file.source.open("ab") as source:
            source.write(b"more")

    workspace.on_request = lengthen
    with pytest.raises(DiskError, match="changed while it was sent"):
        storage(workspace).send([file], files.tick)
    assert not there(workspace, "large").exists()
    assert workspace.api.unfinished == ()


def test_a_source_that_is_not_there_is_the_disk_s_fault(workspace: Workspace, files: Files) -> None:
    with pytest.raises(DiskError, match="Cannot read"):
        storage(workspace).send([Sending("gone", files.folder / "gone", 10)], files.tick)


def test_a_part_that_did_not_arrive_whole_is_noticed(workspace: Workspace, files: Files) -> None:
    workspace.api.truncate_part(2)
    with pytest.raises(RegistryError, match=r"of 67\.1 MB arrived"):
        storage(workspace).send([files.make("large", LARGE)], files.tick)


def test_a_small_file_that_is_not_there_afterwards_is_noticed(workspace: Workspace, files: Files) -> None:
    workspace.order("PUT /api", status=204)
    with pytest.raises(RegistryError, match="nothing of 10 B arrived"):
        storage(workspace).send([files.make("small", 10)], files.tick)


def test_a_login_page_is_no_success(workspace: Workspace, files: Files) -> None:
    page = b"<!DOCTYPE html><html><title>Log in</title></html>"
    workspace.order("PUT|POST", status=200, times=1000, headers={"Content-Type": "text/html"}, body=page)
    with pytest.raises(UsageError, match="login page"):
        storage(workspace).send([files.make("large", LARGE)], files.tick)
    assert workspace.count("PUT|POST") == 1


def test_a_refused_part_tells_nothing_of_its_signature(workspace: Workspace, files: Files) -> None:
    body = b"<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>deadbeef</SignatureProvided></Error>"
    workspace.order(f"PUT {PRESIGNED}.*/2[?]", status=403, body=body)
    with pytest.raises(AccessDenied) as caught:
        storage(workspace).send([files.make("large", LARGE)], files.tick)
    assert_no_secret(caught.value)
    assert workspace.count("/2[?]") == 1


def test_a_listing_has_every_file_of_every_page_and_folder(workspace: Workspace) -> None:
    sizes = {f"model/{number:04}.bin": number % 7 for number in range(1203)} | {"MLmodel": 3, "a/b/c d/\u00e4": 1}
    for path, size in sizes.items():
        there(workspace, path).parent.mkdir(parents=True, exist_ok=True)
        there(workspace, path).write_bytes(bytes(size))
    neighbour = workspace.api.root / "Models/main/ml/tiny model/10/not ours"
    neighbour.parent.mkdir()
    neighbour.touch()
    assert storage(workspace).listing() == sizes
    assert workspace.count("page_token=1000") == 1


def test_a_location_that_is_not_there_has_no_files(workspace: Workspace) -> None:
    assert storage(workspace).listing() == {}


@pytest.mark.parametrize("fault", [{}, {"status": 500, "times": 2}, {"kind": "reset"}, {"kind": "lost"}])
def test_a_file_is_read_back(workspace: Workspace, files: Files, fault: dict[str, Any]) -> None:
    file = files.make("a b/MLmodel", 3 * MIB)
    send = storage(workspace)
    send.send([file], files.tick)
    if fault:
        workspace.order("GET", **fault)
    assert send.read(file.path) == file.source.read_bytes()


def test_a_file_that_is_not_there_cannot_be_read(workspace: Workspace) -> None:
    with pytest.raises(RegistryError, match="not found"):
        storage(workspace).read("MLmodel")


def test_only_the_named_files_are_removed_and_one_that_is_not_there_is_none(workspace: Workspace, files: Files) -> None:
    some = [files.make("a b", 1), files.make("kept", 1)]
    send = storage(workspace)
    send.send(some, files.tick)
    workspace.order("DELETE", kind="lost")
    send.remove(["a b", "never was"])
    assert send.listing() == {"kept": 1}
