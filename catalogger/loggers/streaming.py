"""Weight files that come and go one by one: fetched, verified, changed where that is asked, sent, and taken away.

Never more than two of them are on this disk.  What was sent is written down, so that the next run of the same job goes
on behind it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from catalogger.checkpoints import Checkpoint
from catalogger.checkpoints.changing.drafting import Draft
from catalogger.checkpoints.changing.floats import Counts
from catalogger.checkpoints.changing.outputs import Output
from catalogger.checkpoints.changing.plan import PlannedShard
from catalogger.checkpoints.changing.writing import Written
from catalogger.checkpoints.hub import cached
from catalogger.checkpoints.pieces import bring, fetched, forget
from catalogger.errors import DigestMismatch, NotStreamed, human, masked
from catalogger.files.arriving import Arriving
from catalogger.files.digests import cache_folder, identity
from catalogger.files.temporary import WORK, kept, temporary
from catalogger.loggers.changing import Making, going_on
from catalogger.loggers.layout import MODEL
from catalogger.loggers.outcome import Moved, Plan
from catalogger.loggers.room import Room, most_at_once
from catalogger.loggers.stores import Stores
from catalogger.remote.storage import Sending

STREAMED = "streamed"
"""The folder of the cache that weight files pass through."""


@dataclass(frozen=True)
class Passing:
    """A weight file of the model and the files of the plan that it is made of; itself where nothing is changed."""

    path: str
    size: int
    sources: tuple[Path, ...]
    planned: PlannedShard | None = None


class Stream:
    """The weight files of one job.

    `written` has the digests of the files by their path in the checkpoint, and counts in `taken_up` those that an
    earlier run had sent; `fetched` is in bytes.
    """

    def __init__(self, checkpoint: Checkpoint, making: Making | None, stores: Stores, name: str) -> None:
        source = making.change.source if making else checkpoint
        root = source.root or Path(source.origin.location)
        self.folder = cache_folder() / STREAMED / stores.folder_of(name)
        self.written = making.written if making else Written()
        self.fetched = 0
        self._origin, self._making = source.origin, making
        self._held = ExitStack()
        self._files = {root / s.file.path: s.file for s in source.shards} if source.root is None else {}
        self._here = {path: there for path, file in self._files.items() if (there := cached(source.origin, file))}
        self._remote = {path: file.size for path, file in self._files.items() if path not in self._here}
        self._order = {path: n for n, path in enumerate(self._files)}
        self._passing = _changed(making, self._order) if making else _unchanged(checkpoint, root)

    @property
    def needed(self) -> int:
        """Bytes that stand on this disk at most."""
        return most_at_once([(p.size, p.sources) for p in self._passing], self._remote, changed=bool(self._making))

    @property
    def to_fetch(self) -> int:
        """Bytes that are not on this machine."""
        return sum(self._remote.values())

    @property
    def to_write(self) -> int:
        """Bytes of changed weights that are written here, each for a while."""
        return sum(p.size for p in self._passing if p.planned)

    @property
    def moved(self) -> Moved:
        """Bytes that were moved beside those that the storage counts."""
        return Moved(fetched=self.fetched, read=self.written.read, written=self.written.written)

    def notes(self) -> tuple[str, ...]:
        """What should be told of it when it is done, beside what a change tells."""
        taken_up = 0 if self._making else self.written.taken_up
        return (f"{taken_up} files of an earlier run were taken up",) if taken_up else ()

    @contextmanager
    def standing(self, *, alone: bool) -> Iterator[None]:
        """What is on its way stands inside, and goes away with the block, but where the next run can go on with it."""
        with self._held:
            if not alone:
                self.folder = self._held.enter_context(temporary(STREAMED))
            stays = f'What was fetched and sent is noted in "{self.folder}"; the same command goes on from there.'
            with going_on(self.folder, stays, lambda: alone and any((self.folder / WORK).glob("*/*"))):
                yield

    def files(self, location: str, there: Mapping[str, int]) -> Generator[Sending]:
        """Each weight file that `there`, the sizes at `location`, does not have from an earlier run of this job.

        It may be sent while it still arrives, and has to be sent before the next one is asked for.  One whose sending
        ended with DigestMismatch comes once more.  Raises what fetching and changing raise.
        """
        self._held.enter_context(kept(self.folder))
        missing = self._begin(location, there)
        self._stop, self._room = threading.Event(), Room(self.needed)
        ready = Queue[tuple[Passing, Sending] | BaseException | None]()
        feeder = threading.Thread(target=self._feed, args=(missing, ready), daemon=True)
        feeder.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                passing, sending = item
                yield sending
                if not (sending.arriving and sending.arriving.failed):
                    self._sent(location, passing)
            if self._making:
                self._making.require_unchanged()
        finally:
            self._stop.set()
            self._room.close()
            feeder.join(5)  # one that waits for a server cannot be woken

    def _begin(self, location: str, there: Mapping[str, int]) -> list[Passing]:
        """The files that are still to be sent.  What of an earlier run is of no use is removed."""
        for name in ("fetched", "made", "sent"):
            (self.folder / WORK / name).mkdir(parents=True, exist_ok=True)
        missing = [p for p in self._passing if not self._was_sent(p, location, there)]
        wanted = {self._target(path).name for p in missing for path in p.sources if path in self._remote}
        for file in (self.folder / WORK / "fetched").iterdir():
            if file.name.removesuffix(".at") not in wanted:
                file.unlink()
        for file in (self.folder / WORK / "made").iterdir():
            file.unlink()
        return missing

    def _was_sent(self, passing: Passing, location: str, there: Mapping[str, int]) -> bool:
        with suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(self._note(passing).read_text())
            if there.get(f"{MODEL}/{passing.path}") != passing.size:
                return False
            if (said["location"], said["made_of"]) != (location, self._made_of(passing)):
                return False
            self._tell(passing, str(said["sha256"]), {n: Counts(**c) for n, c in said["counts"].items()})
            self.written.taken_up += 1
            return True
        return False

    def _sent(self, location: str, passing: Passing) -> None:
        """It is in the registry: note it, and make room for the next one."""
        if sha256 := self.written.digests.get(passing.path):  # else it is not known but by the storage
            counts = self.written.counts
            own = {n: vars(counts[n]) for n in (o.name for o in _outputs(passing)) if n in counts}
            note = {"location": location, "made_of": self._made_of(passing), "sha256": sha256, "counts": own}
            self._note(passing).write_text(json.dumps(note))
        if passing.planned:
            self._made_at(passing).unlink()
            self._room.give(passing.size)
        else:
            self._let_go(passing.sources[0])

    def _feed(self, missing: Sequence[Passing], ready: Queue[tuple[Passing, Sending] | BaseException | None]) -> None:
        """Runs ahead of the sending as far as there is room."""
        try:
            last = {path: passing for passing in missing for path in passing.sources}
            for passing in missing:
                if passing.planned:
                    sha256 = self._made(passing, passing.planned, last)
                    made = Sending(f"{MODEL}/{passing.path}", self._made_at(passing), passing.size, sha256)
                    ready.put((passing, made))
                else:
                    self._pass_on(passing, ready)
            ready.put(None)
        except BaseException as failure:
            ready.put(failure)

    def _pass_on(self, passing: Passing, ready: Queue[tuple[Passing, Sending] | BaseException | None]) -> None:
        """A file that nothing is done to can be sent while it comes.  One that came wrong comes once more."""
        (path,) = passing.sources
        to, file = f"{MODEL}/{passing.path}", self._files[path]
        if path in self._here:
            if file.sha256:
                self._tell(passing, file.sha256, {})
            ready.put((passing, Sending(to, self._here[path], passing.size, file.sha256)))
            return
        self._room.take(file.size)
        for last in (False, True):
            arriving, target = Arriving(file.size), self._target(path)
            target.touch()
            ready.put((passing, Sending(to, target, passing.size, file.sha256, arriving)))
            try:
                self._tell(passing, self._brought(path, arriving), {})
                return
            except BaseException as failure:
                arriving.fail(failure)
                if last or not isinstance(failure, DigestMismatch):
                    raise

    def _made(self, passing: Passing, planned: PlannedShard, last: Mapping[Path, Passing]) -> str:
        """Write a changed file; its SHA-256.  A source is let go of where this is the `last` file that needs it."""
        self._hold(passing.sources[0])
        self._room.take(passing.size)
        with Draft(planned, self._made_at(passing), self._stop) as draft:
            for path in passing.sources:
                self._hold(path)
                draft.add(path, self._where)
                if last[path] is passing:
                    self._let_go(path)
            digest = draft.digest()
        self._tell(passing, digest, draft.counts)
        self.written.read += draft.read
        self.written.written += passing.size
        return digest

    def _tell(self, passing: Passing, sha256: str, counts: Mapping[str, Counts]) -> None:
        self.written.digests[passing.path] = sha256
        self.written.counts |= counts

    def _hold(self, path: Path) -> None:
        """Have a file of the plan on this disk, whole and verified."""
        if path not in self._remote or self._room.holds(path):
            return
        self._room.take(self._files[path].size, path)
        try:
            self._brought(path, Arriving(self._files[path].size))
        except DigestMismatch:
            self._brought(path, Arriving(self._files[path].size))

    def _brought(self, path: Path, arriving: Arriving) -> str:
        file, target = self._files[path], self._target(path)
        before = fetched(target)
        sha256 = bring(self._origin, file, target, arriving, self._stop)
        self.fetched += file.size - before
        return sha256

    def _let_go(self, path: Path) -> None:
        if path in self._remote:
            forget(self._target(path))
            self._room.give(self._files[path].size, path)

    def _where(self, path: Path) -> Path:
        """Where a file of the plan is on this machine."""
        if path not in self._files:
            return path
        return self._here.get(path) or self._target(path)

    def _target(self, path: Path) -> Path:
        """Named by its content too, so that what is left of another commit is not gone on with."""
        file = self._files[path]
        return self.folder / WORK / "fetched" / f"{self._order[path]}-{file.sha256 or file.blob}"

    def _made_of(self, passing: Passing) -> str:
        """Equal where the file would have the same bytes: a base that has moved may have files of the same sizes."""
        seen = hashlib.sha256(repr(passing.planned).encode())
        for path in sorted({stored.file for o in _outputs(passing) for stored in o.sources} | {*passing.sources}):
            file = self._files.get(path)
            seen.update(repr((file.sha256, file.blob) if file else identity(path.stat())).encode())
        return seen.hexdigest()

    def _made_at(self, passing: Passing) -> Path:
        return self.folder / WORK / "made" / str(self._passing.index(passing))

    def _note(self, passing: Passing) -> Path:
        return self.folder / WORK / "sent" / f"{self._passing.index(passing)}.json"


def not_streamed(stores: Stores, root: str | None, plan: Plan) -> NotStreamed:
    """Why the weights cannot pass, where the registry copies a model from a folder; `root` is where it keeps files."""
    why = f'keeps its files on this machine, in "{root}"' if root else "is MLflow's own, which copies a whole folder"
    needs = ", ".join(f'{human(disk.needed)} in "{disk.folder}" ({human(disk.free)} free)' for disk in plan.disks)
    return NotStreamed(f'"{masked(stores.registry_uri)}" {why}', needs)


def _unchanged(checkpoint: Checkpoint, root: Path) -> list[Passing]:
    return [Passing(s.file.path, s.file.size, (root / s.file.path,)) for s in checkpoint.shards]


def _changed(making: Making, order: Mapping[Path, int]) -> list[Passing]:
    """The files of the result, each with its sources in the order of the base's files."""
    found = []
    for shard in making.change.plan.shards:
        sources = sorted({output.source.file for output in shard.outputs}, key=lambda path: order.get(path, -1))
        found.append(Passing(shard.path, shard.size, tuple(sources), shard))
    return found


def _outputs(passing: Passing) -> Sequence[Output]:
    return passing.planned.outputs if passing.planned else ()
