"""The main job: recipe, source and target to one registered version.

Everything that can be known beforehand is known before a weight moves; whatever stops the job, the same call goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogger.checkpoints import Checkpoint, fetch, save_objects
from catalogger.checkpoints.changing.change import Change, Wish
from catalogger.checkpoints.normalizing.normalizing import normalized
from catalogger.errors import UsageError, human
from catalogger.files.digests import DigestMemory
from catalogger.files.place import Weights, existing
from catalogger.files.temporary import temporary
from catalogger.loggers.changing import Making, opened, unknown_yet
from catalogger.loggers.glance import artifacts_to_be
from catalogger.loggers.outcome import Outcome
from catalogger.loggers.registries import Upload, look
from catalogger.loggers.request import LATER, Request, Tracking, require_supported
from catalogger.loggers.stores import Stores, choose_stores, require_reachable, require_usable
from catalogger.loggers.unity_databricks import fits_unity_catalog
from catalogger.loggers.work import work_on
from catalogger.progress import Progress, Silent
from catalogger.recipes import load_recipe
from catalogger.validators import Facts, Target, check_alias, check_name, default_name, environment, run_rules
from catalogger.validators.runtimes import environment_of


def log_model(
    recipe: str,
    *,
    source: str | Path | None = None,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    checkpoint: str | int | None = None,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    model: Any = None,
    tokenizer: Any = None,
    name: str | None = None,
    aliases: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    weights: Weights = "auto",
    overrides: Sequence[str] = (),
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    ignore: Sequence[str] = (),
    rehash: bool = False,
    prove: bool = False,
    upload: Upload = "auto",
    tracking: Tracking = "auto",
    stream: bool = False,
    written_for: str | None = None,
    normalize: int | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Check, log and register a checkpoint as a version of `name`; the same content again makes no new version.

    recipe: name of a recipe, or path of a recipe file.
    source: Hub repository `ORG/REPO[@REVISION]`, folder, or `package:DISTRIBUTION/FOLDER`; the recipe's own by default.
    adapter, base, checkpoint, dtype, max_shard_size: change the weights on the way, as `convert` does; without a source
        the adapter's own base is taken.
    model, tokenizer: Transformers objects in memory instead of a source; they are saved once.
    name: `catalog.schema.model`; `main.default.<recipe>` by default.
    weights: `auto` links from the Hub's cache and copies from a folder, `copy` and `link` force it.
    overrides: `key=value` changes to the recipe.
    upload: how files get to Databricks: `storage` by credentials for the cloud's storage, `files` by the Files API,
        `auto` as MLflow chooses.
    stream: from the Hub to the registry file by file, with at most two of them on this disk at once.
    tracking: `full` also logs the weights where the registry takes files of its own, and a note of them would do.
    written_for: write what another MLflow would have written: `mlflow==2.12.2`, with further versions behind commas, or
        the name of a runtime, `dbr-15.4-ml`.
    normalize: say the small files (config, tokenizer, chat template) as Transformers 4 or 5 writes them; 4 or 5.
    prove: load the model in another process and ask it something before anything is logged; needs torch.

    Raises the classes of `catalogger.errors`; before CheckFailed and every UsageError nothing was changed.
    """
    began = time.monotonic()
    stores, named = choose_stores(tracking_uri, registry_uri), load_recipe(recipe, overrides)
    request = Request(
        recipe=named,
        name=check_name(name if name is not None else default_name(Path(recipe).stem)),
        name_was_derived=name is None,
        aliases=tuple(dict.fromkeys(check_alias(a) for a in aliases)),
        tags=_own_tags(tags or {}, stores),
        stores=stores,
        weights=weights,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        ignore=tuple(ignore),
        memory=DigestMemory(distrust=rehash),
        progress=progress or Silent(),
        prove=prove,
        upload=upload,
        tracking=tracking,
        stream=stream,
        target=environment_of(written_for) if written_for else None,
        normalize=normalize,
    )
    require_supported(request)
    _require_streamable(request)
    wish = Wish.of(adapter, base, checkpoint, dtype, max_shard_size)
    with _opened(request, source, wish, model, tokenizer) as (found, change):
        wanted = normalized(found, request.normalize, request.progress)
        outcome = _checked(request, wanted, change, dry_run=dry_run)
    return replace(outcome, seconds=time.monotonic() - began)


@contextmanager
def _opened(
    request: Request, source: str | Path | None, wish: Wish, model: Any, tokenizer: Any
) -> Iterator[tuple[Checkpoint, Change | None]]:
    """The checkpoint as it will be logged, and how it is changed before, where it is."""
    if model is not None and request.stream:
        raise UsageError("Objects in memory are on this machine: there is nothing to stream.", "Leave --stream out.")
    if not wish.empty and model is not None:
        raise UsageError("Objects in memory are logged as they are.", "Save them, and give the folder as the source.")
    if (model is None) != (tokenizer is None) or (model is not None and source is not None):
        raise UsageError("Give either a source, or both a model and a tokenizer.")
    if model is not None:
        artifacts = artifacts_to_be(request.stores)  # beside them, so that what is saved here can be linked
        folder = existing(artifacts) if artifacts else None
        with temporary("saved", beside=folder) as saved:
            yield save_objects(model, tokenizer, saved), None
        return
    given, wish = wish.sourced(source)
    asked = given if given is not None else request.recipe.published()
    request.progress.say(f"Reading {asked}")

    def fetched(change: Change) -> Change:
        if request.stream:
            raise unknown_yet(asked, "Leave --stream out.")
        request.progress.say(f"Fetching {human(change.source.weight_bytes)}, as pickled files are known only when here")
        return change.of(fetch(change.source, request.memory))

    yield opened(asked, wish, allow_pickle=request.allow_pickle, pickled=fetched)


def _checked(request: Request, checkpoint: Checkpoint, change: Change | None, *, dry_run: bool) -> Outcome:
    """Preflight, then the plan or the deed."""
    require_usable(request.stores)
    require_reachable(request.stores)
    here, place = environment(), look(request.stores, request.name, request.upload)
    facts = Facts(
        request.target or here,
        checkpoint,
        request.recipe.recipe,
        target=Target(request.name, request.stores.registry_uri, place=place),
        remote_code_consent=request.trust_remote_code,
        pickle_allowed=request.allow_pickle,
        here=here,
    )
    report = run_rules(facts, request.ignore, skip=LATER)
    request.progress.say(str(report))
    report.raise_on_error()
    root = place.storage if place else None
    making = Making(change, request.stores, request.name, root) if change else None
    work = work_on(request, facts, report, making)
    return work.plan() if dry_run else work.do()


def _require_streamable(request: Request) -> None:
    """Raises UsageError for what takes all weights on this machine."""
    option = "--prove" if request.prove else "--tracking full" if request.tracking == "full" else None
    if request.stream and option:
        raise UsageError(
            f"{option} needs all of the weights here, and --stream does without.", "Leave one of both out."
        )


def _own_tags(tags: Mapping[str, str], stores: Stores) -> Mapping[str, str]:
    for key, value in tags.items():
        if stores.kind == "databricks" and not fits_unity_catalog(key, value):
            raise UsageError(
                f'The tag "{key}" cannot be set in Unity Catalog.',
                "Its key may not hold . , - = / or :, and its value has at most 1000 characters.",
            )
        if not key or len(key) > 250 or key.startswith(("catalogger.", "mlflow.")):
            raise UsageError(
                f'The tag "{key}" cannot be set.',
                "A key has 1 to 250 characters and does not begin with catalogger. or mlflow.",
            )
    return tags
