"""Jobs whose addresses hold a password: it is sent, and told nowhere.  Files are searched by `leaks.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.command import run
from fakes import checkpoints
from fakes.hub import Hub
from fakes.secrets import secret
from fakes.unity import Unity

from catalogger.testing.tracking import TrackingServer

PASSWORD = secret("an address")


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    source = checkpoints.llama(tmp_path / "llama")
    return ["--recipe", "llama-chat", "--source", str(source), "--name", "main.ml.bot", "--debug"]


def _with_password(address: str) -> str:
    return address.replace("http://", f"http://me:{PASSWORD}@")


def test_a_tracking_server(job: list[str], tmp_path: Path) -> None:
    """MLflow itself prints the address when a run ends, and on stdout, where the document is to be all."""
    (tmp_path / "tracking").mkdir()
    with TrackingServer(tmp_path / "tracking") as server:
        done = run(*job, "-o", "json", "--tracking-uri", _with_password(server.url), timeout=120)
    assert done.code == 0, done.err
    assert done.document["tracking_uri"] == server.url.replace("//", "//***:***@")
    assert PASSWORD not in done.out + done.err


def test_an_open_source_catalog(job: list[str], tmp_path: Path) -> None:
    with Unity((tmp_path / "root").as_uri()) as unity:
        unity.add_schema("main.ml")
        done = run(*job, "--registry-uri", f"uc:{_with_password(unity.url)}", timeout=120)
    assert done.code == 0, done.err
    masked = unity.url.replace("//", "//***:***@")
    assert f"note         Unity Catalog at {masked} has no tags" in done.out
    assert f"to Unity Catalog at {masked}" in done.err
    assert PASSWORD not in done.out + done.err


def test_a_mirror_of_the_hub(tmp_path: Path) -> None:
    with Hub() as hub:
        hub.add("org/bot", checkpoints.llama(tmp_path / "llama"))
        endpoint = _with_password(hub.url)
        done = run("--recipe", "llama-chat", "--source", "org/bot", "--debug", HF_ENDPOINT=endpoint, timeout=120)
        refused = run("--recipe", "llama-chat", "--source", "org/none", "--debug", HF_ENDPOINT=endpoint)
    assert (done.code, refused.code) == (0, 2)
    assert "//***:***@" in refused.err
    assert PASSWORD not in done.out + done.err + refused.out + refused.err
