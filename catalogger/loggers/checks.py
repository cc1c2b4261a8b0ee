"""Check before logging, and lint what is logged: the same rules as the main job's, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogger.checkpoints import LoggedModel
from catalogger.checkpoints.changing.change import Change, Wish
from catalogger.checkpoints.normalizing.normalizing import normalized
from catalogger.errors import CataloggerError, NameInvalid, ProofFailed
from catalogger.lines import as_block
from catalogger.loggers.changing import Making, opened, unknown_yet
from catalogger.loggers.glance import newest_tags
from catalogger.loggers.located import located
from catalogger.loggers.mlflow_registry import MlflowRegistry
from catalogger.loggers.proof import Proof, findings_kept
from catalogger.loggers.prove import prove
from catalogger.loggers.registries import open_unity
from catalogger.loggers.registry import existing
from catalogger.loggers.request import Request
from catalogger.loggers.stores import Stores, choose_stores, pointed_at, require_reachable, sqlite_file, translated
from catalogger.loggers.work import work_on
from catalogger.progress import Progress, Silent
from catalogger.recipes import load_recipe
from catalogger.validators import Facts, Report, Target, check_name, default_name, environment, run_rules
from catalogger.validators.runtimes import environment_of


@dataclass(frozen=True)
class Checked:
    """What was found of `subject`, and what it answered where it was proved."""

    subject: str
    report: Report
    proof: Proof | None = None

    def failed(self, *, strict: bool = False) -> bool:
        """Whether a finding is an error; `strict`: or a warning."""
        return self.report.failed(strict=strict)

    def document(self, *, strict: bool = False) -> dict[str, Any]:
        """All of it as JSON data."""
        proof = self.proof.document() if self.proof else None
        return {
            "subject": self.subject,
            "passed": not self.failed(strict=strict),
            **self.report.document(),
            "proof": proof,
        }

    def __str__(self) -> str:
        return f"{self.report}\n{self.proof}" if self.proof else str(self.report)

    def _repr_html_(self) -> str:
        return as_block(str(self))


def check(
    recipe: str,
    *,
    source: str | Path | None = None,
    adapter: str | Path | None = None,
    base: str | Path | None = None,
    checkpoint: str | int | None = None,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    name: str | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    overrides: Sequence[str] = (),
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    ignore: Sequence[str] = (),
    region: str | None = None,
    written_for: str | None = None,
    normalize: int | None = None,
    prove: bool = False,
    progress: Progress | None = None,
) -> Checked:
    """What every rule says of a checkpoint before it is logged; only metadata is read, nothing is changed.

    The arguments are those of `log_model`; `region` is where it is to be served, as the cloud names it.  Where weights
    are to be changed they are checked as they will be; of an adapter on the Hub its files are fetched.  `prove` also
    fetches the weights, changes them, and loads them, where no rule finds an error.

    Raises the errors of opening a source and of proving; whatever a rule can say is in the report instead.
    """
    named, told = load_recipe(recipe, overrides), progress or Silent()
    given, wish = Wish.of(adapter, base, checkpoint, dtype, max_shard_size).sourced(source)
    asked = given if given is not None else named.published()
    wanted = name if name is not None else default_name(Path(recipe).stem)
    told.say(f"Reading {asked}")

    def refused(_: Change) -> Change:
        raise unknown_yet(asked, "Fetch the repository, and give its folder as the source.")

    found, change = opened(asked, wish, allow_pickle=allow_pickle, pickled=refused)
    for sentence in change.plan.said if change else ():
        told.say(sentence)
    here, target = environment(), environment_of(written_for) if written_for else None
    facts = Facts(
        target or here,
        normalized(found, normalize, told),
        named.recipe,
        target=_target(wanted, tracking_uri, registry_uri),
        remote_code_consent=trust_remote_code,
        pickle_allowed=allow_pickle,
        region=region,
        here=here,
    )
    report = run_rules(facts, ignore)
    if not prove or report.failed():
        return Checked(asked, report)
    request = Request(
        recipe=named,
        name=wanted,
        name_was_derived=name is None,
        stores=choose_stores(tracking_uri, registry_uri),
        progress=told,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
        normalize=normalize,
        prove=True,
        target=target,
    )
    with _findings_told(report, told):
        return Checked(asked, report, _proof(request, facts, report, change))


def lint(
    model: str | Path,
    *,
    recipe: str | None = None,
    tracking_uri: str | None = None,
    registry_uri: str | None = None,
    ignore: Sequence[str] = (),
    region: str | None = None,
    trust_remote_code: bool = False,
    prove: bool = False,
    progress: Progress | None = None,
) -> Checked:
    """What every rule says of a logged or registered MLflow model, made by catalogger or by anybody.

    model: a folder, `runs:/RUN/PATH`, `models:/NAME/VERSION`, `models:/NAME@ALIAS` or `models:/MODEL_ID`.
    recipe: what the model should be, where that is known.
    prove: also load it and ask it something; a model on another machine is fetched whole for that.
    Raises CheckpointError where there is no logged model, and what the stores and proving raise.
    """
    wanted = load_recipe(recipe).recipe if recipe else None
    told = progress or Silent()
    with located(str(model), tracking_uri, registry_uri, whole=prove) as (logged, folder):
        facts = Facts(environment(), logged.checkpoint, wanted, logged, region=region)
        report = run_rules(facts, ignore)
        if not prove or report.failed():
            return Checked(str(model), report)
        with _findings_told(report, told), findings_kept(report):
            return Checked(str(model), report, _answer(logged, folder, trust_remote_code, told))


def _proof(request: Request, facts: Facts, report: Report, change: Change | None) -> Proof:
    """What it answers; weights that are changed for that stand in a folder that goes away."""
    if change is None:
        return work_on(request, facts, report).prove()
    making = Making(change, request.stores, request.name, None)
    with making.standing(alone=False):
        making.require_room()
        return work_on(request, facts, report, making).prove()


@contextmanager
def _findings_told(report: Report, progress: Progress) -> Iterator[None]:
    """Where the proof fails, what the rules found is not lost."""
    try:
        yield
    except ProofFailed:
        progress.say(str(report))
        raise


def _answer(logged: LoggedModel, folder: Path, trust_remote_code: bool, progress: Progress) -> Proof:
    return prove(
        folder,
        str(logged.task),
        weight_bytes=logged.checkpoint.weight_bytes if logged.checkpoint else 0,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )


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
    if stores.kind != "mlflow":
        unity = open_unity(stores)
        return Target(name, stores.registry_uri, existing=unity.newest(name), place=unity.surface.look(name))
    with pointed_at(stores), translated(stores):
        return Target(name, stores.registry_uri, existing=MlflowRegistry(stores).newest(name))
