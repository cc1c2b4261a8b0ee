"""Opens the keeper of the registry that the addresses name, and finds in it what was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from catalogger.errors import UsageError
from catalogger.loggers.keeper import Keeper
from catalogger.loggers.keeper_mlflow import MlflowKeeper
from catalogger.loggers.keeper_unity import UnityKeeper
from catalogger.loggers.registries import open_unity
from catalogger.loggers.registry import FINGERPRINT
from catalogger.loggers.stores import Stores, choose_stores, pointed_at, require_reachable, require_usable, translated
from catalogger.loggers.surface import READY, Row

_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))?")


@contextmanager
def kept(stores: Stores) -> Iterator[Keeper]:
    """The registry.  Its errors are ours inside.

    Raises UsageError where an embedded store is not there: to ask it would make it.
    """
    if not there(stores):
        missing = f'There is no registry yet: "{stores.registry_uri}" does not exist.'
        raise UsageError(missing, "Name another one by --registry-uri or --tracking-uri.")
    if stores.kind == "mlflow":
        require_usable(stores)
    require_reachable(stores if stores.kind == "mlflow" else replace(stores, tracking_uri=stores.registry_uri))
    if stores.kind != "mlflow":
        yield UnityKeeper(open_unity(stores).surface)  # without MLflow, which takes seconds to import
        return
    with pointed_at(stores), translated(stores):
        yield MlflowKeeper(stores)


def there(stores: Stores) -> bool:
    """Whether the registry is there.  A Unity Catalog is asked without the tracking store, which need not be."""
    return stores.kind != "mlflow" or stores.exist


@contextmanager
def kept_at(tracking_uri: str | None, registry_uri: str | None) -> Iterator[Keeper]:
    """The registry of these addresses, which are chosen as the main job chooses them."""
    with kept(choose_stores(tracking_uri, registry_uri)) as keeper:
        yield keeper


def referred(keeper: Keeper, reference: str) -> tuple[str, Row]:
    """Name and version that `NAME`, `NAME/VERSION` or `NAME@ALIAS` mean; without either, the newest that is READY.

    Raises UsageError where there is none.
    """
    name, number, alias = parsed(reference)
    rows = keeper.rows(name)
    if not rows:
        raise UsageError(f'There is no model "{name}" in {keeper.words}.', "Look at its spelling.")
    if alias:
        if "aliases" in keeper.gaps:
            raise UsageError(f"{keeper.words} has no aliases.", f"Name a version: {name}/{rows[-1].number}")
        if (number := keeper.aliases(name).get(alias)) is None:
            raise UsageError(f'There is no alias "{alias}" of "{name}".', "Name a version, or set the alias first.")
    found = [row for row in rows if row.number == number] if number else [row for row in rows if row.status == READY]
    if not found:
        missing = f"version {number}" if number else "version that is READY"
        raise UsageError(f'There is no {missing} of "{name}".', f"There are {', '.join(r.number for r in rows)}.")
    return name, keeper.row(name, found[-1].number)


def parsed(reference: str) -> tuple[str, str | None, str | None]:
    """Name, version and alias of a reference.  Raises UsageError where it is none."""
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        fix = "Write NAME, NAME/VERSION or NAME@ALIAS, as in main.ml.bot@champion."
        raise UsageError(f'"{reference}" names no registered model.', fix)
    return found["name"], found["version"], found["alias"]


def asked_names(keeper: Keeper, asked: Sequence[str]) -> list[str]:
    """The models that are meant by names and `catalog.schema`s, each once; all of the registry where none are given."""
    if not asked:
        return keeper.names(None)
    found: dict[str, None] = {}
    for one in asked:
        inside = keeper.names(one) if one.count(".") == 1 else []
        found |= dict.fromkeys(inside or [one])
    return list(found)


def is_ours(row: Row) -> bool:
    """Whether catalogger made the version: its description or its tags say what it holds."""
    return row.mark is not None or FINGERPRINT in (row.tags or {})
