"""EN rules: the MLflow, the libraries and the Python at hand."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.mlflow_versions import KNOWN_TO_FAIL, OLDEST, declared_transformers, has
from catalogger.validators.rules import Found, rule


@rule("EN001", "error", protects=True)
def mlflow_version(facts: Facts) -> Iterator[Found]:
    """This MLflow can log the task.

    MLflow 2.11.0 to 2.11.4 fail on a model from a folder; 2.12.1 refuses every way to log an embedding model
    (https://github.com/mlflow/mlflow/pull/11795).

    Fix: upgrade MLflow as the finding says.
    """
    version = facts.environment.mlflow
    if not has("transformers_llm_tasks", version):
        what = f"is {version}; {OLDEST} is the oldest that logs these models"
        yield Found("mlflow", what, f"pip install 'mlflow>={OLDEST}'")
    elif facts.task == "llm/v1/embeddings" and has("embeddings_refused", version):
        what = f"is {version}, which refuses every way to log llm/v1/embeddings"
        yield Found("mlflow", what, "pip install 'mlflow>=2.12.2'")


@rule("EN002", "error")
def known_to_fail(facts: Facts) -> Iterator[Found]:
    """The installed libraries are no pair that is known to fail with this MLflow.

    Each pair was run; the finding quotes the error that it ends in.

    Fix: install the version that the finding names.
    """
    versions = {"transformers": facts.environment.transformers, "sqlalchemy": facts.environment.sqlalchemy}
    for pair in KNOWN_TO_FAIL:
        installed = versions[pair.library]
        if installed and pair.meets(facts.environment.mlflow, installed):
            what = f"is {installed}, which MLflow {facts.environment.mlflow} fails with: {pair.error}"
            yield Found(pair.library, what, pair.fix, pair.severity)


@rule("EN003", "warning")
def declared_range(facts: Facts) -> Iterator[Found]:
    """The installed Transformers is within the range that this MLflow declares to support.

    Outside it MLflow only warns, and loading the model may fail.

    Fix: install a Transformers within the range.
    """
    installed = facts.environment.transformers
    if installed is None:
        raise NotChecked("Transformers is not installed here")
    declared = declared_transformers(facts.environment.mlflow)
    if declared is None:
        raise NotChecked(f"the range that MLflow {facts.environment.mlflow} declares is not known here")
    least, most = declared
    if not least <= _release(installed) <= most:
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
    if not has("files_api", facts.environment.mlflow):
        what = f"is {facts.environment.mlflow}, which cannot upload where the workspace vends no storage tokens"
        yield Found("mlflow", what, "pip install 'mlflow>=2.18'")


@rule("EN005", "note")
def known_to_work(facts: Facts) -> Iterator[Found]:
    """The installed Transformers is one that the model's own code is known to work with.

    Code that a checkpoint brings follows Transformers' changes late or never (GTE's fails with 5). What is logged asks
    for a version within the recipe's range whatever is installed here; only loading it here would fail.

    Fix: install a Transformers within the range to load or prove the model here.
    """
    within, installed = facts.wanted.transformers, facts.environment.transformers
    if within is None:
        return
    if installed is None:
        raise NotChecked("Transformers is not installed here")
    if not SpecifierSet(within).contains(installed, prereleases=True):
        what = f"is {installed}; the recipe's model is known to work with {within}, and asks for that"
        yield Found("transformers", what, f"To load it here: pip install 'transformers{within}'")


def _release(version: str) -> tuple[int, ...]:
    return Version(version).release
