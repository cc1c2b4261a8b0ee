"""IS IT RIGHT: rules from facts to findings, one code each; the names of targets; what each MLflow can do."""

from catalogger.validators import (  # noqa: F401  each registers its rules
    artifact_rules,
    config_rules,
    embedding_rules,
    environment_rules,
    model_rules,
    serving_rules,
    signature_rules,
    target_rules,
    template_rules,
    tensor_rules,
    tokenizer_rules,
    weight_rules,
)
from catalogger.validators.facts import Environment, Existing, Facts, NotChecked, Target, environment
from catalogger.validators.rules import Finding, Report, Rule, rules, run_rules
from catalogger.validators.target import check_alias, check_name, default_name

__all__ = [
    "Environment",
    "Existing",
    "Facts",
    "Finding",
    "NotChecked",
    "Report",
    "Rule",
    "Target",
    "check_alias",
    "check_name",
    "default_name",
    "environment",
    "rules",
    "run_rules",
]
