"""Prompts of a file are counted as the model reads them: the counts are those of Transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from checkpoints import chat_templates as templates
from fakes.checkpoints import bert, llama

from catalogger.errors import CataloggerError, UsageError
from catalogger.serving.prompts import count_prompts

CHAT = [{"role": "user", "content": "What is Unity Catalog?"}]
LONG_CHAT = [*CHAT, {"role": "assistant", "content": "A catalogue."}, {"role": "user", "content": "Of what? " * 50}]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("prompts") / "model")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str | Mapping[str, Any], name: str = "prompts.txt") -> Path:
        file = tmp_path / name
        said = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
        file.write_bytes("\n".join(said).encode(errors="surrogatepass"))
        return file

    return write


def _templated(folder: Path, template: str | None) -> str:
    """A checkpoint with this chat template, or none; as a source."""
    llama(folder, task_template=False)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def _by_transformers(folder: Path | str, chat: list[dict[str, str]], **more: Any) -> int:
    from transformers import AutoTokenizer

    text = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True, **more
    )
    return len(AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"])


def test_texts_count_with_the_tokens_that_the_model_puts_around_them(
    model: Path, tmp_path: Path, written: Callable[..., Path]
) -> None:
    from transformers import AutoTokenizer

    texts = ["one two three", "{curly, but no JSON", "é \u2028 more", "the shard " * 5000]
    file = written(texts[0], "", "  ", texts[1], {"prompt": texts[2]}, {"input": texts[3]})
    for folder in (model, bert(tmp_path / "bert")):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        counts = [len(tokenizer(text)["input_ids"]) for text in texts]
        found = count_prompts(file, str(folder))
        assert (found.rows, found.longest) == (4, max(counts))
        assert found.average == sum(counts) / 4


@pytest.mark.parametrize("name", [None, "chatml", "llama 3", "mistral"])
def test_chats_count_as_their_template_writes_them(
    name: str | None, model: Path, tmp_path: Path, written: Callable[..., Path]
) -> None:
    source = _templated(tmp_path / "model", templates.PUBLISHED[name]) if name else str(model)
    chats = [CHAT, LONG_CHAT] * 150  # more than one process renders
    found = count_prompts(written(*({"messages": chat} for chat in chats)), source)
    counts = [_by_transformers(source, chat) for chat in (CHAT, LONG_CHAT)]
    assert (found.rows, found.average, found.longest) == (300, sum(counts) / 2, max(counts))


def test_tools_count_where_the_template_writes_them(tmp_path: Path, written: Callable[..., Path]) -> None:
    source = _templated(tmp_path / "model", templates.LLAMA_3)
    with_tools = count_prompts(written({"messages": CHAT, "tools": TOOLS}), source)
    assert with_tools.longest == _by_transformers(source, CHAT, tools=TOOLS) > _by_transformers(source, CHAT)


def test_a_line_of_jsonl_ends_at_a_line_feed_only(model: Path, written: Callable[..., Path]) -> None:
    document = {"prompt": "one\u2028two\u0085three"}
    found = count_prompts(
        written("\ufeff" + json.dumps(document, ensure_ascii=False), name="prompts.jsonl"), str(model)
    )
    assert found.rows == 1


@pytest.mark.parametrize(
    ("lines", "name", "words"),
    [
        ([], "prompts.txt", "holds no prompt"),
        (["", "  "], "prompts.txt", "holds no prompt"),
        ([{"text": "a"}], "prompts.txt", 'prompts.txt:1 has neither "prompt", "input" nor "messages"'),
        ([{"prompt": "a"}, {"messages": []}], "prompts.txt", "prompts.txt:2 has neither"),
        ([{"messages": ["a"]}], "prompts.txt", "has neither"),
        ([{"prompt": 5}], "prompts.txt", "has neither"),
        (["[1, 2]"], "prompts.jsonl", "has neither"),
        (['{"prompt": "a"'], "prompts.jsonl", "prompts.jsonl:1 is no JSON"),
        (['{"a":' * 100_000], "prompts.jsonl", "prompts.jsonl:1 is no JSON"),
        (['{"prompt": "\\ud800"}'], "prompts.txt", "half of a character"),
        (["\udcff\udcfe"], "prompts.txt", "cannot be read as text"),
    ],
)
def test_what_is_no_prompt_is_said_with_its_line(
    model: Path, written: Callable[..., Path], lines: list[str | Mapping[str, Any]], name: str, words: str
) -> None:
    with pytest.raises(UsageError) as refused:
        count_prompts(written(*lines, name=name), str(model))
    assert words in str(refused.value)


def test_a_chat_that_the_template_refuses_is_said_with_its_line(tmp_path: Path, written: Callable[..., Path]) -> None:
    source = _templated(tmp_path / "model", templates.MISTRAL)
    with pytest.raises(UsageError, match=r"prompts\.txt:3 cannot be written .* Conversation roles must alternate"):
        count_prompts(written("a text", {"messages": CHAT}, {"messages": LONG_CHAT[1:]}), source)


def test_a_template_that_never_ends_is_ended(tmp_path: Path, written: Callable[..., Path]) -> None:
    source = _templated(tmp_path / "model", templates.ENDLESS)
    with pytest.raises(UsageError, match=r"takes (longer|more) than"):
        count_prompts(written({"messages": CHAT}), source)


def test_chats_of_a_model_without_a_template(tmp_path: Path, written: Callable[..., Path]) -> None:
    source = _templated(tmp_path / "model", None)
    with pytest.raises(UsageError, match="there is no chat template"):
        count_prompts(written({"messages": CHAT}), source)
    assert count_prompts(written("a text"), source).rows == 1


def test_a_checkpoint_without_a_fast_tokenizer(tmp_path: Path, written: Callable[..., Path]) -> None:
    source = llama(tmp_path / "model")
    (source / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="is no tokenizer"):
        count_prompts(written("a text"), str(source))
    (source / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"has no tokenizer\.json"):
        count_prompts(written("a text"), str(source))
    with pytest.raises(CataloggerError, match="no-such-folder"):
        count_prompts(written("a text"), "./no-such-folder")
