"""UC rules: where the model is to be registered."""

from __future__ import annotations

from collections.abc import Iterator

from catalogger.errors import NameInvalid
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.rules import Found, rule
from catalogger.validators.target import check_name, reserved


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
