"""What a manifest file may say.  A manifest is data: every key is declared here and an unknown one is an error.

It says what is to be registered, not where: tracking and registry, and whom they are told who calls, are the command's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from catalogger.errors import UsageError
from catalogger.validators.runtimes import environment_of

OnChange = Literal["register", "candidate", "fail"]
CHALLENGER = "challenger"
"""The alias of a candidate."""
SHORT = {"alias": "aliases", "tag": "tags", "for": "written_for"}
"""Keys that are named as the options are, by what they are called here."""
_REPEATED = {"type": ["string", "array"], "items": {"type": "string"}}
_Texts = Annotated[tuple[str, ...], WithJsonSchema(_REPEATED)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Deploy(_Part):
    """How the version is served; the keys are the options of `log-model deploy`."""

    endpoint: str | None = None
    """Its name; without one, the model's own."""
    min_throughput: int | None = None
    """Tokens per second that are always there."""
    max_throughput: int | None = None
    """Tokens per second at the most."""
    tokens_per_second: float | None = None
    """At least so many, rounded up to whole chunks."""
    units: int | None = None
    """Model units, for models that are served by these."""
    scale_to_zero: bool = False
    no_burst: bool = False
    replace: bool = False
    """Agree that an endpoint of this name stops serving another model."""
    no_wait: bool = False
    timeout: float = Field(default=3600, gt=0)
    """Seconds until it has to be ready."""
    rollback: bool = False
    """Put the configuration before a failed update back."""
    logprobs: bool = False
    yes: bool = False
    """Agree to more than four chunks."""


class Options(_Part):
    """What an entry may say, and what `defaults` may say for all of them: the options of the main job."""

    source: str | None = None
    """`ORG/REPO[@REVISION]`, `package:DISTRIBUTION/FOLDER`, or a folder: relative ones are looked for beside the
    manifest.
    """
    adapter: str | None = None
    """A LoRA adapter to merge: `ORG/REPO[@REVISION]`, or a folder, as `source`.  Without a source, its own base."""
    base: str | None = None
    """The adapter's base, where the source is an adapter."""
    checkpoint: str | int | None = None
    """Which of a Trainer's folder: `best`, `last` or a step."""
    dtype: Literal["bfloat16"] | None = None
    """Cast the weights."""
    max_shard_size: str | int | None = None
    """Cut or join the weight files to this size, as in `1GB`."""
    aliases: _Texts = Field(default=(), alias="alias")
    tags: dict[str, str] = Field(default_factory=dict, alias="tag")
    set: _Texts = ()
    """Changes to the recipe, `key=value`."""
    weights: Literal["auto", "copy", "link"] = "auto"
    upload: Literal["auto", "storage", "files"] = "auto"
    tracking: Literal["auto", "full"] = "auto"
    stream: bool = False
    """From the Hub to the registry file by file, with little disk."""
    written_for: str | None = Field(default=None, alias="for")
    """Write what another MLflow would have written: `mlflow==2.12.2`, or the name of a runtime, `dbr-15.4-ml`."""
    normalize: Literal[4, 5] | None = None
    """The generation of Transformers in whose words config, tokenizer and chat template are put."""
    trust_remote_code: bool = False
    """Consent to the Python code that a checkpoint brings; the command has to consent too."""
    allow_pickle: bool = False
    """Take pickled weights; the command has to agree too."""
    ignore: _Texts = ()
    """Codes of rules that are not run."""
    rehash: bool = False
    prove: bool = False
    deploy: Deploy | None = None
    """`true` for one chunk on an endpoint of the model's own name."""
    on_change: OnChange = "register"
    """What happens where there is a version and the content is another: register it and move the aliases; register it
    as `challenger`; or fail.
    """

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, data: Any) -> Any:
        for key, name in SHORT.items():
            if isinstance(data, dict) and name in data and key in data:
                raise ValueError(f"give either `{name}` or `{key}`")
        return data

    @field_validator("written_for")
    @classmethod
    def _as_recorded(cls, value: str | None) -> str | None:
        try:
            return environment_of(value).asked if value is not None else None
        except UsageError as error:
            raise ValueError(str(error).replace("\n", " ")) from error

    @field_validator("aliases", "set", "ignore", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("tags", mode="before")
    @classmethod
    def _written_as_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        plain = {k: str(v).lower() if isinstance(v, bool) else v for k, v in value.items()}
        return {str(k): str(v) if isinstance(v, int | float) else v for k, v in plain.items()}

    @field_validator("deploy", mode="before")
    @classmethod
    def _true_or_not(cls, value: object) -> object:
        return ({} if value else None) if isinstance(value, bool) else value


class Entry(Options):
    """One model of the manifest."""

    recipe: Any
    """A recipe's name, a file beside the manifest, or the recipe itself."""
    name: str | None = None
    """`catalog.schema.model`; `main.default.<recipe>` by default."""

    @field_validator("recipe")
    @classmethod
    def _name_or_keys(cls, value: object) -> object:
        if not isinstance(value, str | dict):
            raise ValueError("is neither a name, a file nor a recipe")
        return value


class Manifest(_Part):
    """A manifest file."""

    variables: dict[str, Annotated[Any, WithJsonSchema({"type": ["string", "number", "boolean"]})]] = Field(
        default_factory=dict
    )
    """Values of `${NAME}` where neither --var nor CATALOGGER_VAR_NAME gives one."""
    include: _Texts = ()
    """Further manifests beside this one, or below; `*` stands for any part of a name."""
    defaults: Options = Field(default_factory=Options)
    models: tuple[Entry, ...] = ()

    @field_validator("include", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value
