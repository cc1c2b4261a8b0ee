"""CK rules on embedding models: what the served vectors are, beside what the model was trained to give."""

from __future__ import annotations

import json
from collections.abc import Iterator

from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.rules import Found, rule

_SENTENCE = "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_LONGEST = 10**9  # tokens; above it a tokenizer says "no limit"


@rule("CK011", "warning")
def pooling(facts: Facts) -> Iterator[Found]:
    """The vectors that MLflow serves are pooled as the model was trained to.

    MLflow's `llm/v1/embeddings` takes the hidden state of the first token and does not normalise
    (`mlflow.transformers.llm_inference_utils.postprocess_output_for_llm_v1_embedding_task`).

    Fix: compare on your own data, or choose a model that pools the first token (GTE, BGE).
    """
    if facts.task != "llm/v1/embeddings":
        return
    said = facts.opened.pooling or (facts.recipe and facts.recipe.embedding and facts.recipe.embedding.pooling)
    if said is None:
        raise NotChecked("the checkpoint has no 1_Pooling/config.json and no recipe says how it pools")
    if said != "cls":
        yield Found(
            "1_Pooling/config.json",
            f"pools by {said}; MLflow serves the first token's vector: other vectors than sentence-transformers gives,"
            " and worse ones for search",
            "Compare on your own data before you rely on it, or choose a model that pools the first token (GTE, BGE).",
        )


@rule("CK012", "note")
def normalisation(facts: Facts) -> Iterator[Found]:
    """Whether the served vectors have length 1 is said.

    Search by dot product needs vectors of length 1. MLflow's answers are not normalised; the endpoint's are for BGE and
    are not for GTE.

    Fix: divide each vector by its length.
    """
    if facts.task != "llm/v1/embeddings":
        return
    known = facts.recipe and facts.recipe.embedding and facts.recipe.embedding.normalised
    if facts.opened.normalises or (facts.opened.normalises is None and known):
        what = "normalises its vectors; MLflow's answers are not normalised"
        yield Found("modules.json", what, "Divide each vector by its length before comparing by dot product.")


@rule("CK020", "warning")
def longest_text(facts: Facts) -> Iterator[Found]:
    """The tokenizer cuts a text before it is longer than the model can read.

    With a limit above the model's positions, or none, a long text ends in an index error instead of an answer.

    Fix: set `model_max_length` in `tokenizer_config.json` to the model's positions.
    """
    if facts.task != "llm/v1/embeddings":
        return
    positions = facts.opened.config.get("max_position_embeddings")
    limit = facts.opened.tokenizer_config.get("model_max_length")
    if not isinstance(positions, int) or not isinstance(limit, int | float):
        raise NotChecked("config.json says no max_position_embeddings, or tokenizer_config.json no model_max_length")
    if limit > positions:
        shown = "no limit" if limit > _LONGEST else f"{limit:g} tokens"
        what = f"cuts a text at {shown}, config.json has {positions} positions"
        yield Found("tokenizer_config.json", what, f'Set "model_max_length": {positions} in tokenizer_config.json.')
    trained = facts.opened.json(_SENTENCE).get("max_seq_length")
    if isinstance(trained, int) and trained < min(limit, positions):
        what = f"says that texts are cut at {trained} tokens; MLflow cuts at {min(limit, positions):g}"
        yield Found(_SENTENCE, what, "Split longer texts before embedding them.", "note")


@rule("CK021", "note")
def query_instruction(facts: Facts) -> Iterator[Found]:
    """A text that belongs before queries is said.

    Some models are trained with an instruction before a query, none before a passage; nobody adds it in serving.

    Fix: put it before each query, or send it as `instruction` to the endpoint.
    """
    if facts.task != "llm/v1/embeddings":
        return
    known = facts.recipe.embedding.query_instruction if facts.recipe and facts.recipe.embedding else None
    prompts = facts.opened.json(_PROMPTS).get("prompts")
    own = prompts.get("query") if isinstance(prompts, dict) else None
    if said := known or (own if isinstance(own, str) else None):
        fix = "Put it before each query, or send it as `instruction` to the endpoint."
        yield Found("queries", f"were trained with {json.dumps(said, ensure_ascii=False)} before them", fix)
