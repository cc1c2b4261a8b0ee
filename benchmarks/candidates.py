"""What is compared: the inputs of one size on disk, the command of each candidate, and one measured run of it.

Must not judge: budgets are the report's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

from fakes.checkpoints import sparse_llama_405b
from fakes.hub import Hub

Database = Literal["existing", "fresh"]
REPO, GIANT = "org/bench", "org/giant"
NAME = "main.ml.bench"
_DROPPED = ("MLFLOW_", "HF_", "HUGGING", "TRANSFORMERS_", "DATABRICKS_", "XDG_", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Candidate:
    """One thing to measure. `stores` says that it works on a database, so that both kinds are measured."""

    key: str
    label: str
    stores: bool = True
    follows: str | None = None  # runs right after that candidate, in the state it leaves


CANDIDATES = {
    c.key: c
    for c in (
        Candidate("upstream", "upstream: load, then log_model"),
        Candidate("hub", "catalogger, linked from the Hub's cache"),
        Candidate("link", "catalogger, --weights link, folder"),
        Candidate("copy", "catalogger, --weights copy, folder"),
        Candidate("again", "catalogger, second run", follows="copy"),
        Candidate("lint", "log-model lint of what was logged", follows="again"),
        Candidate("floor", "import mlflow, open the store"),
        Candidate("cp", "cp -r of the same files", stores=False),
        Candidate("hash", "hash the weights once", stores=False),
    )
}
SIZELESS = {
    c.key: c
    for c in (
        Candidate("help", "log-model --help"),
        Candidate("mlflow-help", "mlflow --help"),
        Candidate("check", "log-model check, 405B in 191 shards on the Hub"),
    )
}
_EXPECTED = {"hub": ("registered", "linked"), "link": ("registered", "linked"), "copy": ("registered", "copied")}
_EXPECTED["again"] = ("unchanged", "in place")


@dataclass(frozen=True)
class Usage:
    """What the kernel says of one process and the children it waited for: seconds and bytes.

    `read` and `written` count what passed through system calls, cached or not; a mapped file is in neither.
    `dirtied` counts what went towards the disk, mapped or not; `fetched` what the Hub on this machine sent.
    """

    wall: float
    user: float
    system: float
    rss: int
    read: int
    written: int
    dirtied: int
    fetched: int = 0


@dataclass(frozen=True)
class Case:
    """A candidate at a size in GB on a kind of database; None where it has none."""

    candidate: str
    size: float | None = None
    database: str | None = None


@dataclass(frozen=True)
class Results:
    """Every run of every case, and the exact bytes of weights by size."""

    samples: Mapping[Case, Sequence[Usage]]
    weights: Mapping[float, int]

    def median(self, case: Case, figure: str) -> float:
        """The median of one figure of `Usage` over the runs of a case."""
        return float(median(getattr(usage, figure) for usage in self.samples[case]))

    def spread(self, case: Case, figure: str) -> str:
        """Least and most."""
        values = [getattr(usage, figure) for usage in self.samples[case]]
        return f"{min(values):.2f} to {max(values):.2f}"

    def nearest(self, wanted: float) -> float:
        """The size that a budget is for, or the largest in its place."""
        return wanted if wanted in self.weights else max(self.weights)


def run(arguments: list[str], folder: Path, env: dict[str, str]) -> tuple[Usage, str]:
    """Run one process to its end; its usage and its standard output. Raises RuntimeError if it fails."""
    output, errors = folder / "stdout", folder / "stderr"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(arguments, cwd=folder, env=env, stdout=stdout, stderr=stderr)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.perf_counter() - began
    # It has ended and is not yet buried: the only moment at which its counters are final and still there.
    lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    moved = {name: int(count) for name, _, count in (line.partition(": ") for line in lines)}
    _, status, spent = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}:\n{errors.read_text()[-3000:]}")
    rss = spent.ru_maxrss * 1024
    usage = Usage(wall, spent.ru_utime, spent.ru_stime, rss, moved["rchar"], moved["wchar"], moved["write_bytes"])
    return usage, output.read_text()


def python(process: str, *arguments: object) -> list[str]:
    """The command line of one of `benchmarks.processes`."""
    script = Path(__file__).with_name("processes.py")
    return [sys.executable, "-P", str(script), process, *map(str, arguments)]


class Workshop:
    """A checkpoint of one size, a Hub that serves it, a filled Hub cache, and a place to run in.

    `seed` keeps it apart from the others; the place is the same before each run.
    """

    def __init__(self, folder: Path, gigabytes: float, hub: Hub) -> None:
        self.source, self.place, self._hub = folder / "source", folder / "run", hub
        self._cache, self._memory, self._template = folder / "hub", folder / "memory", folder / "existing.db"
        self._uri = f"sqlite:///{self.place / 'mlflow.db'}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
        self._env = kept | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(self._cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "XDG_CACHE_HOME": str(self._memory),
        }
        self.reset("fresh")
        run(python("checkpoint", self.source, gigabytes, max(3, round(gigabytes))), self.place, self._env)
        self.weights = sum(file.stat().st_size for file in self._weight_files(self.source))
        hub.add(REPO, self.source)
        giant = sparse_llama_405b(folder / "giant")
        hub.add(GIANT, giant, digests={file.name: f"{n:064x}" for n, file in enumerate(self._weight_files(giant))})
        run(self.command("floor"), self.place, self._env)
        (self.place / "mlflow.db").rename(self._template)
        self.reset("existing")
        run(self.command("hub"), self.place, self._env)  # fills the cache

    def reset(self, database: Database) -> None:
        """Clear what runs left, digests that catalogger remembers among it, and let the disk come to rest."""
        for folder in (self.place, self._memory):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        if database == "existing":
            shutil.copyfile(self._template, self.place / "mlflow.db")
        os.sync()

    def measure(self, candidate: Candidate, database: Database) -> Usage:
        """One run from a reset state, or from the one its forerunner left, with its input in the page cache."""
        if candidate.follows is None:
            self.reset(database)
        self._warm(self._cache if candidate.key == "hub" else self.source)
        sent = self._hub.sent
        usage, output = run(self.command(candidate.key), self.place, self._env)
        usage = replace(usage, fetched=self._hub.sent - sent)
        if expected := _EXPECTED.get(candidate.key):
            outcome = json.loads(output)
            if (outcome["action"], outcome["weights"]) != expected:
                raise RuntimeError(f"{candidate.label}: {expected} was to be measured, not {output}")
        return usage

    def command(self, key: str) -> list[str]:
        """The command line of a candidate."""
        log = ("catalogger", "--recipe", "llama-chat", "--name", NAME, "--tracking-uri", self._uri, "-o", "json")
        commands: dict[str, list[str]] = {
            "upstream": python("upstream", self.source, self._uri, NAME),
            "hub": python(*log, "--source", REPO),
            "link": python(*log, "--source", self.source, "--weights", "link"),
            "copy": python(*log, "--source", self.source, "--weights", "copy"),
            "again": python(*log, "--source", self.source, "--weights", "copy"),
            "lint": python("catalogger", "lint", *self.place.glob("mlruns/*/models/*/artifacts"), "-o", "json"),
            "check": python("catalogger", "check", "--recipe", "llama-chat", "--source", GIANT, "-o", "json"),
            "floor": python("floor", self._uri),
            "cp": [shutil.which("cp") or "cp", "-r", str(self.source), str(self.place / "copy")],
            "hash": python("hash_once", *self._weight_files(self.source)),
            "help": python("catalogger", "--help"),
            "mlflow-help": python("mlflow_command", "--help"),
        }
        return commands[key]

    def _weight_files(self, folder: Path) -> list[Path]:
        return sorted(folder.rglob("*.safetensors"))

    def _warm(self, folder: Path) -> None:
        block = bytearray(1 << 22)
        for file in self._weight_files(folder):
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(block):
                    pass


@contextmanager
def workshop(parent: Path, gigabytes: float) -> Iterator[Workshop]:
    """A workshop below `parent`, removed at the end. Raises SystemExit where the disk has too little room for it."""
    # The checkpoint, the Hub's cache, and what upstream writes: a copy to log from and a logged one.
    needed, free = 4.2 * gigabytes * 1e9, shutil.disk_usage(parent).free
    if free < needed:
        raise SystemExit(f"{parent} has {free / 1e9:.1f} GB free, {gigabytes:g} GB need {needed / 1e9:.1f}: --folder")
    folder = parent / f"{gigabytes:g}GB"
    try:
        with Hub() as hub:
            yield Workshop(folder, gigabytes, hub)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
