"""Small files in the words of one Transformers: those that 4.44.2, 4.57.6 and 5.19.0 wrote of the same models.

They are in `written/`, made by `python tests/matrix/generations_child.py record FOLDER` with each of the three.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalogger.checkpoints import Checkpoint, Origin
from catalogger.checkpoints.normalizing.normalizing import Change, normalize
from catalogger.errors import CheckpointError, UsageError

WRITTEN = Path(__file__).with_name("written")
FIVE, FOURS = "5.19.0", ("4.44.2", "4.57.6")
PAIRS = json.dumps({"model": {"merges": [["a", "b"], ["ab", "c"]]}})
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.5, 3.0, 3.5]}
SAID_BY_4 = {
    "llama": {"rope_theta": 500000.0, "rope_scaling": None},
    "llama-llama3": {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "llama-linear": {"rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "llama-dynamic": {"rope_theta": 500000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "llama-yarn": {
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256},
    },
    "phi3-longrope": {
        "rope_theta": 500000.0,
        "rope_scaling": {"type": "longrope", **LONG},
        "original_max_position_embeddings": 64,
        "partial_rotary_factor": 1.0,
    },
    "mixtral": {"rope_theta": 500000.0, "rope_scaling": None},
    "gemma3": {"rope_theta": 500000.0, "rope_local_base_freq": 10000.0, "rope_scaling": None},
    "neox": {"rotary_emb_base": 20000, "rotary_pct": 0.5, "rope_scaling": None},
    "bert": {},
}
"""What 4 says of the rotary embedding of each model; read against 4's own files below."""


def _written(version: str, name: str) -> Checkpoint:
    """The recorded files, with the merges of a `tokenizer.json` as later tokenizers write them."""
    folder = WRITTEN / version / name
    small = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return _of({**small, "tokenizer.json": PAIRS.encode()})


def _of(small: dict[str, bytes]) -> Checkpoint:
    return Checkpoint(Origin("folder", "/models/bot", None, "./bot"), (), {}, small, ())


def _config(said: dict[str, Any], **tokenizer: Any) -> Checkpoint:
    small = {"config.json": json.dumps(said).encode(), "tokenizer.json": b"{}"}
    return _of(small | ({"tokenizer_config.json": json.dumps(tokenizer).encode()} if tokenizer else {}))


def _rope(config: Any) -> dict[str, Any]:
    wanted = ("rope", "rotary", "original_max")
    return {key: value for key, value in config.items() if any(part in key for part in wanted)}


@pytest.mark.parametrize("name", SAID_BY_4)
def test_what_5_wrote_is_said_as_4_says_it(name: str) -> None:
    config = normalize(_written(FIVE, name), 4).config
    assert _rope(config) == SAID_BY_4[name]
    assert config["torch_dtype"] == "float32"
    assert "dtype" not in config
    for version in FOURS:
        if (WRITTEN / version / name).is_dir():
            own = _written(version, name).config
            for key, value in _rope(config).items():
                assert _plain(own.get(key)) == _plain(value) or key == "partial_rotary_factor"  # 4.44 has none yet


def _plain(value: Any) -> Any:
    """A value without its kind, which 4 writes under one name, the other or both."""
    return {k: v for k, v in value.items() if k not in ("type", "rope_type")} if isinstance(value, dict) else value


@pytest.mark.parametrize("version", FOURS)
@pytest.mark.parametrize("name", [*SAID_BY_4, "dbrx"])
def test_what_4_wrote_is_said_as_5_says_it(name: str, version: str) -> None:
    if not (WRITTEN / version / name).is_dir():
        assert (version, name) == ("4.44.2", "gemma3"), "which that Transformers does not have"
        return
    config, own = normalize(_written(version, name), 5).config, _written(FIVE, name).config
    theirs = dict(own.get("rope_parameters") or {})
    ours = dict(config.get("rope_parameters") or {})
    if name == "phi3-longrope":  # 5 fills these in from where they stand
        for key in ("original_max_position_embeddings", "partial_rotary_factor"):
            assert theirs.pop(key) == (config.get(key) or 1.0)
        ours.pop("partial_rotary_factor", None)
    if name == "llama-linear":
        theirs.pop("type", None)
        ours.pop("type", None)
    assert ours == theirs
    assert config["dtype"] == "float32"
    assert not {"torch_dtype", "rope_theta", "rope_scaling", "rope_local_base_freq"} & set(config)


