"""A process that does one job of a run after another: what loads MLflow, and what may end a process, happens here.

Jobs come as lines of JSON on standard input, what happens goes out as lines of JSON.  Where the input ends, whoever
started this process is gone, and it stops as by Ctrl-C.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from catalogger.errors import CataloggerError, findings_of, internal
from catalogger.files.digests import Tick
from catalogger.quiet import quiet

_TELL = 0.2  # seconds between two figures of a bar


class _Told:
    """Progress as lines of JSON; any thread may report."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._lock = out, threading.Lock()

    def put(self, **said: Any) -> None:
        with self._lock:
            self._out.write(json.dumps(said) + "\n")
            self._out.flush()

    def say(self, text: str) -> None:
        self.put(say=text)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Tick]:
        self.put(bar=label, total=total)
        lock, held, told = threading.Lock(), 0, time.monotonic()

        def tick(count: int) -> None:
            nonlocal held, told
            with lock:
                held += count
                if time.monotonic() - told < _TELL:
                    return
                count, held, told = held, 0, time.monotonic()
            self.put(tick=count)

        try:
            yield tick
        finally:
            self.put(tick=held)
            self.put(bar=None)


def register(told: _Told, job: Mapping[str, Any]) -> dict[str, Any]:
    """The main job, or its plan; then its deployment, where that is asked for."""
    from catalogger.loggers import log_model

    outcome = log_model(**job["options"], dry_run=job["dry_run"], progress=told)
    document = outcome.document()
    told.put(outcome=document)
    disks = [(d.folder, d.needed) for d in outcome.plan.disks] if outcome.plan else []
    deployment = None
    if job.get("deploy") and outcome.version:
        version = f"{outcome.name}/{outcome.version}"
        deployment = serve(told, {**job, "version": version})["deployment"]
    return {"outcome": document, "deployment": deployment, "disks": disks}


def serve(told: _Told, job: Mapping[str, Any]) -> dict[str, Any]:
    """The deployment of a version that is registered, or what would be done."""
    from catalogger.fleet.manifest import Deploy
    from catalogger.remote.workspace import workspace_client
    from catalogger.serving.capacity import Wish
    from catalogger.serving.deploying import Terms, deploy

    asked = Deploy(**job["deploy"])
    deployment = deploy(
        workspace_client(job["profile"]),
        job["version"],
        endpoint=asked.endpoint,
        wish=Wish(
            minimum=asked.min_throughput,
            maximum=asked.max_throughput,
            tokens_per_second=asked.tokens_per_second,
            units=asked.units,
            scale_to_zero=asked.scale_to_zero,
            no_burst=asked.no_burst,
        ),
        terms=Terms(
            replace=asked.replace,
            wait=not asked.no_wait,
            timeout=asked.timeout,
            rollback=asked.rollback,
            logprobs=asked.logprobs,
            dimension=job["dimension"],
        ),
        dry_run=job["dry_run"],
        consent=lambda _: asked.yes,
        progress=told,
    )
    return {"deployment": deployment.document()}


def compare(told: _Told, job: Mapping[str, Any]) -> dict[str, Any]:
    """What changed in a repository between two commits."""
    from catalogger.checkpoints.upstream import changes

    found = changes(job["repo"], job["old"], job["new"])
    return {"said": str(found), "code": found.code}


def record(told: _Told, job: Mapping[str, Any]) -> dict[str, Any]:
    """The run's outcome as an MLflow run."""
    from catalogger.fleet.recording import record as write

    return {"run_id": write(job["document"], job["page"], job["stores"])}


_VERBS: Mapping[str, Callable[[_Told, Mapping[str, Any]], dict[str, Any]]] = {
    "register": register,
    "serve": serve,
    "compare": compare,
    "record": record,
}


def main() -> None:
    """Do what comes until nothing comes any more."""
    told = _Told(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # what a library prints is no answer
    debug = "--debug" in sys.argv
    quiet(debug=debug)
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    working = threading.Event()
    threading.Thread(target=_listen, args=(jobs, working), daemon=True).start()
    try:
        while line := jobs.get():
            working.set()
            done = _done(told, json.loads(line), debug=debug)
            working.clear()
            told.put(**done)
    except KeyboardInterrupt:
        told.put(interrupted=True)
        os._exit(130)  # downloads of other threads would hold the process


def _listen(jobs: queue.SimpleQueue[str], working: threading.Event) -> None:
    for line in sys.stdin:
        jobs.put(line)
    jobs.put("")
    if working.is_set():
        os.kill(os.getpid(), signal.SIGINT)


def _done(told: _Told, job: Mapping[str, Any], *, debug: bool) -> dict[str, Any]:
    """The last line of a job: what came of it, or the error."""
    try:
        return {"done": _VERBS[job["verb"]](told, job)}
    except CataloggerError as error:
        return {"error": error.document(), "findings": findings_of(error)}
    except Exception as error:
        if debug:
            raise
        return {"error": internal(error).document(), "findings": []}


if __name__ == "__main__":
    main()
