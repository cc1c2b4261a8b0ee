"""How much of the disk a stream takes: two of the largest files, unless one file is made of more at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from catalogger.files.workers import Stopped
from catalogger.loggers.room import Room, most_at_once

A, B, C = (Path(name) for name in "abc")
SIZES = {A: 5, B: 5, C: 3}


@pytest.mark.parametrize(
    ("files", "fetched", "changed", "needed"),
    [
        ([(5, [A]), (5, [B]), (3, [C])], SIZES, False, 10),
        ([(5, [A])], {A: 5}, False, 5),
        ([], {}, False, 0),
        ([(2, [A]), (2, [B]), (1, [C])], SIZES, True, 10),  # a source and a result, while another source comes
        ([(13, [A, B, C])], SIZES, True, 26),  # joined: a result that is made beside one that is sent
        ([(5, [A, C]), (5, [B]), (3, [C])], SIZES, True, 13),  # C stays until its second file is made
        ([(4, [A]), (4, [B])], {}, True, 8),  # what is made of files that are here
    ],
)
def test_what_stands_here_at_most(
    files: list[tuple[int, list[Path]]], fetched: dict[Path, int], changed: bool, needed: int
) -> None:
    assert most_at_once(files, fetched, changed=changed) == needed


def test_room_is_waited_for_until_it_is_given_back() -> None:
    room, taken = Room(10), threading.Event()
    room.take(6, A)

    def take() -> None:
        room.take(5)
        taken.set()

    waiting = threading.Thread(target=take)
    waiting.start()
    assert (room.holds(A), room.holds(B)) == (True, False)
    assert not taken.wait(0.05)
    room.give(6, A)
    waiting.join(60)
    assert (taken.is_set(), room.holds(A)) == (True, False)


def test_nobody_waits_when_the_work_is_ended() -> None:
    room, ended = Room(1), threading.Event()
    room.take(1)

    def wait() -> None:
        with pytest.raises(Stopped):
            room.take(1)
        ended.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    room.close()
    waiting.join(60)
    assert ended.is_set()
