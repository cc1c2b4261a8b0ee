"""EN rules: the MLflow and Transformers at hand."""

from __future__ import annotations

from collections.abc import Iterator

from catalogger.validators.mlflow_versions import OLDEST, has
from catalogger.validators.rules import Facts, Finding, rule


@rule("EN001", protects=True)
def mlflow_version(facts: Facts) -> Iterator[Finding]:
    """This MLflow can log the recipe's task."""
    if not has("transformers_llm_tasks", facts.mlflow):
        yield Finding(
            "EN001",
            "error",
            "mlflow",
            f"is {facts.mlflow}; {OLDEST} is the oldest that logs these models",
            f"pip install 'mlflow>={OLDEST}'",
        )
    elif facts.recipe.task == "llm/v1/embeddings" and has("embeddings_refused", facts.mlflow):
        yield Finding(
            "EN001",
            "error",
            "mlflow",
            f"is {facts.mlflow}, which refuses every way to log llm/v1/embeddings",
            "pip install 'mlflow>=2.12.2'",
        )
