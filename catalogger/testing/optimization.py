"""What a loopback workspace says of a version's throughput: `get-model-optimization-info`, of every kind that was seen.

The real service keeps its rules to itself. Those here are what is known of them: the task in the metadata, the
transformers flavor, the architecture. A test sets any other answer for a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalogger.testing.refusal import RefusalError

TASKS = ("llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings")
CHUNK, UNITS = 980, 50

NOT_OPTIMIZABLE: Mapping[str, Any] = {"optimizable": False}
KEY_ABSENT: Mapping[str, Any] = {}
UNIT_UNKNOWN: Mapping[str, Any] = {"optimizable": True, "model_type": "llama"}
LLAMA_WITH_DBUS: Mapping[str, Any] = {
    "optimizable": True,
    "model_type": "llama",
    "throughput_chunk_size": 970,
    "dbus": 24,
}
BOTH_UNITS: Mapping[str, Any] = {
    "optimizable": True,
    "model_type": "llama",
    "throughput_chunk_size": CHUNK,
    "model_unit_chunk_size": UNITS,
}

_ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "MPTForCausalLM": "mpt",
    "MptForCausalLM": "mpt",
    "DbrxForCausalLM": "dbrx",
    "BertModel": "bge",
    "NewModel": "gte",
}
_NAMED = {"bge": "BAAI/bge-", "gte": "Alibaba-NLP/gte-"}  # of these the architecture does not tell the family

Answer = Mapping[str, Any] | RefusalError


def tokens(model_type: str = "llama", chunk: int = CHUNK) -> dict[str, Any]:
    """Eligible by tokens per second."""
    return {"optimizable": True, "model_type": model_type, "throughput_chunk_size": chunk}


def units(model_type: str = "gpt_oss", chunk: int = UNITS) -> dict[str, Any]:
    """Eligible by model units."""
    return {"optimizable": True, "model_type": model_type, "model_unit_chunk_size": chunk}


def derived(mlmodel: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer for a version with this MLmodel file."""
    metadata, flavor = mlmodel.get("metadata") or {}, _flavor(mlmodel)
    family = _ARCHITECTURES.get(str(flavor.get("pipeline_model_type")))
    if metadata.get("task") not in TASKS or family is None:
        return NOT_OPTIMIZABLE
    if prefix := _NAMED.get(family):
        named = str(metadata.get("model_type", "")).startswith(f"{family}-")
        if not named and not str(flavor.get("source_model_name", "")).startswith(prefix):
            return NOT_OPTIMIZABLE
    return tokens(family)


def described(task: str, architecture: str = "LlamaForCausalLM") -> dict[str, Any]:
    """An MLmodel file, as far as it matters here, of a version without files."""
    return {"metadata": {"task": task}, "flavors": {"transformers": {"pipeline_model_type": architecture}}}


def _flavor(mlmodel: Mapping[str, Any]) -> Mapping[str, Any]:
    return (mlmodel.get("flavors") or {}).get("transformers") or {}
