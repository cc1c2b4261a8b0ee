"""Text of a causal language model, token after token, with the model's own log probabilities.

Runs in the process of a served model; torch is imported when the first token is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no whole character, or not yet."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a byte as vocabularies of SentencePiece write it


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at `temperature` 0, else by chance, the same for the same `seed`.

    Chance chooses among the `top_k` likeliest tokens, and among the likeliest that have the probability `top_p`
    together.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """A token that was chosen, its natural log probability, and those of the likeliest ones at its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def steps(model: Any, prompt: Sequence[int], sampling: Sampling, limit: int, alternatives: int) -> Iterator[Step]:
    """At most `limit` tokens after those of the prompt.  Log probabilities are of the logits as they come, whatever the
    temperature is.
    """
    import torch

    chance = torch.Generator().manual_seed(sampling.seed)
    ids, seen = torch.tensor([list(prompt)]), None
    for _ in range(limit):
        with torch.inference_mode():
            output = model(input_ids=ids, past_key_values=seen, use_cache=True)
            logits = output.logits[0, -1].float()
            token = _chosen(logits, sampling, chance)
            logprobs = logits.log_softmax(-1)
            top = logprobs.topk(min(alternatives, len(logprobs)))
        likeliest = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        yield Step(token, float(logprobs[token]), likeliest)
        ids, seen = torch.tensor([[token]]), output.past_key_values


def _chosen(logits: Any, sampling: Sampling, chance: Any) -> int:
    import torch

    if sampling.temperature == 0:
        return int(logits.argmax())
    probabilities, order = (logits / sampling.temperature).softmax(-1).sort(descending=True)
    before = probabilities.cumsum(-1) - probabilities
    kept = torch.where(before < sampling.top_p, probabilities, 0.0)
    if sampling.top_k is not None:
        kept[sampling.top_k :] = 0.0
    return int(order[torch.multinomial(kept, 1, generator=chance)])


class Text:
    """What tokens say so far.  Text is given away once no later token changes it: no half character, no beginning of a
    text to stop at.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self.stopped = False
        self._decode, self._stops = decode, stops
        self._tokens: list[int] = []
        self._whole, self._given = "", 0

    def add(self, token: int) -> str:
        """The text that is certain by this token, beyond what was given before."""
        self._tokens.append(token)
        self._whole = self._decode(self._tokens)
        found = [at for stop in self._stops if (at := self._whole.find(stop)) >= 0]
        if found:
            self.stopped, self._whole = True, self._whole[: min(found)]
            return self.rest()
        certain = self._whole.rstrip(UNFINISHED)
        return self._until(len(certain) - self._held_back(certain))

    def rest(self) -> str:
        """What was held back, as no more tokens come."""
        return self._until(len(self._whole))

    def _held_back(self, text: str) -> int:
        """Characters at the end with which a text to stop at begins."""
        lengths = (n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(lengths, default=0)

    def _until(self, end: int) -> str:
        start, self._given = self._given, max(self._given, end)
        return self._whole[start : self._given]


def token_bytes(piece: str, *, byte_level: bool) -> bytes:
    """The bytes that a piece of a vocabulary stands for; `byte_level` says that it spells each byte as a character."""
    if byte_level and all(character in _alphabet() for character in piece):
        return bytes(_alphabet()[character] for character in piece)
    if found := _BYTE.fullmatch(piece):
        return bytes([int(found[1], 16)])
    return piece.replace("\u2581", " ").encode()


@cache
def _alphabet() -> dict[str, int]:
    """The byte of each character of a byte-level vocabulary: printable Latin-1 stands for itself, other bytes follow
    each other from U+0100 on (GPT-2's vocabulary, which Llama 3 shares).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
