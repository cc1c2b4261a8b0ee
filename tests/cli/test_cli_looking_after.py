"""The four verbs that look after what is registered, as the guide shows them: every command runs, and says that."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.command import Done, run
from fakes import checkpoints
from fakes.hub import Hub

from catalogger import log_model
from catalogger.files.temporary import MARKER, marked

PAGE = (Path(__file__).parents[2] / "docs" / "looking-after.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SHOWN = [
    (asked, told)
    for block in BLOCKS
    for asked, told in re.findall(r"^\$ log-model (.+)\n((?:(?!\$).+\n)*)", block, re.M)
]
NAME = "main.ml.support_bot"


def _plain(text: str) -> str:
    """Without what differs from machine to machine: sizes, commits, places."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "COMMIT", text)
    text = re.sub(r"/\S*catalogger-proof-\w+", "FOLDER", text)
    return re.sub(r"\d[\d.]* (B|kB|MB|h|same)\b", "SIZE", text)


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a process that was killed eight days ago."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with marked(tmp_path / "another"):
        said = (tmp_path / "another" / MARKER).read_bytes()
    folder = tmp_path / "catalogger-proof-x1y2z3a4"
    folder.mkdir()
    (folder / MARKER).write_bytes(said)
    (folder / "half").write_bytes(b"half")
    long_ago = time.time() - 8 * 86400
    for path in (folder / MARKER, folder / "half", folder):
        os.utime(path, (long_ago, long_ago))
    return folder


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two versions of a model in the embedded default, champion and challenger, whose source has moved on."""
    log_model("llama-chat", source=checkpoints.llama(tmp_path / "first"), name=NAME, aliases=["champion"])
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("org/bot", checkpoints.llama(tmp_path / "second", seed=1))
        done = run("--recipe", "llama-chat", "--source", "org/bot", "--name", NAME, "--alias", "challenger")
        assert done.code == 0, done.err
        hub.add("org/bot", checkpoints.llama(tmp_path / "third", seed=2))
        yield


def test_the_guide_from_top_to_bottom(registered: None, left: Path) -> None:
    assert len(SHOWN) == 10
    for asked, told in SHOWN:
        done = run(*shlex.split(asked))
        assert done.code == (3 if "--check" in asked else 0), (asked, done.err)
        said = _plain(done.out).splitlines()
        missing = [line for line in _plain(told).splitlines() if line not in said]
        assert missing == [], (asked, done.out)
    assert not left.exists()


def test_every_option_in_the_text_is_one_of_its_verb() -> None:
    for verb, part in re.findall(r"^## (\w+):.*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        known = run(verb, "--help").out
        assert [option for option in re.findall(r"`(--[\w-]+)", part) if option not in known] == []


def test_verify_fails_by_its_exit_code_and_names_the_file(registered: None) -> None:
    location = run("verify", f"{NAME}/1", "-o", "json").document["location"]
    shard = Path(location.removeprefix("file://")) / "model" / "model.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = run("verify", f"{NAME}/1", "-o", "json")
    assert (done.code, done.document["passed"]) == (7, False)
    assert [f["path"] for f in done.document["files"] if f["state"] == "differs"] == ["model/model.safetensors"]
    text = run("verify", f"{NAME}/1")
    assert (text.code, "differs      model/model.safetensors" in text.out) == (7, True)
    assert run("verify", f"{NAME}/2").code == 0


def test_documents(registered: None, left: Path) -> None:
    found = run("outdated", "-o", "json").document
    assert (found["behind"], found["models"][0]["state"], found["models"][0]["asked"]) == (1, "behind", "main")
    done = run("promote", NAME, "-o", "json").document
    assert (done["action"], done["before"], done["version"], done["lint"]["passed"]) == ("promoted", "1", "2", True)
    listed = run("clean", "-o", "json")
    assert (listed.code, listed.document["left"], listed.document["removed"]) == (0, 1, 0)
    assert "Nothing was removed: --yes" in listed.err
    assert left.exists()


def _refused(done: Done, code: int, words: str) -> None:
    assert (done.code, words in done.err) == (code, True), done.err


def test_what_is_refused(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    _refused(run("verify", NAME), 2, "no registry yet")
    _refused(run("promote", NAME), 2, "no registry yet")
    _refused(run("clean", "--older-than", "soon"), 2, '"soon" is no time')
    _refused(run("outdated", NAME), 2, "no registry yet")
    nothing = run("clean")
    assert (nothing.code, nothing.out, "Nothing is left over." in nothing.err) == (0, "", True)
    assert list(work.iterdir()) == []
