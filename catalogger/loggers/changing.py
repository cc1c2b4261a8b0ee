"""Weights that are changed before they are logged: planned first, made once, beside where the model will stand.

What they are made from tells the same job again, so that nothing is made twice.  What was begun stays for the next run
of the same job; when that is done, nothing is left.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from catalogger.checkpoints import Checkpoint, File, fetch
from catalogger.checkpoints.changing.adapter import CONFIG, named
from catalogger.checkpoints.changing.change import Change, Wish, open_change
from catalogger.checkpoints.changing.writing import Written, write_weights
from catalogger.checkpoints.facts import Ingredient, Made
from catalogger.checkpoints.headers import read_shard
from catalogger.errors import CataloggerError, CheckpointError, NotEnoughRoom, UsageError, human
from catalogger.files.digests import DigestMemory, cache_folder, identity
from catalogger.files.place import existing, same_file_system
from catalogger.files.temporary import WORK, findable, kept, temporary
from catalogger.files.workers import Task, Workers
from catalogger.loggers.glance import artifacts_to_be
from catalogger.loggers.provenance import moved
from catalogger.loggers.registry import Registry
from catalogger.loggers.stores import Stores, local_folder
from catalogger.progress import Progress

CHANGED = "changed"
"""The folder of the cache that changed weights are made in."""


class Making:
    """One change of a checkpoint, on its way to weight files in `folder`."""

    def __init__(self, change: Change, stores: Stores, name: str, root: str | None) -> None:
        self.change = change
        self.folder = _folder(stores, name, root)
        self.written = Written()
        self._seen = dict[Path, tuple[int, int, int]]()
        self._held = ExitStack()

    @property
    def size(self) -> int:
        """Bytes of all weight files."""
        return sum(shard.size for shard in self.change.plan.shards)

    @property
    def missing(self) -> int:
        """Bytes that are still to be written, as far as names and sizes tell."""
        files = {shard.path: shard.size for shard in self.change.plan.shards}
        there = {f.name: f.stat().st_size for f in (self.folder / WORK).glob("*.safetensors")}
        return sum(size for path, size in files.items() if there.get(path) != size)

    def require_room(self) -> None:
        """Raises NotEnoughRoom where what is missing has none."""
        free = shutil.disk_usage(existing(self.folder)).free
        if self.missing > free:
            raise NotEnoughRoom(str(self.folder.parent), self.missing, free)

    def recognised(self, checkpoint: Checkpoint, memory: DigestMemory, learned: Mapping[Path, str]) -> Checkpoint:
        """The checkpoint with the digests of what it is made from, as far as they are known: by the Hub, the memory, or
        `learned`.
        """
        made, source, adapter = checkpoint.made, self.change.source, self.change.adapter
        if made is None:
            return checkpoint

        def known(path: Path) -> str | None:
            return learned.get(path.resolve()) or memory.recall(path.resolve())

        root = source.root
        base = [
            (s.file.path, _by_the_hub(s.file) or (known(root / s.file.path) if root else None)) for s in source.shards
        ]
        parts = [(path.name, known(path)) for path in self._adapter_files()]
        return replace(
            checkpoint,
            made=replace(
                made,
                base=replace(made.base, sha256=_together(base)),
                adapter=replace(made.adapter, sha256=_together(parts)) if made.adapter and adapter else None,
            ),
        )

    def unknown(self, memory: DigestMemory) -> list[Path]:
        """Files of base and adapter whose digests nobody knows.  From now on none of these files may change."""
        root = self.change.source.root
        base = [root / s.file.path for s in self.change.source.shards if root and not _by_the_hub(s.file)]
        files = [path.resolve() for path in (*base, *self._adapter_files())]
        self._seen = {path: identity(path.stat()) for path in files}
        return [path for path in files if not memory.recall(path)]

    @contextmanager
    def standing(self, *, alone: bool) -> Iterator[None]:
        """What is made stands inside.  It goes away with the block, but where the next run can go on with it.

        Where another run may be at work, it stands in a folder that no other knows.
        """
        with self._held:
            if not alone:
                self.folder = self._held.enter_context(temporary(CHANGED))
            stays = f'The changed weights stay in "{self.folder}"; the same command goes on with them.'
            with going_on(self.folder, stays, lambda: alone and self._finished()):
                yield

    def make(self, checkpoint: Checkpoint, memory: DigestMemory, progress: Progress) -> Checkpoint:
        """Fetch the source, and make the weights of the checkpoint: it is then on this machine, with every digest.

        Raises what fetching raises, CheckpointError, WeightsNotFinite, NotEnoughRoom and DiskError.
        """
        self.change = self.change.of(fetch(self.change.source, memory))
        if self.folder.name.startswith("."):  # it is beside where the model will stand
            self._held.enter_context(findable(self.folder, link_to(self.folder)))
        folder = self._held.enter_context(kept(self.folder)) / WORK
        progress.say(self._sentence())
        with progress.bar("changing", self.size) as tick:
            self.written = write_weights(self.change.plan, folder, tick)
        self.require_unchanged()
        digests = self.written.digests
        shards = tuple(replace(s, file=replace(s.file, sha256=digests[s.file.path])) for s in checkpoint.shards)
        whole = {s.file.path: s.file for s in shards}
        files = tuple(whole.get(file.path, file) for file in checkpoint.files)
        return replace(checkpoint, shards=shards, files=files, root=folder)

    def require_unchanged(self) -> None:
        """Raises CheckpointError where the base or the adapter is not what it was when it was first looked at."""
        if any(identity(path.stat()) != seen for path, seen in self._seen.items()):
            fix = "Run the same command again."
            raise CheckpointError(self.change.source.origin.location, "or its adapter changed while it was read", fix)

    def document(self) -> dict[str, Any]:
        """The change as JSON data: what is made from what, and what was counted on the way, by the tensor."""
        change, counts = self.change, self.written.counts
        made = made_of(change)
        return {
            "base": str(made.base),
            "adapter": str(made.adapter) if made.adapter else None,
            "checkpoint": change.step,
            "dtype": made.cast,
            "merged": change.merged,
            "cast": change.cast,
            "from": {"bytes": change.source.weight_bytes, "files": len(change.source.shards)},
            "to": {"bytes": self.size, "files": len(change.plan.shards)},
            "folder": str(self.folder),
            "taken_up": self.written.taken_up,
            "overflowed": {n: c.overflowed for n, c in counts.items() if c.overflowed},
            "infinite": {n: c.infinite for n, c in counts.items() if c.infinite},
            "nan": {n: c.nan for n, c in counts.items() if c.nan},
            "pickled": list(change.plan.pickled),
        }

    def notes(self) -> tuple[str, ...]:
        """What should be told of it when it is done."""
        told, taken_up = self.document(), self.written.taken_up
        words = {
            "overflowed": "were too large for the dtype and are infinite now",
            "infinite": "are infinite",
            "nan": "are NaN, as they were before",
        }
        said = [f"{sum(told[k].values())} numbers {what}, in {named(told[k])}" for k, what in words.items() if told[k]]
        said += [f"{taken_up} files of an earlier run were taken up"] if taken_up else []
        return (*self.change.plan.said, *said)

    def _adapter_files(self) -> list[Path]:
        adapter = self.change.adapter
        return sorted({adapter.folder / CONFIG, *(t.file for t in adapter.tensors.values())}) if adapter else []

    def _finished(self) -> bool:
        return any((self.folder / WORK).glob("*.sha256"))

    def _sentence(self) -> str:
        change = self.change
        done = [f"merging {change.adapter.location} into {change.merged} tensors"] if change.adapter else []
        done += [f"casting {change.cast} tensors"] if change.cast else []
        text = ", ".join([*done, f"{human(self.size)} in {len(change.plan.shards)} files"])
        return text[0].upper() + text[1:]


@contextmanager
def going_on(folder: Path, stays: str, is_worth_it: Callable[[], bool]) -> Iterator[None]:
    """The folder goes away with the block, but where the next run can go on with it: what stopped this one says so."""
    try:
        yield
    except BaseException as error:
        refused = isinstance(error, CataloggerError) and error.exit_code == 2
        if refused or not is_worth_it():
            shutil.rmtree(folder, ignore_errors=True)
        elif isinstance(error, CataloggerError) and str(folder) not in str(error):
            error.fix = f"{error.fix}\n{stays}".strip()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def opened(
    asked: str, wish: Wish, *, allow_pickle: bool, pickled: Callable[[Change], Change]
) -> tuple[Checkpoint, Change | None]:
    """The checkpoint as it will be logged, and how it is changed before, where it is.  What is only known when it is
    here goes through `pickled` first.

    Raises what `open_change` and the plan of the change raise.
    """
    change = open_change(asked, wish, allow_pickle=allow_pickle)
    if wish.empty and change.adapter is None:
        return change.source, None
    if not change.is_known:
        change = pickled(change)
    return planned(change), change


def unknown_yet(asked: str, fix: str) -> UsageError:
    """Pickled weights of the Hub, where they are not to be fetched."""
    return UsageError(f'What the pickled weights of "{asked}" hold is known only when all of them are here.', fix)


def planned(change: Change) -> Checkpoint:
    """The checkpoint that the change makes, as far as the plan says it: all but the weights' content."""
    source, plan = change.source, change.plan
    shards = tuple(read_shard(File(s.path, s.size), partial(_part, s.header)) for s in plan.shards)
    small = [File(path, len(text), hashlib.sha256(text).hexdigest()) for path, text in plan.small.items()]
    files = (*small, *(shard.file for shard in shards))
    made = made_of(change)
    return replace(source, files=files, small=plan.small, shards=shards, root=None, unread=None, made=made)


