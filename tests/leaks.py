"""A pytest plugin that fails every test whose output, logs, errors or files hold a secret of `fakes/secrets.py`.

Searched are what pytest captured and reported of the test; log records, of catalogger at every level and of everybody
else from INFO (no option of the command turns DEBUG on, where HTTP clients mean to show addresses and headers);
warnings; what other processes wrote; the whole trace of every error of catalogger that a test expects; and the files
in the test's folders. What a loopback server notes of its requests is no output.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from fakes import secrets

from catalogger.errors import CataloggerError

LARGEST = 5_000_000  # bytes of a file that is searched
WEIGHTS = (".safetensors", ".bin", ".pt")
HOLDERS = (".databrickscfg", "netrc")
"""Ends of the names of files whose job is to hold secrets: tests write them for clients to read."""
_SIGNED = re.compile(rb"signature(?:=|%3d)[0-9a-f]{32}")
"""Of an address, as every server and client makes it anew; searched in lower case."""
_SHOWN = 60  # characters before a secret that are shown

_noted: list[str] = []
_searched: dict[Path, float] = {}
"""When each folder that pytest made for tests was last searched; 0 is never."""
_left: list[str] = []


def _needles(mark: str) -> list[bytes]:
    """In lower case: the mark, its hexadecimal, and its base64, which depends on where in three bytes it begins."""
    encoded = [
        base64.b64encode(b"\0" * before + mark.encode())[-(-8 * before // 6) : 8 * (before + len(mark)) // 6]
        for before in range(3)
    ]
    return [mark.encode(), mark.encode().hex().encode(), *(text.lower() for text in encoded)]


_NEEDLES = _needles(secrets.MARK)


def heard(place: str, text: str | bytes | None) -> None:
    """Search what was said at this place; a secret in it fails the test that is running."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text or b""
    if (before := before_a_secret(data)) is not None:
        _noted.append(f"{place}: {before}***")


def before_a_secret(data: bytes) -> str | None:
    """What stands before the first secret in its line; None where there is none."""
    lowered = data.lower()
    places = [at for needle in _NEEDLES if (at := lowered.find(needle)) >= 0]
    places += [found.start() for found in _SIGNED.finditer(lowered)]
    if not places:
        return None
    return data[max(min(places) - _SHOWN, 0) : min(places)].decode(errors="replace").rpartition("\n")[2]


# What is heard of.


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    expected: type[Any] = type(pytest.raises(CataloggerError))
    patch.setattr(subprocess.Popen, "communicate", _with(subprocess.Popen.communicate, _hear_a_process))
    patch.setattr(pytest.CaptureFixture, "readouterr", _with(pytest.CaptureFixture.readouterr, _hear_a_reading))
    patch.setattr(pytest.TempPathFactory, "mktemp", _with(pytest.TempPathFactory.mktemp, _remember))
    patch.setattr(expected, "__exit__", _hearing_errors(expected.__exit__))
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("catalogger").setLevel(logging.DEBUG)


def _with(method: Callable[..., Any], look: Callable[[Any], None]) -> Callable[..., Any]:
    """The method, whose result is looked at."""

    @wraps(method)
    def looked_at(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        look(result)
        return result

    return looked_at


def _hear_a_process(streams: tuple[Any, Any]) -> None:
    for name, text in zip(("stdout", "stderr"), streams, strict=True):
        heard(f"{name} of a process", text)


def _hear_a_reading(reading: tuple[Any, Any]) -> None:
    for name, text in zip(("stdout", "stderr"), reading, strict=True):
        heard(f"{name} that the test read", text)


def _remember(folder: Path) -> None:
    _searched[folder] = 0


def _hearing_errors(leave: Callable[..., Any]) -> Callable[..., Any]:
    """What follows an expected error, which is a user's whole trace where nobody expects it."""

    @wraps(leave)
    def left(block: Any, kind: Any, error: BaseException | None, trace: Any) -> Any:
        if isinstance(error, CataloggerError):
            heard("trace of an expected error", "".join(traceback.format_exception(error)))
            heard("document of an expected error", str(error.document()))
        return leave(block, kind, error, trace)

    return left


def pytest_warning_recorded(warning_message: warnings.WarningMessage, nodeid: str) -> None:
    """Told after the test's last report, so it fails the session."""
    heard(f"a warning of {nodeid}", str(warning_message.message))
    _left.extend(_taken())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what leaked.  Output is pytest's by now, and after the teardown nobody writes into the folders any more."""
    report = yield
    for name, text in report.sections:
        if name.endswith(report.when):
            heard(name, text)
    heard("report", report.longreprtext)
    if report.when == "teardown":
        _search(folder for folder, searched in _searched.items() if not searched)
    if found := _taken():
        report.outcome = "failed"
        report.longrepr = "\n".join([report.longreprtext, "Secrets were told:", *found]).lstrip()
    return report


def _taken() -> list[str]:
    found = list(dict.fromkeys(_noted))
    _noted.clear()
    return found


# What is left in files.


def _search(folders: Iterable[Path]) -> None:
    """Hear of the names and contents of all files that are new since the last search."""
    for folder in list(folders):
        since, _searched[folder] = _searched[folder], time.time()
        for file in _files(folder, since):
            heard("name of a file", str(file))
            with suppress(OSError):  # tests leave files that nobody may read
                heard(str(file), file.read_bytes())


def _files(folder: Path | str, since: float) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:  # tests take folders away
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, since)
            elif entry.is_file(follow_symlinks=False) and not entry.name.endswith((*WEIGHTS, *HOLDERS)):
                facts = entry.stat()
                if facts.st_mtime >= since and facts.st_size <= LARGEST:
                    yield Path(entry.path)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Some folders serve many tests: search what came into them after their first one."""
    _search(_searched)
    _left.extend(_taken())
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["told"] = _left  # one of several processes: the one that reports fails the session
    elif _left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what one of several processes has found at its end."""
    _left.extend(told for told in getattr(node, "workeroutput", {}).get("told", ()) if told not in _left)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for found in _left:
        terminalreporter.write_line(f"ERROR Secrets were told: {found}", red=True)
