"""CK rules on `config.json`: architecture, code of its own, dtype, quantisation, size."""

from __future__ import annotations

import re
from collections.abc import Iterator

from catalogger.checkpoints import borrowed_repos
from catalogger.errors import human
from catalogger.validators.expected import counted_parameters
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.rules import Found, firsts, rule
from catalogger.validators.weight_rules import require_whole

_CONFIG = "config.json"
_WIDTH = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_GENERATES = re.compile(r"(ForCausalLM|LMHeadModel)$")
_QUANTISED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|absmax|quant_map|SCB|weight_scale(_inv)?|input_scale)(\.|$)|quant_state"
)
_SMALL_SHARE = 0.001  # of the bytes: norms, routers and buffers that are kept in another dtype
_OFF = 0.05  # how far a parameter count may be from the recipe's: added tokens, a pooler


@rule("CK001", "error", protects=True)
def architecture(facts: Facts) -> Iterator[Found]:
    """The config's architecture is one that the recipe is for.

    Serving and MLflow go by `architectures[0]` of `config.json`, not by the repository's name.

    Fix: choose the recipe of this family; `log-model recipes` lists them.
    """
    found, wanted = facts.opened.architecture, " or ".join(facts.wanted.architectures)
    if found is None:
        what = f"names no architecture; the recipe is for {wanted}"
        yield Found(_CONFIG, what, 'Set "architectures" in config.json.')
    elif found not in facts.wanted.architectures:
        what = f'says architecture "{found}"; the recipe is for {wanted}'
        yield Found(_CONFIG, what, "Choose the recipe of this family: `log-model recipes` lists them.")


@rule("CK009", "error", protects=True)
def remote_code(facts: Facts) -> Iterator[Found]:
    """Code that a checkpoint brings is used only with consent.

    `auto_map` in a config makes Transformers run Python files of the checkpoint, or of another repository. Without
    them a stock class may load and answer noise, so that there is no way around the question.

    Fix: read that code, then consent by `--trust-remote-code`; code from another repository needs a recipe that names
    it.
    """
    checkpoint = facts.opened
    if facts.model is not None:  # what is logged already was consented to; whoever loads it consents again
        raise NotChecked("consent is asked for before a model is logged, and by whoever loads it")
    mapped = checkpoint.config.get("auto_map") or checkpoint.tokenizer_config.get("auto_map")
    known = facts.recipe.remote_code.repo if facts.recipe and facts.recipe.remote_code else None
    if strange := borrowed_repos(checkpoint) - {known}:
        fix = "Use a recipe whose remote_code names that repository, after reading its code."
        yield Found(_CONFIG, f"takes code from {firsts(strange)}, unknown to the recipe", fix)
    if not mapped or facts.remote_code_consent:
        return
    classes = ", ".join(sorted({str(v) for v in mapped.values()})) if isinstance(mapped, dict) else str(mapped)
    yield Found(_CONFIG, f"asks for code of its own: {classes}", "Read that code, then consent by --trust-remote-code.")


@rule("CK010", "warning")
def dtype(facts: Facts) -> Iterator[Found]:
    """The weights have the dtype that the recipe says, or else their own config.

    float32 weights of a language model are twice the bytes to move and to serve, and come mostly from a merge that
    nobody told to keep bfloat16.

    Fix: save with `torch_dtype` set, or convert the weights.
    """
    checkpoint, recipe = facts.weights, facts.recipe
    _require_family(facts)
    found = checkpoint.dtype
    if found is None:
        raise NotChecked("no header of a weight file could be read")
    said = checkpoint.config.get("torch_dtype") or checkpoint.config.get("dtype")
    wanted, who = (recipe.dtype, "the recipe") if recipe and recipe.dtype else (said, _CONFIG)
    if isinstance(wanted, str) and wanted in _WIDTH and found in _WIDTH and found != wanted:
        yield Found("weights", f"are {found}; {who} says {wanted}{_cost(facts, found, wanted)}", _saved_as(wanted))
    elif found in ("float32", "float64") and facts.task != "llm/v1/embeddings":
        cost = _cost(facts, found, "bfloat16")
        yield Found("weights", f"are {found}, which no served language model needs{cost}", _saved_as("bfloat16"))


@rule("CK015", "warning")
def mixed_dtypes(facts: Facts) -> Iterator[Found]:
    """The weights are all of one floating-point dtype, but for a few small tensors.

    A model that is half float32 is mostly the sign of a merge or a conversion that stopped half way.

    Fix: save the model again in one dtype.
    """
    held = {name: size for name, size in facts.weights.dtypes.items() if name in _WIDTH}
    most = max(held, key=lambda name: held[name], default=None)
    others = {n: s for n, s in held.items() if n != most and s > _SMALL_SHARE * sum(held.values())}
    if others:
        shares = ", ".join(f"{human(size)} {name}" for name, size in held.items())
        yield Found("weights", f"are mixed: {shares}", _saved_as(str(most)))


