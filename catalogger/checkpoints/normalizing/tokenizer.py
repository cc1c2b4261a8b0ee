"""The tokenizer's small files in the words of one generation: class, extra tokens, chat templates, merges."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from catalogger.checkpoints.normalizing.rope import Unsayable
from catalogger.checkpoints.selection import TEMPLATES

CONFIG, TOKENIZER, TEMPLATE = "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"
_FAST, _BACKEND = "PreTrainedTokenizerFast", "TokenizersBackend"
_STRAY = ("backend", "is_local", "local_files_only")
"""What 5 writes of the place that it saved to."""
_DEFAULTS = {"model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
"""What 5 takes where the file says nothing, and 4 takes otherwise."""
_PAIRS = re.compile(rb'"merges"\s*:\s*\[\s*\[')
_NAME = re.compile(r"[\w-][\w.-]*")


def as_4(small: Mapping[str, bytes], notes: list[str]) -> dict[str, bytes]:
    """The files with what changes where Transformers 4 is to read them.  Raises Unsayable."""
    files, said = dict(small), _config(small)
    changed = _tokens_of_4(_class_of_4(said, fast=TOKENIZER in small))
    if template := _from_files(small):
        changed["chat_template"] = template
    if changed != said:
        files[CONFIG] = as_json(changed)
    if TOKENIZER in files:
        files[TOKENIZER] = _merges_of_4(files[TOKENIZER], notes)
    return files


def as_5(small: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files as Transformers 5 writes them.  What it reads as it is, stays: the vocabulary and its added tokens.

    Raises Unsayable.
    """
    files, said = dict(small), _config(small)
    changed = _tokens_of_5(_class_of_5(said, fast=TOKENIZER in small))
    template = changed.pop("chat_template", None)
    if template is not None:
        files = _to_files(template) | files  # a file that is there already is what is read
    if changed != said:
        files[CONFIG] = as_json(changed)
    return files


def as_json(data: object) -> bytes:
    """A small JSON file, two blanks a level as Transformers writes it."""
    return (json.dumps(data, indent=2) + "\n").encode()


def _config(small: Mapping[str, bytes]) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(small[CONFIG]) if CONFIG in small else {}
    return said


def _class_of_4(said: Mapping[str, Any], *, fast: bool) -> dict[str, Any]:
    name = str(said.get("tokenizer_class") or "")
    if not (name.endswith("Backend") or "backend" in said):
        return dict(said)
    if name.endswith("Backend") and (name != _BACKEND or not fast):
        without = "" if name != _BACKEND else " and no tokenizer.json"
        raise Unsayable(f'tokenizer class "{name}"{without}, which Transformers 4 cannot load')
    changed = {key: value for key, value in said.items() if key not in _STRAY}
    if name == _BACKEND:
        changed["tokenizer_class"] = _FAST
        changed = {key: default for key, default in _DEFAULTS.items() if key not in said} | changed
    return changed


def _class_of_5(said: Mapping[str, Any], *, fast: bool) -> dict[str, Any]:
    name = said.get("tokenizer_class")
    if not (fast and isinstance(name, str) and name.endswith("Fast")):
        return dict(said)
    return {**said, "tokenizer_class": _BACKEND if name == _FAST else name.removesuffix("Fast")}


def _tokens_of_4(said: dict[str, Any]) -> dict[str, Any]:
    """Extra tokens without a name are `additional_special_tokens`, those with one a mapping."""
    changed, extra = dict(said), said.get("extra_special_tokens")
    if isinstance(extra, list):
        del changed["extra_special_tokens"]
        known = said.get("additional_special_tokens") or []
        if together := [*known, *(token for token in extra if token not in known)]:
            changed["additional_special_tokens"] = together
    if named := changed.pop("model_specific_special_tokens", None):
        changed["extra_special_tokens"] = named
    return changed


def _tokens_of_5(said: dict[str, Any]) -> dict[str, Any]:
    """The other way round; 4 writes an empty mapping beside the list."""
    changed, extra = dict(said), said.get("extra_special_tokens")
    if isinstance(extra, dict):
        del changed["extra_special_tokens"]
        if extra:
            changed["model_specific_special_tokens"] = extra
    if isinstance(tokens := changed.pop("additional_special_tokens", None), list) and tokens:
        known = changed.get("extra_special_tokens") or []
        changed["extra_special_tokens"] = [*known, *(token for token in tokens if token not in known)]
    return changed


def _from_files(small: Mapping[str, bytes]) -> str | list[dict[str, str]] | None:
    """The templates that have files of their own, as the tokenizer's config holds them: a text, or several by name."""
    own = {PurePosixPath(path).stem: _text(path, small[path]) for path in sorted(small) if path.startswith(TEMPLATES)}
    default = _text(TEMPLATE, small[TEMPLATE]) if TEMPLATE in small else None
    if not own:
        return default
    every = ({"default": default} if default is not None else {}) | own
    return [{"name": name, "template": text} for name, text in every.items()]


def _to_files(template: object) -> dict[str, bytes]:
    """The files of the templates that the tokenizer's config holds."""
    if isinstance(template, str):
        return {TEMPLATE: _bytes(template)}
    entries = template if isinstance(template, list) else []
    if not entries or not all(isinstance(e, dict) and isinstance(e.get("template"), str) for e in entries):
        raise Unsayable("a chat_template that is neither a text nor a list of templates with names")
    files = {}
    for entry in entries:
        name = str(entry.get("name"))
        if not _NAME.fullmatch(name):
            raise Unsayable(f'a chat template by the name "{name[:60]}", which no file can have')
        files[TEMPLATE if name == "default" else f"{TEMPLATES}{name}.jinja"] = _bytes(entry["template"])
    return files


def _text(path: str, content: bytes) -> str:
    """As Transformers reads it: every end of a line is one character."""
    try:
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise Unsayable(f'a "{path}" that is not UTF-8') from error


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Unsayable("a chat template with characters that no file can hold") from error


def _merges_of_4(content: bytes, notes: list[str]) -> bytes:
    """`tokenizer.json` with its merges as texts, which Transformers 4 before 4.45 wants (tokenizers 0.19); since then
    they are written as pairs, and both are read.
    """
    if not _PAIRS.search(content):
        return content
    try:
        data = json.loads(content)
        merges = data["model"]["merges"]
        texts = [f"{first} {second}" for first, second in merges]
    except (ValueError, KeyError, TypeError) as error:
        raise Unsayable(f'a "{TOKENIZER}" whose merges cannot be read') from error
    if any(text.count(" ") != 1 for text in texts):
        notes.append(
            "Transformers before 4.45 cannot read this tokenizer: pieces with a blank can be merged as pairs only"
        )
        return content
    data["model"]["merges"] = texts
    return json.dumps(data, separators=(",", ":")).encode()
