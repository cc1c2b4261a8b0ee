"""Facts that need work on untrusted input: what a tokenizer numbers, what a chat template writes.

The work is done by a short process (`probe_child`) with bounded time and memory and without our environment: a template
may loop for ever, and a tokenizer of tens of megabytes would stay in the memory of this one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalogger.checkpoints.facts import Checkpoint

SYSTEM = "Answer in one short sentence"
QUESTION = "What is the capital of France"
ANSWER = "The capital of France is Paris"
FOLLOW_UP = "Which river flows through it"
"""What the messages of the probe say: nothing that a template would escape, trim or take for its own."""

_PLAIN = [
    {"role": role, "content": content}
    for role, content in (("user", QUESTION), ("assistant", ANSWER), ("user", FOLLOW_UP))
]
_CHATS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"messages": _PLAIN, "add_generation_prompt": True},
    "chat": {"messages": [{"role": "system", "content": SYSTEM}, *_PLAIN], "add_generation_prompt": True},
    "open_end": {"messages": _PLAIN, "add_generation_prompt": False},
}
_CHILD = Path(__file__).with_name("probe_child.py")
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")  # what a Python may need to start; and the local time
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LONGEST_TEMPLATE = 1_000_000  # characters
_MOST_NAMED = 100_000
_TOGETHER = 200  # chats that one process renders


@dataclass(frozen=True)
class Limits:
    """What the process may take: seconds of processor time, seconds by the clock, bytes of address space."""

    cpu: int = 5
    wall: float = 10
    memory: int = 2 << 30


@dataclass(frozen=True)
class TokenizerFacts:
    """What `tokenizer.json` numbers, with the special tokens that Transformers appends where it lacks them.

    `last` is the token with the `largest` id; `special` the ids of `bos_token`, `eos_token`, ….  `problem` says why
    nothing is known.
    """

    entries: int = 0
    largest: int = -1
    last: str = ""
    special: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Rendering:
    """The text that the template makes of a chat, or the problem that it has with it.

    `markers` are the control tokens in the text (`<|im_start|>`, …) with their ids; None: the tokenizer has no such
    token.
    """

    text: str = ""
    markers: Mapping[str, int | None] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Probe:
    """Facts of the tokenizer, and three renderings of a question, an answer and a second question.

    `plain` is what is served; `chat` has a system message before it; `open_end` lacks the generation prompt.  `named`
    are the special tokens' texts by their names in the tokenizer's config.  `unavailable` says why nothing could be
    looked at, which is no fault of the checkpoint.
    """

    tokenizer: TokenizerFacts
    plain: Rendering
    chat: Rendering
    open_end: Rendering
    named: Mapping[str, str]
    unavailable: str | None = None


def probe(checkpoint: Checkpoint, limits: Limits | None = None) -> Probe:
    """Look at the tokenizer and the chat template.  Whatever goes wrong is a problem in the result."""
    allowed, named = limits or Limits(), special_tokens(checkpoint)
    content, template = checkpoint.small.get("tokenizer.json", b""), checkpoint.chat_template
    empty, unfit = None if content else "has no content", _unfit(template)
    request = _request(checkpoint, named, None if unfit else template, _CHATS, allowed)
    answers: dict[str, dict[str, Any]] = {}
    unavailable, end = None, ""
    try:
        if not (empty and unfit):
            answers, end = _ask(request, content, allowed)
    except OSError as error:
        unavailable = _unstarted(error)
    facts = TokenizerFacts(**answers.get("tokenizer", {"problem": empty or end}))
    plain, chat, open_end = (
        Rendering(**answers.get(part, {"problem": unfit or end})) for part in ("plain", "chat", "open_end")
    )
    return Probe(facts, plain, chat, open_end, named, unavailable)


def rendered(checkpoint: Checkpoint, chats: Sequence[Mapping[str, Any]]) -> Iterator[Rendering]:
    """The text that the chat template makes of each chat (`messages`, and `tools` where it has some) for the model to
    answer.  Whatever goes wrong is a problem in the result.
    """
    for start in range(0, len(chats), _TOGETHER):
        part = {str(index): {"add_generation_prompt": True, **c} for index, c in enumerate(chats[start:][:_TOGETHER])}
        answers, end = _rendered(checkpoint, part)
        yield from (Rendering(**answers.get(index, {"problem": end})) for index in part)


def _rendered(checkpoint: Checkpoint, chats: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], str]:
    """The renderings by the names of the chats, and why there is none of the others."""
    template, limits = checkpoint.chat_template, Limits()
    if unfit := _unfit(template):
        return {}, unfit
    try:
        return _ask(_request(checkpoint, special_tokens(checkpoint), template, chats, limits), b"", limits)
    except OSError as error:
        return {}, _unstarted(error)


def special_tokens(checkpoint: Checkpoint) -> dict[str, str]:
    """The special tokens that the tokenizer's config names, by name, as Transformers gives them to a template."""
    said = _settings(checkpoint)
    extra = said.get("extra_special_tokens")
    own = {**said, **extra} if isinstance(extra, dict) else said
    names = (*_ROLES, *(name for name in own if name.endswith("_token") and name not in _ROLES))
    return {name: text for name in names if (text := _content(own.get(name)))}


