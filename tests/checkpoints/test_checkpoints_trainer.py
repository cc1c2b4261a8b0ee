"""Which checkpoint of a Trainer's folder is taken, and what of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints.adapters import all_tensors
from fakes import checkpoints

from catalogger import CataloggerError, convert


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Three checkpoints; the middle one is the best, as it was called on the machine of the training."""
    folder = tmp_path / "trained"
    for step in (5, 50, 500):
        checkpoint = checkpoints.llama(folder / f"checkpoint-{step}", seed=step)
        state = {"best_model_checkpoint": "/mnt/runs/trained/checkpoint-50", "global_step": step}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
        (checkpoint / "optimizer.pt").write_bytes(b"\0" * 1000)
        (checkpoint / "scheduler.pt").write_bytes(b"\0" * 1000)
        (checkpoint / "rng_state.pth").write_bytes(b"\0" * 1000)
    return folder


@pytest.mark.parametrize(("which", "step"), [("best", 50), ("last", 500), ("5", 5)])
def test_chosen(which: str, step: int, trained: Path, tmp_path: Path) -> None:
    done = convert(trained, tmp_path / "out", checkpoint=which)
    assert done.base == str(trained / f"checkpoint-{step}")
    assert all_tensors(tmp_path / "out") == all_tensors(trained / f"checkpoint-{step}")
    assert [p.name for p in (tmp_path / "out").iterdir() if p.suffix in (".pt", ".pth") or "state" in p.name] == []


@pytest.mark.parametrize("which", ["6", "newest", "-5"])
def test_not_there(which: str, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CataloggerError) as caught:
        convert(trained, tmp_path / "out", checkpoint=which)
    assert caught.value.exit_code == 2
    assert which in caught.value.message
    assert ("5, 50, 500" in caught.value.fix) == (which == "6")


@pytest.mark.parametrize("said", [None, "/mnt/runs/trained/checkpoint-55"])
def test_best_is_not_known_or_gone(said: str | None, trained: Path, tmp_path: Path) -> None:
    (trained / "checkpoint-500/trainer_state.json").write_text(json.dumps({"best_model_checkpoint": said}))
    with pytest.raises(CataloggerError, match="which is not there any more" if said else "does not say which"):
        convert(trained, tmp_path / "out", checkpoint="best")


def test_no_folder_of_a_trainer(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CataloggerError, match='has no "checkpoint-N"'):
        convert(trained / "checkpoint-5", tmp_path / "out", checkpoint="last")
