"""TK rules: the tokenizer and its chat template."""

from __future__ import annotations

from collections.abc import Iterator

from catalogger.validators.rules import Facts, Finding, rule

_ANY = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


@rule("TK001", protects=True)
def tokenizer_files(facts: Facts) -> Iterator[Finding]:
    """The checkpoint has a tokenizer; MLflow loads it from the model and fails without."""
    small = facts.checkpoint.small
    if not any(name in small for name in _ANY):
        yield Finding(
            "TK001",
            "error",
            "tokenizer.json",
            "is missing, and there is no other tokenizer file",
            "Save the tokenizer into the same folder.",
        )
    elif "tokenizer.json" not in small:
        yield Finding(
            "TK001",
            "warning",
            "tokenizer.json",
            "is missing; only the slow tokenizer's files are here",
            "Save the fast tokenizer: AutoTokenizer.from_pretrained(…).save_pretrained(…).",
        )


@rule("TK002")
def chat_template(facts: Facts) -> Iterator[Finding]:
    """A chat model's tokenizer has a chat template; without one it registers and fails at the first question."""
    if facts.recipe.task == "llm/v1/chat" and facts.checkpoint.chat_template is None:
        yield Finding(
            "TK002",
            "error",
            "tokenizer_config.json",
            "has no chat template, which task llm/v1/chat needs",
            "Add the template that the model was trained with, or use a completions recipe.",
        )
