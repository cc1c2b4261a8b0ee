"""Check before logging, and lint what is logged: the same rules as the main job's, and nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catalogger.checkpoints import open_source
from catalogger.errors import CataloggerError, NameInvalid
from catalogger.loggers.glance import newest_tags
from catalogger.loggers.located import located
from catalogger.loggers.progress import Progress, Silent
from catalogger.loggers.registry import Registry, existing
from catalogger.loggers.stores import Stores, choose_stores, pointed_at, require_reachable, sqlite_file, translated
from catalogger.recipes import load_recipe
from catalogger.validators import Facts, Report, Target, check_name, default_name, environment, run_rules


def check(
    recipe: str,
    *,
    source: str | Path | None = None,
    name: str | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    overrides: Sequence[str] = (),
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    ignore: Sequence[str] = (),
    region: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """What every rule says of a checkpoint before it is logged; only metadata is read, nothing is changed.

    The arguments are those of `log_model`; `region` is where it is to be served, as the cloud names it.
    Raises the errors of opening a source; whatever a rule can say is in the report instead.
    """
    named = load_recipe(recipe, overrides)
    asked = str(source) if source is not None else named.published()
    target = _target(name if name is not None else default_name(Path(recipe).stem), tracking_uri, registry_uri)
    (progress or Silent()).say(f"Reading {asked}")
    facts = Facts(
        environment(),
        open_source(asked, allow_pickle=allow_pickle),
        named.recipe,
        target=target,
        remote_code_consent=trust_remote_code,
        pickle_allowed=allow_pickle,
        region=region,
    )
    return run_rules(facts, ignore)


def lint(
    model: str | Path,
    *,
    recipe: str | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    ignore: Sequence[str] = (),
    region: str | None = None,
) -> Report:
    """What every rule says of a logged or registered MLflow model, made by catalogger or by anybody.

    model: a folder, `runs:/RUN/PATH`, `models:/NAME/VERSION`, `models:/NAME@ALIAS` or `models:/MODEL_ID`.
    recipe: what the model should be, where that is known.
    Raises CheckpointError where there is no logged model, and what the stores raise.
    """
    wanted = load_recipe(recipe).recipe if recipe else None
    with located(str(model), tracking_uri, registry_uri) as logged:
        facts = Facts(environment(), logged.checkpoint, wanted, logged, region=region)
        return run_rules(facts, ignore)


def _target(name: str, tracking_uri: str | None, registry_uri: str | None) -> Target:
    """The target as far as it can be asked.  That it cannot is a fact for the rules, not an error."""
    try:
        stores = choose_stores(tracking_uri, registry_uri)
        require_reachable(stores)
        check_name(name)
        return _asked(stores, name)
    except NameInvalid:
        return Target(name, registry_uri or "")
    except CataloggerError as error:
        return Target(name, registry_uri or tracking_uri or "", unreachable=error.message)


def _asked(stores: Stores, name: str) -> Target:
    """What is registered under the name.  An embedded store is looked at without MLflow, which takes seconds."""
    if sqlite_file(stores.registry_uri):
        newest = newest_tags(stores, name)
        return Target(name, stores.registry_uri, existing=existing(*newest) if newest else None)
    with pointed_at(stores), translated(stores):
        return Target(name, stores.registry_uri, existing=Registry(stores).newest(name))
