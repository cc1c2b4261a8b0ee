"""IS IT RIGHT: rules from facts to findings, one code each; the names of targets; what each MLflow can do."""

from catalogger.validators import checkpoint_rules, environment_rules, tokenizer_rules
from catalogger.validators.rules import Facts, Finding, Report, Rule, rules, run_rules
from catalogger.validators.target import check_alias, check_name, default_name

__all__ = ["Facts", "Finding", "Report", "Rule", "check_alias", "check_name", "default_name", "rules", "run_rules"]

_RULE_ROOMS = (checkpoint_rules, environment_rules, tokenizer_rules)
