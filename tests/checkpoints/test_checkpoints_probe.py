"""The probe of tokenizer and chat template: as Transformers sees them, and nothing that is hostile gets away."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import chat_templates as templates
from fakes import checkpoints
from fakes.secrets import secret
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogger.checkpoints import Checkpoint, Origin, open_source, probe
from catalogger.checkpoints.probe import ANSWER, FOLLOW_UP, QUESTION, SYSTEM, Limits, Probe

CHAT = [
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": ANSWER},
    {"role": "user", "content": FOLLOW_UP},
]
PARTS = {
    "plain": (CHAT, True),
    "chat": ([{"role": "system", "content": SYSTEM}, *CHAT], True),
    "open_end": (CHAT, False),
}


def _checkpoint(small: dict[str, Any]) -> Checkpoint:
    """A checkpoint of small files only."""
    held = {name: c if isinstance(c, bytes) else json.dumps(c).encode() for name, c in small.items()}
    return Checkpoint(Origin("folder", "/x", None, "/x"), (), {}, held, ())


def _of(template: object, limits: Limits | None = None, *, tokenizer: object = b"") -> Probe:
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
    return probe.probe(_checkpoint({"tokenizer_config.json": config, "tokenizer.json": tokenizer}), limits)


def _tokenizer(vocab: object, *added: tuple[str, object]) -> dict[str, Any]:
    return {"model": {"vocab": vocab}, "added_tokens": [{"content": text, "id": number} for text, number in added]}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.llama(tmp_path_factory.mktemp("probe") / "model")


def _as_transformers(folder: Path, template: str | None) -> dict[str, str]:
    """What Transformers makes of the same chats; of one that it refuses, nothing."""
    from jinja2.exceptions import TemplateError
    from transformers import AutoTokenizer

    tokenizer, texts = AutoTokenizer.from_pretrained(folder), {}
    for part, (chat, opened) in PARTS.items():
        try:
            texts[part] = tokenizer.apply_chat_template(
                chat, chat_template=template, tokenize=False, add_generation_prompt=opened
            )
        except TemplateError:
            texts[part] = ""
    return texts


@pytest.mark.parametrize("name", [None, *templates.PUBLISHED])
def test_renders_exactly_as_transformers(name: str | None, llama: Path) -> None:
    template = templates.PUBLISHED[name] if name else None
    opened = open_source(str(llama))
    if template:
        opened = replace(opened, small={**opened.small, "chat_template.jinja": template.encode()})
    found = {part: getattr(opened.probe, part).text for part in PARTS}
    assert found == _as_transformers(llama, template)
    assert QUESTION in found["plain"]


def test_problems_say_what_the_template_says() -> None:
    found = _of(templates.MISTRAL)
    assert found.chat.problem == "Conversation roles must alternate user/assistant/user/assistant/..."
    assert (found.plain.problem, found.open_end.problem) == (None, None)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (templates.ESCAPE, "access to attribute '__class__' of 'str' object is unsafe."),
        (templates.UNCLOSED, "line 2: Unexpected end of template."),
        (templates.HUGE, "takes more memory than it may"),
        (templates.LONG, "gives 1,000,000 characters for a chat of"),
        ("{{ messages[0].content + none }}", "TypeError: "),
        ("{{ none.x.y }}", "'None' has no attribute 'x'"),
        ("{{ raise_exception('\x1b[2Jgone\n\ud800') }}", "\ufffd[2Jgone"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError: "),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
        ("{% include '/etc/passwd' %}", "TypeError: no loader for this environment specified"),
        ("(" * 500_000 + "{{" + "(" * 100_000, ""),
        ("x" * 1_000_001, "is longer than 1,000,000 characters"),
        (None, "there is no chat template"),
        (7, "there is no chat template"),
    ],
)
def test_a_bad_template_is_a_problem(template: object, problem: str) -> None:
    found = _of(template)
    for rendering in (found.plain, found.chat, found.open_end):
        assert rendering.problem is not None
        assert rendering.problem.startswith(problem)
        assert rendering.problem.isprintable()
        assert (rendering.text, rendering.markers) == ("", {})


def test_a_template_without_end_is_ended_by_its_processor_time() -> None:
    found = _of(templates.ENDLESS, Limits(cpu=1), tokenizer=_tokenizer({"<s>": 0, "</s>": 1}))
    assert found.plain.problem == found.open_end.problem == "takes more than 1 s of processor time"
    assert found.tokenizer.largest == 1, "what was found before it is kept"


def test_a_template_without_end_is_ended_by_the_clock() -> None:
    found = _of(templates.ENDLESS, Limits(cpu=60, wall=0.5))
    assert found.plain.problem == "takes longer than 0.5 s"


def test_one_rendering_that_fails_leaves_the_others() -> None:
    found = _of("{% if messages[0].role == 'system' %}" + templates.HUGE + "{% endif %}" + templates.PLAIN)
    assert found.chat.problem == "takes more memory than it may"
    assert found.plain.text == found.open_end.text != ""


@pytest.mark.parametrize(
    ("vocab", "entries", "largest", "last"),
    [
        ({"a": 0, "b": 7}, 2, 7, "b"),
        ([["<unk>", 0.0], ["x", -1.5], ["y", -2]], 3, 2, "y"),
    ],
)
def test_vocabulary_of_each_form(vocab: object, entries: int, largest: int, last: str) -> None:
    facts = probe.probe(_checkpoint({"tokenizer.json": _tokenizer(vocab)})).tokenizer
    assert (facts.entries, facts.largest, facts.last) == (entries, largest, last)


def test_added_tokens_are_numbered_too() -> None:
    content = _tokenizer({"a": 0, "<s>": 1}, ("<|x|>", 9))
    facts = _of("<|x|><|y|><|x|><start_of_turn><\uff5cz\uff5c>", tokenizer=content)
    assert facts.tokenizer.special == {"bos_token": 1, "eos_token": 10}
    assert (facts.tokenizer.largest, facts.tokenizer.last) == (10, "</s>"), "it follows the largest"
    assert facts.plain.markers == {"<|x|>": 9, "<|y|>": None, "<start_of_turn>": None, "<\uff5cz\uff5c>": None}


@pytest.mark.parametrize("legacy", [False, True])
def test_what_transformers_appends_is_counted(llama: Path, tmp_path: Path, legacy: bool) -> None:
    """Special tokens that tokenizer.json lacks, named in either file, plainly or with settings."""
    from transformers import AutoTokenizer

    config = json.loads((llama / "tokenizer_config.json").read_text())
    token = {"content": "<pad>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    config |= {"pad_token": {"__type": "AddedToken", **token}, "additional_special_tokens": ["<|a|>", "<|b|>", "</s>"]}
    if legacy:
        del config["added_tokens_decoder"]
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": token, "sep_token": "<sep>"}))
    else:
        config["added_tokens_decoder"]["300"] = {**token, "content": "<|c|>", "special": True}
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<ignored>"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((llama / name).read_bytes())
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), open_source(str(tmp_path)).probe
    assert (ours.tokenizer.entries, ours.tokenizer.largest) == (len(theirs), max(theirs.get_vocab().values()))
    assert ours.named == theirs.special_tokens_map
    assert ours.tokenizer.special == {role: theirs.convert_tokens_to_ids(text) for role, text in ours.named.items()}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "has no content"),
        (b"{", "is not JSON: "),
        (b"\xff{}", "is not UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[]", "has no vocabulary (model.vocab)"),
        ({}, "has no vocabulary (model.vocab)"),
        ({"model": {"vocab": "a"}}, "has no vocabulary (model.vocab)"),
        (_tokenizer({}), "has an empty vocabulary"),
        (_tokenizer({"a": "0"}), 'gives "a" no number as its id'),
        (_tokenizer({"a": True}), 'gives "a" no number as its id'),
        (_tokenizer({"a": -1}), 'gives "a" no number as its id'),
        (_tokenizer({"\x1b\ud800": 2**32}), 'gives "\ufffd\ufffd" no number as its id'),
        (_tokenizer([["a", 0], ["b"]]), "has a vocabulary that is no list of tokens and scores"),
        (_tokenizer({"a": 0}, ("b", None)), 'gives "b" no number as its id'),
        ({"model": {"vocab": {"a": 0}}, "added_tokens": [1]}, "has added_tokens that are no list of tokens"),
    ],
)
def test_a_bad_tokenizer_is_a_problem(content: object, problem: str) -> None:
    facts = probe.probe(_checkpoint({"tokenizer.json": content})).tokenizer
    assert facts.problem is not None
    assert facts.problem.startswith(problem)


def test_a_tokenizer_of_too_much_memory_is_a_problem() -> None:
    content = b'{"x": [' + b"[]," * 8_000_000 + b"[]]}"
    facts = probe.probe(_checkpoint({"tokenizer.json": content}), Limits(memory=300 << 20)).tokenizer
    assert facts.problem == "takes more memory than it may"


def _another_child(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    (folder / "child.py").write_text(script)
    monkeypatch.setattr(probe, "_CHILD", folder / "child.py")


def test_no_secret_reaches_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "DATABRICKS_TOKEN", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, secret("the caller"))
    assert set(probe.environment()) <= {"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ"}
    told = 'print(json.dumps({"part": "tokenizer", "problem": json.dumps(dict(os.environ))}))'
    _another_child(monkeypatch, tmp_path, f"import json, os\n{told}")
    seen = json.loads(_of("x", tokenizer=_tokenizer({})).tokenizer.problem or "")
    assert seen["PATH"] == os.environ["PATH"]
    assert secret("the caller") not in str(seen)
    assert "HOME" not in seen


@pytest.mark.parametrize("dies", ["os._exit(3)", "os.kill(os.getpid(), 9)", 'os.write(1, b\'{"part": "pl\')'])
def test_a_process_that_dies_leaves_problems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dies: str) -> None:
    _another_child(monkeypatch, tmp_path, f"import os\n{dies}")
    found = _of("x" * 900_000, tokenizer=b"{" + b" " * 1_000_000)
    assert (found.tokenizer.problem or "").startswith("ends the process that reads it (")
    assert found.plain.problem == found.tokenizer.problem
    assert found.unavailable is None


def test_no_process_is_no_fault_of_the_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert _of("x").unavailable == "no process can be started to look at it: No such file or directory"


def test_nothing_to_look_at_needs_no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    found = probe.probe(_checkpoint({}))
    assert (found.unavailable, found.tokenizer.problem) == (None, "has no content")


def test_the_process_imports_the_standard_library_alone() -> None:
    tree = ast.parse(Path(probe.__file__).with_name("probe_child.py").read_text())
    plain = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {(n.names[0].name if isinstance(n, ast.Import) else n.module or "").split(".")[0] for n in plain}
    assert names - sys.stdlib_module_names == {"jinja2"}
    assert not [n for n in tree.body if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("jinja2")]


def test_this_process_does_not_import_jinja(llama: Path) -> None:
    script = """
import sys
from catalogger.checkpoints import open_source
assert open_source(sys.argv[1]).probe.plain.text
print([m for m in ("jinja2", "transformers", "mlflow") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script, str(llama)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_is_looked_at_once(llama: Path) -> None:
    opened = open_source(str(llama))
    assert opened.probe is opened.probe


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("content"), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["bos_token", "eos_token", "pad_token", "chat_template", "added_tokens_decoder", "extra_special_tokens",
     "additional_special_tokens", "x_token", "model", "vocab", "added_tokens"]
)  # fmt: skip
OBJECT = st.dictionaries(KEYS, JSON, max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tokenizer=st.binary(max_size=60) | OBJECT | st.builds(_tokenizer, JSON),
    config=OBJECT,
    mapped=OBJECT,
)
def test_whatever_the_files_say_nothing_is_raised(tokenizer: object, config: object, mapped: object) -> None:
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": config, "special_tokens_map.json": mapped}
    found = _checkpoint(files).probe
    assert found.unavailable is None
    assert found.tokenizer.problem is not None or found.tokenizer.entries > 0
    assert _checkpoint(files).chat_template_sha256 is not None or found.plain.problem == "there is no chat template"
