"""What every registry can be asked for, whoever it is: versions by their content, aliases, tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from catalogger.loggers.layout import Layout
from catalogger.validators import Existing

FINGERPRINT = "catalogger.fingerprint"
SHAPE = "catalogger.shape"
TASK = "catalogger.task"
ARCHITECTURE = "catalogger.architecture"
CHAT_TEMPLATE = "catalogger.chat_template_sha256"
RECIPE = "catalogger.recipe"
IGNORED = "catalogger.ignored"
NORMALIZED = "catalogger.normalized"
"""The generation of Transformers in whose words the small files were put: `transformers 4`."""
REMOTE_CODE = "catalogger.remote_code"
SOURCE = "catalogger.source"
SOURCE_KIND = "catalogger.source_kind"
REVISION = "catalogger.revision"
ASKED_REVISION = "catalogger.asked_revision"
"""The branch or tag as it was written, `main` where none was."""
REQUEST = "catalogger.request"
"""A digest over recipe, repository and commit: where it is the same, what would be logged is the same."""
BASE, BASE_SHA256 = "catalogger.base", "catalogger.base_sha256"
ADAPTER, ADAPTER_SHA256 = "catalogger.adapter", "catalogger.adapter_sha256"
"""What changed weights are made from, as LOCATION@REVISION, and one digest over its files."""
ASKED_ADAPTER = "catalogger.asked_adapter_revision"
"""The adapter's branch or tag as it was written, `main` where none was."""
WRITTEN_FOR = "catalogger.written_for"


@dataclass(frozen=True)
class Version:
    """One registered version, as it was read back; `page` is the address where people look at it, if there is one."""

    number: str
    run_id: str | None
    tags: Mapping[str, str]
    location: str
    page: str | None = None


@dataclass(frozen=True)
class Standing:
    """What stands under a name: the newest ready version by its tags, and version numbers by alias.  `gaps` names what
    the registry has no place for: `aliases`, `tags`.
    """

    number: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    gaps: frozenset[str] = frozenset()


class Registry(Protocol):
    """Versions of models."""

    def versions_with(self, name: str, tag: str, value: str) -> list[Version]:
        """READY versions of the model that carry FINGERPRINT or SHAPE with this value, newest first."""

    def newest(self, name: str) -> Existing | None:
        """The newest version of the name, by what its tags say; None where there is none."""

    def standing(self, name: str) -> Standing | None:
        """The newest ready version with its tags, and where the aliases point."""

    def is_whole(self, version: Version, layout: Layout) -> bool:
        """Whether the version's files are still there, as far as can be seen from here."""

    def make_true(
        self, name: str, version: Version, aliases: Iterable[str], tags: Mapping[str, str]
    ) -> tuple[str, ...]:
        """Set the aliases and tags that are not so already, and read them back.  Gives a sentence for each thing that
        this registry has no place for.
        """


def existing(number: str, tags: Mapping[str, str]) -> Existing:
    """What the tags of a version say of it."""
    return Existing(number, tags.get(TASK), tags.get(ARCHITECTURE), tags.get(CHAT_TEMPLATE))
