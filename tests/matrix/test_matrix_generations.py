"""What is normalised loads under Transformers 4.44, 4.57 and 5, and says the same: logits, token ids, templates.

Each of them has an environment of its own here, and one process that writes and one that reads.  Numbers may differ by
rounding, as the order of the arithmetic does between the versions for the very same files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from catalogger.checkpoints import open_source
from catalogger.checkpoints.normalizing.normalizing import normalize

MACHINE = dict(os.environ)  # with the real HOME, so that uv finds its cache and the registry's settings
CHILD = Path(__file__).with_name("generations_child.py")
OLDER = ("4.44.2", "4.57.6")
HERE = version("transformers")
NAMED = ("llama", "llama-llama3", "mixtral", "bert")
"""The models that the recipes are for; the others are looked at too, where a version has them."""
ROUNDING = 2e-5
Answers = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the environments and what they wrote is."""
    return tmp_path_factory.mktemp("generations")


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, Answers]:
    """What each version reads, by version, then by folder and model: `FOLDER/MODEL`."""
    pythons = {HERE: sys.executable}
    with ThreadPoolExecutor(2) as pool:
        pythons |= zip(OLDER, pool.map(lambda old: _environment(folder, old), OLDER), strict=True)
        written = {v: folder / f"by-{v}" for v in ("4.44.2", HERE)}
        list(pool.map(lambda v: _run(pythons[v], "write", str(written[v])), written))
        _normalised(written[HERE], folder / "five-as-4", 4)
        _normalised(written["4.44.2"], folder / "four-as-5", 5)
        plan = {v: [folder / "five-as-4", written["4.44.2"]] for v in OLDER}
        plan[HERE] = [*written.values(), folder / "five-as-4", folder / "four-as-5"]
        files = {v: folder / f"{v}.json" for v in plan}
        list(pool.map(lambda v: _run(pythons[v], "read", str(files[v]), *map(str, plan[v])), plan))
    return {v: json.loads(file.read_text()) for v, file in files.items()}


def _environment(folder: Path, transformers: str) -> str:
    """The Python of an environment with that Transformers, beside the PyTorch that is here."""
    python = str(folder / transformers / "bin/python")
    torch = version("torch").partition("+")[0]
    wanted = [f"transformers=={transformers}", f"torch=={torch}", f"numpy=={version('numpy')}", "jinja2"]
    _done([find_uv_bin(), "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder / transformers)])
    _done([find_uv_bin(), "pip", "install", "--quiet", "--python", python, *wanted])
    return python


def _run(python: str, *arguments: str) -> None:
    _done([python, "-W", "ignore", str(CHILD), *arguments])


def _done(command: list[str]) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=MACHINE | offline, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"


def _normalised(source: Path, target: Path, generation: int) -> None:
    """Every model of the folder with its small files changed and its weights linked."""
    for model in sorted(source.iterdir()):
        checkpoint = normalize(open_source(str(model)), generation)
        assert checkpoint.normalized
        assert checkpoint.normalized.changes
        for path, content in checkpoint.small.items():
            (target / model.name / path).parent.mkdir(parents=True, exist_ok=True)
            (target / model.name / path).write_bytes(content)
        for shard in checkpoint.shards:
            os.link(model / shard.file.path, target / model.name / shard.file.path)


def _same(found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
    for name in ("long", "short"):
        assert found[name] == pytest.approx(wanted[name], abs=ROUNDING), f"{what}: logits, {name}"
    rest = set(wanted) - {"long", "short"}
    assert {key: found[key] for key in rest} == {key: wanted[key] for key in rest}, what


def test_three_generations(answers: dict[str, Answers], folder: Path, tmp_path: Path) -> None:
    """One test, so that workers in parallel do not each make the environments."""
    _what_5_wrote_is_the_same_to_all_three(answers)
    _what_4_wrote_is_the_same_to_5(answers)
    _what_is_compared_can_differ(answers)
    _what_5_wrote_is_not_read_by_4_as_it_is(folder, tmp_path)


def _what_5_wrote_is_the_same_to_all_three(answers: dict[str, Answers]) -> None:
    assert HERE.startswith("5")
    for reader in (*OLDER, HERE):
        read = {name for name in answers[reader] if name.startswith("five-as-4/")}
        assert read >= {f"five-as-4/{model}" for model in NAMED}
        for name in sorted(read):
            _same(answers[reader][name], answers[HERE][name.replace("five-as-4", f"by-{HERE}")], f"{reader} {name}")


def _what_4_wrote_is_the_same_to_5(answers: dict[str, Answers]) -> None:
    own = {name for name in answers["4.44.2"] if name.startswith("by-4.44.2/")}
    assert own >= {f"by-4.44.2/{model}" for model in NAMED}
    for name in sorted(own):
        _same(answers[HERE][name.replace("by-4.44.2", "four-as-5")], answers["4.44.2"][name], name)
        _same(answers["4.57.6"][name], answers["4.44.2"][name], f"4.57.6 {name}")


def _what_is_compared_can_differ(answers: dict[str, Answers]) -> None:
    """5 does not look for DBRX's base where 4 writes it: unchanged, that checkpoint answers something else."""
    unchanged, wanted = answers[HERE]["by-4.44.2/dbrx"], answers["4.44.2"]["by-4.44.2/dbrx"]
    assert unchanged["long"] != pytest.approx(wanted["long"], abs=100 * ROUNDING)


def _what_5_wrote_is_not_read_by_4_as_it_is(folder: Path, tmp_path: Path) -> None:
    """The reason for all this, in the oldest environment."""
    copy = tmp_path / "as-it-is" / "llama"
    shutil.copytree(folder / f"by-{HERE}" / "llama", copy)
    done = subprocess.run(
        [str(folder / "4.44.2/bin/python"), str(CHILD), "read", str(tmp_path / "out.json"), str(copy.parent)],
        env=MACHINE | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "TokenizersBackend" in done.stderr
