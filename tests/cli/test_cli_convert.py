"""`log-model convert`: what it prints, its exit codes, and that its result passes the checks."""

from __future__ import annotations

import json
from pathlib import Path

from command import log_model
from fakes import checkpoints


def test_converted_and_checked(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    out = tmp_path / "out"
    done = log_model("convert", str(source), "--to", str(out), "--dtype", "bfloat16", "--max-shard-size", "30kB")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"converted    {out}"
    assert "tensors to bfloat16" in done.stdout
    checked = log_model("check", "--recipe", "llama-chat", "--source", str(out))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_one_document(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    done = log_model("convert", str(source), "--to", str(tmp_path / "out"), "-o", "json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["action"], document["shards"]) == (0, "converted", 1)
    assert document["digests"].keys() == {"model.safetensors"}
    failed = log_model("convert", str(source), "--to", str(tmp_path / "out"), "-o", "json")
    assert (failed.returncode, json.loads(failed.stdout)["error"]["code"]) == (2, "usage")


def test_a_source_that_is_nothing(tmp_path: Path) -> None:
    done = log_model("convert", str(tmp_path / "none"), "--to", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "is neither a folder nor ORG/REPO" in done.stderr
