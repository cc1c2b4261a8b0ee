"""What the folder of a logged model holds: which file of the checkpoint goes where, and the digests over it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalogger.checkpoints import Checkpoint
from catalogger.checkpoints.facts import INDEX
from catalogger.checkpoints.logged import TOKENIZER_FOLDER
from catalogger.checkpoints.selection import TOKENIZER, is_licence, is_template, select
from catalogger.files.digests import DigestMemory
from catalogger.loggers.stores import local_folder
from catalogger.recipes import Recipe

MODEL = "model"


@dataclass(frozen=True)
class Item:
    """One file of the logged model: its path there, its size in bytes, and either its content or the weight file to
    place.

    `header` is the digest of a weight file's header, which tells its layout apart before its content is known.
    """

    path: str
    size: int
    content: bytes | None = None
    weights: str | None = None
    sha256: str | None = None
    header: str | None = None


@dataclass(frozen=True)
class Layout:
    """All files of the logged model but those that MLflow's version decides (MLmodel, requirements, environment).

    `written_for` is the environment that was asked for, where it is not the one at hand: it makes another model.
    `made` is what the weights are made from, where they are changed before they are logged.
    """

    items: tuple[Item, ...]
    written_for: str | None = None
    made: Mapping[str, Any] | None = None

    @property
    def weights(self) -> tuple[Item, ...]:
        return tuple(i for i in self.items if i.weights is not None)

    @property
    def weight_bytes(self) -> int:
        return sum(i.size for i in self.weights)

    @property
    def size(self) -> int:
        return sum(i.size for i in self.items)

    def with_digests(self, digests: Mapping[str, str]) -> Layout:
        """The layout with the weight files' digests, by their path in the checkpoint."""
        return replace(self, items=tuple(replace(i, sha256=digests.get(i.weights or "", i.sha256)) for i in self.items))


def layout(checkpoint: Checkpoint, recipe: Recipe, base_model: str) -> Layout:
    """Place every file: config and weights below `model/`, the tokenizer below `components/`, licences at the top."""
    small = checkpoint.small
    items = [_text(f"{MODEL}/{p}", small[p]) for p in ("config.json", "generation_config.json", INDEX) if p in small]
    items += [_text(f"{MODEL}/{p}", small[p]) for p in select(small).code] if checkpoint.config.get("auto_map") else []
    tokenizer = [p for p in small if p in TOKENIZER or is_template(p)]
    items += [_text(f"{TOKENIZER_FOLDER}/{p}", small[p]) for p in tokenizer]
    items += _licences(checkpoint, recipe, base_model)
    items += [
        Item(f"{MODEL}/{s.file.path}", s.file.size, weights=s.file.path, sha256=s.file.sha256, header=s.header_sha256)
        for s in checkpoint.shards
    ]
    made = checkpoint.made.document() if checkpoint.made and checkpoint.made.known else None
    return Layout(tuple(sorted(items, key=lambda i: i.path)), made=made)


def fingerprint(staged: Layout, recipe: Recipe, flavor: Mapping[str, Any]) -> str | None:
    """One digest over the recipe's effect and every file's digest; None while a digest is unknown.

    What the environment at hand alone decides (MLflow's, Transformers' and Python's version) is left out, and so is the
    place that the files came from: neither an upgrade of the machine nor a move is a new model.
    """
    if any(i.sha256 is None for i in staged.items):
        return None
    return digest_of(effect(recipe, flavor, staged), ((i.path, i.sha256) for i in staged.items))


def shape_digest(staged: Layout, recipe: Recipe, flavor: Mapping[str, Any]) -> str:
    """A digest that needs no weight byte: like the fingerprint, with size and header in place of a weight file's
    digest.

    Different shapes mean different fingerprints; equal ones may still differ.
    """
    files = ((i.path, f"{i.size}:{i.header}" if i.weights else i.sha256) for i in staged.items)
    return digest_of(effect(recipe, flavor, staged), files)


def effect(recipe: Recipe, flavor: Mapping[str, Any], staged: Layout) -> Mapping[str, Any]:
    """What recipe, ingredients and the environment asked for add to the digests: all that changes what is logged."""
    return {
        **({"for": staged.written_for} if staged.written_for else {}),
        **({"made": staged.made} if staged.made else {}),
        "task": recipe.task,
        "metadata": recipe.metadata,
        "requirements": recipe.requirements,
        "flavor": {k: flavor[k] for k in ("pipeline_model_type", "torch_dtype") if k in flavor},
    }


def digest_of(effect: Mapping[str, Any], files: Iterable[tuple[str, str | None]]) -> str:
    """One digest over the recipe's effect and what is known of every file."""
    return hashlib.sha256(json.dumps({**effect, "files": sorted(files)}, sort_keys=True).encode()).hexdigest()


def remembered(staged: Layout, checkpoint: Checkpoint, memory: DigestMemory) -> Layout:
    """The layout with the digests of weight files on this machine that were hashed before, and are as they were."""
    if checkpoint.root is None:
        return staged
    known = {i.weights: memory.recall(source_path(checkpoint, i)) for i in staged.weights if not i.sha256}
    return staged.with_digests({weights: digest for weights, digest in known.items() if weights and digest})


def source_path(checkpoint: Checkpoint, item: Item) -> Path:
    """The real weight file behind an item, links followed."""
    if checkpoint.root is None or item.weights is None:
        raise ValueError(f"{item.path} has no file on this machine")
    return (checkpoint.root / item.weights).resolve()


def stand_at(location: str, layout: Layout) -> bool:
    """Whether every file stands at the location with its size.  A remote location is taken at its word."""
    folder = local_folder(location)
    if folder is None:
        return True
    return all((folder / i.path).is_file() and (folder / i.path).stat().st_size == i.size for i in layout.items)


def _text(path: str, content: bytes) -> Item:
    return Item(path, len(content), content=content, sha256=hashlib.sha256(content).hexdigest())


def _licences(checkpoint: Checkpoint, recipe: Recipe, base_model: str) -> Iterable[Item]:
    """The snapshot's own licence files, or one that names licence and model where there are none.

    Upstream writes a page address made of the local path when it logs a folder.
    """
    if own := sorted(p for p in checkpoint.small if is_licence(p)):
        return [_text(p, checkpoint.small[p]) for p in own]
    said = checkpoint.licence or (recipe.licence.id if recipe.licence else None)
    lines = [f"Model: {base_model}"] if "/" in base_model else []
    lines.append(f"Licence: {said or 'not stated in the checkpoint'}")
    if recipe.licence and recipe.licence.url:
        lines.append(f"Text: {recipe.licence.url}")
    return [_text("LICENSE.txt", ("\n".join(lines) + "\n").encode())]
