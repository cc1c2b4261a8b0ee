"""The oldest huggingface_hub that is declared, which speaks HTTP by another library: all that is asked of the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fakes import checkpoints
from fakes.hub import Hub
from uv import find_uv_bin

OLDEST = "0.30.2"
MACHINE = dict(os.environ)  # with the real HOME, so that uv finds its cache and the registry's settings
PROJECT = Path(__file__).parents[2]
_CHILD = """
import hashlib, json, sys, threading
from pathlib import Path
from importlib.metadata import version
from catalogger.checkpoints import fetch, open_source, pieces
from catalogger.files.arriving import Arriving
from catalogger.files.digests import DigestMemory

target = Path(sys.argv[1])
pieces.PIECE = 1 << 16
opened = open_source("org/bot")
shard = opened.shards[0]
said = {"version": version("huggingface_hub"), "tensors": len(shard.tensors)}
said["streamed"] = pieces.bring(opened.origin, shard.file, target, Arriving(shard.file.size), threading.Event())
said["written"] = hashlib.sha256(target.read_bytes()).hexdigest()
fetched = fetch(opened, DigestMemory())
said["fetched"] = hashlib.sha256((fetched.root / shard.file.path).read_bytes()).hexdigest()
print(json.dumps(said))
"""


def test_headers_streams_and_downloads(tmp_path: Path) -> None:
    """A connection that is cut is gone on with, too."""
    python = str(tmp_path / "environment/bin/python")
    wanted = [f"huggingface_hub=={OLDEST}", "pydantic", "pyyaml", "numpy", "tqdm", "jinja2"]
    _done([find_uv_bin(), "venv", "--quiet", "--no-project", "--python", sys.executable, str(tmp_path / "environment")])
    _done([find_uv_bin(), "pip", "install", "--quiet", "--python", python, *wanted])
    source = checkpoints.llama(tmp_path / "llama", hidden=128)
    with Hub(redirect=True) as hub:
        hub.add("org/bot", source)
        hub.cut("/cdn/*", after=600_000)
        hub.cut("/cdn/*", after=30_000, times=2)
        said = json.loads(_done([python, "-c", _CHILD, str(tmp_path / "target")], tmp_path, HF_ENDPOINT=hub.url))
    right = hub._repos["org/bot"].commits[hub._repos["org/bot"].refs["main"]]["model.safetensors"].sha256
    assert said["version"] == OLDEST
    assert said["tensors"] > 10
    assert (said["streamed"], said["written"], said["fetched"]) == (right, right, right)


def _done(command: list[str], home: Path | None = None, **more: str) -> str:
    own = {"PYTHONPATH": str(PROJECT), "HF_HOME": str(home / "huggingface")} if home else {}
    done = subprocess.run(command, env=MACHINE | own | more, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    return done.stdout
