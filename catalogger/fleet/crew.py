"""Worker processes that do the jobs of a run, some at a time; a job that ends its process ends no other."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalogger.errors import CataloggerError
from catalogger.files.digests import Tick
from catalogger.files.place import existing
from catalogger.progress import Progress

_JOBS_OF_A_WORKER = 50  # then a new one, so that what a library keeps does not add up
_GRACE = 60  # seconds that a worker has to end after Ctrl-C


@dataclass(frozen=True)
class Task:
    """One job for a worker.  `name` stands before what it says; `needs` are the bytes it writes, by file system."""

    name: str
    job: Mapping[str, Any]
    needs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What came of a job: its result, or the error document and the findings.  `outcome` is what was registered before
    an error.  `seconds` counts the whole of it.
    """

    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    findings: tuple[Mapping[str, Any], ...] = ()
    outcome: Mapping[str, Any] | None = None
    interrupted: bool = False
    seconds: float = 0.0


class Disks:
    """What the running jobs will write, so that together they fit.

    All that a running job will write counts until it ends, written or not.  A job that does not fit alone is let
    through: it says so itself.
    """

    def __init__(self, free: Callable[[str], int]) -> None:
        self._free = free
        self._taken: dict[str, int] = {}
        self._freed = threading.Condition()

    @contextmanager
    def reserved(self, needs: Mapping[str, int]) -> Iterator[None]:
        with self._freed:
            self._freed.wait_for(lambda: self._fits(needs))
            for disk, size in needs.items():
                self._taken[disk] = self._taken.get(disk, 0) + size
        try:
            yield
        finally:
            with self._freed:
                for disk, size in needs.items():
                    self._taken[disk] -= size
                self._freed.notify_all()

    def _fits(self, needs: Mapping[str, int]) -> bool:
        return all(not self._taken.get(d) or self._taken[d] + size <= self._free(d) for d, size in needs.items())


class Crew:
    """At most so many workers, each started when it is needed first."""

    def __init__(
        self, size: int, progress: Progress, environment: Mapping[str, str] | None = None, *, debug: bool = False
    ) -> None:
        self._size, self._progress, self._debug = size, progress, debug
        self._environment = {**os.environ, **(environment or {})}
        self._disks = Disks(_free)
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._said: set[str] = set()

    def run(self, tasks: Iterable[Task], done: Callable[[Task, Done], None]) -> None:
        """Do all of them, and call `done` for each as it ends, in this thread.

        After Ctrl-C the running ones are stopped and waited for, the others are given back as interrupted; then
        KeyboardInterrupt goes on.
        """
        waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        ended: queue.SimpleQueue[tuple[Task, Done]] = queue.SimpleQueue()
        count = 0
        for task in tasks:
            waiting.put(task)
            count += 1
        threads = [
            threading.Thread(target=self._work, args=(waiting, ended), daemon=True)
            for _ in range(min(self._size, count))
        ]
        for thread in threads:
            thread.start()
        left, interrupted = count, False
        while left:
            try:
                task, what = ended.get()
            except KeyboardInterrupt:
                interrupted = True
                self.stop()
                continue
            left -= 1
            done(task, what)
        if interrupted:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """Stop the running jobs, each as by Ctrl-C."""
        self._stopping.set()
        for worker in list(self._workers):
            worker.interrupt()

    def close(self) -> None:
        """End the workers."""
        for worker in list(self._workers):
            worker.close()

    def _work(self, waiting: queue.SimpleQueue[Task], ended: queue.SimpleQueue[tuple[Task, Done]]) -> None:
        worker = self._worker()
        while True:
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                break
            if self._stopping.is_set():
                ended.put((task, Done(interrupted=True)))
                continue
            if worker.is_spent:
                self._workers.remove(worker)
                worker.close()
                worker = self._worker()
            with self._disks.reserved(task.needs):
                began = time.monotonic()
                done = worker.do(task, _Lines(task.name, self._progress, self._said))
                ended.put((task, replace(done, seconds=time.monotonic() - began)))
        if not worker.is_spent:
            self._idle.put(worker)

    def _worker(self) -> _Worker:
        with suppress(queue.Empty):
            return self._idle.get_nowait()
        worker = _Worker(self._environment, debug=self._debug)
        self._workers.append(worker)
        return worker


class _Worker:
    """One process.  It is in a session of its own, so that Ctrl-C reaches it by us only, once."""

    def __init__(self, environment: Mapping[str, str], *, debug: bool) -> None:
        command = [sys.executable, "-m", "catalogger.fleet.worker", *(["--debug"] if debug else [])]
        self._process = subprocess.Popen(  # noqa: S603  our own module
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._jobs = 0

    @property
    def is_spent(self) -> bool:
        return self._jobs >= _JOBS_OF_A_WORKER or self._process.poll() is not None

    def do(self, task: Task, lines: _Lines) -> Done:
        """Send the job, tell what it says, and give what came of it."""
        self._jobs += 1
        try:
            stdin, stdout = self._process.stdin, self._process.stdout
            if stdin is None or stdout is None:
                raise RuntimeError("a worker has pipes")
            stdin.write(json.dumps(task.job) + "\n")
            stdin.flush()
            for line in stdout:
                if done := lines.heard(json.loads(line)):
                    return done
        except BrokenPipeError:
            pass
        finally:
            lines.end()
        return self._ended(lines)

    def interrupt(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _ended(self, lines: _Lines) -> Done:
        """What is known of a process that is gone without an answer."""
        code = self._process.wait()
        if code == 130:
            return Done(interrupted=True, outcome=lines.outcome)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = " The system may have been out of memory." if code == -signal.SIGKILL else ""
        error = CataloggerError(f"The process that did it ended by {how}.{hint}", "Run the same command again.")
        return Done(error=error.document(), outcome=lines.outcome)


class _Lines:
    """What a worker says of one job, handed on; what was `said` of the entry when it was planned is not said again."""

    def __init__(self, name: str, progress: Progress, said: set[str]) -> None:
        self._name, self._progress, self._said = name, progress, said
        self._bar: AbstractContextManager[Tick] | None = None
        self._tick: Tick = lambda _: None
        self.outcome: Mapping[str, Any] | None = None

    def heard(self, said: Mapping[str, Any]) -> Done | None:
        """The end of the job, where this was its last line."""
        match said:
            case {"say": text}:
                for line in (f"{self._name}: {line}" for line in str(text).splitlines()):
                    if line not in self._said:
                        self._said.add(line)
                        self._progress.say(line)
            case {"bar": None}:
                self.end()
            case {"bar": label, "total": total}:
                self.end()
                self._bar = self._progress.bar(f"{self._name} {label}", total)
                self._tick = self._bar.__enter__()
            case {"tick": count}:
                self._tick(count)
            case {"outcome": outcome}:
                self.outcome = outcome
            case {"done": result}:
                return Done(result=result)
            case {"error": error, "findings": findings}:
                return Done(error=error, findings=tuple(findings), outcome=self.outcome)
            case {"interrupted": True}:
                return Done(interrupted=True, outcome=self.outcome)
        return None

    def end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar, self._tick = None, lambda _: None


def disk_of(folder: str) -> str | None:
    """The file system that the folder is on, by where it is mounted; None where it cannot be looked at."""
    with suppress(OSError):
        place = existing(Path(folder)).resolve()
        return str(next(parent for parent in (place, *place.parents) if parent.is_mount()))
    return None


def _free(disk: str) -> int:
    return shutil.disk_usage(disk).free
