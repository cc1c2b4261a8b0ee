"""The tags and the description that a version carries: where it comes from, what it is, how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import metadata

from catalogger.checkpoints import Checkpoint
from catalogger.checkpoints.facts import Made
from catalogger.loggers.mlmodel import base_model
from catalogger.loggers.registry import (
    ADAPTER,
    ADAPTER_SHA256,
    ARCHITECTURE,
    ASKED_ADAPTER,
    ASKED_REVISION,
    BASE,
    BASE_SHA256,
    CHAT_TEMPLATE,
    FINGERPRINT,
    IGNORED,
    NORMALIZED,
    RECIPE,
    REMOTE_CODE,
    REQUEST,
    REVISION,
    SHAPE,
    SOURCE,
    SOURCE_KIND,
    TASK,
    WRITTEN_FOR,
)
from catalogger.recipes import NamedRecipe, Recipe

_LOGGED_AS = 1  # raised when of the same recipe and files something else is logged than before


def version_tags(
    recipe: NamedRecipe,
    checkpoint: Checkpoint,
    fingerprint: str,
    shape: str,
    ignored: Iterable[str],
    given: Mapping[str, str],
    written_for: str | None = None,
) -> dict[str, str]:
    """Every tag of the version; what the user gave comes last and may not take one of ours (its prefix is
    `catalogger.`).
    """
    origin, changed = checkpoint.origin, checkpoint.normalized
    pinned = origin.kind == "hub" and origin.revision and not checkpoint.made
    known = {
        FINGERPRINT: fingerprint,
        SHAPE: shape,
        REQUEST: request_digest(
            recipe.recipe,
            origin.location,
            str(origin.revision),
            changed.transformers if changed else None,
            written_for,
        )
        if pinned
        else None,
        "catalogger.version": metadata.version("catalogger"),
        RECIPE: recipe.name,
        "catalogger.recipe_version": str(recipe.recipe.version),
        WRITTEN_FOR: written_for,
        TASK: recipe.recipe.task,
        SOURCE: origin.asked if origin.kind != "hub" else origin.location,
        SOURCE_KIND: origin.kind,
        REVISION: origin.revision,
        ASKED_REVISION: (origin.asked.partition("@")[2] or "main") if origin.kind == "hub" else None,
        "catalogger.base_model": base_model(recipe, checkpoint),
        ARCHITECTURE: checkpoint.architecture,
        "catalogger.dtype": checkpoint.dtype,
        "catalogger.parameters": str(checkpoint.parameters) if checkpoint.parameters else None,
        "catalogger.licence": licence(recipe, checkpoint),
        CHAT_TEMPLATE: checkpoint.chat_template_sha256,
        REMOTE_CODE: checkpoint.code or ("its own" if checkpoint.config.get("auto_map") else None),
        NORMALIZED: changed.tag if changed else None,
        IGNORED: ignored_of(ignored),
        **(_made_tags(checkpoint.made) if checkpoint.made else {}),
    }
    return {key: value for key, value in known.items() if value} | dict(given)


def _made_tags(made: Made) -> dict[str, str | None]:
    adapter = made.adapter
    return {
        BASE: str(made.base),
        BASE_SHA256: made.base.sha256,
        ADAPTER: str(adapter) if adapter else None,
        ADAPTER_SHA256: adapter.sha256 if adapter else None,
        ASKED_ADAPTER: adapter.asked if adapter else None,
        "catalogger.cast": made.cast,
        "catalogger.max_shard_size": str(made.most) if made.most else None,
        "catalogger.checkpoint": made.step,
        "catalogger.pickled": ", ".join(made.pickled)[:1000],
    }


def moved(tags: Mapping[str, str], made: Made, version: str) -> list[str]:
    """A sentence for each of base and adapter that is the same place as in the version with these tags, and has moved
    since.
    """
    said = []
    for role, part, name, digest in (
        ("base", made.base, BASE, BASE_SHA256),
        ("adapter", made.adapter, ADAPTER, ADAPTER_SHA256),
    ):
        before = tags.get(name, "")
        if not part or not (f"{before}@").startswith(f"{part.location}@") or tags.get(digest) is None:
            continue
        if (before, tags[digest]) != (str(part), part.sha256):
            was = before if before != str(part) else f"files with the digest {tags[digest][:12]}"
            now = str(part) if before != str(part) else f"it holds others now, {str(part.sha256)[:12]}"
            said.append(f"the {role} has moved since version {version}, which was made from {was}: {now}")
    return said


def ignored_of(codes: Iterable[str]) -> str | None:
    """The tag that names the rules that were not run; None where all were."""
    return ",".join(sorted(codes)) or None


def request_digest(
    recipe: Recipe, repo: str, commit: str, normalize: int | None = None, written_for: str | None = None
) -> str:
    """A digest over all that decides what is logged of a commit, but for code that is borrowed elsewhere."""
    asked = {"logged_as": _LOGGED_AS, "recipe": recipe.model_dump(), "repo": repo, "commit": commit}
    if normalize is not None:
        asked["normalize"] = normalize
    if written_for:
        asked["for"] = written_for
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def description(recipe: NamedRecipe, checkpoint: Checkpoint) -> str:
    """What the version is, where it is from and under which licence, in a few lines."""
    origin = checkpoint.origin
    at = f" at {origin.revision}" if origin.revision else ""
    made = checkpoint.made
    lines = [recipe.recipe.summary, f"Source: {origin.location if origin.kind == 'hub' else origin.asked}{at}"]
    lines += [f"With the adapter {made.adapter}, merged"] if made and made.adapter else []
    if said := licence(recipe, checkpoint):
        url = recipe.recipe.licence.url if recipe.recipe.licence else None
        lines.append(f"Licence: {said}{f' ({url})' if url else ''}")
    if recipe.recipe.task == "llm/v1/embeddings":
        lines.append("MLflow serves the first token's vector, not normalised.")
    return "\n\n".join(lines)


def licence(recipe: NamedRecipe, checkpoint: Checkpoint) -> str | None:
    """The licence that the checkpoint's card declares, else the recipe's."""
    return checkpoint.licence or (recipe.recipe.licence.id if recipe.recipe.licence else None)
