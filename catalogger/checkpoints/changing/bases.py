"""The base of an adapter: the one that was given, or the one that its config names.  Opened, not judged but for what
its name says.
"""

from __future__ import annotations

import re
from pathlib import Path

from catalogger.checkpoints.changing.adapter import Adapter, is_adapter
from catalogger.checkpoints.facts import Checkpoint
from catalogger.checkpoints.source import open_source
from catalogger.errors import AdapterRefused, CheckpointError, SourceInvalid

_QUANTISED = re.compile(r"(?P<full>.+?)(-unsloth)?-bnb-[48]bit(?P<revision>@.+)?", re.IGNORECASE)
_WHOLE = ("model*.safetensors", "ft-model*.safetensors", "pytorch_model*.bin", "hf_model_*.pt")


def full_precision(name: str) -> str | None:
    """What the quantised repository was made from, where its name says so, as Unsloth names them."""
    found = _QUANTISED.fullmatch(name)
    return found["full"] if found else None


def base_of(adapter: Adapter, base: str | None, *, allow_pickle: bool) -> Checkpoint:
    """Open the base.  Raises AdapterRefused where it is not known, not here, or quantised; CheckpointError where it is
    itself an adapter, and what opening a source raises.
    """
    asked = base or adapter.base
    if not asked:
        raise AdapterRefused(adapter.location, "does not say what its base is", "Give it: --base ORG/REPO or a folder.")
    if Path(asked).is_dir() and is_adapter(Path(asked)) and not (Path(asked) / "config.json").is_file():
        raise CheckpointError(
            asked, "is a base that is itself an adapter", "Merge that one first, and give the result."
        )
    if full := full_precision(asked):
        raise AdapterRefused(
            adapter.location,
            f'was trained on "{asked}", which is quantised, so that nothing can be merged exactly',
            f"Give the base as it was before, which by its name is: --base {full}.",
        )
    try:
        return open_source(asked, allow_pickle=allow_pickle)
    except SourceInvalid as error:
        if base:
            raise
        raise AdapterRefused(
            adapter.location,
            f'names the base "{asked}", which is not here',
            "Say where it is: --base ORG/REPO or a folder.",
        ) from error


def holds_both(folder: Path) -> bool:
    """Whether a folder holds whole weights beside an adapter."""
    return folder.is_dir() and is_adapter(folder) and any(any(folder.glob(pattern)) for pattern in _WHOLE)


def is_merged(folder: Path) -> bool:
    """Whether the whole weights have the adapter beside them in them already, as torchtune writes the two: its own form
    of the adapter says that it was torchtune.  https://github.com/meta-pytorch/torchtune/pull/2074
    """
    return holds_both(folder) and any(any(folder.glob(p)) for p in ("adapter_model.pt", "adapter_[0-9]*.pt"))
