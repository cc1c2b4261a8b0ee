"""Files by the Files API of a workspace whose storage is Google's: one part after the other, to one address."""

from __future__ import annotations

import pytest
from remote.files_workspace import (
    LARGE,
    Files,
    Workspace,
    arrived,
    assert_a_cut_is_noticed,
    assert_no_secret,
    assert_sent_once,
    storage,
    there,
)

from catalogger.errors import AccessDenied, NetworkUnreachable, RegistryError
from catalogger.remote.parts import PART
from catalogger.remote.patience import PASSING

CHUNK = "PUT /presigned/session"


@pytest.fixture(autouse=True)
def _in_googles_way(workspace: Workspace) -> None:
    workspace.api.resumable = True


def test_a_file_arrives_part_by_part(workspace: Workspace, files: Files) -> None:
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count(CHUNK) == 5
    assert workspace.count("PUT /api") == 0


def test_a_file_that_ends_with_a_part_arrives(workspace: Workspace, files: Files) -> None:
    assert_sent_once(workspace, files, files.make("large", 3 * PART), storage(workspace))
    assert workspace.count(CHUNK) == 3


def test_what_was_not_kept_of_a_part_is_sent_again(workspace: Workspace, files: Files) -> None:
    workspace.api.shorten_chunk(times=3)
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count(CHUNK) == 5 + 3


@pytest.mark.parametrize("status", sorted(PASSING))
def test_after_a_failure_it_is_asked_what_is_there(workspace: Workspace, files: Files, status: int) -> None:
    workspace.order(CHUNK, status=status, headers={"Retry-After": "1"})
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count(CHUNK) == 5 + 2


@pytest.mark.parametrize("kind", ["reset", "stall", "lost"])
@pytest.mark.parametrize("pattern", [CHUNK, "create-resumable-upload-url", "initiate-upload"])
def test_a_connection_that_breaks_at_any_step_does_not_break_the_file(
    workspace: Workspace, files: Files, kind: str, pattern: str
) -> None:
    workspace.order(pattern, kind=kind)
    file = files.make("large", LARGE)
    storage(workspace, timeout=(1, 1)).send([file], files.tick)
    assert arrived(workspace, file)
    assert sum(files.ticks) == LARGE
    assert workspace.orders[0].times == 0


def test_the_answer_to_the_last_part_may_be_lost(workspace: Workspace, files: Files) -> None:
    def lose(_: str) -> None:
        if workspace.count(CHUNK) == 5 and not workspace.orders:
            workspace.order(CHUNK, kind="lost")

    workspace.on_request = lose
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count(CHUNK) == 5 + 1


def fail_after_the_first(workspace: Workspace, **what: object) -> None:
    def fail(_: str) -> None:
        if workspace.count(CHUNK) == 2 and not workspace.orders:
            workspace.order(CHUNK, times=1000, **what)

    workspace.on_request = fail


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["answer", "reset"])
def test_patience_ends(workspace: Workspace, files: Files, kind: str) -> None:
    fail_after_the_first(workspace, kind=kind)
    with pytest.raises(NetworkUnreachable) as caught:
        storage(workspace).send([files.make("large", LARGE)], files.tick)
    assert workspace.api.unfinished == ()
    assert_no_secret(caught.value)
    assert not there(workspace, "large").exists()


@pytest.mark.usefixtures("impatient")
def test_patience_ends_with_a_storage_that_keeps_nothing(workspace: Workspace, files: Files) -> None:
    fail_after_the_first(workspace, status=308, headers={"Range": f"bytes=0-{PART - 1}"})
    with pytest.raises(NetworkUnreachable):
        storage(workspace).send([files.make("large", LARGE)], files.tick)
    assert workspace.api.unfinished == ()


@pytest.mark.parametrize(("status", "kind"), [(403, AccessDenied), (410, RegistryError), (507, RegistryError)])
def test_a_refusal_ends_it_and_nothing_is_left(
    workspace: Workspace, files: Files, status: int, kind: type[Exception]
) -> None:
    fail_after_the_first(workspace, status=status)
    with pytest.raises(kind) as caught:
        storage(workspace).send([files.make("large", LARGE)], files.tick)
    assert workspace.count(CHUNK) == 2
    assert workspace.api.unfinished == ()
    assert_no_secret(caught.value)


def test_what_is_no_beginning_of_a_file_is_told(workspace: Workspace, files: Files) -> None:
    fail_after_the_first(workspace, status=308, headers={"Range": "bytes=5-9"})
    with pytest.raises(RegistryError, match='"bytes=5-9"'):
        storage(workspace).send([files.make("large", LARGE)], files.tick)


def test_a_file_goes_through_the_workspace_where_the_storage_does_not_take_it(
    workspace: Workspace, files: Files
) -> None:
    workspace.order(CHUNK, status=403, times=1000)
    assert_sent_once(workspace, files, files.make("large", LARGE), storage(workspace))
    assert workspace.count("PUT /api") == 1


def test_a_source_that_becomes_shorter_while_it_is_sent_is_the_disk_s_fault(workspace: Workspace, files: Files) -> None:
    assert_a_cut_is_noticed(workspace, files, CHUNK)
