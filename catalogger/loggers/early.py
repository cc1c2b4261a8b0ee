"""What needs no MLflow is begun in other processes while that is imported here: the hashing, or the copy itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from catalogger.errors import human
from catalogger.files.place import existing
from catalogger.files.temporary import marked
from catalogger.files.workers import Workers
from catalogger.loggers.glance import artifacts_to_be, may_hold
from catalogger.loggers.layout import Layout
from catalogger.loggers.outcome import Moved
from catalogger.loggers.placing import Placing
from catalogger.loggers.plan import has_room, way
from catalogger.loggers.record import Job
from catalogger.loggers.registry import SHAPE
from catalogger.loggers.request import Request


class Early:
    """The weight files of one request.  `ahead` places them, `hashing` hashes them, where that has begun; `job` makes
    the job as it is known by now.
    """

    def __init__(self, request: Request, workers: Workers, job: Callable[[], Job], shape: Callable[[], str]) -> None:
        self._request, self._workers, self._job, self._shape = request, workers, job, shape
        self.ahead: Placing | None = None
        self.hashing: Placing | None = None

    @contextmanager
    def begun(self, *, alone: bool) -> Iterator[None]:
        """Begin what is not in vain, where no other run can be at it."""
        sends = self._request.stores.kind != "mlflow"
        staging = self._staging() if alone and not sends else None
        with marked(staging) if staging else nullcontext():
            try:
                if self._request.weights == "link" and not sends:
                    self.hash()
                elif staging:
                    job = self._job()
                    self.ahead = job.placing(job.layout.weights, staging)
                yield
            finally:
                self._workers.stop()

    def hash(self) -> None:
        """Start to hash the weight files whose digests are unknown.

        Where files are copied at once, this is only worth it if a version of the same shape is there: a copy hashes on
        its way.
        """
        job = self._job()
        if job.checkpoint.root is not None:
            self.hashing = job.placing([i for i in job.layout.weights if not i.sha256], None)

    def finish(self, layout: Layout) -> tuple[Layout, Moved]:
        """The layout with every digest, and what was read for it, where hashing was begun."""
        if not self.hashing:
            return layout, Moved()
        size = sum(i.size for i in layout.weights if not i.sha256)
        if size:
            self._request.progress.say(f"Hashing {human(size)} of weights")
        hashed = self.hashing.finish(None)
        return layout.with_digests({path: p.sha256 for path, p in hashed.items() if p.sha256}), Moved(read=size)

    def so_far(self, layout: Layout) -> tuple[Layout, Moved]:
        """As `finish`, with the digests that are known by now: a copy hashes the other files, and of these the kernel
        alone copies.
        """
        if not self.hashing:
            return layout, Moved()
        done = self.hashing.so_far()
        digests = {path: p.sha256 for path, p in done.items() if p.sha256}
        return layout.with_digests(digests), Moved(read=sum(p.read for p in done.values()))

    def _staging(self) -> Path | None:
        """Where to copy to before MLflow can say where the model will stand; None where that might be in vain.

        It is so where a version may hold this content (the files are then hashed first), where nothing will be copied,
        and where the store is not on this machine.
        """
        stores, name, job, shape = self._request.stores, self._request.name, self._job(), self._shape()
        unknown = any(i.sha256 is None for i in job.layout.weights)
        if not (unknown and job.checkpoint.root):
            return None
        folder = artifacts_to_be(stores)
        if not folder or way(job, folder) != "copied" or not has_room(folder, job.layout.size):
            return None
        if may_hold(stores, name, SHAPE, shape):
            return None
        digest = hashlib.sha256(f"{stores.registry_uri} {name} {shape}".encode()).hexdigest()
        return existing(folder) / f".catalogger-{digest[:16]}"
