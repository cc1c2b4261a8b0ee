"""One weight file of the result, written source by source as these come and go; its bytes are those of `writing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

from catalogger.checkpoints.changing.floats import Counts
from catalogger.checkpoints.changing.outputs import Output, counted
from catalogger.checkpoints.changing.plan import PlannedShard
from catalogger.checkpoints.changing.stored import Reader
from catalogger.files.digests import sha256_file
from catalogger.files.place import unwritable, write_at

Where = Callable[[Path], Path]
"""Where a file of the plan is on this machine."""


class Draft:
    """The file at `path`, begun with its header.  `counts` as in `Written`, `read` in bytes."""

    def __init__(self, shard: PlannedShard, path: Path, stop: Event) -> None:
        self.counts = dict[str, Counts]()
        self.read = 0
        self._shard, self._path, self._stop = shard, path, stop

    def __enter__(self) -> Draft:
        try:
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            raise unwritable(self._path, error) from error
        self._write(memoryview(self._shard.header), 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, source: Path, where: Where) -> None:
        """Write every tensor whose stored values are in this file of the plan.

        Raises CheckpointError where a file changes meanwhile, WeightsNotFinite and DiskError.
        """
        outputs = [(at, _located(output, where)) for at, output in self._placed() if output.source.file == source]
        with Reader({stored.file for _, output in outputs for stored in output.sources}) as reader:
            for at, output in outputs:
                self._add(output, at, reader, str(source.parent))
            reader.require_unchanged()

    def digest(self) -> str:
        """The SHA-256 of the file, when all is there."""
        return sha256_file(self._path)

    def _placed(self) -> Iterator[tuple[int, Output]]:
        """Every tensor with its place in the file."""
        at = len(self._shard.header)
        for output in self._shard.outputs:
            yield at, output
            at += output.nbytes

    def _add(self, output: Output, at: int, reader: Reader, location: str) -> None:
        for count, block in counted(output, reader, self._stop, self.counts, location):
            self._write(block, at)
            at += len(block)
            self.read += count

    def _write(self, block: memoryview, at: int) -> None:
        write_at(self._file.fileno(), block, at, self._path)


def _located(output: Output, where: Where) -> Output:
    return replace(output, source=replace(output.source, file=where(output.source.file)))
