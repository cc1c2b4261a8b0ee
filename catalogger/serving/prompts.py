"""A file of prompts, counted in the tokens of the model that is to read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogger.checkpoints import Checkpoint, open_source
from catalogger.checkpoints.probe import rendered
from catalogger.errors import UsageError
from catalogger.serving.tokenizing import load_tokenizer

Prompt = str | Mapping[str, Any]
"""A text, or a chat: `messages`, and `tools` where it has some."""
_TOKENIZER = "tokenizer.json"
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class PromptCount:
    """How many prompts a file holds, and their tokens: on average, and of the longest."""

    rows: int
    average: float
    longest: int

    def __str__(self) -> str:
        what = "1 prompt" if self.rows == 1 else f"{self.rows:,} prompts"
        return f"{what} of {self.average:,.0f} tokens on average, {self.longest:,} at the most"


def count_prompts(file: Path | str, tokenizer: str) -> PromptCount:
    """The prompts of a file, one a line, in tokens as the model reads them: with its special tokens, and chats as its
    chat template writes them.

    file: UTF-8.  A line is a text, or a JSON object with `prompt`, `input`, or `messages` (and `tools`); empty lines
        are none.
    tokenizer: the checkpoint, as for the main job: a folder, `ORG/REPO[@REVISION]` or `package:DISTRIBUTION/FOLDER`.

    Raises UsageError for a file without prompts, and what `open_source` raises.
    """
    path, checkpoint = Path(file), open_source(tokenizer)
    if _TOKENIZER not in checkpoint.small:
        raise UsageError(
            f'"{tokenizer}" has no {_TOKENIZER}, by which tokens are counted here.',
            "Save its tokenizer by Transformers as a fast one, or give --input-tokens.",
        )
    loaded = load_tokenizer(checkpoint.small[_TOKENIZER], f"{tokenizer}/{_TOKENIZER}")
    prompts = list(_prompts(path))
    sizes = [len(loaded.encode(p).ids) for _, p in prompts if isinstance(p, str)]
    chats = [(number, p) for number, p in prompts if not isinstance(p, str)]
    sizes += [len(loaded.encode(text, add_special_tokens=False).ids) for text in _texts(checkpoint, path, chats)]
    if not sizes:
        raise UsageError(f'"{file}" holds no prompt.', "Give a prompt a line.")
    return PromptCount(len(sizes), sum(sizes) / len(sizes), max(sizes))


def _prompts(file: Path) -> Iterator[tuple[int, Prompt]]:
    """Each prompt with the number of its line.  Lines end at line feeds: JSON may hold other ends of lines as text."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'"{file}" cannot be read as text: {error}.', "Give UTF-8, a prompt a line.") from error
    for number, line in enumerate(map(str.strip, lines), 1):
        if line:
            yield number, _prompt(line, f"{file}:{number}", strictly=file.suffix == ".jsonl")


def _prompt(line: str, place: str, *, strictly: bool) -> Prompt:
    """The prompt of a line; `strictly`: one that is no JSON is a mistake, and no text that begins with a brace."""
    try:
        document = json.loads(line) if strictly or line.startswith("{") else line
    except (ValueError, RecursionError) as error:
        if strictly:
            raise UsageError(
                f"{place} is no JSON: {error}.", "Give a JSON object a line, or a file of texts."
            ) from error
        return line
    if _HALF.search(json.dumps(document, ensure_ascii=False)):
        raise UsageError(f"{place} holds half of a character (a lone surrogate).", "Write it again as UTF-8.")
    if isinstance(document, str):
        return document
    held = document if isinstance(document, dict) else {}
    for key in ("prompt", "input"):
        if isinstance(held.get(key), str):
            return str(held[key])
    messages = held.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise UsageError(f'{place} has neither "prompt", "input" nor "messages".', "Give one of them.")
    return {key: held[key] for key in ("messages", "tools") if held.get(key)}


def _texts(checkpoint: Checkpoint, file: Path, chats: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[str]:
    """What the model reads of each chat."""
    renderings = rendered(checkpoint, [chat for _, chat in chats])
    for (number, _), rendering in zip(chats, renderings, strict=True):
        if rendering.problem:
            raise UsageError(
                f"{file}:{number} cannot be written by the model's chat template: {rendering.problem.rstrip('.')}.",
                "Name the checkpoint that is served, or write what the model is to read as a prompt.",
            )
        yield rendering.text
