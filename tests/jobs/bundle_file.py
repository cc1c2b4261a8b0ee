"""A bundle's files as Databricks' tool reads them: includes, targets, variables, and what development mode changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "jobs"
REFERENCE = re.compile(r"\$\{([\w.-]+)\}")
USER, SHORT = "ann@example.com", "ann"

Config = dict[str, Any]


@dataclass
class Bundle:
    """The files together; `wrong` is what is wrong with how they are put together."""

    folder: Path
    config: Config
    homes: dict[tuple[str, str], Path] = field(default_factory=dict)
    """The file of each resource, by kind and key: its paths are relative to that."""
    wrong: list[str] = field(default_factory=list)

    def of(self, target: str) -> Config:
        """With what the target sets; lists are replaced."""
        return merged({k: v for k, v in self.config.items() if k != "targets"}, self.config["targets"][target])


def read(folder: Path = FOLDER) -> Bundle:
    """`databricks.yml` and all that it includes."""
    bundle = Bundle(folder, yaml.safe_load((folder / "databricks.yml").read_text()))
    included: set[Path] = set()
    for pattern in bundle.config.get("include", ()):
        files = sorted(folder.glob(pattern))
        if not files:
            bundle.wrong.append(f"include {pattern} names no file")
        for file in files:
            included.add(file)
            _include(bundle, file)
    left = set(folder.rglob("*.yml")) - included - {folder / "databricks.yml", folder / "github-actions.yml"}
    bundle.wrong += [f"{file.relative_to(folder)} is not included" for file in sorted(left)]
    return bundle


def _include(bundle: Bundle, file: Path) -> None:
    data = yaml.safe_load(file.read_text())
    resources = bundle.config.setdefault("resources", {})
    for kind, found in data.pop("resources", {}).items():
        for key, resource in found.items():
            if key in resources.setdefault(kind, {}):
                bundle.wrong.append(f"{kind}.{key} is there twice")
            resources[kind][key] = resource
            bundle.homes[kind, key] = file
    bundle.wrong += [f"{file.name}: {key} does not belong in an included file" for key in data]


def merged(below: Config, above: Config) -> Config:
    """Mappings are merged, everything else is replaced."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = merged(below[key], above[key])
    return both


def variables_of(config: Config, given: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that have a value: given, of the target, or by default."""
    found = {}
    for name, said in config.get("variables", {}).items():
        value = said.get("default") if isinstance(said, dict) else said  # a target sets plain values
        if (chosen := given.get(name, value)) is not None:
            found[name] = chosen
    return found


def resolved(
    bundle: Bundle, target: str, given: Mapping[str, Any] | None = None, *, root: str | None = None, user: str = USER
) -> Config:
    """The target's configuration with every reference that can be known before a deployment, and development mode's
    changes. `root` is the bundle's folder in the workspace, unless the target names it.
    """
    config = bundle.of(target)
    for name, value in config.get("variables", {}).items():
        if not isinstance(value, dict):
            config["variables"] = {**config["variables"], name: {"default": value}}
    home = f"/Workspace/Users/{user}/.bundle/{config['bundle']['name']}/{target}"
    path = root or config.get("workspace", {}).get("root_path") or home
    known: dict[str, Any] = {
        "bundle.name": config["bundle"]["name"],
        "bundle.target": target,
        "workspace.current_user.userName": user,
        "workspace.current_user.short_name": SHORT,
        "workspace.root_path": path,
        "workspace.file_path": f"{path}/files",
    }
    known |= {f"var.{name}": value for name, value in variables_of(config, given or {}).items()}
    for _ in range(3):  # values may hold references
        known = {name: put_in(value, known.get) for name, value in known.items()}
    config = put_in(config, known.get)
    return development(config) if config.get("mode") == "development" else config


def put_in(value: Any, known: Callable[[str], Any]) -> Any:
    """The value with what is known in place of references; others stay."""
    if isinstance(value, dict):
        return {key: put_in(one, known) for key, one in value.items()}
    if isinstance(value, list):
        return [put_in(one, known) for one in value]
    if not isinstance(value, str):
        return value
    if (whole := REFERENCE.fullmatch(value)) and known(whole[1]) is not None:
        return known(whole[1])
    return REFERENCE.sub(lambda found: found[0] if known(found[1]) is None else str(known(found[1])), value)


def development(config: Config) -> Config:
    """Names begin with whose copy it is, schedules are paused."""
    resources = config["resources"]
    for job in resources.get("jobs", {}).values():
        job["name"] = f"[dev {SHORT}] {job['name']}"
        job.setdefault("schedule", {}).setdefault("pause_status", "PAUSED")
    for kind in ("registered_models", "model_serving_endpoints"):
        for found in resources.get(kind, {}).values():
            found["name"] = f"dev_{SHORT}_{found['name']}"
    for experiment in resources.get("experiments", {}).values():
        folder, _, name = experiment["name"].rpartition("/")
        experiment["name"] = f"{folder}/[dev {SHORT}] {name}"
    return config


def references(value: Any) -> set[str]:
    """Every reference in the value."""
    if isinstance(value, dict):
        return {name for one in value.values() for name in references(one)}
    if isinstance(value, list):
        return {name for one in value for name in references(one)}
    return set(REFERENCE.findall(value)) if isinstance(value, str) else set()
