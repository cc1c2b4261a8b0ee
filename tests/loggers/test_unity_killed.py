"""Killed at any moment, the same command ends with exactly one right version and nothing of ours left over."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fakes import checkpoints
from loggers.catalogs import NAME, Catalog, tree
from loggers.zygote import Zygote

MOMENTS = 40


class Machine:
    """One machine that runs the command: what it keeps (tracking store, cache) can be put back to the beginning."""

    def __init__(
        self, zygote: Zygote, folder: Path, source: Path, constants: Mapping[str, Any] | None = None, **arguments: Any
    ) -> None:
        self.zygote, self.folder, self.source, self._constants = zygote, folder, source, constants
        self._arguments = {"recipe": "llama-chat", "source": str(source), "name": NAME, **arguments}
        self._fresh = folder.parent / "fresh"
        self.work.mkdir(parents=True)
        self.temporary.mkdir()
        mlflow.MlflowClient(f"sqlite:///{self.work / 'mlflow.db'}").search_experiments()
        shutil.copytree(folder, self._fresh)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    def begin_anew(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._fresh, self.folder)

    def start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(self.folder))
            patch.setenv("XDG_CACHE_HOME", str(self.folder / "cache"))
            patch.setenv("TMPDIR", str(self.temporary))  # what MLflow leaves there is small, and the system's to clear
            self.zygote.start(self.work, constants=self._constants, **self._arguments)

    def run(self) -> dict[str, Any]:
        self.start()
        done: dict[str, Any] | None = self.zygote.wait()
        assert done is not None
        assert "error" not in done, done["error"]
        return done

    def leftovers(self) -> list[str]:
        """Marks of unfinished work on runs, and folders that should have gone."""
        client = mlflow.MlflowClient(f"sqlite:///{self.work / 'mlflow.db'}")
        marks = [k for run in client.search_runs(["0"]) for k in run.data.tags if k.startswith("catalogger.logged")]
        # A journal beside the database is SQLite's own, which it takes away when it next needs to.
        kept = ("mlflow.db", "mlflow.db-journal", "mlruns")
        return marks + [f.name for f in self.work.iterdir() if f.name not in kept]


def test_killed_at_any_moment(catalog: Catalog, zygote: Zygote, tmp_path: Path) -> None:
    """Each moment is that of one request, which the server still handles; where there are few, also moments between."""
    source = checkpoints.llama(tmp_path / "llama", shards=3)
    before = tree(source)
    machine = Machine(zygote, tmp_path / "machine", source, registry_uri=catalog.uri, aliases=["champion"])
    began = time.monotonic()
    machine.run()
    lasted, total = time.monotonic() - began, catalog.requests()
    (first,) = catalog.versions()
    right = _weights(catalog.digests(first))
    catalog.empty()

    moments: list[int | float] = list(range(1, total + 1, max(1, total // MOMENTS)))
    moments += [lasted * (k + 0.5) / (MOMENTS - len(moments)) for k in range(MOMENTS - len(moments))]
    for moment in moments:
        machine.begin_anew()
        _kill(machine, catalog, moment)
        outcome = machine.run()
        held = catalog.versions()
        assert [v.status for v in held] == ["READY"], moment
        assert outcome["version"] == held[0].number, moment
        assert _weights(catalog.digests(held[0])) == right, moment
        assert catalog.unfinished() == 0, moment
        assert machine.leftovers() == [], moment
        assert tree(source) == before, moment
        catalog.empty()


def test_killed_at_any_moment_on_the_embedded_default(zygote: Zygote, tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "llama", shards=3)
    before = tree(source)
    machine = Machine(zygote, tmp_path / "machine", source, aliases=["champion"])
    began = time.monotonic()
    machine.run()
    lasted = time.monotonic() - began
    for k in range(MOMENTS):
        machine.begin_anew()
        machine.start()
        if machine.zygote.wait(lasted * (k + 0.5) / MOMENTS) is None:
            machine.zygote.kill()
            machine.zygote.wait()
        outcome = machine.run()
        client = mlflow.MlflowClient(f"sqlite:///{machine.work / 'mlflow.db'}")
        (version,) = client.search_model_versions(f"name='{NAME}'")
        assert (str(version.version), version.status) == (outcome["version"], "READY"), k
        files = tree(Path(outcome["location"]))
        weights = {f"model/{p}": digest for p, digest in before.items() if p.endswith(".safetensors")}
        assert weights.items() <= files.items(), k
        aliases = client.get_registered_model(NAME).aliases
        assert {a: str(v) for a, v in aliases.items()} == {"champion": outcome["version"]}, k
        assert machine.leftovers() == [], k
        assert tree(source) == before, k


def _kill(machine: Machine, catalog: Catalog, moment: float) -> None:
    """At the n-th request for an int, after so many seconds for a float."""
    count = 0

    def look(_line: str) -> None:
        nonlocal count
        count += 1
        if count == moment:
            machine.zygote.kill()

    catalog.watch(look if isinstance(moment, int) else None)
    machine.start()
    if isinstance(moment, float) and machine.zygote.wait(moment) is None:
        machine.zygote.kill()
    if machine.zygote.running:
        machine.zygote.wait()
    catalog.watch(None)


def _weights(digests: dict[str, str]) -> dict[str, str]:
    """All but what differs from run to run: ids and times are in MLmodel."""
    return {path: digest for path, digest in digests.items() if path not in ("MLmodel", "catalogger.json")}
