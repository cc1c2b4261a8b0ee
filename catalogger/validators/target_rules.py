"""UC rules: where the model is to be registered."""

from __future__ import annotations

from collections.abc import Iterator

from catalogger.errors import NameInvalid
from catalogger.validators.facts import Facts, NotChecked, Place
from catalogger.validators.rules import Found, firsts, rule
from catalogger.validators.target import check_name, grant, reserved

_UNKNOWN = "the registry cannot tell"


@rule("UC001", "error", protects=True)
def name(facts: Facts) -> Iterator[Found]:
    """The name has three parts of letters, digits and underscores.

    `catalog.schema.model` is what Unity Catalog takes; another name is refused after the upload, and on an open-source
    server without a message.

    Fix: write `catalog.schema.model`, for example `main.ml.gte_large`.
    """
    try:
        check_name(facts.goal.name)
    except NameInvalid as error:
        yield Found("name", f'"{facts.goal.name[:80]}" {error.reason}', error.fix)


@rule("UC002", "error")
def reserved_name(facts: Facts) -> Iterator[Found]:
    """Neither the catalog nor the schema is reserved.

    `system` belongs to the platform, `hive_metastore` is no catalog of Unity Catalog, `information_schema` is a view of
    each catalog: nothing can be registered there.

    Fix: choose a catalog and schema of your own.
    """
    if why := reserved(facts.goal.name):
        yield Found("name", f'"{facts.goal.name}" {why}', "Choose a catalog and a schema of your own.")


@rule("UC003", "error")
def reachable(facts: Facts) -> Iterator[Found]:
    """The tracking server and the registry can be reached, written and logged in to.

    Asked beforehand, it takes a second; found out by MLflow's own retries, minutes, after the upload.

    Fix: check the address, the network and the credentials.
    """
    if facts.goal.unreachable:
        yield Found("registry", facts.goal.unreachable, "Check the address, the network and the credentials.")


@rule("UC004", "warning")
def same_kind(facts: Facts) -> Iterator[Found]:
    """An older version under the same name has the same task and architecture.

    Whoever serves or loads the name by an alias gets the new version, and requests that fitted stop fitting.

    Fix: register it under another name.
    """
    goal = facts.goal
    if goal.unreachable:
        raise NotChecked("the registry could not be asked")
    if goal.existing is None:
        return
    was, architecture = goal.existing, facts.opened.architecture
    for what, before, now in (("task", was.task, facts.task), ("architecture", was.architecture, architecture)):
        if before and now and before != now:
            said = f"{goal.name} version {was.number} has {what} {before}; this one has {now}"
            yield Found("name", said, "Register it under another name, or tell whoever uses that one.")


@rule("UC005", "error")
def catalog_exists(facts: Facts) -> Iterator[Found]:
    """The catalog exists.

    Nobody makes one on the way: whoever administers the metastore does, and says where its files are kept. A name that
    is misspelt would fail after the checkpoint was fetched.

    Fix: create the catalog, or name one that exists.
    """
    place, (catalog, _, _) = _place(facts)
    if place.catalog_exists is None:
        raise NotChecked(_UNKNOWN)
    if not place.catalog_exists:
        said = f'names the catalog "{catalog}", which {place.registry} does not have'
        yield Found("name", said, "Create the catalog, or name one that exists.")


@rule("UC006", "error")
def schema_exists(facts: Facts) -> Iterator[Found]:
    """The schema exists in the catalog.

    A model is created in a schema that is there; a missing one would be told after the checkpoint was fetched.

    Fix: create the schema, or name one that exists.
    """
    place, (catalog, schema, _) = _place(facts)
    if place.catalog_exists is False:
        raise NotChecked("the catalog does not exist, as UC005 says")
    if place.schema_exists is None:
        raise NotChecked(_UNKNOWN)
    if not place.schema_exists:
        said = f'names the schema "{catalog}.{schema}", which {place.registry} does not have'
        yield Found("name", said, "Create the schema, or name one that exists.")


@rule("UC007", "error")
def privileges(facts: Facts) -> Iterator[Found]:
    """The privileges that registering takes are there.

    To create a model takes `USE CATALOG`, `USE SCHEMA` and `CREATE MODEL`; a version of a model that is there, its
    ownership or `CREATE MODEL VERSION`. What is missing is told only when it is needed, the last of it after the
    upload.

    Fix: ask the owner of the catalog, schema or model for the grants that the finding lists.
    """
    place = _inside(facts)
    if place.missing:
        lacking = ", ".join(f"{privilege} on {kind} {name}" for privilege, kind, name in place.missing)
        yield Found("privileges", f"are missing: {lacking}", " ".join(grant(*one) for one in place.missing))
    elif not place.privileges_known:
        raise NotChecked(_UNKNOWN)


@rule("UC008", "error")
def storage(facts: Facts) -> Iterator[Found]:
    """The registry knows where to keep the model's files.

    An open-source server from 0.4 on has no storage root that it was not given, and refuses every model
    (`FAILED_PRECONDITION`).

    Fix: set `storage_root` on the schema or the catalog, or `storage-root.models` in the server's
    `etc/conf/server.properties`.
    """
    place = _inside(facts)
    if place.storage_missing:
        said = f"of {place.registry} is not configured: it would refuse every model"
        fix = "Set storage_root on the schema or the catalog, or storage-root.models in the server's properties."
        yield Found("storage", said, fix)
    elif place.storage_missing is None and place.storage is None:
        raise NotChecked(_UNKNOWN)


@rule("UC009", "warning")
def similar_names(facts: Facts) -> Iterator[Found]:
    """No model of the schema has a name that differs in case only.

    An open-source server keeps `gte` and `GTE` apart and Databricks may not: whoever asks for the one may get the
    other, and the versions of one model are spread over two.

    Fix: write the name as it is written there, or choose another.
    """
    place = _inside(facts)
    if place.schema_exists is None:
        raise NotChecked(_UNKNOWN)
    if place.similar:
        said = f'"{facts.goal.name}" differs in case only from {firsts(place.similar)}'
        yield Found("name", said, "Write it as it is written there, or choose another name.")


@rule("UC010", "error")
def client_library(facts: Facts) -> Iterator[Found]:
    """The Python package that sending files to the registry's storage takes is installed.

    Each cloud's storage has a client library of its own, which catalogger does not bring unasked.

    Fix: install the extra that the finding names.
    """
    place = _inside(facts)
    if place.storage_missing:
        raise NotChecked("no storage is configured, as UC008 says")
    if place.needs:
        extra = "s3" if place.needs == "boto3" else "databricks"
        said = f"is not installed, and sending files to {place.storage or place.registry} takes it"
        yield Found(place.needs, said, f"pip install 'catalogger[{extra}]'")
    elif place.storage is None:
        raise NotChecked(_UNKNOWN)


def _place(facts: Facts) -> tuple[Place, list[str]]:
    """What is known of the catalog and schema, and the name's parts."""
    try:
        return facts.place, check_name(facts.goal.name).split(".")
    except NameInvalid as error:
        raise NotChecked("the name is none, as UC001 says") from error


def _inside(facts: Facts) -> Place:
    """What is known of a schema that exists, or may."""
    place, _ = _place(facts)
    if place.catalog_exists is False:
        raise NotChecked("the catalog does not exist, as UC005 says")
    if place.schema_exists is False:
        raise NotChecked("the schema does not exist, as UC006 says")
    return place
