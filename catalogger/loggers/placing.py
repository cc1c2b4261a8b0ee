"""The weight files of one model on their way to where it will stand, hashed as they go."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from catalogger.checkpoints import Checkpoint
from catalogger.errors import DiskError
from catalogger.files.digests import DigestMemory, Tick, identity
from catalogger.files.place import Placed, Weights
from catalogger.files.workers import Task, Workers
from catalogger.loggers.layout import Item, source_path


@dataclass(frozen=True)
class _Begun:
    item: Item
    task: Task
    before: os.stat_result
    placed: Future[Placed]


class Placing:
    """Files that workers place in `folder`, or only hash where that is None.

    The folder need not be the model's: what was begun before MLflow could say where that is, is moved there.
    """

    def __init__(
        self,
        items: Iterable[Item],
        checkpoint: Checkpoint,
        folder: Path | None,
        weights: Weights,
        memory: DigestMemory,
        workers: Workers,
    ) -> None:
        self.folder = folder
        self._memory = memory
        self._meter = _Meter()
        self._begun = []
        for item in items:
            source = source_path(checkpoint, item)
            target = folder / item.path if folder else None
            task = Task(source, target, weights, ours=checkpoint.ours, known=item.sha256 is not None)
            self._begun.append(_Begun(item, task, source.stat(), workers.submit(task, self._meter)))

    def so_far(self) -> Mapping[str, Placed]:
        """What has been begun by now, once it is done; the others are not begun, and one that changed is left out."""
        self._begun = [begun for begun in self._begun if not begun.placed.cancel()]
        done = self.finish(self.folder)
        changed = {begun.item.weights for begun in self._begun if _changed(begun)}
        return {weights: placed for weights, placed in done.items() if weights not in changed}

    def finish(self, folder: Path | None, tick: Tick = lambda _: None) -> Mapping[str, Placed]:
        """Wait until all stand in `folder`; what was done, with the digest, by the file's path in the checkpoint.

        Raises DiskError, and UsageError where a link was asked for and cannot be made.
        """
        self._meter.attach(tick)
        done, learned = {}, []
        try:
            for begun in self._begun:
                placed = begun.placed.result()
                if begun.task.target and folder and folder != self.folder:
                    _move(begun.task.target, folder / begun.item.path)
                if digest := placed.sha256 or begun.item.sha256:
                    learned.append((begun.task.source, digest, begun.before))
                done[begun.item.weights or ""] = placed
        finally:
            self._memory.remember(learned)  # known ones too: a link changes what the memory goes by
        return done


class _Meter:
    """Counts bytes from the first on, and passes them to whoever comes to listen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._tick: Tick | None = None

    def __call__(self, count: int) -> None:
        with self._lock:
            self._count += count
            if self._tick:
                self._tick(count)

    def attach(self, tick: Tick) -> None:
        with self._lock:
            self._tick = tick
            tick(self._count)


def _changed(begun: _Begun) -> bool:
    return identity(begun.task.source.stat()) != identity(begun.before)


def _move(placed: Path, target: Path) -> None:
    """A rename, or a copy where the artifacts turn out to be on another file system."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(placed, target)
    except OSError as error:
        raise DiskError(
            f'Cannot write "{target}": {error.strerror}.', "Free some room, then run the same command again."
        ) from error
