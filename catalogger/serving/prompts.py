"""A file of prompts, counted in the tokens of the model that is to read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogger.errors import UsageError
from catalogger.serving.bench.prompts import Count


@dataclass(frozen=True)
class Counted:
    """How many prompts, and tokens: on average, and of the longest."""

    rows: int
    average: float
    longest: int


def counted(file: Path, count: Count) -> Counted:
    """The prompts of a file, one a line: text, or JSON with `prompt`, `input` or `messages`; empty lines are none.

    What a chat template or the server adds is not counted.  Raises UsageError where there are none, or the file is not
    text.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'"{file}" cannot be read as text: {error}.', "Give UTF-8, a prompt a line.") from error
    sizes = [sum(map(count, _texts(file, number, line))) for number, line in enumerate(lines, 1) if line.strip()]
    if not sizes:
        raise UsageError(f'"{file}" holds no prompt.', "Give a prompt a line.")
    return Counted(len(sizes), sum(sizes) / len(sizes), max(sizes))


def _texts(file: Path, number: int, line: str) -> Iterator[str]:
    if not line.lstrip().startswith("{"):
        yield line
        return
    try:
        document = json.loads(line)
    except ValueError:
        yield line  # a prompt may begin with a brace
        return
    yield from _said(file, number, document)


def _said(file: Path, number: int, document: Mapping[str, Any]) -> Iterator[str]:
    for key in ("prompt", "input"):
        if isinstance(document.get(key), str):
            yield document[key]
            return
    messages = document.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise UsageError(f'{file}:{number} has neither "prompt", "input" nor "messages".', "Give one of them.")
    yield from (str(one.get("content") or "") for one in messages)
