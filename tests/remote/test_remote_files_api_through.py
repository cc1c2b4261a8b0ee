"""Files by a workspace's Files API where the storage cannot be reached past the workspace."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from remote.files_workspace import (
    LARGE,
    Files,
    Workspace,
    arrived,
    assert_sent_once,
    error_body,
    storage,
)

from catalogger.errors import AccessDenied, RegistryError
from catalogger.testing.files_api import PRESIGNED


def test_a_file_goes_through_the_workspace_where_the_storage_does_not_take_it(
    workspace: Workspace, files: Files
) -> None:
    workspace.order(f"PUT {PRESIGNED}", status=403, times=1000, body=b"<Error><Code>AccessDenied</Code></Error>")
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count("PUT /api") == 1


@pytest.mark.usefixtures("impatient")
def test_a_file_goes_through_the_workspace_where_the_storage_cannot_be_reached(
    workspace: Workspace, files: Files
) -> None:
    workspace.storage = "http://127.0.0.1:1"  # where nothing listens
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count("PUT /api") == 1


NO_PARTS: list[tuple[str, dict[str, Any]]] = [
    ("initiate-upload", {"status": 404, "body": error_body("ENDPOINT_NOT_FOUND", "No API found.")}),
    ("initiate-upload", {"status": 403, "body": error_body("PERMISSION_DENIED", "Presigned URLs API is not enabled")}),
    ("initiate-upload", {"status": 200, "body": b'{"another_upload":{"session_token":"t"}}'}),
    ("create-upload-part-urls", {"status": 403, "body": error_body("PERMISSION_DENIED", "Not from this network")}),
    ("create-upload-part-urls", {"status": 200, "body": b"{}"}),
]


@pytest.mark.parametrize(("step", "answer"), NO_PARTS)
def test_files_go_through_a_workspace_that_takes_no_parts_which_is_asked_once(
    workspace: Workspace, files: Files, step: str, answer: dict[str, Any]
) -> None:
    workspace.order(step, times=1000, **answer)
    some = [files.make("large", LARGE), files.make("other", LARGE)]
    storage(workspace).send(some, files.tick)
    assert arrived(workspace, *some)
    assert sum(files.ticks) == 2 * LARGE
    assert workspace.api.unfinished == ()
    assert workspace.count("initiate-upload") == 1
    assert workspace.count("PUT /api") == 2


REFUSALS: list[tuple[int, bytes, type[Exception], str]] = [
    (404, error_body("ENDPOINT_NOT_FOUND", "No API found."), RegistryError, "No API found"),
    (403, error_body("PERMISSION_DENIED", "Not enabled."), AccessDenied, "does not give access.*Not enabled"),
    (507, b"", RegistryError, "is full"),
]


@pytest.mark.parametrize(("status", "body", "kind", "said"), REFUSALS)
def test_a_file_that_is_too_large_to_go_through_the_workspace_is_not_tried(
    workspace: Workspace, files: Files, status: int, body: bytes, kind: type[Exception], said: str
) -> None:
    workspace.order("initiate-upload", status=status, body=body)
    file = files.make("huge", 0, known=True)
    os.truncate(file.source, size := (5 << 30) + 1)
    with pytest.raises(kind, match=said):
        storage(workspace).send([replace(file, size=size)], files.tick)
    assert workspace.count("PUT|POST") == 1
