"""What changed in a Hub repository between two commits, in its users' words.  Only small files are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from catalogger.checkpoints.facts import INDEX, File, Origin
from catalogger.checkpoints.hub import Listing, listed, small_file
from catalogger.checkpoints.selection import TOKENIZER, is_licence, select
from catalogger.errors import CataloggerError, RepositoryNotFound

_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class Changes:
    """Two commits of a repository, and which parts differ."""

    old: str
    new: str
    parts: tuple[str, ...]
    code: bool = False
    """Whether Python files differ."""

    def __str__(self) -> str:
        parts = ", ".join(self.parts) or "nothing that is told apart here"
        return f"from {self.old[:12]} to {self.new[:12]}: {parts}"


def changes(repo: str, old: str, new: str) -> Changes:
    """Compare two commits by their listings, and by the chat template where that stands in a tokenizer's config.

    Raises what asking the Hub raises; an old commit that is gone is said in `parts`.
    """
    after = listed(repo, new)
    try:
        before = listed(repo, old)
    except RepositoryNotFound:
        return Changes(old, new, (f"the commit {old[:12]} is gone from the Hub",))
    files = sorted(p for p in {*before.files, *after.files} if _key(before.files.get(p)) != _key(after.files.get(p)))
    weights = {*select(before.files).weights, *select(after.files).weights}
    parts = dict.fromkeys(part for path in files if (part := "weights" if path in weights else _part(path)))
    if _TOKENIZER_CONFIG in files:
        parts |= dict.fromkeys(_tokenizer_parts(repo, (old, before), (new, after)))
    if before.licence != after.licence:
        parts[f"licence ({before.licence or 'none'} → {after.licence or 'none'})"] = None
    return Changes(old, new, tuple(parts), any(f.endswith(".py") for f in files))


def _key(file: File | None) -> object:
    return (file.size, file.sha256, file.blob) if file else None


def _part(path: str) -> str | None:
    """What people call the file; None where its content has to be looked at."""
    name = PurePosixPath(path).name
    if name == _TOKENIZER_CONFIG:
        return None
    if path == INDEX:
        return "weights"
    if name in _TEMPLATES:
        return "chat template"
    if path in TOKENIZER:
        return "tokenizer"
    if name in ("config.json", "generation_config.json"):
        return "configuration"
    if is_licence(path):
        return "licence text"
    if name.endswith(".py"):
        return "code"
    return "model card" if name == "README.md" else "other files"


def _tokenizer_parts(repo: str, *commits: tuple[str, Listing]) -> list[str]:
    """Whether the template or the rest of the tokenizer's config differs."""
    old, new = (_config(repo, commit, listing.files) for commit, listing in commits)
    if old is None or new is None:
        return ["tokenizer"]
    templates = [config.pop("chat_template", None) for config in (old, new)]
    said = ["chat template"] if templates[0] != templates[1] else []
    return [*said, "tokenizer"] if old != new else said


def _config(repo: str, commit: str, files: Mapping[str, File]) -> dict[str, object] | None:
    if _TOKENIZER_CONFIG not in files:
        return None
    try:
        found = json.loads(small_file(Origin("hub", repo, commit, repo), files[_TOKENIZER_CONFIG]))
    except (CataloggerError, ValueError):
        return None
    return found if isinstance(found, dict) else None
