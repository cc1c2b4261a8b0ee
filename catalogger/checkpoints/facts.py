"""The facts of one pinned set of files.  Facts only: what is right or wrong is for the validators to say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from catalogger.checkpoints.normalizing.normalizing import Normalized
    from catalogger.checkpoints.probe import Probe

SourceKind = Literal["hub", "folder", "package", "memory"]


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from.

    `location` is the repository id or the absolute folder; `revision` the Hub commit or the distribution's version;
    `asked` what the user wrote.
    """

    kind: SourceKind
    location: str
    revision: str | None
    asked: str


@dataclass(frozen=True)
class File:
    """One file of the checkpoint: its path below the root, its size in bytes, its digests where they are known.

    `sha256` is of the content; `blob` is Git's object id (SHA-1 over a header and the content) as the Hub gives it for
    files outside its large-file storage.
    """

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True)
class Tensor:
    """One entry of a safetensors header.  `start` and `end` are byte offsets behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class Shard:
    """One weight file with what its header says.

    `problem` says why the header cannot be read; then there are no tensors.  `expected` is the file size in bytes that
    the header promises.
    """

    file: File
    tensors: tuple[Tensor, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    expected: int | None = None
    header_sha256: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Ingredient:
    """A base or an adapter: `revision` is the commit, `asked` the branch, tag or commit that it was resolved from, and
    `sha256` one digest over its files, None while it is unknown.
    """

    location: str
    revision: str | None
    sha256: str | None = None
    asked: str | None = None

    def __str__(self) -> str:
        return f"{self.location}@{self.revision}" if self.revision else self.location


@dataclass(frozen=True)
class Made:
    """What the weights of a checkpoint are made from, where they are changed before they are logged.

    `cast` names the dtype that they are cast to, `most` is the size in bytes that a shard was asked to have at most,
    `step` the folder of a Trainer that was chosen, `pickled` the files that were no safetensors.
    """

    base: Ingredient
    adapter: Ingredient | None = None
    cast: str | None = None
    most: int | None = None
    step: str | None = None
    pickled: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the digests of all that it is made from are known."""
        return bool(self.base.sha256 and (self.adapter is None or self.adapter.sha256))

    def document(self) -> dict[str, Any]:
        """What it is made from as JSON data: without the places, as a move makes no new model."""
        parts = {"base": self.base, "adapter": self.adapter}
        return {role: [part.revision, part.sha256] for role, part in parts.items() if part}


@dataclass(frozen=True)
class Checkpoint:
    """Everything that is known of a checkpoint before a weight moves.

    `small` holds the content of the files that are read whole (config, tokenizer, index, licence); `left_out` says for
    every file that is not taken why it is not.  `index` names the shard of each tensor as the index file says it.
    """

    origin: Origin
    files: tuple[File, ...]
    left_out: Mapping[str, str]
    small: Mapping[str, bytes]
    shards: tuple[Shard, ...]
    licence: str | None = None
    root: Path | None = None
    """The folder that holds the files; None while they are on the Hub."""
    code: str | None = None
    """`REPO@COMMIT` of Python files that were brought in from another repository, with consent."""
    normalized: Normalized | None = None
    """In which generation's words the small files were put, where that was asked for."""
    unread: str | None = None
    """Why no header of a weight file was read; None where they were."""
    made: Made | None = None
    """What the weights are made from; None where they are as they were published."""

    @property
    def ours(self) -> bool:
        """Whether nobody edits the weight files in place: the Hub's cache, or a folder that we have just written."""
        return self.origin.kind in ("hub", "memory") or self.made is not None

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """`config.json` as data."""
        return self.json("config.json")

    @cached_property
    def index(self) -> Mapping[str, str] | None:
        """Tensor name to shard file as the index says; None without an index."""
        if INDEX not in self.small:
            return None
        weight_map = self.json(INDEX).get("weight_map")
        return {str(k): str(v) for k, v in weight_map.items()} if isinstance(weight_map, dict) else {}

    @cached_property
    def tokenizer_config(self) -> Mapping[str, Any]:
        """`tokenizer_config.json` as data; empty without one."""
        return self.json("tokenizer_config.json")

    @cached_property
    def architecture(self) -> str | None:
        """`architectures[0]` of the config: the class that Transformers and serving go by."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else None

    @cached_property
    def chat_template(self) -> str | None:
        """The default chat template, from `chat_template.jinja` or from the tokenizer's config."""
        if (text := self.small.get("chat_template.jinja")) is not None:
            return text.decode("utf-8", "replace")
        template = self.tokenizer_config.get("chat_template")
        if isinstance(template, list):
            named = [t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"]
            template = named[-1] if named else None
        return template if isinstance(template, str) else None

    @cached_property
    def chat_template_sha256(self) -> str | None:
        """Digest of the chat template's text; None without one."""
        template = self.chat_template
        return hashlib.sha256(template.encode("utf-8", "replace")).hexdigest() if template is not None else None

    @cached_property
    def probe(self) -> Probe:
        """What a short process of its own finds out about the tokenizer and the chat template, which are untrusted."""
        from catalogger.checkpoints.probe import probe

        return probe(self)

    @cached_property
    def pooling(self) -> str | None:
        """How sentence-transformers pools the hidden states (`cls`, `mean`, …); None where the checkpoint does not
        say.
        """
        said = self.json("1_Pooling/config.json")
        modes = [
            k.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for k, v in said.items()
            if k.startswith("pooling_mode_") and v is True
        ]
        return "+".join(modes) or None

    @cached_property
    def normalises(self) -> bool | None:
        """Whether a `Normalize` module follows the pooling; None where the checkpoint does not say."""
        if "modules.json" not in self.small:
            return None
        modules = json.loads(self.small["modules.json"])
        return any(str(m.get("type", "")).endswith("Normalize") for m in modules if isinstance(m, dict))

    @cached_property
    def dtypes(self) -> Mapping[str, int]:
        """Bytes held in each dtype, by the name that PyTorch gives it, largest first."""
        held: dict[str, int] = {}
        for shard in self.shards:
            for tensor in shard.tensors:
                name = TORCH_DTYPES.get(tensor.dtype, tensor.dtype)
                held[name] = held.get(name, 0) + tensor.end - tensor.start
        return dict(sorted(held.items(), key=lambda item: -item[1]))

    @cached_property
    def dtype(self) -> str | None:
        """The floating-point dtype that most of the weights have, as PyTorch names it."""
        return next((name for name in self.dtypes if "float" in name), None)

    @cached_property
    def parameters(self) -> int:
        """Number of scalar weights, buffers included, each tensor name counted once."""
        return sum({t.name: t.elements for s in self.shards for t in s.tensors}.values())

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the weight files."""
        return sum(shard.file.size for shard in self.shards)

    def json(self, path: str) -> Mapping[str, Any]:
        """A small JSON file as data; empty when it is not there.  Its form was checked when the checkpoint was
        opened.
        """
        if path not in self.small:
            return {}
        data = json.loads(self.small[path])
        return data if isinstance(data, dict) else {}


INDEX = "model.safetensors.index.json"
TORCH_DTYPES = {
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
