"""Registration to Unity Catalog, measured beside the physical limit and MLflow's documented way; writes `unity.md`.

All in one run, in turn, each a new process. The servers are on this machine and share its cores with what is measured.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Literal

import click

from benchmarks.candidates import Usage, python, run
from benchmarks.moment import moment

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fakes.s3 import S3Proxy, S3Server
from fakes.unity import Unity

from catalogger.testing.models import Vending
from catalogger.testing.workspace import Workspace

Way = Literal["open source, folder", "S3 by vended credentials", "Files API"]
WAYS: tuple[Way, ...] = ("open source, folder", "S3 by vended credentials", "Files API")
UPSTREAM = {"open source, folder": 0.4, "S3 by vended credentials": 0.5, "Files API": 0.5}
RSS = {"open source, folder": 250e6, "S3 by vended credentials": 300e6, "Files API": 300e6}
NAME, TOKEN, SESSION = "main.ml.bench", "dapi00000000000000000000000000000000", "session"
_TRIED = ("limit", "floor", "ours", "again", "upstream")


@dataclass
class Measured:
    """Runs of one way at one size: usage by what was run, bytes sent and requests of ours and of the run after it."""

    usage: dict[str, list[Usage]] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    sent_again: list[int] = field(default_factory=list)
    requests_again: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)

    def median(self, key: str, figure: str) -> float:
        return float(median(getattr(u, figure) for u in self.usage[key]))


@dataclass
class Side:
    """A server of one way: the registry's address, the environment that leads to it, and what it has counted."""

    registry: str
    environment: dict[str, str]
    limit: Callable[[Path, list[Path]], list[str]]
    sent: Callable[[], int]
    requests: Callable[[], int]
    empty: Callable[[], None]


@click.command()
@click.option("--repeats", default=3, show_default=True)
@click.option("--sizes", default="2,6", show_default=True, help="GB.")
@click.option("--ways", default="0,1,2", show_default=True, help="Which of: " + ", ".join(WAYS))
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path())
def main(repeats: int, sizes: str, ways: str, folder: Path) -> None:
    """Measure each way at each size."""
    began, results = moment(), dict[tuple[Way, float], Measured]()
    for size in (float(s) for s in sizes.split(",")):
        with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=folder.absolute()) as temporary:
            place, source = Path(temporary) / "run", Path(temporary) / "source"
            place.mkdir()
            run(python("checkpoint", source, size, max(3, round(size))), place, _environment(place))
            for way in (WAYS[int(w)] for w in ways.split(",")):
                for _ in range(repeats):
                    measured = results.setdefault((way, size), Measured())
                    with _side(way, Path(temporary) / "server") as side:
                        _round(side, source, place, measured)
    text = _report(results, repeats, began)
    click.echo(text)
    if ways == "0,1,2":
        (Path(__file__).parent / "unity.md").write_text(text)


def _round(side: Side, source: Path, place: Path, measured: Measured) -> None:
    environment = _environment(place) | side.environment
    uri = f"sqlite:///{place / 'mlflow.db'}"
    files = sorted(f for f in source.iterdir() if f.is_file())
    log = python("catalogger", "--recipe", "llama-chat", "--source", source, "--name", NAME, "-o", "json",
                 "--tracking-uri", uri, "--registry-uri", side.registry)  # fmt: skip
    commands = {
        "limit": side.limit(place, files),
        "floor": python("floor", uri),
        "ours": log,
        "again": log,
        "upstream": python("upstream", source, uri, NAME, side.registry),
    }
    for key in _TRIED:
        if key != "again":
            _reset(place, uri, environment)
            side.empty()
        _warm(files)
        sent, requests = side.sent(), side.requests()
        usage, output = run(commands[key], place, environment)
        measured.usage.setdefault(key, []).append(usage)
        click.echo(f"{side.registry[:14]:16} {key:10} {usage.wall:7.2f} s {usage.rss / 1e6:6.0f} MB", err=True)
        if key in ("ours", "again"):
            _count(json.loads(output), key, side, (sent, requests), place, measured)


def _count(
    outcome: dict[str, Any], key: str, side: Side, before: tuple[int, int], place: Path, measured: Measured
) -> None:
    wanted = {"ours": "registered", "again": "unchanged"}[key]
    if outcome["action"] != wanted:
        raise RuntimeError(f"{wanted} was to be measured, not {outcome['action']}")
    if key == "ours":
        measured.sent.append(side.sent() - before[0])
        measured.written.append(sum(f.stat().st_size for f in place.rglob("*") if f.is_file()))
    else:
        measured.sent_again.append(side.sent() - before[0])
        measured.requests_again.append(side.requests() - before[1])


