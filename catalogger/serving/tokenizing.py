"""The model's own tokenizer, from its `tokenizer.json`, without Transformers."""

from __future__ import annotations

from typing import Any

from catalogger.errors import UsageError


def load_tokenizer(content: bytes, place: str) -> Any:
    """A tokenizer that counts everything: it neither cuts nor fills up.

    `place` is where the content of `tokenizer.json` comes from.  Raises UsageError where it is no tokenizer, or the
    library is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UsageError(
            "To count tokens needs tokenizers, which is not installed.", "pip install 'catalogger[bench]'"
        ) from error
    try:
        loaded = Tokenizer.from_buffer(content)
    except Exception as error:  # what the library raises has no class of its own
        raise UsageError(f'"{place}" is no tokenizer: {error}.', "Name the tokenizer.json of the model.") from error
    loaded.no_truncation()
    loaded.no_padding()
    return loaded