@pytest.mark.parametrize("generation", [4, 5])
@pytest.mark.parametrize("name", [*SAID_BY_4, "dbrx"])
def test_what_is_said_so_already_is_not_touched(name: str, generation: int) -> None:
    once = normalize(_written(FIVE if generation == 4 else "4.57.6", name), generation)
    again = normalize(once, generation)
    assert once.normalized
    assert once.normalized.tag == f"transformers {generation}"
    assert again.normalized
    assert again.normalized.changes == ()
    assert again.normalized.tag is None
    assert "nothing" in again.normalized.rows()[0][1]
    assert again.small == once.small


def test_dbrx_has_its_base_where_both_look() -> None:
    four, five = normalize(_written(FIVE, "dbrx"), 4).config, normalize(_written("4.44.2", "dbrx"), 5).config
    assert four["attn_config"]["rope_theta"] == 500000.0
    assert "hidden_size" not in four["ffn_config"], "which 4 refuses"
    assert five["rope_parameters"] == {"rope_theta": 500000.0, "rope_type": "default"}


def test_the_tokenizer_of_5_is_said_as_4_says_it() -> None:
    said = normalize(_written(FIVE, "mixtral"), 4)
    config, own = said.tokenizer_config, _written("4.44.2", "mixtral").tokenizer_config
    assert {key: config[key] for key in own if key != "added_tokens_decoder"} == {
        key: value for key, value in own.items() if key != "added_tokens_decoder"
    }
    assert not {"backend", "is_local", "local_files_only", "extra_special_tokens"} & set(config)
    assert [t["name"] for t in config["chat_template"]] == ["default", "tool_use"]
    assert "chat_template.jinja" in said.small, "it stays for those who look there first"
    assert json.loads(said.small["tokenizer.json"])["model"]["merges"] == ["a b", "ab c"]
    assert normalize(_written(FIVE, "bert"), 4).tokenizer_config["tokenizer_class"] == "BertTokenizer"


def test_the_tokenizer_of_4_is_said_as_5_says_it() -> None:
    said, own = normalize(_written("4.44.2", "mixtral"), 5), _written(FIVE, "mixtral")
    for path in ("chat_template.jinja", "additional_chat_templates/tool_use.jinja"):
        assert said.small[path] == own.small[path]
    for key in ("tokenizer_class", "extra_special_tokens", "eos_token", "model_input_names"):
        assert said.tokenizer_config[key] == own.tokenizer_config[key]
    assert not {"chat_template", "additional_special_tokens"} & set(said.tokenizer_config)


def test_a_template_of_a_text_is_one_file() -> None:
    there = normalize(_written("4.44.2", "llama"), 5)
    assert there.small["chat_template.jinja"] == _written(FIVE, "llama").small["chat_template.jinja"]
    assert normalize(there, 4).chat_template == there.chat_template
    written = {**there.small, "chat_template.jinja": b"{{ 1 }}\r\n"}
    assert normalize(_of(written), 4).tokenizer_config["chat_template"] == "{{ 1 }}\n", "as Transformers reads it"


def test_what_5_takes_for_granted_is_said() -> None:
    said = normalize(_config({"transformers_version": "5.1.0"}, tokenizer_class="TokenizersBackend"), 4)
    assert said.config["tie_word_embeddings"] is False
    assert said.tokenizer_config["model_input_names"] == ["input_ids", "attention_mask"]
    assert said.tokenizer_config["clean_up_tokenization_spaces"] is False
    older = normalize(_config({"transformers_version": "4.57.6"}, tokenizer_class="LlamaTokenizerFast"), 4)
    assert older.normalized
    assert older.normalized.changes == ()


