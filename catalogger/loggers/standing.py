"""What stands in the registry under many names, by few requests and, but for an MLflow server, without MLflow.

So a night's run over many models that have not changed costs little.  Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from catalogger.checkpoints import open_source
from catalogger.checkpoints.normalizing.normalizing import normalized
from catalogger.files.digests import DigestMemory
from catalogger.loggers import glance, mlmodel
from catalogger.loggers.layout import fingerprint, layout, remembered
from catalogger.loggers.mlflow_registry import MlflowRegistry
from catalogger.loggers.registries import open_unity
from catalogger.loggers.registry import Standing
from catalogger.loggers.stores import Stores, pointed_at, require_reachable, sqlite_file, translated
from catalogger.progress import Silent
from catalogger.recipes import NamedRecipe
from catalogger.validators import environment
from catalogger.validators.runtimes import PINS, environment_of

Look = Callable[[str], Standing | None]


def look_at(stores: Stores) -> Look:
    """A function that gives what stands under a name; None where nothing does.

    Several threads may call it; a call takes at most three requests, and raises what the registry raises.
    Raises NetworkUnreachable and DiskError where the stores cannot be reached at all.
    """
    require_reachable(stores)
    if stores.kind != "mlflow":
        return open_unity(stores).standing
    return (lambda name: _embedded(stores, name)) if sqlite_file(stores.registry_uri) else _of_server(stores)


def folder_fingerprint(
    recipe: NamedRecipe,
    source: str,
    *,
    allow_pickle: bool,
    normalize: int | None = None,
    written_for: str | None = None,
) -> str | None:
    """The fingerprint that a folder would be registered with; None where a digest of its weights is not remembered.

    Raises what opening the folder raises.
    """
    checkpoint = normalized(open_source(source, allow_pickle=allow_pickle), normalize, Silent())
    anything = PINS["transformers"]  # what the environment decides is no part of it
    target = environment_of(written_for) if written_for else environment()
    fields = mlmodel.flavor(recipe, checkpoint, target.mlflow, anything)
    plain = layout(checkpoint, recipe.recipe, str(fields["source_model_name"]))
    plain = replace(plain, written_for=target.asked)
    return fingerprint(remembered(plain, checkpoint, DigestMemory()), recipe.recipe, fields)


def _embedded(stores: Stores, name: str) -> Standing | None:
    found = glance.newest_tags(stores, name)
    return Standing(*found, glance.aliases(stores, name)) if found else None


def _of_server(stores: Stores) -> Look:
    with pointed_at(stores), translated(stores):
        registry = MlflowRegistry(stores)

    def look(name: str) -> Standing | None:
        with translated(stores):
            return registry.standing(name)

    return look
