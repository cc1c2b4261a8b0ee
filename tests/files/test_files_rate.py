"""One limit for many processes: what is taken moves the moment from which the next byte may go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from catalogger.files.rate import Rate, limit, pace
from catalogger.remote.parts import Source, Window, spans


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 100.0, 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "rate"
    file.touch()
    return file


def test_bytes_follow_each_other_at_the_rate(file: Path) -> None:
    clock = Clock()
    rate = Rate(1000, file, clock, clock.sleep)
    rate.take(500)
    assert clock.slept == 0, "the first may go at once"
    rate.take(2000)
    assert clock.slept == pytest.approx(0.5)
    rate.take(1)
    assert clock.slept == pytest.approx(2.5)
    clock.now += 60
    rate.take(1)
    assert clock.slept == pytest.approx(2.5), "what was not used is not saved up, nor owed"


def test_another_process_shares_it(file: Path) -> None:
    rate = Rate(1000, file)
    script = "from catalogger.files.rate import pace; pace(5000)"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, **rate.environment()}, check=True)
    clock = Clock()
    slept: list[float] = []
    Rate(1000, file, lambda: 0.0, slept.append).take(1)
    assert slept, "its moment is a later one than 0"
    assert clock.slept == 0


def test_what_is_sent_is_paced(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(10_000))
    for name, value in Rate(1e9, file).environment().items():
        monkeypatch.setenv(name, value)
    source = Source(content, 10_000)
    with source.opened() as stream:
        window = Window(source, stream, spans(10_000)[0], threading.Event())
        assert limit() is not None
        before = file.read_bytes()
        assert len(window.read()) == 10_000
    assert file.read_bytes() != before


def test_without_a_limit_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limit() is None
    pace(1 << 60)
