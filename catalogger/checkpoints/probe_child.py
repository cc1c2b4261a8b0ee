"""The other side of `probe`: a process of its own that reads a tokenizer and renders a chat template.

It is run by its path and imports the standard library alone, and jinja2 only where there is a template.  What it reads
is untrusted: it limits its own memory and time, and tells each finding as soon as it has it, one JSON line each.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

_MORE = 100_000  # characters that a rendered text may have more than its messages
_MARKER = re.compile(r"<\|[^<>|\s]{1,60}\|>|<\uff5c[^<>\uff5c\s]{1,60}\uff5c>|<(?:start|end)_of_turn>")
_MOST_MARKERS = 100
_LARGEST_ID = 2**32  # a token id has 32 bits


def main() -> None:
    """Answer the request on stdin: a line of JSON, then the content of `tokenizer.json`, if there is one."""
    request = json.loads(sys.stdin.buffer.readline())
    _limit(request["cpu"], request["memory"])
    content = sys.stdin.buffer.read()
    ids: dict[str, int] = {}
    if content:
        _tell("tokenizer", _tokenizer, content, request, ids)
    if request["template"] is None:
        return
    sys.path += request["packages"]
    now = datetime.now()  # local time, as Transformers gives it to a template
    for name, chat in request["chats"].items():
        _tell(name, _rendering, chat, request, ids, now)


def _limit(seconds: int, memory: int) -> None:
    """Bound this process where the platform can."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _tell(part: str, find: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    """One line: what was found, or why nothing was."""
    try:
        found = find(*arguments)
    except MemoryError:
        found = {"problem": "takes more memory than it may"}
    except Exception as error:  # whatever a template or a file makes happen is a fact about it
        found = {"problem": _told(error)}
    print(json.dumps({"part": part, **found}), flush=True)  # noqa: T201  the answer


def _told(error: Exception) -> str:
    """The error in one printable line."""
    line = (str(error).strip().splitlines() or [""])[0][:300]
    at = f"line {number}: " if (number := getattr(error, "lineno", None)) else ""
    plain = isinstance(error, ValueError) or type(error).__module__.startswith("jinja2")
    return printable(at + line if plain and line else f"{type(error).__name__}: {line}")


def printable(text: str) -> str:
    """The text without what could move a cursor or could not be encoded."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _tokenizer(content: bytes, request: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    """Facts of `tokenizer.json`, with what Transformers appends to it; `ids` is filled.  Raises ValueError."""
    data = _json(content)
    model = data.get("model") if isinstance(data, dict) else None
    own = _vocabulary(model.get("vocab") if isinstance(model, dict) else None)
    added = _added(data.get("added_tokens"))
    ids.update(own)
    ids.update(added)
    if not ids:
        raise ValueError("has an empty vocabulary")
    following = max(len(own), max(added.values(), default=-1) + 1)
    for token in request["named"]:
        if token not in ids:
            ids[token] = following
            following += 1
    last = max(ids, key=ids.__getitem__)
    special = {role: ids[token] for role, token in request["special"].items() if token in ids}
    return {"entries": len(ids), "largest": ids[last], "last": printable(last[:60]), "special": special}


def _json(content: bytes) -> Any:
    try:
        return json.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError("is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error


def _vocabulary(said: object) -> dict[str, int]:
    """Token to id: BPE, WordPiece and WordLevel say a mapping, Unigram a list of pairs in the order of the ids."""
    if isinstance(said, dict):
        return {token: _id(token, number) for token, number in said.items()}
    if not isinstance(said, list):
        raise ValueError("has no vocabulary (model.vocab)")
    if not all(isinstance(e, list) and len(e) == 2 and isinstance(e[0], str) for e in said):
        raise ValueError("has a vocabulary that is no list of tokens and scores")
    return {entry[0]: number for number, entry in enumerate(said)}


def _added(said: object) -> dict[str, int]:
    entries = [] if said is None else said
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("content"), str) for e in entries
    ):
        raise ValueError("has added_tokens that are no list of tokens")
    return {entry["content"]: _id(entry["content"], entry.get("id")) for entry in entries}


def _id(token: str, number: object) -> int:
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _LARGEST_ID:
        return number
    raise ValueError(f'gives "{token[:60]}" no number as its id')


def _rendering(chat: dict[str, Any], request: dict[str, Any], ids: dict[str, int], now: datetime) -> dict[str, Any]:
    """The text as `apply_chat_template(…, tokenize=False)` gives it, and the ids of the control tokens in it."""
    template = _environment(now).from_string(request["template"])
    text = template.render(**{"tools": None, "documents": None, **request["variables"], **chat})
    said = len(json.dumps(chat))
    if len(text) > said + _MORE:
        raise ValueError(f"gives {len(text):,} characters for a chat of {said:,}")
    return {"text": text, "markers": _markers(text, ids)}


def _markers(text: str, ids: dict[str, int]) -> dict[str, int | None]:
    found: Iterable[str] = dict.fromkeys(_MARKER.findall(text))
    return {printable(marker): ids.get(marker) for marker in list(found)[:_MOST_MARKERS]}


def _environment(now: datetime) -> Any:
    """Jinja as `transformers.utils.chat_template_utils` sets it up; the time stands still."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock, Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}`: its content; where it lies matters only to training."""

        tags = {"generation"}  # noqa: RUF012  as Jinja declares it

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

        def _content(self, caller: Callable[[], str]) -> str:
            return caller()

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        x: object,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = now.strftime
    return environment


if __name__ == "__main__":
    main()
