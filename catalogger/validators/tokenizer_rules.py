"""TK rules: the tokenizer and its chat template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from catalogger.checkpoints import Checkpoint
from catalogger.checkpoints.probe import Probe, TokenizerFacts
from catalogger.checkpoints.probe_child import printable
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.rules import Found, rule

_CONFIG = "config.json"
_GENERATION = "generation_config.json"
_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_GENERATES = ("llm/v1/chat", "llm/v1/completions")
_BACKENDS = ("TokenizersBackend", "SentencePieceBackend", "PythonBackend")
_FAST = "PreTrainedTokenizerFast"
_INPUTS = ["input_ids", "attention_mask"]
_SLOW = "there is no tokenizer.json, as TK001 says"

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
    if facts.task != "llm/v1/chat":
        return
    if not any(name in facts.opened.small for name in _ANY):
        raise NotChecked("there is no tokenizer, as TK001 says")
    if facts.opened.chat_template is None:
        what = "has no chat template, which task llm/v1/chat needs"
        yield Found(
            "tokenizer_config.json",
            what,
            "Add the template that the model was trained with, or use a completions recipe.",
        )


@rule("TK008", "error")
def within_embeddings(facts: Facts) -> Iterator[Found]:
    """Every token has a row in the embedding table.

    A token whose id is `vocab_size` or more ends in an index error, on a GPU in one that takes the process with it. It
    comes from tokens that were added without resizing the model, often a padding token, which Transformers appends to
    the tokenizer when it is loaded.

    Fix: name a padding token that the model has, or resize the embeddings and save the model again.
    """
    tokens, rows = require_tokenizer(facts), _rows(facts)
    if tokens.largest >= rows:
        what = f'numbers its tokens up to {tokens.largest} ("{tokens.last}"); {_CONFIG} has vocab_size {rows}'
        fix = "Take the token away or name one that the model has, or resize the embeddings and save the model again."
        yield Found(_TOKENIZER, what, fix)


@rule("TK009", "error")
def ids_within_vocabulary(facts: Facts) -> Iterator[Found]:
    """The ids of the special tokens are within the vocabulary.

    An id below 0 or from `vocab_size` on is never generated and cannot be padded with: the model does not stop, or
    fails at the first batch.

    Fix: correct the id in the file that the finding names.
    """
    rows = _rows(facts)
    for file in (_CONFIG, _GENERATION):
        for key in _IDS:
            said = facts.opened.json(file).get(key)
            values = said if isinstance(said, list) and key == "eos_token_id" else [] if said is None else [said]
            if wrong := [value for value in values if not _is_id(value) or value >= rows]:
                what = f"says {key} {_shown(wrong[0])}; the ids are 0 to {rows - 1}"
                yield Found(file, what, f"Correct {key} in {file}.")


@rule("TK010", "warning")
def stops(facts: Facts) -> Iterator[Found]:
    """Generation stops at the token that the tokenizer ends a text with.

    The stop ids are `eos_token_id` of `generation_config.json`, else of `config.json`. A tuned model ends its turns
    with a token of its own (`<|eot_id|>`, `<|im_end|>`); where only the base model's is listed, answers run on to the
    limit.

    Fix: add the tokenizer's `eos_token` to `eos_token_id`.
    """
    if facts.task not in _GENERATES:
        return
    _require_ids(facts)
    eos, named = require_tokenizer(facts).special.get("eos_token"), facts.opened.probe.named
    if eos is None:
        raise NotChecked("the tokenizer names no eos_token")
    file, ids = _stop_ids(facts.opened)
    fix = f'Add {eos}, the id of "{printable(named["eos_token"])}", to eos_token_id in {file}.'
    if not ids:
        yield Found(file, "says no eos_token_id: an answer never ends", fix)
    elif eos not in ids:
        known = ", ".join(map(str, sorted(ids)[:5]))
        ends = f'the tokenizer\'s eos_token is "{printable(named["eos_token"])}" ({eos})'
        yield Found(file, f"stops at {known}; {ends}", fix)


@rule("TK011", "warning")
def ids_agree(facts: Facts) -> Iterator[Found]:
    """Config, generation config and tokenizer say the same ids where they say one.

    Who reads which file differs from library to library, and so do the answers where the files differ.

    Fix: write the same id into all of them.
    """
    _require_ids(facts)
    special, checkpoint = require_tokenizer(facts).special, facts.opened
    for role in ("bos_token", "pad_token"):
        key = f"{role}_id"
        said = {_CONFIG: checkpoint.config.get(key), _GENERATION: checkpoint.json(_GENERATION).get(key)}
        said["the tokenizer"] = special.get(role)
        known = {place: number for place, number in said.items() if number is not None}
        if len(set(known.values())) > 1:
            yield _disagreement(key, known)
    if any(stops(facts)):
        return
    ends = {file: _ids(checkpoint.json(file).get("eos_token_id")) for file in (_CONFIG, _GENERATION)}
    if all(ends.values()) and not ends[_CONFIG] & ends[_GENERATION]:
        yield _disagreement("eos_token_id", {f: ", ".join(map(str, sorted(ids)[:5])) for f, ids in ends.items()})


@rule("TK012", "warning")
def older_readers(facts: Facts) -> Iterator[Found]:
    """Transformers 4 can read the tokenizer's config.

    Transformers 5 writes class names that 4 does not have ("Tokenizer class TokenizersBackend does not exist") and the
    extra tokens as a list, where 4 wants a mapping; serving images were built with 4 for long.

    Fix: `--normalize 4`, which writes `"tokenizer_class": "PreTrainedTokenizerFast"` where there is a `tokenizer.json`,
    and `additional_special_tokens` for a list of `extra_special_tokens`.
    """
    said, again = facts.opened.tokenizer_config, "Save the tokenizer with Transformers 4."
    fast = _TOKENIZER in facts.opened.small
    if (name := said.get("tokenizer_class")) in _BACKENDS:
        written = f'"tokenizer_class": "{_FAST}" in {_TOKENIZER_CONFIG}.'
        plain = f"Give --normalize 4, which writes {written}" if name == _BACKENDS[0] else f"Write {written}"
        fix = plain if fast else again
        yield Found(_TOKENIZER_CONFIG, f'says tokenizer_class "{name}", a class that Transformers 4 does not have', fix)
    if isinstance(said.get("extra_special_tokens"), list):
        what = "says extra_special_tokens as a list, which Transformers 4 cannot read"
        yield Found(_TOKENIZER_CONFIG, what, "Give --normalize 4, which names them additional_special_tokens.")


@rule("TK013", "warning")
def provisioned_llama(facts: Facts) -> Iterator[Found]:
    """A Llama's tokenizer has the form that was seen to serve on provisioned throughput.

    What is known comes from one published notebook that made another family serve as Llama: one `tokenizer.json`
    without `merges.txt` and `vocab.json`, the two input names, and the plain fast class.

    Fix: remove the two files, and set `model_input_names` and `tokenizer_class` in `tokenizer_config.json`.
    """
    checkpoint = facts.opened
    if checkpoint.architecture != "LlamaForCausalLM":
        return
    if _TOKENIZER not in checkpoint.small:
        raise NotChecked(_SLOW)
    for file in ("merges.txt", "vocab.json"):
        if file in checkpoint.small:
            yield Found(file, f"stands beside {_TOKENIZER}", f"Remove it: {_TOKENIZER} holds the same.")
    said = checkpoint.tokenizer_config.get("model_input_names")
    if said != _INPUTS:
        fix = f'Set "model_input_names": {json.dumps(_INPUTS)} in {_TOKENIZER_CONFIG}.'
        other = "says other model_input_names than input_ids and attention_mask"
        yield Found(_TOKENIZER_CONFIG, "says no model_input_names" if said is None else other, fix)
    name = checkpoint.tokenizer_config.get("tokenizer_class")
    if name not in (_FAST, *_BACKENDS):
        what = f"says tokenizer_class {_shown(name)}; {_FAST} was seen to serve"
        fix = f'Set "tokenizer_class": "{_FAST}" in {_TOKENIZER_CONFIG} if the server refuses the model.'
        yield Found(_TOKENIZER_CONFIG, what, fix, "note")


@rule("TK014", "error")
def readable(facts: Facts) -> Iterator[Found]:
    """The fast tokenizer can be read.

    `tokenizer.json` is tens of megabytes of JSON; one that broke off, or was edited by hand, ends the load.

    Fix: fetch or save the tokenizer again.
    """
    if _TOKENIZER in facts.opened.small and (problem := require_probe(facts).tokenizer.problem):
        yield Found(_TOKENIZER, problem, "Fetch or save the tokenizer again.")


def require_probe(facts: Facts) -> Probe:
    """What was found out about tokenizer and template.  Raises NotChecked where nobody could look."""
    if facts.opened.probe.unavailable:
        raise NotChecked(facts.opened.probe.unavailable)
    return facts.opened.probe


def require_tokenizer(facts: Facts) -> TokenizerFacts:
    """What the fast tokenizer numbers.  Raises NotChecked where there is none, or none that can be read."""
    if _TOKENIZER not in facts.opened.small:
        raise NotChecked(_SLOW)
    found = require_probe(facts).tokenizer
    if found.problem:
        raise NotChecked("tokenizer.json cannot be read, as TK014 says")
    return found


def _require_ids(facts: Facts) -> None:
    if any(ids_within_vocabulary(facts)):
        raise NotChecked("the ids of the special tokens are not all within the vocabulary, as TK009 says")


def _rows(facts: Facts) -> int:
    """Rows of the embedding table as the config says them.  Raises NotChecked where it does not."""
    rows = facts.opened.config.get("vocab_size")
    if not _is_id(rows) or not rows:
        raise NotChecked(f"{_CONFIG} says no vocab_size")
    return rows


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _ids(said: object) -> set[int]:
    """The ids that a field says, one or several."""
    values = said if isinstance(said, list) else [said]
    return {value for value in values if _is_id(value)}


def _stop_ids(checkpoint: Checkpoint) -> tuple[str, set[int]]:
    """The file that says where generation stops, and the ids."""
    if _GENERATION in checkpoint.small and (ids := _ids(checkpoint.json(_GENERATION).get("eos_token_id"))):
        return _GENERATION, ids
    return _CONFIG, _ids(checkpoint.config.get("eos_token_id"))


def _disagreement(key: str, known: Mapping[str, object]) -> Found:
    what = ", ".join(f"{number} in {place}" for place, number in known.items())
    return Found(key, f"is {what}", f"Write the same {key} into all of them.")


def _shown(value: object) -> str:
    """A value of a config in a few characters."""
    if value is None or isinstance(value, str | int | float):
        return json.dumps(value)[:60]
    return "that is a list" if isinstance(value, list) else "that is an object"
