"""EN rules: the MLflow, the libraries and the Python at hand."""

from __future__ import annotations

from collections.abc import Iterator

from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.mlflow_versions import (
    ABSENT,
    KNOWN_TO_FAIL,
    NEWEST,
    OLDEST,
    declared_transformers,
    has,
    is_declared,
    looked_at,
    signature_names,
    within,
)
from catalogger.validators.rules import Found, rule


@rule("EN001", "error", protects=True)
def mlflow_version(facts: Facts) -> Iterator[Found]:
    """This MLflow can log the task.

    MLflow 2.11.0 to 2.11.4 fail on a model from a folder; 2.12.1 refuses every way to log an embedding model
    (https://github.com/mlflow/mlflow/pull/11795). For one that is newer than those that were looked at, the model is
    written as the newest of those writes it, and that is only said.

    Fix: install an MLflow as the finding says.
    """
    version, asked = facts.environment.mlflow, facts.environment.asked
    where, get = (f"mlflow of {asked}", "Write it for {}") if asked else ("mlflow", "pip install '{}'")
    if version == ABSENT:
        yield Found(where, "is not installed here", get.format(f"mlflow>={OLDEST}"))
    elif not has("transformers_llm_tasks", version):
        what = f"is {version}; {OLDEST} is the oldest that logs these models"
        yield Found(where, what, get.format(f"mlflow>={OLDEST}"))
    elif facts.task == "llm/v1/embeddings" and has("embeddings_refused", version):
        what = f"is {version}, which refuses every way to log llm/v1/embeddings"
        yield Found(where, what, get.format("mlflow>=2.12.2"))
    elif not looked_at(version):
        what = f"is {version}, newer than {NEWEST}, the newest that was looked at; models are written as {NEWEST} does"
        yield Found(where, what, f"Load the model once (--prove), or: {get.format(f'mlflow<={NEWEST}')}", "warning")


@rule("EN002", "error")
def known_to_fail(facts: Facts) -> Iterator[Found]:
    """The installed libraries are no pair that is known to fail with this MLflow.

    Each pair was run; the finding quotes the error that it ends in.

    Fix: install the version that the finding names.
    """
    here = facts.at_hand
    versions = {"transformers": here.transformers, "sqlalchemy": here.sqlalchemy, "setuptools": here.setuptools}
    for pair in KNOWN_TO_FAIL:
        installed = versions[pair.library]
        if installed and pair.meets(here.mlflow, installed):
            said = "not installed" if installed == ABSENT else installed
            what = f"is {said}, which MLflow {here.mlflow} fails with: {pair.error}"
            yield Found(pair.library, what, pair.fix, pair.severity)


@rule("EN003", "warning")
def declared_range(facts: Facts) -> Iterator[Found]:
    """The installed Transformers is within the range that this MLflow declares to support.

    Outside it MLflow only warns, and loading the model may fail.

    Fix: install a Transformers within the range.
    """
    installed, asked = facts.environment.transformers, facts.environment.asked
    if installed is None:
        raise NotChecked(
            f"which Transformers {asked} has is not known" if asked else "Transformers is not installed here"
        )
    declared = declared_transformers(facts.environment.mlflow)
    if declared is None:
        raise NotChecked(f"the range that MLflow {facts.environment.mlflow} declares is not known here")
    least, most = declared
    if not is_declared(facts.environment.mlflow, installed):
        shown = "to ".join(f"{'.'.join(map(str, v))} " for v in (least, most)).strip()
        what = f"is {installed}; MLflow {facts.environment.mlflow} declares {shown}"
        yield Found("transformers", what, f"pip install 'transformers<={'.'.join(map(str, most))}'")


@rule("EN004", "warning")
def files_api(facts: Facts) -> Iterator[Found]:
    """This MLflow can upload through the Files API where a workspace demands it.

    A workspace that vends no storage tokens takes model files by the Files API only; 2.11.5, 2.13.3, 2.17.2 and every
    MLflow from 2.18.0 on can do that (`MLFLOW_USE_DATABRICKS_SDK_MODEL_ARTIFACTS_REPO_FOR_UC`).

    Fix: upgrade MLflow.
    """
    if not facts.goal.registry_uri.startswith("databricks"):
        return
    if not has("files_api", facts.at_hand.mlflow):
        what = f"is {facts.at_hand.mlflow}, which cannot upload where the workspace vends no storage tokens"
        yield Found("mlflow", what, "pip install 'mlflow>=2.18'")


@rule("EN005", "note")
def known_to_work(facts: Facts) -> Iterator[Found]:
    """The installed Transformers is one that the model's own code is known to work with.

    Code that a checkpoint brings follows Transformers' changes late or never (GTE's fails with 5). What is logged asks
    for a version within the recipe's range whatever is installed here; only loading it here would fail.

    Fix: install a Transformers within the range to load or prove the model here.
    """
    wanted, installed = facts.wanted.transformers, facts.environment.transformers
    if wanted is None:
        return
    if installed is None:
        raise NotChecked("Transformers is not installed here")
    if not within(installed, wanted):
        what = f"is {installed}; the recipe's model is known to work with {wanted}, and asks for that"
        yield Found("transformers", what, f"To load it here: pip install 'transformers{wanted}'")


@rule("EN006", "error", protects=True)
def signature_known(facts: Facts) -> Iterator[Found]:
    """It is known which signature the MLflow writes that the model is written for (`--for`).

    Of two releases that were looked at and whose signatures differ, nobody has looked where between them it changed.

    Fix: name a neighbouring release, or log the model by that MLflow itself.
    """
    target, task = facts.environment, facts.task
    if not target.asked or task is None:
        return
    if len(signature_names(task, target.mlflow)) > 1 and not has("embeddings_refused", target.mlflow):
        what = f"is {target.mlflow}, between two releases that write different signatures for {task}"
        yield Found(f"mlflow of {target.asked}", what, "Name a neighbouring release, or log it by that MLflow itself.")
