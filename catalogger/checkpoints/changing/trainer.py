"""The folder that a Trainer or torchtune writes: one checkpoint after another; the Trainer's says which was best.

It only chooses; what a checkpoint holds is for others to read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath
from typing import Any

from catalogger.errors import SourceInvalid, UsageError

_STATE = "trainer_state.json"


def chosen(folder: str, which: str) -> Path:
    """The checkpoint that is the `best`, the `last`, or that of a step.

    Raises SourceInvalid where the folder has no such checkpoint, UsageError for anything else that was asked.
    """
    steps = _steps(Path(folder).expanduser())
    if not steps:
        raise SourceInvalid(
            folder,
            'has no "checkpoint-N" or "epoch_N" in it',
            "Leave --checkpoint out, or give the folder around them.",
        )
    last = max(steps)
    if which == "last":
        return steps[last]
    if which == "best":
        return _best(folder, steps, last)
    if not which.isdecimal():
        raise UsageError(f'"{which}" names no checkpoint.', "Give best, last or the number of a step.")
    if int(which) not in steps:
        name = re.sub(r"\d+$", which, steps[last].name)
        raise SourceInvalid(folder, f'has no "{name}"', _there(steps))
    return steps[int(which)]


def _steps(folder: Path) -> dict[int, Path]:
    """By their numbers: the Trainer's, or torchtune's by epoch or, of newer versions, by step."""
    for pattern in (r"checkpoint-(\d+)", r"epoch_(\d+)", r"step_(\d+)"):
        names = ((re.fullmatch(pattern, path.name), path) for path in sorted(folder.glob("*"), key=str))
        found = {int(match[1]): path for match, path in names if match and path.is_dir()}
        if found:
            return found
    return {}


def _best(folder: str, steps: dict[int, Path], last: int) -> Path:
    """As the newest state says.  It names the folder by where the training ran, of which only the last word holds."""
    said = _state(steps[last]).get("best_model_checkpoint")
    if not isinstance(said, str) or not said:
        fix = f"It was trained without a metric to choose by. {_there(steps)}"
        raise SourceInvalid(folder, f'does not say which checkpoint is best, in "{steps[last].name}/{_STATE}"', fix)
    name = PurePath(said.replace("\\", "/")).name
    best = next((path for path in steps.values() if path.name == name), None)
    if best is None:
        raise SourceInvalid(folder, f'says that "{name}" is best, which is not there any more', _there(steps))
    return best


def _state(checkpoint: Path) -> dict[str, Any]:
    try:
        state = json.loads((checkpoint / _STATE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _there(steps: dict[int, Path]) -> str:
    return f"There are: {', '.join(str(step) for step in sorted(steps))}."
