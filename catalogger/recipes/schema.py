"""What a recipe file may say.  A recipe is data: every key is declared here and an unknown one is an error.

Nothing in this room reads a checkpoint, calls MLflow or decides whether a model is right.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Task = Literal["llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"]
Dtype = Literal["bfloat16", "float16", "float32"]

RepoId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$", max_length=96)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
ClassName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$", max_length=100)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]
Url = Annotated[str, StringConstraints(pattern=r"^https://[^\s]+$", max_length=500)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Source(_Part):
    """The published repository.  An unknown revision stays empty and is resolved and recorded at run time."""

    repo: RepoId
    revision: Commit | None = None


class Licence(_Part):
    """The licence identifier as the model card spells it, where to read it, and whether the repository is gated.

    `gated` is None where it is not known.
    """

    id: Text
    url: Url | None = None
    gated: bool | None = None


class Embedding(_Part):
    """What an embedding model publishes about its vectors."""

    dimension: int | None = Field(default=None, gt=0)
    """Length of one vector."""
    pooling: Literal["cls", "mean", "last"] | None = None
    """How the published model makes one vector of the hidden states; MLflow serves the first token (`cls`)."""
    normalised: bool | None = None
    """Whether the published model returns vectors of length 1."""
    query_instruction: Text | None = None
    """The text that the authors put before a query (not before a passage)."""


class RemoteCode(_Part):
    """Python files that the checkpoint needs and that come from a repository; used only with consent."""

    repo: RepoId
    revision: Commit | None = None
    consent: Literal["required"] = "required"


class Serving(_Part):
    """What provisioned throughput is known to do with the family.  Absent where it is unknown."""

    unit: Literal["tokens_per_second", "model_units"] | None = None
    normalised: bool | None = None
    """Whether the endpoint returns vectors of length 1."""
    retired: Text | None = None
    """When the platform stopped serving the family, if it did."""


class Recipe(_Part):
    """What one published model, or one family and task, needs to be logged and served.

    Sizes are token counts (`context_length`), rows of the embedding matrix (`vocabulary`) and scalar weights
    (`parameters`),
    as the model's own config and weight files publish them.
    """

    summary: Text
    version: int = Field(default=1, ge=1)
    """Raised when a change to the file changes what is logged."""
    task: Task
    architectures: tuple[ClassName, ...] = Field(min_length=1)
    """Accepted values of `config.json` → `architectures[0]`."""
    source: Source | None = None
    """None in a recipe for anybody's fine-tuned checkpoint of the family."""
    dtype: Dtype | None = None
    parameters: int | None = Field(default=None, gt=0)
    context_length: int | None = Field(default=None, gt=0)
    vocabulary: int | None = Field(default=None, gt=0)
    licence: Licence | None = None
    metadata: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Written to the `metadata` of MLmodel as it stands; `task` is added by the logger."""
    embedding: Embedding | None = None
    remote_code: RemoteCode | None = None
    serving: Serving | None = None
    transformers: Text | None = None
    """Versions of Transformers that the model's own code is known to work with, as pip spells a range (`<5`)."""
    requirements: tuple[Text, ...] = ()
    """Further pip requirements of the logged model, each pinned (`name==version`), beside torch and transformers."""

    @field_validator("architectures", "requirements", mode="before")
    @classmethod
    def _tuple_from_list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("metadata")
    @classmethod
    def _task_is_not_metadata(cls, value: dict[str, object]) -> dict[str, object]:
        if "task" in value:
            raise ValueError("say the task in `task`; the logger adds it to the metadata")
        return value

    @field_validator("requirements")
    @classmethod
    def _pinned(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[\w,-]+\])?==[\w.+!-]+", line):
                raise ValueError(f'"{line}" is not pinned; write name==version')
        return value

    @field_validator("transformers")
    @classmethod
    def _is_a_range(cls, value: str | None) -> str | None:
        try:
            SpecifierSet(value or "")
        except InvalidSpecifier as error:
            raise ValueError(f'"{value}" is no range of versions; write it as pip does, for example <5') from error
        return value

    @model_validator(mode="after")
    def _embedding_goes_with_the_task(self) -> Recipe:
        if self.embedding is not None and self.task != "llm/v1/embeddings":
            raise ValueError("`embedding` belongs to task llm/v1/embeddings only")
        return self