@rule("CK016", "error")
def quantised(facts: Facts) -> Iterator[Found]:
    """The weights are not quantised.

    Provisioned throughput takes bfloat16 and float16 weights; bitsandbytes, GPTQ, AWQ and FP8 checkpoints do not
    serve there, and load elsewhere only with the library that made them.

    Fix: log the unquantised checkpoint; merge a QLoRA adapter into the bfloat16 base model.
    """
    said = facts.weights.config.get("quantization_config")
    fix = "Log the unquantised checkpoint; a QLoRA adapter is merged into its bfloat16 base model."
    if said:
        by = said.get("quant_method", "a method that it does not name") if isinstance(said, dict) else said
        yield Found(_CONFIG, f"says that the weights are quantised by {by}", fix)
        return
    marked = {t.name for s in facts.weights.shards for t in s.tensors if _QUANTISED.search(t.name)}
    eighths = {t.name for s in facts.weights.shards for t in s.tensors if t.dtype.startswith(("F8", "F4", "F6"))}
    if named := marked | eighths:
        yield Found("weights", f"hold quantised tensors: {firsts(named)}", fix)


@rule("CK017", "error")
def task_fits(facts: Facts) -> Iterator[Found]:
    """The architecture can do the task.

    MLflow logs a BERT folder as a chat model, and a language model for embeddings, without a word; the model fails,
    or answers noise, when it is first asked.

    Fix: choose a recipe of the architecture's own task.
    """
    found, task = facts.opened.architecture, facts.task
    if found is None or task is None:
        raise NotChecked("the architecture or the task is not known")
    _require_family(facts)
    generates = bool(_GENERATES.search(found))
    if generates == (task == "llm/v1/embeddings"):
        kind = "generates text" if generates else "generates no text"
        yield Found(_CONFIG, f'says architecture "{found}", which {kind}; the task is {task}', "Choose another task.")


@rule("CK018", "error")
def parameter_count(facts: Facts) -> Iterator[Found]:
    """The model has about as many parameters as the recipe's published model.

    A recipe of a published model with the weights of another size gets the wrong endpoint: throughput chunks and
    prices go by size.

    Fix: choose the recipe of this size, or the family's own (`llama-chat`, `bge-embeddings`, …), which leaves sizes
    open.
    """
    if facts.wanted.parameters is None:
        return
    _require_family(facts)
    require_whole(facts)
    wanted, found = facts.wanted.parameters, counted_parameters(facts.weights)
    if abs(found - wanted) > _OFF * wanted:
        fix = "Choose the recipe of this size, or the family's own, which leaves sizes open."
        yield Found("weights", f"have {found:,} parameters; the recipe is for {wanted:,}", fix)


def _require_family(facts: Facts) -> None:
    """Raises NotChecked where the recipe is for another architecture: it says nothing of this one then."""
    if facts.recipe and facts.opened.architecture not in facts.recipe.architectures:
        raise NotChecked("the architecture is not the recipe's, as CK001 says")


def _cost(facts: Facts, found: str, wanted: str) -> str:
    """What the other dtype costs, in bytes."""
    times = _WIDTH[found] / _WIDTH[wanted]
    held = facts.weights.dtypes[found]
    return f": {human(held)} to move and serve instead of {human(int(held / times))}" if times > 1 else ""


def _saved_as(dtype: str) -> str:
    return f"Save it with torch_dtype={dtype}."


@rule("CK019", "warning")
def rope(facts: Facts) -> Iterator[Found]:
    """The config says the rotary base where readers of Transformers 4 look for it.

    Transformers 5 moves `rope_theta` into `rope_parameters`; an older reader then takes 10000 without a word, and a
    Llama 3 (500000) answers worse text.

    Fix: `--normalize 4` writes `rope_theta` (and `rope_scaling`) at the top level of `config.json`.
    """
    moved, plain = facts.opened.config.get("rope_parameters"), facts.opened.config.get("rope_theta")
    theta = moved.get("rope_theta") if isinstance(moved, dict) else None
    if plain is None and theta is not None and theta != 10000:
        what = f"says rope_theta {theta} only in rope_parameters; readers of Transformers 4 take 10000"
        yield Found(_CONFIG, what, f'Give --normalize 4, which writes "rope_theta": {theta} at the top level.')