@contextmanager
def _side(way: Way, folder: Path) -> Iterator[Side]:
    shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as stack:
        if way == "open source, folder":
            unity = stack.enter_context(Unity((folder / "root").as_uri()))
            unity.add_schema("main.ml")

            def forget() -> None:
                unity.empty("main.ml")
                shutil.rmtree(folder, ignore_errors=True)

            copy = shutil.which("cp") or "cp"
            yield Side(
                f"uc:{unity.url}",
                {},
                lambda place, files: [copy, "-r", str(files[0].parent), str(place / "copy")],
                lambda: 0,
                lambda: len(unity.requests),
                forget,
            )
            return
        s3 = stack.enter_context(S3Server())
        proxy = stack.enter_context(S3Proxy(s3))
        proxy.tokens.add(SESSION)
        keys = {"access_key_id": s3.access_key, "secret_access_key": s3.secret_key, "session_token": SESSION}
        vending = Vending(f"s3://{s3.bucket}/uc", {"aws_temp_credentials": keys})
        by_files = way == "Files API"
        space = stack.enter_context(Workspace(folder, vending, tokens={TOKEN: "me@example.org"}, sdk_uploads=by_files))
        space.add_schema("main.ml")
        environment = {
            "DATABRICKS_HOST": space.url,
            "DATABRICKS_TOKEN": TOKEN,
            "MLFLOW_S3_ENDPOINT_URL": proxy.endpoint,
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_SESSION_TOKEN": SESSION,
            "AWS_DEFAULT_REGION": s3.region,
        }

        def clear() -> None:
            for key in s3.objects:
                s3.path(key).unlink()
            for below in ("Models", "Volumes"):
                shutil.rmtree(folder / below, ignore_errors=True)
            space._registry.models.clear()

        yield Side(
            "databricks-uc",
            environment,
            (lambda _, files: python("sdk_upload", *files))
            if by_files
            else (lambda _, files: python("boto3_upload", s3.bucket, *files)),
            (lambda: sum(r.received for r in space.matching("^PUT ")))
            if by_files
            else (lambda: proxy.received("^PUT ")),
            lambda: len(space.requests) + len(proxy.requests),
            clear,
        )


def _report(results: dict[tuple[Way, float], Measured], repeats: int, began: str) -> str:
    lines = ["# Registration to Unity Catalog", "", *_facts(repeats, began), ""]
    lines += ["| way | size | wall | limit + floor | ratio (1.25) | upstream | ratio | sent | written here | RSS |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for (way, size), m in results.items():
        ours, upstream = m.median("ours", "wall"), m.median("upstream", "wall")
        floor = m.median("limit", "wall") + m.median("floor", "wall")
        weights = size * 1e9
        sent = f"{median(m.sent) / weights:.2f}x" if any(m.sent) else "-"
        lines.append(
            f"| {way} | {size:g} GB | {ours:.2f} s | {floor:.2f} s | {_met(ours / floor, 1.25)} | {upstream:.2f} s"
            f" | {_met(ours / upstream, UPSTREAM[way])} | {sent} | {median(m.written) / 1e6:.1f} MB"
            f" | {m.median('ours', 'rss') / 1e6:.0f} MB of {RSS[way] / 1e6:.0f} |"
        )
    lines += ["", "The second run of the same command:", ""]
    lines += ["| way | size | wall | requests (25) | sent | RSS (200 MB) |", "|---|---|---|---|---|---|"]
    for (way, size), m in results.items():
        lines.append(
            f"| {way} | {size:g} GB | {m.median('again', 'wall'):.2f} s | {median(m.requests_again):.0f}"
            f" | {median(m.sent_again):.0f} B | {m.median('again', 'rss') / 1e6:.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def _met(ratio: float, budget: float) -> str:
    return f"{ratio:.2f}x {'met' if ratio <= budget else '**not met**'} ({budget:g})"


def _facts(repeats: int, began: str) -> list[str]:
    versions = [f"{p} {metadata.version(p)}" for p in ("catalogger", "mlflow", "boto3", "databricks-sdk")]
    return [
        f"Medians of {repeats}, in turn in one run, each a new process, input in the page cache;",
        f"began {began}, ended {moment()}.",
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()},",
        f"{', '.join(versions)}. Servers on the same machine: versitygw for S3 behind the tests' proxy, the loopback",
        "workspace and open-source server of the tests.",
        "",
        "Limit: `cp -r` of the checkpoint, boto3's `upload_file` of each file, or the SDK's `files.upload` of each.",
        "Floor: importing mlflow and opening the tracking store. Upstream: load the model, then",
        "`mlflow.transformers.log_model(…, registered_model_name=…)`. Written here: all that stands in the working",
        "folder afterwards, the tracking database among it. Sent: bytes of files that the server has, or took in.",
    ]


def _environment(place: Path) -> dict[str, str]:
    dropped = ("MLFLOW_", "HF_", "DATABRICKS_", "XDG_", "AWS_", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "XDG_CACHE_HOME": str(place / "cache")}


def _reset(place: Path, uri: str, environment: dict[str, str]) -> None:
    """An empty working folder with a tracking store that is there already."""
    shutil.rmtree(place)
    place.mkdir()
    template = place.parent / "existing.db"
    if not template.exists():
        run(python("floor", uri), place, environment)
        shutil.copyfile(place / "mlflow.db", template)
    shutil.copyfile(template, place / "mlflow.db")
    os.sync()


def _warm(files: list[Path]) -> None:
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 22):
                pass


if __name__ == "__main__":
    main()
