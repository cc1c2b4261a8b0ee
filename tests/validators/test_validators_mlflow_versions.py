"""The table of MLflow versions, held against what runs of those versions showed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import checkpoints
from packaging.version import Version

from catalogger.validators import signatures
from catalogger.validators.mlflow_versions import (
    CAPABILITIES,
    NEWEST,
    OLDEST,
    has,
    is_version,
    looked_at,
    signature_names,
    tokenizer_type,
    transformers_major,
)

# Versions that were run (2.15.1 was read), and what each of them can do.
_OLD = ("transformers_llm_tasks", "float32_dtype_written", "json_example")
_FIELDS = ("type_hint_fields", "prompts_field")
_COPIES = (*_OLD, "embeddings_task", "metadata_copies")
_TWO = (*_OLD, "embeddings_task", "serving_example")
_THREE = (*_TWO, *_FIELDS, "files_api", "logged_models")
RUN = {
    "2.11.0": (),
    "2.11.4": (),
    "2.11.5": ("transformers_llm_tasks", "files_api", "metadata_copies", "metadata_holds_all"),
    "2.12.1": (*_OLD, "embeddings_refused", "metadata_copies"),
    "2.12.2": _COPIES,
    "2.13.2": _COPIES,
    "2.15.1": (*_OLD, "embeddings_task", "serving_payload"),
    "2.16.2": _TWO,
    "2.20.4": (*_TWO, "files_api", "type_hint_fields"),
    "2.22.5": (*_TWO, "files_api", *_FIELDS),
    "3.0.1": _THREE,
    "3.1.0": _THREE,
    "3.17.2": _THREE,
    "3.18.0": _THREE,
}


@pytest.mark.parametrize("version", RUN)
def test_versions_that_were_run(version: str) -> None:
    known = set(RUN[version])
    assert {name for name in CAPABILITIES if name in _known() and has(name, version)} == known


def _known() -> set[str]:
    return {name for names in RUN.values() for name in names}


def test_every_capability_was_seen_on_both_sides_of_its_border() -> None:
    assert set(CAPABILITIES) == _known()
    for name, capability in CAPABILITIES.items():
        assert {name in known for known in RUN.values()} == {True, False}, name
        assert capability.source


@pytest.mark.parametrize("version", ["3.0.0", "3.0.0rc1", "3.0.0.dev0", "3.0.0+local", "3.0.0.post1", "v3.0.0"])
def test_other_spellings_of_a_version_count_as_that_version(version: str) -> None:
    assert has("logged_models", version)


def test_version_below_by_number_not_by_text() -> None:
    assert not has("embeddings_task", "2.9.2")
    assert has("embeddings_task", "2.100.0")


@pytest.mark.parametrize(
    ("said", "right"), [("2.11.5", True), ("3.0.0rc1", True), ("", False), ("newest", False), (None, False), (3, False)]
)
def test_what_is_a_version(said: object, right: bool) -> None:
    assert is_version(said) is right


@pytest.mark.parametrize(
    ("task", "version", "names"),
    [
        ("llm/v1/chat", "2.10.2", ()),
        ("llm/v1/chat", "2.11.0", ("CHAT-A",)),
        ("llm/v1/chat", "2.14.3", ("CHAT-A",)),
        ("llm/v1/chat", "2.15.0", ("CHAT-A", "CHAT-B")),
        ("llm/v1/chat", "2.15.1", ("CHAT-B",)),
        ("llm/v1/chat", "2.16.2", ("CHAT-B",)),
        ("llm/v1/chat", "2.17.0", ("CHAT-B", "CHAT-C")),
        ("llm/v1/chat", "2.18.0", ("CHAT-C",)),
        ("llm/v1/chat", "2.19.0rc0", ("CHAT-D",)),
        ("llm/v1/chat", "3.17.2", ("CHAT-D",)),
        ("llm/v1/chat", "4.0.0", ("CHAT-D",)),
        ("llm/v1/completions", "2.11.5", ("COMPLETIONS",)),
        ("llm/v1/completions", "3.18.0", ("COMPLETIONS",)),
        ("llm/v1/embeddings", "2.11.5", ("EMB-OLD",)),
        ("llm/v1/embeddings", "2.12.1", ("EMB-OLD", "EMBEDDINGS")),
        ("llm/v1/embeddings", "2.12.2", ("EMBEDDINGS",)),
    ],
)
def test_signatures_by_version(task: str, version: str, names: tuple[str, ...]) -> None:
    assert signature_names(task, version) == names


@pytest.mark.parametrize(
    ("version", "known"), [("2.11.5", True), (NEWEST, True), ("3.18.9", True), ("3.19.0", False), ("4.0.0", False)]
)
def test_what_was_looked_at(version: str, known: bool) -> None:
    assert looked_at(version) is known


@pytest.mark.parametrize(
    ("task", "name"), [("CHAT", "chat"), ("COMPLETIONS", "completions"), ("EMBEDDING", "embeddings")]
)
def test_the_recorded_signature_is_what_this_mlflow_has(task: str, name: str) -> None:
    import mlflow
    from mlflow.types import llm

    (recorded_as,) = signature_names(f"llm/v1/{name}", mlflow.__version__)
    recorded = signatures.recorded(recorded_as)
    assert getattr(llm, f"{task}_MODEL_INPUT_SCHEMA").to_dict() == recorded.inputs
    assert getattr(llm, f"{task}_MODEL_OUTPUT_SCHEMA").to_dict() == recorded.outputs


def test_unknown_capability() -> None:
    with pytest.raises(KeyError):
        has("flying", "3.0.0")


def test_oldest_is_what_the_package_asks_for() -> None:
    from importlib.metadata import requires

    assert [r for r in requires("catalogger") or [] if r.startswith("mlflow")] != []
    assert any(f">={OLDEST}" in r for r in requires("catalogger") or [] if r.startswith("mlflow"))
    assert Version(OLDEST) == min(Version(v) for v, known in RUN.items() if "transformers_llm_tasks" in known)


@pytest.mark.parametrize(
    ("named", "transformers", "found"),
    [
        ("PreTrainedTokenizerFast", "4.37.2", "PreTrainedTokenizerFast"),
        ("PreTrainedTokenizerFast", "4.57.3", "PreTrainedTokenizerFast"),
        ("PreTrainedTokenizerFast", "5.17.0", "TokenizersBackend"),
        ("TokenizersBackend", "5.17.0", "TokenizersBackend"),
        ("TokenizersBackend", "4.57.3", "PreTrainedTokenizerFast"),
        ("BertTokenizer", "4.51.2", "BertTokenizerFast"),
        ("BertTokenizerFast", "4.51.2", "BertTokenizerFast"),
        ("BertTokenizer", "5.17.0", "BertTokenizer"),
        ("BertTokenizerFast", "5.23.0", "BertTokenizer"),
        ("LlamaTokenizer", "4.51.2", "LlamaTokenizerFast"),
        (None, "4.51.2", "PreTrainedTokenizerFast"),
        (None, "5.17.0", "TokenizersBackend"),
    ],
)
def test_tokenizer_type(named: str | None, transformers: str, found: str) -> None:
    assert tokenizer_type(named, transformers) == found


@pytest.mark.parametrize(("version", "major"), [("4.57.3", 4), ("5.0.0rc1", 5), ("5.23.0", 5), ("5.1.0.dev0", 5)])
def test_transformers_major(version: str, major: int) -> None:
    assert transformers_major(version) == major


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_tokenizer_type_is_what_this_transformers_makes(family: str, tmp_path: Path) -> None:
    import transformers

    made = (checkpoints.llama if family == "llama" else checkpoints.bert)(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(made)
    named = json.loads((made / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert tokenizer_type(named, transformers.__version__) == type(tokenizer).__name__
