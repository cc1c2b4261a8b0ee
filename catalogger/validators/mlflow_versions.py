"""All knowledge of MLflow versions: what each can do, from which version on, and how that is known.

Nowhere else is a version compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

OLDEST = "2.11.5"


@dataclass(frozen=True)
class Capability:
    """Begins with `since`, ends before `before` where it was taken away again; `source` says how the fact is known."""

    since: str
    source: str
    before: str | None = None


CAPABILITIES = {
    "transformers_llm_tasks": Capability(OLDEST, "run: 2.11.0 to 2.11.4 fail on components from a folder"),
    "embeddings_refused": Capability(
        "2.12.1", "run on 2.12.1; https://github.com/mlflow/mlflow/pull/11795", before="2.12.2"
    ),
    "embeddings_task": Capability("2.12.2", "run: 2.11.5, 2.12.1, 2.12.2"),
    "float32_dtype_written": Capability("2.12.1", "run: 2.11.5 leaves torch_dtype out when it is float32"),
    "logged_models": Capability(
        "3.0.0", "run: 2.22.5, 3.1.0; a model is an entity of its own, with an artifact location"
    ),
}


def has(capability: str, version: str) -> bool:
    """Whether an MLflow of this version has the capability.  Raises KeyError for an unknown capability."""
    known = CAPABILITIES[capability]
    at = Version(Version(version).base_version)
    return Version(known.since) <= at and (known.before is None or at < Version(known.before))


def transformers_major(version: str) -> int:
    """Transformers' generation, which decides the names of tokenizer classes and the `framework` field."""
    return Version(version).major


def tokenizer_type(tokenizer_class: str | None, transformers: str) -> str:
    """The class that this Transformers' AutoTokenizer makes of a `tokenizer_class`, which MLmodel records.

    Transformers 4 gives the fast class; 5 has one class a family, and `TokenizersBackend` for the general one.
    """
    name = (tokenizer_class or "PreTrainedTokenizerFast").removesuffix("Fast")
    general = name in ("PreTrainedTokenizer", "TokenizersBackend")
    if transformers_major(transformers) >= 5:
        return "TokenizersBackend" if general else name
    return "PreTrainedTokenizerFast" if general else f"{name}Fast"
