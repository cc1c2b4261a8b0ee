"""What a model answered when it was loaded and asked, and whether that is an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from catalogger.errors import ProofFailed, human
from catalogger.lines import as_text
from catalogger.validators.rules import Report, firsts

_SHOWN = 8  # numbers of an embedding
_WIDEST = 300  # characters of an answer in a message


@dataclass(frozen=True)
class Proof:
    """What a model answered when it was loaded and asked.

    `peak_bytes` is the most memory that was resident, mapped weight files included.  `answer` has the first numbers of
    an embedding only, `dimension` says how many there are.  `prompt` is what the chat template made of the example.
    """

    seconds_to_load: float
    seconds_to_answer: float
    peak_bytes: int
    answer: Mapping[str, Any]
    prompt: str | None = None
    dimension: int | None = None
    finish_reason: str | None = None

    def document(self) -> dict[str, Any]:
        """The proof as JSON data."""
        seconds = {key: round(getattr(self, key), 3) for key in ("seconds_to_load", "seconds_to_answer")}
        return asdict(self) | seconds

    def rows(self) -> list[tuple[str, str]]:
        """Label and text of each line that people read."""
        spent = f"loaded in {self.seconds_to_load:.1f} s, answered in {self.seconds_to_answer:.1f} s"
        rows = [("proved", f"{spent}, {human(self.peak_bytes)} of memory at the most")]
        if self.prompt is not None:
            rows.append(("prompt", json.dumps(self.prompt, ensure_ascii=False)))
        if self.dimension is not None:
            first = ", ".join(f"{number:.4f}" for number in self.answer["data"][0]["embedding"][:4])
            return [*rows, ("answer", f"{self.dimension} numbers: {first}, …")]
        return [*rows, ("answer", f"{json.dumps(_text(self.answer), ensure_ascii=False)} ({self.finish_reason})")]

    def __str__(self) -> str:
        return as_text(self.rows())


@contextmanager
def findings_kept(report: Report) -> Iterator[None]:
    """A proof that fails in the block takes along what the rules found before it."""
    try:
        yield
    except ProofFailed as error:
        error.findings = tuple(f.document() for f in report.findings)
        raise


def judged(said: Mapping[str, Any], task: str, config: Mapping[str, Any]) -> Proof:
    """The proof.  Raises ProofFailed where what was said proves the contrary, or nothing."""
    if made_up := [name for name in said["made_up"] if "pooler." not in name]:  # which no task of ours reads
        raise ProofFailed(f"lacks weights, which Transformers then makes up at random: {firsts(made_up)}")
    if not said["finite"]:
        raise ProofFailed("computes numbers that are not finite (NaN or infinity)")
    if not said["looks"]:
        raise ProofFailed("answers without computing anything that could be looked at")
    measured = {key: said[key] for key in ("seconds_to_load", "seconds_to_answer", "peak_bytes", "prompt")}
    if task == "llm/v1/embeddings":
        return _judged_vector(said["answer"], config, measured)
    answer = said["answer"][0] if isinstance(said["answer"], list) and said["answer"] else said["answer"]
    reason = _at(answer, "choices", 0, "finish_reason")
    if not isinstance(_text(answer), str) or not isinstance(reason, str):
        raise ProofFailed(f"answers in another form than {task}: {_cut(said['answer'])}")
    if task == "llm/v1/chat" and not isinstance(_at(answer, "choices", 0, "message", "role"), str):
        raise ProofFailed(f"answers without a role: {_cut(answer)}")
    _require_counts(answer, "prompt_tokens", "completion_tokens", "total_tokens")
    return Proof(answer=answer, finish_reason=reason, **measured)


def _judged_vector(answer: Any, config: Mapping[str, Any], measured: Mapping[str, Any]) -> Proof:
    if isinstance(answer, list):  # MLflow 2.11: the hidden state of each token, and nothing else
        answer = {"data": [{"embedding": _at(answer, 0)}]}
    else:
        _require_counts(answer, "prompt_tokens", "total_tokens")
    vector = _at(answer, "data", 0, "embedding")
    if not isinstance(vector, list) or not vector or not all(isinstance(number, float) for number in vector):
        raise ProofFailed(f"answers in another form than llm/v1/embeddings: {_cut(answer)}")
    if not all(map(math.isfinite, vector)):
        raise ProofFailed("answers with numbers that are not finite (NaN or infinity)")
    expected = config.get("hidden_size")
    if isinstance(expected, int) and len(vector) != expected:
        raise ProofFailed(f"answers with {len(vector)} numbers, and its config says hidden_size {expected}")
    shown = {**answer, "data": [{**answer["data"][0], "embedding": vector[:_SHOWN]}]}
    return Proof(answer=shown, dimension=len(vector), **measured)


def _require_counts(answer: Any, *keys: str) -> None:
    if not all(type(_at(answer, "usage", key)) is int for key in keys):
        raise ProofFailed(f"answers without a whole number for each of {', '.join(keys)}: {_cut(answer)}")


def _text(answer: Any) -> Any:
    """The text of the first choice, of a chat or a completion."""
    spoken = _at(answer, "choices", 0, "message", "content")
    return _at(answer, "choices", 0, "text") if spoken is None else spoken


def _at(data: Any, *path: str | int) -> Any:
    """What stands at the path; None where it does not lead anywhere."""
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _cut(answer: Any) -> str:
    text = json.dumps(answer, ensure_ascii=False)
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"