def test_parts_of_a_model_are_said_so_too() -> None:
    inner: dict[str, Any] = {"model_type": "gemma3_text", "dtype": "bfloat16", "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }}  # fmt: skip
    quantised = {"dtype": "int8"}
    said = normalize(_config({"text_config": inner, "quantization_config": quantised}), 4).config
    assert said == {
        "text_config": {
            "model_type": "gemma3_text", "torch_dtype": "bfloat16", "rope_theta": 1000000.0,
            "rope_scaling": {"type": "linear", "factor": 8.0}, "rope_local_base_freq": 10000.0,
        },
        "quantization_config": quantised,
    }  # fmt: skip
    assert normalize(_config(dict(said)), 5).config["text_config"] == {
        **inner, "rope_parameters": {**inner["rope_parameters"], "full_attention": {
            "rope_type": "linear", "type": "linear", "factor": 8.0, "rope_theta": 1000000.0,
        }},
    }  # fmt: skip


def test_both_names_of_the_dtype_become_one() -> None:
    both = {"dtype": "bfloat16", "hidden_size": 1, "torch_dtype": "float32"}
    assert normalize(_config(both), 4).config == {"torch_dtype": "bfloat16", "hidden_size": 1}
    assert normalize(_config(both), 5).config == {"dtype": "bfloat16", "hidden_size": 1}


def test_code_of_its_own_keeps_its_keys() -> None:
    said = {"auto_map": {"AutoModel": "a.B"}, "rope_theta": 160000, "rope_scaling": {"type": "ntk", "factor": 2.0}}
    assert normalize(_config(dict(said)), 5).config == said


def test_every_change_is_told() -> None:
    said = normalize(_config({"dtype": "bfloat16", "rope_parameters": {"rope_theta": 500000.0}}), 4).normalized
    assert said
    assert said.changes == (
        Change("config.json", "dtype", '"bfloat16"', None),
        Change("config.json", "rope_parameters", '{"rope_theta": 500000.0}', None),
        Change("config.json", "torch_dtype", None, '"bfloat16"'),
        Change("config.json", "rope_theta", None, "500000.0"),
        Change("config.json", "rope_scaling", None, "null"),
    )
    assert said.rows()[0] == ("normalised", 'config.json: dtype removed: "bfloat16"')


def test_digests_are_of_the_new_content() -> None:
    before = _written(FIVE, "llama")
    after = normalize(before, 4)
    assert {f.path: f.size for f in after.files} == {path: len(content) for path, content in after.small.items()}
    assert before.normalized is None
    assert "dtype" in before.config


_LAYERS = {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {"rope_theta": 2.0}}


@pytest.mark.parametrize(
    ("config", "tokenizer", "reason"),
    [
        ({"rope_parameters": {"rope_type": "proportional", "rope_theta": 1.0}}, {}, 'rope kind "proportional"'),
        ({"rope_parameters": [1]}, {}, "no object"),
        (
            {"model_type": "olmo3", "rope_parameters": _LAYERS},
            {},
            "by kind of layer (full_attention, sliding_attention)",
        ),
        (
            {"model_type": "gemma3_text", "rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}},
            {},
            'rope kind "yarn" for one kind of layer',
        ),
        (
            {
                "max_position_embeddings": 256,
                "rope_parameters": {"rope_type": "longrope", "factor": 8.0, "original_max_position_embeddings": 64},
            },
            {},
            "a longrope factor 8.0",
        ),
        ({}, {"tokenizer_class": "SentencePieceBackend"}, 'tokenizer class "SentencePieceBackend"'),
    ],
)
def test_what_4_has_no_words_for_is_refused_by_name(config: Any, tokenizer: Any, reason: str) -> None:
    with pytest.raises(CheckpointError) as refused:
        normalize(_config(config, **tokenizer), 4)
    assert reason in str(refused.value)
    assert "/models/bot" in str(refused.value)
    assert refused.value.exit_code == 2


def test_names_that_no_file_can_have_are_refused() -> None:
    wild = [{"name": "../up", "template": "x"}]
    with pytest.raises(CheckpointError, match=r'by the name "\.\./up"'):
        normalize(_config({}, chat_template=wild), 5)
    with pytest.raises(CheckpointError, match="not UTF-8"):
        normalize(_of({"config.json": b"{}", "chat_template.jinja": b"\xff"}), 4)
    with pytest.raises(UsageError, match='"3" is no generation'):
        normalize(_config({}), 3)


def test_what_early_readers_take_otherwise_is_noted() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1.0}
    said = normalize(_config({"rope_parameters": yarn, "max_position_embeddings": 256}), 4).normalized
    assert said
    assert "max_position_embeddings 256" in said.notes[0]
    blank = json.dumps({"model": {"merges": [["a b", "c"]]}}).encode()
    kept = normalize(_of({"config.json": b"{}", "tokenizer.json": blank}), 4)
    assert kept.normalized
    assert "before 4.45" in kept.normalized.notes[0]
    assert kept.small["tokenizer.json"] == blank