def environment() -> dict[str, str]:
    """All that the process is given of our environment: no token, no key, no address."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def _request(
    checkpoint: Checkpoint,
    named: Mapping[str, str],
    template: str | None,
    chats: Mapping[str, Mapping[str, Any]],
    limits: Limits,
) -> dict[str, Any]:
    return {
        "cpu": limits.cpu,
        "memory": limits.memory,
        "named": list(_appended(checkpoint, named))[:_MOST_NAMED],
        "special": {name: text for name, text in named.items() if name in _ROLES},
        "template": template,
        "packages": _packages() if template is not None else [],
        "variables": dict(named),
        "chats": chats,
    }


def _unstarted(error: OSError) -> str:
    return f"no process can be started to look at it: {error.strerror}"


def _unfit(template: str | None) -> str | None:
    if template is None:
        return "there is no chat template"
    return f"is longer than {_LONGEST_TEMPLATE:,} characters" if len(template) > _LONGEST_TEMPLATE else None


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The tokenizer's config; where it lists no added tokens, `special_tokens_map.json` has the last word."""
    config = checkpoint.tokenizer_config
    return config if "added_tokens_decoder" in config else {**config, **checkpoint.json("special_tokens_map.json")}


def _appended(checkpoint: Checkpoint, named: Mapping[str, str]) -> Iterator[str]:
    """The tokens that Transformers adds to the tokenizer where it lacks them, in its order."""
    said = _settings(checkpoint)
    listed = said.get("added_tokens_decoder")
    decoder = listed if isinstance(listed, dict) else {}
    numbered = {int(number): token for number, token in decoder.items() if re.fullmatch("[0-9]{1,9}", number)}
    more = said.get("extra_special_tokens") or said.get("additional_special_tokens")
    extra = more if isinstance(more, list) else []
    for value in (*(numbered[n] for n in sorted(numbered)), *named.values(), *extra):
        if text := _content(value):
            yield text


def _content(value: object) -> str | None:
    """The text of a token, which is said plainly or with its settings."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) and text else None


def _packages() -> list[str]:
    """The folders that Jinja is installed in; the process looks into no others but the standard library's."""
    found = [spec.origin for name in ("jinja2", "markupsafe") if (spec := find_spec(name)) and spec.origin]
    return list(dict.fromkeys(str(Path(origin).parents[1]) for origin in found))


def _ask(request: Mapping[str, Any], content: bytes, limits: Limits) -> tuple[dict[str, dict[str, Any]], str]:
    """What the process told before it ended, by part, and what its end means for what it did not tell.

    Raises OSError where there can be no process.
    """
    with subprocess.Popen(  # noqa: S603  this Python, and a file of ours
        [sys.executable, "-I", "-S", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as child:
        try:
            _begin(child.stdin, json.dumps(request).encode() + b"\n")
            told, _ = child.communicate(content, limits.wall)
            end = _end(child.returncode, limits)
        except subprocess.TimeoutExpired:
            child.kill()
            told, _ = child.communicate()
            end = f"takes longer than {limits.wall:g} s"
        finally:
            child.kill()
    return dict(_answers(told)), end


def _begin(pipe: IO[bytes] | None, line: bytes) -> None:
    """Send the request apart from the content, which is large and would be copied."""
    with suppress(BrokenPipeError):
        if pipe:
            pipe.write(line)


def _end(code: int, limits: Limits) -> str:
    if code == -getattr(signal, "SIGXCPU", 0):
        return f"takes more than {limits.cpu} s of processor time"
    return f"ends the process that reads it ({code})"


def _answers(told: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in told.splitlines():
        with suppress(ValueError):  # the last line of a process that was ended
            answer = json.loads(line)
            yield answer.pop("part"), answer
