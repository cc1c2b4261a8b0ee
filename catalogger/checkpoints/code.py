"""Bring the Python files that a checkpoint borrows from another repository into the checkpoint, at one commit.

Only called with consent.  The files are copied, never imported; the config then names them as its own, so that what was
consented to is what runs, wherever the model is loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from catalogger.checkpoints.facts import Checkpoint, File
from catalogger.checkpoints.hub import python_files
from catalogger.errors import CheckpointError

_NAMED = ("config.json", "tokenizer_config.json")


def borrowed_repos(checkpoint: Checkpoint) -> set[str]:
    """The other repositories that `auto_map` takes code from (`ORG/REPO--module.Class`)."""
    maps = [checkpoint.json(path).get("auto_map") for path in _NAMED]
    return {value.partition("--")[0] for value in _strings(maps) if "--" in value}


def with_borrowed_code(checkpoint: Checkpoint, repo: str, revision: str | None) -> Checkpoint:
    """The checkpoint with the repository's Python files as its own and `code` naming the commit they are from.

    Raises CheckpointError where a file of that name is there already, and what the Hub's client raises.
    """
    commit, code = python_files(repo, revision, _probe(checkpoint, repo))
    if clash := sorted(name for name in code if name in checkpoint.small):
        raise CheckpointError(checkpoint.origin.location, f'and "{repo}" both have a file "{clash[0]}"')
    small = {**checkpoint.small, **code}
    for path in _NAMED:
        if "auto_map" in checkpoint.json(path):
            small[path] = _own(checkpoint.small[path], repo)
    files = [File(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in small.items()]
    files += [shard.file for shard in checkpoint.shards]
    return replace(checkpoint, small=small, files=tuple(files), code=f"{repo}@{commit}")


def _probe(checkpoint: Checkpoint, repo: str) -> str:
    """One file that the repository must have: the module of the first class that is taken from it."""
    maps = [checkpoint.json(path).get("auto_map") for path in _NAMED]
    classes = [value.partition("--")[2] for value in _strings(maps) if value.startswith(f"{repo}--")]
    return f"{classes[0].partition('.')[0]}.py" if classes else "modeling.py"


def _own(content: bytes, repo: str) -> bytes:
    """The config with every `REPO--` taken off its `auto_map`."""
    data = json.loads(content)
    data["auto_map"] = _stripped(data["auto_map"], f"{repo}--")
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def _stripped(value: Any, prefix: str) -> Any:
    if isinstance(value, str):
        return value.removeprefix(prefix)
    if isinstance(value, list):
        return [_stripped(v, prefix) for v in value]
    return {k: _stripped(v, prefix) for k, v in value.items()} if isinstance(value, dict) else value


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for one in inner for text in _strings(one)]
