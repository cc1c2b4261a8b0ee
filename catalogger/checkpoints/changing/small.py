"""The small files of the result: a config that says what the weights are, and the tokenizer that the adapter brings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from catalogger.checkpoints.changing.adapter import Adapter
from catalogger.checkpoints.changing.plan import PlannedShard, as_json
from catalogger.checkpoints.changing.tokenizer import VOCABULARIES, largest_token
from catalogger.checkpoints.facts import INDEX, TORCH_DTYPES
from catalogger.checkpoints.selection import TOKENIZER
from catalogger.errors import AdapterRefused

_TEMPLATES = {"chat_template.jinja", "chat_template.json"}
_DTYPES = ("torch_dtype", "dtype")


def small_files(
    small: Mapping[str, bytes], shards: Sequence[PlannedShard], config: Mapping[str, Any], adapter: Adapter | None
) -> dict[str, bytes]:
    """The source's own but for index, config and tokenizer.  `config` holds what is new in `config.json`."""
    files = {path: content for path, content in small.items() if path != INDEX}
    held = json.loads(files["config.json"])
    said = _true_config(held, shards, config)
    if said != json.loads(files["config.json"]):
        files["config.json"] = as_json(said)
    if adapter is None or not VOCABULARIES & adapter.small.keys():
        return files
    rows = config.get("vocab_size") or held.get("vocab_size")
    _require_room(adapter, rows)
    own_template = bool(_TEMPLATES & adapter.small.keys()) or b'"chat_template"' in adapter.small.get(
        "tokenizer_config.json", b""
    )
    dropped = {name for name in TOKENIZER if own_template or name not in _TEMPLATES}
    return {path: content for path, content in files.items() if path not in dropped} | dict(adapter.small)


def _true_config(config: dict[str, Any], shards: Sequence[PlannedShard], new: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the dtype that most weights have, wherever it says one, and what else is new."""
    config = json.loads(json.dumps(config)) | dict(new)
    held: dict[str, int] = {}
    for output in (o for shard in shards for o in shard.outputs):
        held[output.dtype] = held.get(output.dtype, 0) + output.nbytes
    floats = [dtype for dtype in sorted(held, key=lambda d: -held[d]) if "float" in TORCH_DTYPES.get(dtype, "")]
    if not floats:
        return config
    inner = [value for key, value in config.items() if key.endswith("_config") and isinstance(value, dict)]
    for part in (config, *inner):
        for key in _DTYPES:
            if part.get(key) is not None:
                part[key] = TORCH_DTYPES[floats[0]]
    if not any(config.get(key) for key in _DTYPES):
        config["torch_dtype"] = TORCH_DTYPES[floats[0]]
    return config


def _require_room(adapter: Adapter, rows: object) -> None:
    """Raises AdapterRefused where the adapter's tokenizer has a token that the embedding has no row for."""
    largest = largest_token(adapter.small)
    if isinstance(rows, int) and largest >= rows:
        raise AdapterRefused(
            adapter.location,
            f"has another vocabulary: its tokenizer has token {largest}, the embedding has {rows} rows",
            "Were tokens added? Save the resized tables too: save_embedding_layers=True, or modules_to_save.",
        )
