"""`log-model convert`: what it prints, its exit codes, and that its result passes the checks."""

from __future__ import annotations

import json
from pathlib import Path

from cli.command import run
from fakes import checkpoints, trained


def test_converted_and_checked(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    out = tmp_path / "out"
    done = run("convert", str(source), "--to", str(out), "--dtype", "bfloat16", "--max-shard-size", "30kB")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == f"converted    {out}"
    assert "tensors to bfloat16" in done.out
    checked = run("check", "--recipe", "llama-chat", "--source", str(out))
    assert checked.code == 0, checked.out + checked.err


def test_one_document(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    done = run("convert", str(source), "--to", str(tmp_path / "out"), "-o", "json")
    document = json.loads(done.out)
    assert (done.code, document["action"], document["shards"]) == (0, "converted", 1)
    assert document["digests"].keys() == {"model.safetensors"}
    failed = run("convert", str(source), "--to", str(tmp_path / "out"), "-o", "json")
    assert (failed.code, json.loads(failed.out)["error"]["code"]) == (2, "usage")


def test_pickled(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    pickled = trained.pickled(source, tmp_path / "pickled")
    refused = run("convert", str(pickled), "--to", str(tmp_path / "out"))
    assert (refused.code, refused.out) == (2, "")
    assert "--allow-pickle" in refused.err
    done = run("convert", str(pickled), "--to", str(tmp_path / "out"), "--allow-pickle", "-o", "json")
    document = json.loads(done.out)
    assert (done.code, document["pickled"]) == (0, ["pytorch_model.bin"])
    assert "no file and no socket can be opened" in document["apart"]
    assert 'Pickled: "pytorch_model.bin" was read as data by a process apart' in done.err
    checked = run("check", "--recipe", "llama-chat", "--source", str(tmp_path / "out"))
    assert checked.code == 0, checked.out + checked.err


def test_a_source_that_is_nothing(tmp_path: Path) -> None:
    done = run("convert", str(tmp_path / "none"), "--to", str(tmp_path / "out"))
    assert done.code == 2
    assert "is neither a folder nor ORG/REPO" in done.err


def test_the_main_job_changes_on_the_way(tmp_path: Path, work: Path) -> None:
    source = checkpoints.llama(tmp_path / "source", dtype="float32")
    asked = ("--recipe", "llama-chat", "--source", str(source), "--name", "main.ml.bot", "--dtype", "bfloat16")
    planned = run(*asked, "--max-shard-size", "30kB", "--dry-run")
    assert planned.code == 0, planned.err
    assert "cast         21 tensors to bfloat16" in planned.out
    assert list(work.iterdir()) == []
    done = run(*asked, "--max-shard-size", "30kB", "-o", "json")
    assert done.code == 0, done.err
    change = done.document["change"]
    assert (change["cast"], change["dtype"], change["from"]["files"]) == (21, "bfloat16", 1)
    assert done.document["action"] == "registered"
    again = run(*asked, "--max-shard-size", "30kB", "-o", "json")
    assert (again.document["action"], again.document["change"]) == ("unchanged", None)


def test_the_main_job_refuses_what_does_not_fit(tmp_path: Path, work: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    done = run("--recipe", "llama-chat", "--adapter", str(source), "--base", str(source), "--name", "main.ml.bot")
    assert done.code == 2
    assert "is no adapter" in done.err
    assert list(work.iterdir()) == []
