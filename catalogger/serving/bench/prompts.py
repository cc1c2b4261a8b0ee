"""Prompts of an exact number of tokens, no two of them alike: an endpoint that remembers prompts would seem faster."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

from catalogger.checkpoints import open_source
from catalogger.checkpoints.source import hub_reference
from catalogger.errors import UsageError
from catalogger.serving.endpoint import CHAT, EMBEDDINGS
from catalogger.serving.tokenizing import load_tokenizer

_COMMON = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state"),
    *("family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system"),
    *("program", "question", "work", "government", "number", "night", "point", "home", "water", "room", "mother"),
    *("area",),
    *("money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue"),
)
"""Words that most tokenizers know as one token."""
_WORD = re.compile("[A-Za-z]{2,}")
_ENOUGH = 48  # words that are one token
_SEARCHED = 20_000  # tokens of a vocabulary
_HEAD = 8  # words at the beginning that make a prompt another one
_BODIES = 16
_ORDER = "Tell a long story in which each of these words comes."
_ROOMY = 64  # input tokens from which on a prompt has room for the order
_MARK = "PROMPT"
_SPECIAL = 2  # tokens that an embedding model puts around a text, and that its window has to hold too

_FILE = "tokenizer.json"

Count = Callable[[str], int]


def counted_by(tokenizer: Path | str) -> tuple[Count, list[str]]:
    """How many tokens a text has, special ones left out, and words of one token each.

    tokenizer: a checkpoint's folder, its `tokenizer.json`, or its repository.
    Raises UsageError where there is none, or where no word is one token, and what asking the Hub raises.
    """
    file, content = _file(tokenizer)
    loaded = load_tokenizer(content, file)

    def count(text: str) -> int:
        return len(loaded.encode(text, add_special_tokens=False).ids)

    known = islice(loaded.get_vocab(with_added_tokens=False), _SEARCHED)
    words = list(islice(one_token_words(count, chain(_COMMON, _vocabulary(known))), _ENOUGH))
    if not words:
        raise UsageError(
            f'No word is one token of "{file}".', "Without --tokenizer, the endpoint's own count is taken."
        )
    return count, words


def _file(tokenizer: Path | str) -> tuple[str, bytes]:
    """Name and content of the tokenizer's file."""
    if hub_reference(str(tokenizer)):
        checkpoint = open_source(str(tokenizer))
        if _FILE in checkpoint.small:
            return f"{tokenizer}/{_FILE}", checkpoint.small[_FILE]
    path = Path(tokenizer)
    file = path / _FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f'There is no tokenizer at "{file}".', f"Name a folder with {_FILE}, or that file.")
    return str(file), file.read_bytes()


def one_token_words(count: Count, candidates: Iterable[str]) -> Iterator[str]:
    """Those of the words that add one token wherever they stand, each once."""
    seen = set()
    for word in candidates:
        if word not in seen and all(count(" ".join([word] * times)) == times for times in (1, 2, 3)):
            seen.add(word)
            yield word


def _vocabulary(tokens: Iterable[str]) -> Iterator[str]:
    """The words that tokens spell: a mark of a word's beginning, and letters."""
    for token in tokens:
        word = token.lstrip("\u0120\u2581 ")
        if _WORD.fullmatch(word):
            yield word


class Prompts:
    """Request bodies of one task, each with another prompt of as many tokens as `words` makes it.

    words: how many words a prompt has now; the endpoint's own count tells how many it is to have.
    """

    def __init__(
        self, task: str, input_tokens: int, output_tokens: int, tokenizer: Path | str | None, seed: int = 0
    ) -> None:
        count, self._words = (_by_words, list(_COMMON)) if tokenizer is None else counted_by(tokenizer)
        self._random = Random(seed)  # noqa: S311  prompts that are to be repeated, no secret
        self._task, self._outputs = task, output_tokens
        self._order = f" {_ORDER}" if task != EMBEDDINGS and input_tokens >= _ROOMY else ""
        ends = count(self._words[0] + self._order) - count(self._words[0])
        self.words = max(1, input_tokens - ends - (_SPECIAL if task == EMBEDDINGS else 0))

    @property
    def words(self) -> int:
        return self._count

    @words.setter
    def words(self, count: int) -> None:
        self._count = count
        rest = max(count - _HEAD, 0)
        self._bodies = [self._some(rest) for _ in range(_BODIES)]
        self._ends = {stream: self._around(stream=stream) for stream in (False, True)}

    def text(self) -> str:
        """Another prompt."""
        begun = self._some(min(self._count, _HEAD))
        body = self._random.choice(self._bodies)
        return f"{begun} {body}{self._order}" if body else f"{begun}{self._order}"

    def document(self, text: str, *, stream: bool) -> dict[str, Any]:
        """The request that asks this."""
        if self._task == EMBEDDINGS:
            return {"input": text}
        asked: Mapping[str, Any] = {"messages": [{"role": "user", "content": text}]}
        if self._task != CHAT:
            asked = {"prompt": text}
        return {**asked, "max_tokens": self._outputs, "stream": stream}

    def body(self) -> bytes:
        """Another request, as it is sent: one that streams where the task can.

        Put together from bytes: to write 2048 words as JSON anew takes time that the client is to have for answers.
        """
        before, after = self._ends[self._task != EMBEDDINGS]
        return before + self.text().encode() + after

    def _some(self, count: int) -> str:
        return " ".join(self._random.choices(self._words, k=count))

    def _around(self, *, stream: bool) -> tuple[bytes, bytes]:
        before, _, after = json.dumps(self.document(_MARK, stream=stream)).partition(_MARK)
        return before.encode(), after.encode()


def _by_words(text: str) -> int:
    return len(text.split())
