"""`log-model --stream` beside fetching alone and uploading alone; writes `stream.md`: `python -m benchmarks.stream`.

All in one run, in turn, each a new process.  The servers are on this machine and share its cores with what is measured,
so every candidate is measured twice: as fast as loopback goes, and with both servers held to the rate of a network.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median

import click
from fakes.hub import Hub
from fakes.s3 import S3Proxy, S3Server
from fakes.throttle import Throttle

from benchmarks.candidates import Usage, python, run
from benchmarks.moment import moment
from benchmarks.watching import Seen, watched
from catalogger.testing.models import Vending
from catalogger.testing.workspace import Workspace

NAME, TOKEN, SESSION = "main.ml.bench", "dapi00000000000000000000000000000000", "session"
WALL, BESIDE, RSS = 1.15, 100e6, 300e6
_BUDGETED = 20  # GB
_TRIED = {"fetch": "fetch alone", "upload": "upload alone", "stream": "stream"}


@dataclass(frozen=True)
class Run:
    """One run; `joined`: seconds in which the storage put the parts of files together."""

    usage: Usage
    seen: Seen
    joined: float


@dataclass
class Measured:
    """Runs of one repository at one rate, by what was run; bytes of its largest file and of all weights."""

    repo: str
    rate: float | None
    largest: int
    weights: int
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def median(self, key: str, figure: str) -> float:
        return float(median(getattr(run.usage, figure) for run in self.runs[key]))

    def cpu(self, key: str) -> float:
        return self.median(key, "user") + self.median(key, "system")

    def most(self, key: str) -> int:
        """Bytes that stood here at most, in any run."""
        return max(run.seen.stood for run in self.runs[key])


class Site:
    """The Hub, the registry and its storage, and the one place on this disk that candidates may write to."""

    def __init__(self, folder: Path, hub: Hub, space: Workspace, s3: S3Server, proxy: S3Proxy) -> None:
        self.place, self._folder = folder / "run", folder
        self.hub, self._space, self._s3, self.proxy = hub, space, s3, proxy
        self._sources = dict[str, Path]()
        self._uri = f"sqlite:///{self.place / 'mlflow.db'}"
        self.reset()
        run(self._floor(), self.place, self._environment())
        shutil.copyfile(self.place / "mlflow.db", folder / "existing.db")

    def add(self, repo: str, gigabytes: float, shards: int) -> None:
        """A repository of holes, which are hashed once for the Hub to tell their digests."""
        source = self._sources[repo] = self._folder / "sources" / repo
        run(python("checkpoint", source, gigabytes, shards, "sparse"), self.place, self._environment())
        self.hub.add(repo, source)

    def measured(self, repo: str, rate: float | None) -> Measured:
        sizes = [file.stat().st_size for file in self._sources[repo].glob("*.safetensors")]
        return Measured(repo, rate, max(sizes), sum(sizes))

    def measure(self, key: str, measured: Measured) -> None:
        """One run, with nothing here and nothing there."""
        self.reset()
        self.hub.throttle = Throttle(measured.rate) if measured.rate else None
        self.proxy.throttle = Throttle(measured.rate) if measured.rate else None
        self.proxy.forget()
        fetched = self.hub.sent
        with watched(self.place) as seen:
            usage, output = run(self._command(key, measured.repo), self.place, self._environment())
        moved = {"fetch": self.hub.sent - fetched, "upload": self.proxy.received("^PUT ")}
        for way in moved.keys() if key == "stream" else {key}:
            if not 1 <= moved[way] / measured.weights < 1.01:
                raise RuntimeError(f"{key}: {moved[way]} bytes by {way}, where {measured.weights} were to be moved")
        if key == "stream":
            self._require_streamed(output, measured)
        joined = sum(request.seconds for request in self.proxy.matching("^POST .*uploadId="))
        measured.runs.setdefault(key, []).append(Run(usage, seen, joined))
        self.reset()

    def _require_streamed(self, output: str, measured: Measured) -> None:
        outcome = json.loads(output)
        there = sum(size for path, size in self._s3.objects.items() if path.endswith(".safetensors"))
        said = (outcome["action"], outcome["weights"], outcome["bytes"]["fetched"], there)
        if said != ("registered", "streamed", measured.weights, measured.weights):
            raise RuntimeError(f"a stream was to be measured, not {said}")

    def reset(self) -> None:
        """An empty place with a tracking store that is there already, an empty registry, and a disk at rest."""
        shutil.rmtree(self.place, ignore_errors=True)
        for folder in ("home", "cache", "hub", "tmp"):
            (self.place / folder).mkdir(parents=True)
        if (self._folder / "existing.db").exists():
            shutil.copyfile(self._folder / "existing.db", self.place / "mlflow.db")
        for key in self._s3.objects:
            self._s3.path(key).unlink()
        self._space._registry.models.clear()
        os.sync()

    def _command(self, key: str, repo: str) -> list[str]:
        if key == "fetch":
            return python("fetch", repo)
        if key == "upload":
            return python("boto3_upload", self._s3.bucket, *sorted(f for f in self._sources[repo].iterdir()))
        return python("catalogger", "--recipe", "llama-chat", "--source", repo, "--name", NAME, "--stream",
                      "-o", "json", "--tracking-uri", self._uri, "--registry-uri", "databricks-uc")  # fmt: skip

    def _floor(self) -> list[str]:
        return python("floor", self._uri)

    def _environment(self) -> dict[str, str]:
        dropped = ("MLFLOW_", "HF_", "HUGGING", "DATABRICKS_", "XDG_", "AWS_", "PYTHONDONTWRITEBYTECODE")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        within = {"HOME": "home", "XDG_CACHE_HOME": "cache", "HF_HOME": "hub", "TMPDIR": "tmp"}
        return kept | {name: str(self.place / folder) for name, folder in within.items()} | {
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DATABRICKS_HOST": self._space.url,
            "DATABRICKS_TOKEN": TOKEN,
            "AWS_ENDPOINT_URL": self.proxy.endpoint,
            "AWS_ACCESS_KEY_ID": self._s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self._s3.secret_key,
            "AWS_SESSION_TOKEN": SESSION,
            "AWS_DEFAULT_REGION": self._s3.region,
        }  # fmt: skip


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """The servers, over a folder."""
    with Hub() as hub, S3Server(many_parts=True) as s3, S3Proxy(s3) as proxy:
        proxy.tokens.add(SESSION)
        keys = {"access_key_id": s3.access_key, "secret_access_key": s3.secret_key, "session_token": SESSION}
        vending = Vending(f"s3://{s3.bucket}/uc", {"aws_temp_credentials": keys})
        with Workspace(folder / "registry", vending, tokens={TOKEN: "me@example.org"}) as space:
            space.add_schema("main.ml")
            yield Site(folder, hub, space, s3, proxy)


@click.command()
@click.option("--size", default=20.0, show_default=True, help="GB of the repository of several files.")
@click.option("--shards", default=4, show_default=True)
@click.option("--single", default=10.0, show_default=True, help="GB of the repository of one file; 0 leaves it out.")
@click.option("--rate", default=125.0, show_default=True, help="MB/s each way of the network.")
@click.option("--repeats", default=1, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path())
def main(size: float, shards: int, single: float, rate: float, repeats: int, folder: Path) -> None:
    """Measure both repositories at both rates."""
    began, results = moment(), list[Measured]()
    repos = {f"org/shards-{shards}": (size, shards)} | ({"org/single": (single, 1)} if single else {})
    _require_room(folder, repos)
    with (
        tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder.absolute()) as temporary,
        site(Path(temporary)) as here,
    ):
        for repo, made in repos.items():
            here.add(repo, *made)
        for at in (rate * 1e6, None):
            for repo in repos:
                results.append(measured := here.measured(repo, at))
                for _ in range(repeats):
                    for key in _TRIED:
                        here.measure(key, measured)
                        click.echo(_line(measured, key), err=True)
    text = _report(results, repeats, began)
    click.echo(text)
    if size >= _BUDGETED:
        (Path(__file__).parent / "stream.md").write_text(text)


def _require_room(folder: Path, repos: dict[str, tuple[float, int]]) -> None:
    """Fetching alone holds the whole; the storage holds a file twice while it puts its parts together."""
    needed = max(max(size, size + size / shards + 2 * size / shards) for size, shards in repos.values()) * 1e9
    if (free := shutil.disk_usage(folder).free) < needed:
        raise SystemExit(f"{free / 1e9:.1f} GB are free, {needed / 1e9:.1f} are needed: --folder, --single")


def _line(measured: Measured, key: str) -> str:
    one = measured.runs[key][-1]
    usage, seen = one.usage, one.seen
    return (
        f"{measured.repo:14} {_rate(measured):9} {key:7} {usage.wall:7.2f} s {usage.user:6.1f} user {usage.system:6.1f}"
        f" system {usage.rss / 1e6:5.0f} MB here {seen.stood / 1e9:6.2f} GB busy {seen.busy:4.0%}"
        f" waiting {seen.waiting:4.0%} disk {seen.written / 1e6:5.0f} MB/s joining {one.joined:5.1f} s"
    )


def _report(results: list[Measured], repeats: int, began: str) -> str:
    lines = ["# From the Hub to a registry, with little disk", "", *_facts(repeats, began), ""]
    lines += [
        "| repository | rate | fetch alone | upload alone | stream | of the longer (1.15) | less joining | of both"
    ]
    lines[-1] += " | stood here | of | fetch's | RSS (300 MB) |"
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for m in results:
        wall = {key: m.median(key, "wall") for key in _TRIED}
        longer, both = max(wall["fetch"], wall["upload"]), wall["fetch"] + wall["upload"]
        less = {key: wall[key] - median(run.joined for run in m.runs[key]) for key in _TRIED}
        within = min(2 * m.largest, m.weights) + BESIDE
        ratio = _met(wall["stream"] / longer, WALL) if m.rate else f"{wall['stream'] / longer:.2f}x"
        rss = max(run.usage.rss for run in m.runs["stream"])
        lines.append(
            f"| {_called(m)} | {_rate(m)} | {wall['fetch']:.1f} s | {wall['upload']:.1f} s | {wall['stream']:.1f} s"
            f" | {ratio} | {less['stream'] / max(less['fetch'], less['upload']):.2f}x | {wall['stream'] / both:.2f}x"
            f" | {m.most('stream') / 1e9:.2f} GB"
            f" | {within / 1e9:.2f} GB {_word(m.most('stream') <= within)} | {m.most('fetch') / 1e9:.2f} GB"
            f" | {rss / 1e6:.0f} MB {_word(rss <= RSS)} |"
        )
    lines += ["", "What it was busy with:", ""]
    lines += ["| repository | rate | what | client's CPU | a GB | processors busy | waiting for the disk | disk"]
    lines[-1] += " | joining |"
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for m in results:
        for key, label in _TRIED.items():
            seen = [run.seen for run in m.runs[key]]
            lines.append(
                f"| {_called(m)} | {_rate(m)} | {label} | {m.cpu(key):.1f} s | {m.cpu(key) / m.weights * 1e9:.2f} s"
                f" | {median(s.busy for s in seen):.0%} | {median(s.waiting for s in seen):.0%}"
                f" | {median(s.written for s in seen) / 1e6:.0f} MB/s | {median(r.joined for r in m.runs[key]):.1f} s |"
            )
    return "\n".join(lines) + "\n"


def _facts(repeats: int, began: str) -> list[str]:
    versions = [f"{p} {metadata.version(p)}" for p in ("catalogger", "mlflow", "boto3", "huggingface_hub")]
    return [
        f"Medians of {repeats}, in turn in one run, each a new process; began {began}, ended {moment()}.",
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()},",
        f"{', '.join(versions)}.",
        "Servers on the same machine: the tests' Hub, versitygw for S3 behind the tests' proxy, and the loopback",
        "workspace, which vends S3 credentials. The budget is for the rate of a network, to which both servers are",
        "held, each way by itself; at loopback's own speed servers and client share the processors and the disk.",
        "",
        "Fetch alone: `snapshot_download` into an empty cache. Upload alone: boto3's `upload_file` of each file, from",
        "files of holes. Stream: `log-model --stream`, all of it: look at the repository, fetch, verify, send and",
        "register. Of both: beside one after the other. Stood here: bytes allocated at most below the working folder,",
        "HOME, XDG_CACHE_HOME, HF_HOME and TMPDIR, looked at all the time, of two of the largest files (or the only",
        "one) and 100 MB; the storage's own files do not count. Processors and disk: the whole machine's, the servers'",
        "share in it. Joining: versitygw puts the parts of each file together by copying them, and answers then;",
        "upload and stream wait for it. Less joining: the ratio without that, for a storage that copies nothing.",
    ]


def _called(measured: Measured) -> str:
    shards = measured.repo.rpartition("-")[2]
    return f"{measured.weights / 1e9:.1f} GB, {f'{shards} files' if shards.isdigit() else 'one file'}"


def _rate(measured: Measured) -> str:
    return f"{measured.rate / 1e6:g} MB/s" if measured.rate else "loopback"


def _met(ratio: float, budget: float) -> str:
    return f"{ratio:.2f}x {_word(ratio <= budget)} ({budget:g})"


def _word(met: bool) -> str:
    return "met" if met else "**not met**"


if __name__ == "__main__":
    main()
