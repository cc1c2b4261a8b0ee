"""Processes that hash and place files while this one imports MLflow and talks to the stores.

Threads would not do: an import holds the interpreter's lock, and they would wait for it at every block.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from catalogger.errors import CataloggerError, DiskError
from catalogger.files.digests import Tick, sha256_file
from catalogger.files.place import Placed, Weights, place

_COUNT = min(4, os.cpu_count() or 1)
_STEP = 1 << 25  # bytes between two reports of a worker
_PACKAGES = str(Path(__file__).parents[2])
_COMMAND = "import sys; sys.path.append(sys.argv[1]); from catalogger.files.workers import serve; serve()"


class Stopped(Exception):
    """The work was ended before it was done."""


@dataclass(frozen=True)
class Task:
    """One file to place at `target`, or only to hash where that is None.  `ours` and `known` as for `place`."""

    source: Path
    target: Path | None = None
    weights: Weights = "copy"
    ours: bool = False
    known: bool = False

    @property
    def light(self) -> bool:
        """Whether it is a link to make and nothing to read, for which no process need be started."""
        return (
            self.target is not None
            and self.known
            and (self.weights == "link" or (self.weights == "auto" and self.ours))
        )

    def perform(self, tick: Tick) -> Placed:
        """Do it here.  The digest is there afterwards, unless it was known."""
        if self.target is None:
            return Placed("hashed", self.source.stat().st_size, 0, sha256_file(self.source, tick))
        placed = place(self.source, self.target, self.weights, ours=self.ours, known=self.known, tick=tick)
        if self.known or placed.sha256:
            return placed
        return replace(placed, read=self.source.stat().st_size, sha256=sha256_file(self.source))


class Workers:
    """A few processes, each started with its first task; all work ends with the block at the latest.

    Where a process cannot be started its tasks are done in a thread.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_COUNT)
        self._own = threading.local()  # .process: each thread of the pool speaks with one process
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starting = threading.Lock()
        self._stopped = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def submit(self, task: Task, tick: Tick = lambda _: None) -> Future[Placed]:
        """The task's result to come.  `tick` is called in another thread.  Raises what `place` raises, or Stopped."""
        return self._pool.submit(self._perform, task, tick)

    def stop(self) -> None:
        """End all work at once.  Half a file may stand at a target that was begun."""
        with self._starting:
            self._stopped = True
        for process in self._processes:
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            with process:
                pass

    def _perform(self, task: Task, tick: Tick) -> Placed:
        process = None if task.light else self._process()
        if process is None:
            return task.perform(self._until_stopped(tick))
        try:
            return _ask(process, task, tick)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            if self._stopped:
                raise Stopped from error
            raise DiskError(
                f'"{task.source}" was not read to its end: the process that read it was ended.',
                "Was the file cut short meanwhile? Run the same command again.",
            ) from error

    def _process(self) -> subprocess.Popen[bytes] | None:
        if not hasattr(self._own, "process"):
            self._own.process = self._start()
        process: subprocess.Popen[bytes] | None = self._own.process
        return process

    def _start(self) -> subprocess.Popen[bytes] | None:
        """A process that has said that it is there.  Ctrl-C does not reach it: it is ended by us, or with us."""
        pipe = subprocess.PIPE
        with self._starting:
            if self._stopped:
                raise Stopped
            try:
                process = subprocess.Popen(  # noqa: S603  this Python, and a constant
                    [sys.executable, "-I", "-S", "-c", _COMMAND, _PACKAGES],
                    stdin=pipe,
                    stdout=pipe,
                    stderr=subprocess.DEVNULL,
                    process_group=0,
                )
            except OSError:
                return None
            self._processes.append(process)
        try:
            _receive(_pipe(process.stdout))
        except (EOFError, pickle.UnpicklingError):
            return None
        return process

    def _until_stopped(self, tick: Tick) -> Tick:
        def checked(count: int) -> None:
            if self._stopped:
                raise Stopped
            tick(count)

        return checked


def serve() -> None:
    """The other side: tasks come by stdin, reports and results go by stdout, until one of both is closed."""
    tasks, results = sys.stdin.buffer, sys.stdout.buffer
    waiting = 0

    def report(count: int) -> None:
        nonlocal waiting
        waiting += count
        if waiting >= _STEP:
            _send(results, waiting)
            waiting = 0

    try:
        _send(results, 0)
        while True:
            task = _receive(tasks)
            try:
                result: Placed | tuple[type[Exception], tuple[object, ...]] = task.perform(report)
            except CataloggerError as error:
                result = (type(error), (error.message, error.fix))
            except OSError as error:
                result = (type(error), (error.errno, error.strerror, error.filename))
            _send(results, waiting)
            waiting = 0
            _send(results, result)
    except (EOFError, BrokenPipeError):
        os._exit(0)  # nobody listens: not even to a flush


def _ask(process: subprocess.Popen[bytes], task: Task, tick: Tick) -> Placed:
    _send(_pipe(process.stdin), task)
    while True:
        message = _receive(_pipe(process.stdout))
        if isinstance(message, int):
            tick(message)
        elif isinstance(message, Placed):
            return message
        else:
            kind, arguments = message
            raise kind(*arguments)


def _send(pipe: BinaryIO, message: object) -> None:
    pickle.dump(message, pipe)
    pipe.flush()


def _receive(pipe: BinaryIO) -> Any:
    return pickle.load(pipe)  # noqa: S301  both sides are ours, and so is the pipe


def _pipe(pipe: object) -> BinaryIO:
    return pipe  # type: ignore[return-value]  # typed as optional; both were asked for
