"""TK rules: the tokenizer and its chat template."""

from __future__ import annotations

from collections.abc import Iterator

from catalogger.validators.facts import Facts
from catalogger.validators.rules import Found, rule

_ANY = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")


@rule("TK001", "error", protects=True)
def tokenizer_files(facts: Facts) -> Iterator[Found]:
    """The checkpoint has a tokenizer, and the fast one.

    MLflow loads it from the model and fails without one; a slow one needs more packages where it is served.

    Fix: save the tokenizer into the same folder, `AutoTokenizer.from_pretrained(…).save_pretrained(…)`.
    """
    small = facts.opened.small
    if not any(name in small for name in _ANY):
        what = "is missing, and there is no other tokenizer file"
        yield Found("tokenizer.json", what, "Save the tokenizer into the same folder.")
    elif "tokenizer.json" not in small:
        fix = "Save the fast tokenizer: AutoTokenizer.from_pretrained(…).save_pretrained(…)."
        yield Found("tokenizer.json", "is missing; only the slow tokenizer's files are here", fix, "warning")


@rule("TK002", "error")
def chat_template(facts: Facts) -> Iterator[Found]:
    """A chat model's tokenizer has a chat template.

    Without one the model registers and fails at the first question.

    Fix: add the template that the model was trained with, or use a completions recipe.
    """
    if facts.task == "llm/v1/chat" and facts.opened.chat_template is None:
        what = "has no chat template, which task llm/v1/chat needs"
        yield Found(
            "tokenizer_config.json",
            what,
            "Add the template that the model was trained with, or use a completions recipe.",
        )