def made_of(change: Change) -> Made:
    """What the weights are made from; no digest of it is known here."""
    origin, adapter = change.source.origin, change.adapter
    return Made(
        base=Ingredient(origin.location if origin.kind == "hub" else origin.asked, origin.revision),
        adapter=Ingredient(adapter.location, adapter.revision, asked=adapter.asked) if adapter else None,
        cast="bfloat16" if change.dtype else None,
        most=change.most,
        step=change.step,
        pickled=change.plan.pickled,
    )


def what_moved(registry: Registry, name: str, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Sentences on a base and an adapter that have moved since the newest version was made of them."""
    standing = registry.standing(name) if checkpoint.made else None
    return tuple(moved(standing.tags, checkpoint.made, standing.number)) if standing and checkpoint.made else ()


def hash_all(making: Making, memory: DigestMemory, workers: Workers, progress: Progress) -> Mapping[Path, str]:
    """Hash the files of base and adapter that nobody knows, and remember them."""
    paths = making.unknown(memory)
    size = sum(path.stat().st_size for path in paths)
    if not size:
        return {}
    progress.say(f"Hashing {human(size)} of what the weights are made from")
    with progress.bar("hashing", size) as tick:
        before = [path.stat() for path in paths]
        tasks = [workers.submit(Task(path), tick) for path in paths]
        found = {path: str(task.result().sha256) for path, task in zip(paths, tasks, strict=True)}
    memory.remember((path, found[path], was) for path, was in zip(paths, before, strict=True))
    return found


def _folder(stores: Stores, name: str, root: str | None) -> Path:
    """Where to make the weights: in the cache, or beside where they will stand, where they could not be linked there
    from the cache.
    """
    job = stores.folder_of(name)
    target = artifacts_to_be(stores) if stores.kind == "mlflow" else local_folder(root) if root else None
    if target is None or same_file_system(cache_folder(), target):
        return cache_folder() / CHANGED / job
    beside = target.parent if same_file_system(target.parent, target) else target
    return existing(beside) / f".catalogger-{CHANGED}-{job}"


def link_to(folder: Path) -> Path:
    """The link in the cache to a folder beside a catalog's storage: whoever cleans need not know the catalog."""
    return cache_folder() / CHANGED / folder.name


def _part(content: bytes, start: int, end: int) -> bytes:
    return content[start:end]


def _by_the_hub(file: File) -> str | None:
    return file.sha256 or file.blob


def _together(parts: Iterable[tuple[str, str | None]]) -> str | None:
    """One digest over the files; None while one is unknown."""
    listed = sorted(parts, key=lambda part: part[0])
    if any(digest is None for _, digest in listed):
        return None
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
