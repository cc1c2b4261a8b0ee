"""Patience: what is tried again, for how long, and who is heard when it ends."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogger.errors import NetworkUnreachable, Refused, UsageError
from catalogger.remote.patience import PASSING, VARIABLE, TryAgain, asked_pause, patiently


class Attempts:
    """Fails as often as it is told to, then gives 7."""

    def __init__(self, failures: float, error: Callable[[int], Exception]) -> None:
        self.count, self._failures, self._error = 0, failures, error

    def __call__(self) -> int:
        self.count += 1
        if self.count <= self._failures:
            raise self._error(self.count)
        return 7


def _passing(after: float | None = None) -> Callable[[int], TryAgain]:
    return lambda count: TryAgain(NetworkUnreachable(f"failure {count}"), after)


def test_what_works_is_tried_once() -> None:
    attempts = Attempts(0, _passing())
    assert (patiently(attempts), attempts.count) == (7, 1)


def test_what_passes_is_tried_until_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "20")
    attempts = Attempts(3, _passing(0.01))
    assert (patiently(attempts), attempts.count) == (7, 4)


def test_it_has_patience_without_being_told() -> None:
    attempts = Attempts(1, _passing())
    assert (patiently(attempts), attempts.count) == (7, 2)


@pytest.mark.parametrize("error", [Refused("x", 404, "", "no"), UsageError("no"), RuntimeError("no"), OSError("no")])
def test_another_error_ends_it_at_once(error: Exception) -> None:
    attempts = Attempts(1, lambda _: error)
    with pytest.raises(type(error)) as raised:
        patiently(attempts)
    assert raised.value is error
    assert attempts.count == 1


def test_in_the_end_the_last_failure_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    attempts = Attempts(math.inf, _passing(0.1))
    with pytest.raises(NetworkUnreachable) as raised:
        patiently(attempts)
    assert raised.value.message == f"failure {attempts.count}"
    assert attempts.count > 1


def test_the_cause_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    cause = OSError("the wire")

    def attempt() -> None:
        raise TryAgain(NetworkUnreachable("away")) from cause

    with pytest.raises(NetworkUnreachable) as raised:
        patiently(attempt)
    assert raised.value.__cause__ is cause


def test_patience_begins_with_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    attempts = Attempts(1, _passing())

    def gigabytes() -> int:
        if attempts.count == 0:
            threading.Event().wait(1.1)
        return attempts()

    assert (patiently(gigabytes), attempts.count) == (7, 2)


def test_without_patience_there_is_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    attempts = Attempts(1, _passing())
    with pytest.raises(NetworkUnreachable, match="failure 1"):
        patiently(attempts)


def test_a_pause_longer_than_patience_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    attempts = Attempts(1, _passing(5))
    with pytest.raises(NetworkUnreachable, match="failure 1"):
        patiently(attempts)


def test_a_server_that_asks_for_no_pause_at_all_is_not_stormed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    attempts = Attempts(100, _passing(0))
    with pytest.raises(NetworkUnreachable):
        patiently(attempts)
    assert attempts.count > 1


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "1 minute"])
def test_a_patience_that_is_no_number_is_refused_before_anything_is_tried(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    attempts = Attempts(0, _passing())
    with pytest.raises(UsageError, match=f'{VARIABLE} is "{value}"'):
        patiently(attempts)
    assert attempts.count == 0


@pytest.mark.parametrize(
    ("value", "pause"),
    [("5", 5.0), ("0", 0.0), ("1.5", 1.5), (" 7 ", 7.0), ("-3", 0.0), (None, None), ("", None), ("nan", None),
     ("inf", None), ("Fri, 31 Dec 2027 23:59:59 GMT", None)],
)  # fmt: skip
def test_the_pause_that_a_server_asks_for(value: str | None, pause: float | None) -> None:
    assert asked_pause(value) == pause


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_any_header_is_a_pause_or_none(value: str) -> None:
    pause = asked_pause(value)
    assert pause is None or 0 <= pause < math.inf


def test_a_crowded_or_failing_server_passes_and_a_refusal_does_not() -> None:
    assert {429, 500, 502, 503, 504} <= PASSING
    assert not {400, 401, 403, 404, 409, 501} & PASSING
