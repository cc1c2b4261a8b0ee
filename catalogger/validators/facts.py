"""All that the rules may look at, gathered before they run."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata

from catalogger.checkpoints import Checkpoint, LoggedModel
from catalogger.recipes import Recipe
from catalogger.validators.mlflow_versions import ABSENT


class NotChecked(Exception):
    """Raised by a rule that could not run.  Not checked is never passed."""


@dataclass(frozen=True)
class Environment:
    """Versions of what is installed; None for what is not, or was not looked for.

    `asked` names it where it is not the one at hand: its libraries that only running an MLflow takes are then unknown.
    """

    mlflow: str
    transformers: str | None = None
    sqlalchemy: str | None = None
    setuptools: str | None = None
    """`ABSENT` where it is not installed, which old MLflows do not survive."""
    python: str = platform.python_version()
    torch: str | None = None
    accelerate: str | None = None
    asked: str | None = None


@dataclass(frozen=True)
class Existing:
    """The newest version that is registered under the target's name, by what its tags say."""

    number: str
    task: str | None = None
    architecture: str | None = None
    chat_template: str | None = None
    """Digest of its chat template."""


@dataclass(frozen=True)
class Place:
    """What a Unity Catalog tells of the name's catalog and schema; None is unknown.

    `registry` names it in messages.  `missing` holds privileges that are known to be missing, each as (privilege, kind
    of securable, its name).  `storage` is where it keeps files, `similar` are models whose names differ in case only,
    `needs` is the Python package that sending files there takes and that is not installed.
    """

    registry: str
    catalog_exists: bool | None = None
    schema_exists: bool | None = None
    missing: tuple[tuple[str, str, str], ...] = ()
    privileges_known: bool = False
    storage: str | None = None
    storage_missing: bool | None = None
    similar: tuple[str, ...] = ()
    needs: str | None = None


@dataclass(frozen=True)
class Target:
    """Where the model is to be registered.  `unreachable` says why the registry could not be asked; `existing` is
    None where nothing has the name, or where nobody asked; `place` is None where there are no catalogs and schemas.
    """

    name: str
    registry_uri: str
    unreachable: str | None = None
    existing: Existing | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a model on its way, or of one that is logged.

    A part that is not there (no recipe when anybody's model is looked at, no logged model before one is made) leaves
    its rules unchecked.  `environment` is what the model is written for, `here` what is at hand where that is another.
    `region` is where it is to be served, as the cloud names it.
    """

    environment: Environment
    checkpoint: Checkpoint | None = None
    recipe: Recipe | None = None
    model: LoggedModel | None = None
    target: Target | None = None
    remote_code_consent: bool = False
    pickle_allowed: bool = False
    region: str | None = None
    here: Environment | None = None

    @property
    def at_hand(self) -> Environment:
        """What is installed here."""
        return self.here or self.environment

    @property
    def task(self) -> str | None:
        """The recipe's task, or the one that the logged model says."""
        if self.recipe:
            return self.recipe.task
        return self.model.task if self.model else None

    @property
    def opened(self) -> Checkpoint:
        """The checkpoint: its config and tokenizer.  Raises NotChecked where there is none."""
        if self.checkpoint is None:
            raise NotChecked((self.model and self.model.no_checkpoint) or "there is no checkpoint")
        return self.checkpoint

    @property
    def weights(self) -> Checkpoint:
        """The checkpoint, its weight files' headers read.  Raises NotChecked where they are not."""
        if self.opened.unread:
            raise NotChecked(self.opened.unread)
        return self.opened

    @property
    def logged(self) -> LoggedModel:
        """The logged model.  Raises NotChecked where there is none."""
        if self.model is None:
            raise NotChecked("there is no logged model yet")
        return self.model

    @property
    def goal(self) -> Target:
        """The target.  Raises NotChecked where there is none."""
        if self.target is None:
            raise NotChecked("nothing is to be registered")
        return self.target

    @property
    def place(self) -> Place:
        """What is known of the target's catalog and schema.  Raises NotChecked where there are none."""
        if self.goal.unreachable:
            raise NotChecked("the registry could not be asked")
        if self.goal.place is None:
            raise NotChecked("the registry has no catalogs and schemas")
        return self.goal.place

    @property
    def wanted(self) -> Recipe:
        """The recipe.  Raises NotChecked where there is none."""
        if self.recipe is None:
            raise NotChecked("no recipe says what is wanted")
        return self.recipe


def environment() -> Environment:
    """What is installed beside catalogger.  Nothing is imported."""
    mlflow = installed("mlflow") or installed("mlflow-skinny") or ABSENT
    setuptools = installed("setuptools") or ABSENT
    return Environment(
        mlflow,
        installed("transformers"),
        installed("sqlalchemy"),
        setuptools,
        torch=installed("torch"),
        accelerate=installed("accelerate"),
    )


def installed(package: str) -> str | None:
    """The version of a distribution that is installed; None for one that is not.  Nothing is imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
