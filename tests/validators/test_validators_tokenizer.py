"""The rules on tokenizer and chat template: each speaks where it should, alone, and is silent on near misses."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import chat_templates as templates
from fakes import checkpoints
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from validators.breaking import edit
from validators.judge import Judge

from catalogger.checkpoints import Checkpoint, Origin
from catalogger.recipes import load_recipe
from catalogger.validators import Environment, Existing, Facts, Finding, Report, Target, rules, run_rules

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
TOKENS = {
    templates.CHATML: ["<|im_start|>", "<|im_end|>"],
    templates.LLAMA_3: ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    templates.DEEPSEEK: ["<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend▁of▁sentence\uff5c>"],
}
INST = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
VICUNA = (
    "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} ASSISTANT:"
    "{% else %} {{ m.content }}{% endif %}{% endfor %}"
)
CHANNELS = (  # the model itself goes on with what follows the role
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}final: {% endif %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def llama(made: Callable[[str], Path], work: Path) -> Path:
    """A healthy chat Llama, to be broken."""
    return Path(shutil.copytree(made("llama"), work / "model"))


def _with_template(folder: Path, template: str) -> Path:
    """The checkpoint with this template, and the control tokens that it writes."""
    edit(folder / SETTINGS, chat_template=template)
    _name_tokens(folder, *TOKENS.get(template, []))
    return folder


def _name_tokens(folder: Path, *tokens: str) -> None:
    """Take ids that the model has for these tokens."""
    added = json.loads((folder / TOKENIZER).read_text())["added_tokens"]
    edit(folder / TOKENIZER, added_tokens=added + [{"id": 3 + n, "content": t} for n, t in enumerate(tokens)])


def _worst(facts: Facts, severity: str) -> Finding:
    """The only error or warning, which is of this severity."""
    found = [f for f in run_rules(facts).findings if f.severity != "note"]
    assert [f.severity for f in found] == [severity], found
    return found[0]


def _clean(facts: Facts) -> Report:
    report = run_rules(facts)
    assert [f for f in report.findings if f.severity != "note"] == []
    return report


@pytest.mark.parametrize("template", [templates.CHATML, templates.LLAMA_3, templates.DEEPSEEK, templates.TRAINED])
def test_published_templates_are_right(llama: Path, facts: Judge, template: str) -> None:
    report = _clean(facts(_with_template(llama, template)))
    assert {code for code in report.not_checked if code.startswith("TK")} == {"TK007"}


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (templates.UNCLOSED, "cannot write a chat: line 2: Unexpected end of template. "),
        (templates.HUGE, "cannot write a chat: takes more memory than it may"),
        (templates.ESCAPE, "cannot write a chat: access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ raise_exception('no') }}", "cannot write a chat: no"),
        (templates.PLAIN.replace("messages", "messages[1:]"), "drops the first question"),
        (templates.PLAIN.replace("messages", "messages[-1:]"), "drops the first question and the answer"),
        (
            "{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}",
            "drops the first question and the last question",
        ),
        ("{{ messages[0].content }}", "drops the answer and the last question"),
    ],
)
def test_tk003_template_that_does_not_keep_a_chat(llama: Path, facts: Judge, template: str, says: str) -> None:
    seen = facts(_with_template(llama, template))
    found = _worst(seen, "error")
    assert (found.code, found.subject) == ("TK003", SETTINGS)
    assert found.message.startswith(f"has a chat template that {says}")
    assert says.startswith("cannot") or found.message.endswith(says)
    unchecked = run_rules(seen).not_checked
    assert {unchecked[code] for code in ("TK004", "TK005", "TK006")} == {
        "the template cannot write a plain chat, as TK003 says"
    }


def test_tk003_template_in_its_own_file_is_named(llama: Path, facts: Judge) -> None:
    (llama / "chat_template.jinja").write_text("{{ no.thing.here }}")
    found = _worst(facts(llama), "error")
    assert (found.code, found.subject) == ("TK003", "chat_template.jinja")


@pytest.mark.parametrize("code", ["TK003", "TK004", "TK005", "TK006"])
def test_rules_on_the_template_leave_the_missing_one_to_tk002(llama: Path, facts: Judge, code: str) -> None:
    edit(llama / SETTINGS, chat_template=...)
    seen = facts(llama)
    assert _worst(seen, "error").code == "TK002"
    assert run_rules(seen).not_checked[code] == "there is no chat template, as TK002 says"


def test_rules_on_the_template_are_silent_for_other_tasks(llama: Path, facts: Judge) -> None:
    (llama / "chat_template.jinja").write_text(templates.HUGE)
    report = _clean(facts(llama, "llama-completions"))
    assert {"TK003", "TK004", "TK005", "TK006", "TK007", "TK015"} <= set(report.ran)
    assert [f.code for f in report.findings if f.code.startswith("TK")] == []


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (templates.MISTRAL, "refuses a system message: Conversation roles must alternate user/assistant/user/"),
        (templates.PLAIN.replace(" %}[", " if m.role != 'system' %}[") + templates.ANSWERS, "drops the system message"),
        (
            "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% set messages = messages[2:] %}{% endif %}"
            + templates.PLAIN
            + templates.ANSWERS,
            "drops the first question of a chat with a system message",
        ),
    ],
)
def test_tk004_system_message(llama: Path, facts: Judge, template: str, says: str) -> None:
    found = _worst(facts(_with_template(llama, template)), "warning")
    assert (found.code, found.subject) == ("TK004", SETTINGS)
    assert found.message.startswith(f"has a chat template that {says}")


@pytest.mark.parametrize(
    ("template", "opens"),
    [
        (templates.PLAIN, False),
        (templates.PLAIN + templates.ANSWERS, True),
        (templates.CHATML.partition("{% if add")[0], False),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", False),
        ("{% for m in messages %}{{ m.content }} {{ eos_token }} {% endfor %}", False),
        (INST, True),
        (VICUNA, True),
        (CHANNELS, True),
    ],
)
def test_tk005_nothing_opens_the_answer(llama: Path, facts: Judge, template: str, opens: bool) -> None:
    _name_tokens(llama, *TOKENS[templates.CHATML])
    seen = facts(_with_template(llama, template))
    if opens:
        _clean(seen)
        return
    found = _worst(seen, "warning")
    assert (found.code, found.subject) == ("TK005", SETTINGS)
    assert found.message == "has a chat template that ignores add_generation_prompt: nothing opens the answer"


def test_tk005_is_not_checked_where_there_is_nothing_to_compare(llama: Path, facts: Judge) -> None:
    refuses = "{% if not add_generation_prompt %}{{ raise_exception('never') }}{% endif %}"
    report = _clean(facts(_with_template(llama, refuses + templates.PLAIN)))
    assert report.not_checked["TK005"] == "the template cannot do without a generation prompt: never"


@pytest.mark.parametrize("template", TOKENS)
def test_tk006_template_of_another_tokenizer(llama: Path, facts: Judge, template: str) -> None:
    edit(llama / SETTINGS, chat_template=template)
    found = _worst(facts(llama), "warning")
    assert (found.code, found.subject) == ("TK006", SETTINGS)
    start = "has a chat template with control tokens that the tokenizer does not have: "
    assert found.message.startswith(start)
    assert all(f'"{token}"' in found.message for token in TOKENS[template])


def test_tk006_one_token_that_is_missing(llama: Path, facts: Judge) -> None:
    edit(llama / SETTINGS, chat_template=templates.CHATML)
    _name_tokens(llama, "<|im_start|>")
    assert _worst(facts(llama), "warning").message.endswith('does not have: "<|im_end|>"')


def test_tk006_token_that_is_only_in_the_vocabulary(llama: Path, facts: Judge) -> None:
    edit(llama / SETTINGS, chat_template=templates.CHATML)
    model = json.loads((llama / TOKENIZER).read_text())["model"]
    edit(llama / TOKENIZER, model={**model, "vocab": {**model["vocab"], "<|im_start|>": 3, "<|im_end|>": 4}})
    _clean(facts(llama))


@pytest.mark.parametrize(
    ("existing", "speaks"),
    [
        (None, False),
        (Existing("3"), False),
        (Existing("3", chat_template="same"), False),
        (Existing("3", chat_template="0123456789abcdef" * 4), True),
    ],
)
def test_tk007_other_template_than_before(llama: Path, facts: Judge, existing: Existing | None, speaks: bool) -> None:
    seen = facts(llama)
    assert seen.checkpoint
    own = seen.checkpoint.chat_template_sha256 or ""
    if existing and existing.chat_template == "same":
        existing = replace(existing, chat_template=own)
    seen = replace(seen, target=Target("main.ml.bot", "sqlite:///x.db", existing=existing))
    if not speaks:
        assert "TK007" in _clean(seen).ran
        return
    found = _worst(seen, "warning")
    assert (found.code, found.subject) == ("TK007", SETTINGS)
    says = f"has another chat template than main.ml.bot version 3: sha256 {own[:12]}…, there 0123456789ab…"
    assert found.message == says


def test_tk007_is_not_checked_without_an_answer_of_the_registry(llama: Path, facts: Judge) -> None:
    assert _clean(facts(llama)).not_checked["TK007"] == "nothing is to be registered"
    away = Target("main.ml.bot", "databricks-uc", unreachable="it is down")
    assert run_rules(facts(llama, target=away)).not_checked["TK007"] == "the registry could not be asked"


def test_tk008_padding_token_that_the_model_has_no_row_for(llama: Path, facts: Judge) -> None:
    edit(llama / SETTINGS, pad_token="[PAD]")  # noqa: S106  a token of text
    found = _worst(facts(llama), "error")
    assert (found.code, found.subject) == ("TK008", TOKENIZER)
    assert found.message == 'numbers its tokens up to 300 ("[PAD]"); config.json has vocab_size 300'


@pytest.mark.parametrize(("number", "speaks"), [(299, False), (300, True), (5000, True)])
def test_tk008_border(llama: Path, facts: Judge, number: int, speaks: bool) -> None:
    added = json.loads((llama / TOKENIZER).read_text())["added_tokens"]
    edit(llama / TOKENIZER, added_tokens=[*added, {"id": number, "content": "<x>"}])
    if speaks:
        assert _worst(facts(llama), "error").code == "TK008"
    else:
        _clean(facts(llama))


def test_tk008_model_with_more_rows_than_tokens(work: Path, facts: Judge) -> None:
    checkpoints.llama(work / "model", vocabulary=320)
    small = checkpoints.llama(work / "small", vocabulary=300)
    shutil.copy(small / TOKENIZER, work / "model" / TOKENIZER)
    _clean(facts(work / "model"))


@pytest.mark.parametrize(
    ("file", "key", "value", "shown"),
    [
        (CONFIG, "bos_token_id", 300, "300"),
        (CONFIG, "pad_token_id", -1, "-1"),
        (CONFIG, "eos_token_id", [2, 128009], "128009"),
        (CONFIG, "eos_token_id", "2", '"2"'),
        (CONFIG, "pad_token_id", True, "true"),
        (CONFIG, "pad_token_id", [1], "that is a list"),
        (GENERATION, "eos_token_id", [2, None], "null"),
        (GENERATION, "bos_token_id", 1.5, "1.5"),
        (GENERATION, "pad_token_id", {"a": 1}, "that is an object"),
    ],
)
def test_tk009_id_that_is_none(llama: Path, facts: Judge, file: str, key: str, value: object, shown: str) -> None:
    edit(llama / file, **{key: value})
    found = _worst(facts(llama), "error")
    assert (found.code, found.subject) == ("TK009", file)
    assert found.message == f"says {key} {shown}; the ids are 0 to 299"


@pytest.mark.parametrize("value", [None, 299, 0])
def test_tk009_id_that_is_fine(llama: Path, facts: Judge, value: int | None) -> None:
    edit(llama / CONFIG, pad_token_id=value)
    _clean(facts(llama))


@pytest.mark.parametrize("size", [..., None, "300", 0, True])
def test_ids_are_not_checked_without_a_vocabulary_size(llama: Path, facts: Judge, size: object) -> None:
    edit(llama / CONFIG, vocab_size=size)
    why = run_rules(facts(llama)).not_checked
    assert {why[code] for code in ("TK008", "TK009", "TK010", "TK011")} == {"config.json says no vocab_size"}


@pytest.mark.parametrize(
    ("config", "generation", "says"),
    [
        (2, [0, 1], 'generation_config.json stops at 0, 1; the tokenizer\'s eos_token is "</s>" (2)'),
        (0, ..., 'config.json stops at 0; the tokenizer\'s eos_token is "</s>" (2)'),
        (..., ..., "config.json says no eos_token_id: an answer never ends"),
        ([], None, "config.json says no eos_token_id: an answer never ends"),
        (..., 2, None),
        (2, ..., None),
        ([0, 2], [1, 2], None),
    ],
)
@pytest.mark.parametrize("recipe", ["llama-chat", "llama-completions"])
def test_tk010_where_generation_stops(
    llama: Path, facts: Judge, config: object, generation: object, says: str | None, recipe: str
) -> None:
    edit(llama / CONFIG, eos_token_id=config)
    edit(llama / GENERATION, eos_token_id=generation)
    if says is None:
        _clean(facts(llama, recipe))
        return
    found = _worst(facts(llama, recipe), "warning")
    assert (found.code, f"{found.subject} {found.message}") == ("TK010", says)


def test_tk010_tuned_model_that_ends_its_turns_otherwise(llama: Path, facts: Judge) -> None:
    edit(llama / SETTINGS, eos_token="<|im_end|>")  # noqa: S106  a token of text
    _with_template(llama, templates.CHATML)
    found = _worst(facts(llama), "warning")
    assert (found.code, found.subject) == ("TK010", GENERATION)
    assert found.message == 'stops at 2; the tokenizer\'s eos_token is "<|im_end|>" (4)'
    assert found.fix == 'Add 4, the id of "<|im_end|>", to eos_token_id in generation_config.json.'


def test_tk010_needs_an_eos_token(llama: Path, facts: Judge) -> None:
    edit(llama / SETTINGS, eos_token=..., chat_template="{{ messages }}")
    assert _clean(facts(llama)).not_checked["TK010"] == "the tokenizer names no eos_token"


def test_tk010_is_silent_for_embeddings(made: Callable[[str], Path], facts: Judge) -> None:
    assert "TK010" in _clean(facts(made("bert"), "bge-embeddings")).ran


@pytest.mark.parametrize(
    ("config", "generation", "tokenizer", "subject", "says"),
    [
        ({"bos_token_id": 0}, {}, {}, "bos_token_id",
         "is 0 in config.json, 1 in generation_config.json, 1 in the tokenizer"),
        ({}, {"pad_token_id": 5}, {"pad_token": "<unk>"}, "pad_token_id",
         "is 5 in generation_config.json, 0 in the tokenizer"),
        ({"eos_token_id": [0, 1]}, {}, {}, "eos_token_id", "is 0, 1 in config.json, 2 in generation_config.json"),
        ({"pad_token_id": None}, {}, {"pad_token": "<unk>"}, None, None),
        ({"pad_token_id": 0}, {"pad_token_id": 0}, {"pad_token": "<unk>"}, None, None),
        ({"bos_token_id": ...}, {"bos_token_id": ...}, {}, None, None),
        ({"eos_token_id": 2}, {"eos_token_id": [0, 2]}, {}, None, None),
    ],
)  # fmt: skip
def test_tk011_ids_that_disagree(
    llama: Path,
    facts: Judge,
    config: dict[str, Any],
    generation: dict[str, Any],
    tokenizer: dict[str, Any],
    subject: str | None,
    says: str | None,
) -> None:
    for file, changes in ((CONFIG, config), (GENERATION, generation), (SETTINGS, tokenizer)):
        edit(llama / file, **changes)
    if says is None:
        _clean(facts(llama))
        return
    found = _worst(facts(llama), "warning")
    assert (found.code, found.subject, found.message) == ("TK011", subject, says)


def test_tk011_of_an_embedding_model(made: Callable[[str], Path], work: Path, facts: Judge) -> None:
    bert = Path(shutil.copytree(made("bert"), work / "bert"))
    edit(bert / CONFIG, pad_token_id=1)
    found = _worst(facts(bert, "bge-embeddings"), "warning")
    assert (found.code, found.message) == ("TK011", "is 1 in config.json, 0 in the tokenizer")


@pytest.mark.parametrize("name", ["TokenizersBackend", "SentencePieceBackend", "PythonBackend"])
def test_tk012_class_of_transformers_5(llama: Path, facts: Judge, name: str) -> None:
    edit(llama / SETTINGS, tokenizer_class=name)
    seen = facts(llama)
    found = _worst(seen, "warning")
    assert (found.code, found.subject) == ("TK012", SETTINGS)
    assert found.message == f'says tokenizer_class "{name}", a class that Transformers 4 does not have'
    way = "Give --normalize 4, which writes" if name == "TokenizersBackend" else "Write"
    assert found.fix == f'{way} "tokenizer_class": "PreTrainedTokenizerFast" in tokenizer_config.json.'
    assert [f.code for f in run_rules(seen).findings if f.code.startswith("TK")] == ["TK012"]


def test_tk012_extra_tokens_as_a_list(llama: Path, facts: Judge) -> None:
    edit(llama / SETTINGS, extra_special_tokens=["</s>"])
    found = _worst(facts(llama), "warning")
    assert (found.code, found.message) == (
        "TK012",
        "says extra_special_tokens as a list, which Transformers 4 cannot read",
    )
    edit(llama / SETTINGS, extra_special_tokens={"end_token": "</s>"})
    _clean(facts(llama))


def test_tk012_what_transformers_5_saves(llama: Path, facts: Judge) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llama)
    (llama / "special_tokens_map.json").unlink()
    tokenizer.save_pretrained(llama)
    found = [f for f in run_rules(facts(llama)).findings if f.code.startswith("TK")]
    assert [(f.code, f.severity) for f in found] == [("TK012", "warning"), ("TK015", "note")]


@pytest.mark.parametrize("name", ["merges.txt", "vocab.json"])
def test_tk013_files_beside_the_fast_tokenizer(llama: Path, facts: Judge, name: str) -> None:
    (llama / name).write_text("{}")
    found = _worst(facts(llama), "warning")
    assert (found.code, found.subject, found.message) == ("TK013", name, "stands beside tokenizer.json")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (..., "says no model_input_names"),
        (["input_ids", "token_type_ids", "attention_mask"],
         "says other model_input_names than input_ids and attention_mask"),
        ("input_ids", "says other model_input_names than input_ids and attention_mask"),
    ],
)  # fmt: skip
def test_tk013_input_names(llama: Path, facts: Judge, names: object, says: str) -> None:
    edit(llama / SETTINGS, model_input_names=names)
    found = _worst(facts(llama), "warning")
    assert (found.code, found.subject, found.message) == ("TK013", SETTINGS, says)


@pytest.mark.parametrize(("name", "shown"), [("LlamaTokenizerFast", '"LlamaTokenizerFast"'), (..., "null")])
def test_tk013_other_class_is_a_note(llama: Path, facts: Judge, name: object, shown: str) -> None:
    edit(llama / SETTINGS, tokenizer_class=name)
    (found,) = (f for f in _clean(facts(llama)).findings if f.code.startswith("TK"))
    assert (found.code, found.severity) == ("TK013", "note")
    assert found.message == f"says tokenizer_class {shown}; PreTrainedTokenizerFast was seen to serve"


def test_tk013_is_for_llama_alone(made: Callable[[str], Path], work: Path, facts: Judge) -> None:
    mistral = Path(shutil.copytree(made("mistral"), work / "mistral"))
    (mistral / "merges.txt").write_text("")
    edit(mistral / SETTINGS, model_input_names=..., tokenizer_class="LlamaTokenizer")
    assert "TK013" in _clean(facts(mistral, "mistral-chat")).ran


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{}", "has no vocabulary (model.vocab)"),
        (b'{"model": }', "is not JSON: Expecting value: line 1 column 11 (char 10)"),
    ],
)
def test_tk014_tokenizer_that_cannot_be_read(llama: Path, facts: Judge, content: bytes, says: str) -> None:
    (llama / TOKENIZER).write_bytes(content)
    seen = facts(llama)
    found = _worst(seen, "error")
    assert (found.code, found.subject, found.message) == ("TK014", TOKENIZER, says)
    why = run_rules(seen).not_checked
    assert {why[code] for code in ("TK006", "TK008", "TK010", "TK011")} == {
        "tokenizer.json cannot be read, as TK014 says"
    }


def test_a_tokenizer_that_is_missing_is_left_to_tk001(llama: Path, facts: Judge) -> None:
    (llama / TOKENIZER).rename(llama / "tokenizer.model")
    seen = facts(llama)
    assert _worst(seen, "warning").code == "TK001"
    why = run_rules(seen).not_checked
    assert {why[code] for code in ("TK006", "TK008", "TK010", "TK011", "TK013")} == {
        "there is no tokenizer.json, as TK001 says"
    }


def test_tk015_template_where_older_readers_do_not_look(llama: Path, facts: Judge) -> None:
    (llama / "chat_template.jinja").write_text(templates.PLAIN + templates.ANSWERS)
    assert [f.code for f in _clean(facts(llama)).findings if f.code.startswith("TK")] == [], "it is in both"
    edit(llama / SETTINGS, chat_template=...)
    (found,) = (f for f in _clean(facts(llama)).findings if f.code.startswith("TK"))
    assert (found.code, found.severity, found.subject) == ("TK015", "note", "chat_template.jinja")
    assert found.message == "holds the chat template, tokenizer_config.json does not: older readers find none"


def test_without_a_process_nothing_is_said_to_be_checked(
    llama: Path, facts: Judge, monkeypatch: pytest.MonkeyPatch, work: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(work / "no-python"))
    report = _clean(facts(llama))
    codes = {code for code, why in report.not_checked.items() if why.startswith("no process can be started")}
    assert codes == {"TK003", "TK004", "TK005", "TK006", "TK008", "TK010", "TK011", "TK014"}


def test_rules_on_tokenizers_may_be_ignored(llama: Path, facts: Judge) -> None:
    codes = [code for code in rules() if code.startswith("TK") and code != "TK001"]
    assert len(codes) == 14
    assert run_rules(facts(llama), codes).ignored == tuple(codes)


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 400) | st.floats() | st.text(max_size=3) | st.just("</s>"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["bos_token_id", "eos_token_id", "pad_token_id", "vocab_size", "architectures", "bos_token", "eos_token",
     "pad_token", "tokenizer_class", "model_input_names", "extra_special_tokens", "chat_template",
     "added_tokens_decoder", "model", "added_tokens"]
)  # fmt: skip
OBJECT = st.dictionaries(KEYS, VALUE, max_size=8).map(lambda data: json.dumps(data).encode())
WORDS = b'{"model": {"vocab": {"<s>": 1, "</s>": 2}}}'


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tokenizer=st.binary(max_size=40) | OBJECT | st.just(WORDS), config=OBJECT, said=OBJECT, generation=OBJECT)
def test_whatever_the_files_say_nothing_is_raised(
    tokenizer: bytes, config: bytes, said: bytes, generation: bytes
) -> None:
    small = {TOKENIZER: tokenizer, CONFIG: config, SETTINGS: said, GENERATION: generation}
    held = Checkpoint(Origin("folder", "/x", None, "/x"), (), {}, small, ())
    target = Target("main.ml.x", "sqlite:///x.db", existing=Existing("1", chat_template="0"))
    report = run_rules(
        Facts(Environment("3.17.2"), held, load_recipe("llama-chat").recipe, target=target), only=("TK",)
    )
    assert {*report.ran, *report.not_checked} == {code for code in rules() if code.startswith("TK")}
    for finding in report.findings:
        assert str(finding).encode()
        assert len(finding.message) < 1000
