"""What must hold of a bundle before anybody deploys it; each rule says what is wrong, in words."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.bundle_file import Bundle, Config, references, resolved, variables_of
from packaging.requirements import Requirement

_TOP = {"bundle", "include", "artifacts", "variables", "targets", "resources", "workspace", "permissions", "sync"}
_TARGET = {"mode", "default", "variables", "workspace", "run_as", "permissions", "resources", "presets", "artifacts"}
_DYNAMIC = re.compile(r"\{\{([^{}]*)\}\}")
_KNOWN = re.compile(
    r"bundle\.(name|target)|workspace\.(root_path|file_path|current_user\.(userName|short_name))|var\.\w+"
    r"|resources\.\w+\.\w+\.(id|name)"
)


def mistakes(bundle: Bundle, constraints: Path) -> list[str]:
    """All that is wrong with the bundle, whatever its resources are."""
    return [
        *bundle.wrong,
        *_targets(bundle.config),
        *_artifacts(bundle),
        *_variables(bundle),
        *_references(bundle),
        *(text for job in _jobs(bundle.config).values() for text in _tasks(bundle, job)),
        *(text for key, job in _jobs(bundle.config).items() for text in _environments(bundle, key, job, constraints)),
        *_identities(bundle),
    ]


def _targets(config: Config) -> Iterator[str]:
    yield from (f"unknown key {key}" for key in sorted(config.keys() - _TOP))
    targets = config.get("targets", {})
    if sum(bool(target.get("default")) for target in targets.values()) != 1:
        yield "exactly one target has to be the default"
    for name, target in targets.items():
        yield from (f"target {name}: unknown key {key}" for key in sorted(target.keys() - _TARGET))
        yield from (
            f"target {name}: {key} is no variable"
            for key in sorted(target.get("variables", {}).keys() - config.get("variables", {}).keys())
        )
        if target.get("mode") not in ("development", "production"):
            yield f"target {name}: mode is neither development nor production"
        if target.get("mode") == "production" and "root_path" not in target.get("workspace", {}):
            yield f"target {name}: production needs workspace.root_path, so that there is one copy"
        for kind, found in target.get("resources", {}).items():
            known = config.get("resources", {}).get(kind, {})
            yield from (f"target {name}: {kind}.{key} is no resource" for key in sorted(found.keys() - known.keys()))


def _artifacts(bundle: Bundle) -> Iterator[str]:
    for name, artifact in bundle.config.get("artifacts", {}).items():
        project = bundle.folder / artifact.get("path", ".")
        if not (project / "pyproject.toml").is_file():
            yield f"artifact {name}: no project in {artifact.get('path', '.')}"
        if not artifact.get("build"):
            yield f"artifact {name}: nothing builds it"
        for file in artifact.get("files", ()):
            if (bundle.folder / file["source"]).resolve().parent != (project / "dist").resolve():
                yield f"artifact {name}: {file['source']} is not where it is built"


def _variables(bundle: Bundle) -> Iterator[str]:
    declared = bundle.config.get("variables", {})
    used = {name.removeprefix("var.") for name in references(bundle.config) if name.startswith("var.")}
    yield from (f"variable {name} is not declared" for name in sorted(used - declared.keys()))
    yield from (f"variable {name} is not used" for name in sorted(declared.keys() - used))
    yield from (f"variable {name} has no description" for name, said in declared.items() if not said.get("description"))


def unset(bundle: Bundle, target: str) -> list[str]:
    """The variables that whoever deploys this target has to give."""
    return sorted(bundle.config["variables"].keys() - variables_of(bundle.of(target), {}).keys())


def _references(bundle: Bundle) -> Iterator[str]:
    resources = bundle.config.get("resources", {})
    for name in sorted(references(bundle.config)):
        if not _KNOWN.fullmatch(name):
            yield f"${{{name}}} refers to nothing"
        elif name.startswith("resources."):
            _, kind, key, _ = name.split(".")
            if key not in resources.get(kind, {}):
                yield f"${{{name}}} refers to nothing"


def _jobs(config: Config) -> dict[str, Any]:
    jobs: dict[str, Any] = config.get("resources", {}).get("jobs", {})
    return jobs


def wheel_tasks(job: Config) -> Iterator[tuple[Config, bool]]:
    """Every task that runs the wheel, and whether it stands in a loop."""
    for task in job["tasks"]:
        if loop := task.get("for_each_task"):
            yield loop["task"], True
        else:
            yield task, False


def _tasks(bundle: Bundle, job: Config) -> Iterator[str]:
    project = tomllib.loads((bundle.folder.parent / "pyproject.toml").read_text())["project"]
    environments = {env["environment_key"] for env in job.get("environments", ())}
    for task, looped in wheel_tasks(job):
        wheel, key = task["python_wheel_task"], task["task_key"]
        if wheel["package_name"] != project["name"]:
            yield f"task {key}: the wheel is {project['name']}, not {wheel['package_name']}"
        if wheel["entry_point"] not in project["scripts"]:
            yield f"task {key}: the wheel has no entry point {wheel['entry_point']}"
        if task.get("environment_key") not in environments:
            yield f"task {key}: no environment {task.get('environment_key')}"
        if not task.get("timeout_seconds"):
            yield f"task {key}: no time-out"
        for parameter in wheel.get("parameters", ()):
            yield from _files(bundle, key, parameter)
            if "{{input}}" in parameter and not looped:
                yield f"task {key}: {{{{input}}}} outside of a loop"
    yield from _values(job)


def _files(bundle: Bundle, key: str, parameter: str) -> Iterator[str]:
    _, found, path = parameter.partition("${workspace.file_path}/")
    if found and not (bundle.folder / path).is_file():
        yield f"task {key}: the bundle holds no {path}"


def _values(job: Config) -> Iterator[str]:
    """Task values are used after they were published."""
    above: dict[str, set[str]] = {}
    published: dict[str, set[str]] = {}
    for task in job["tasks"]:
        key, before = task["task_key"], [on["task_key"] for on in task.get("depends_on", ())]
        yield from (f"task {key}: depends on {on}, which does not come before it" for on in before if on not in above)
        above[key] = {*before, *(further for on in before for further in above.get(on, ()))}
        parameters = task.get("python_wheel_task", {}).get("parameters", ())
        published[key] = {p.removeprefix("--publish=") for p in parameters if p.startswith("--publish=")}
        for name in _DYNAMIC.findall(str(task)):
            parts = name.split(".")
            if parts[0] == "tasks" and (parts[1] not in above[key] or parts[3] not in published[parts[1]]):
                yield f"task {key}: {{{{{name}}}}} is published by no task before it"


def _environments(bundle: Bundle, key: str, job: Config, constraints: Path) -> Iterator[str]:
    """Everything is pinned, to what the tests run with; the wheel is the one that is built."""
    lines = [line for line in constraints.read_text().splitlines() if line and not line.startswith("#")]
    known = {Requirement(line).name: line for line in lines}
    built = {
        (bundle.folder / file["source"]).resolve()
        for artifact in bundle.config.get("artifacts", {}).values()
        for file in artifact.get("files", ())
    }
    for environment in job.get("environments", ()):
        spec = environment["spec"]
        if not spec.get("environment_version"):
            yield f"environment {environment['environment_key']} has no version"
        for dependency in spec.get("dependencies", ()):
            if dependency.startswith("."):
                if (bundle.homes["jobs", key].parent / dependency).resolve() not in built:
                    yield f"{dependency} is no artifact"
            elif known.get(Requirement(dependency).name) != dependency:
                yield f"{dependency} is not what the tests run with"


def _identities(bundle: Bundle) -> Iterator[str]:
    """The tool refuses endpoints of a bundle that runs as somebody else than it is deployed by."""
    for name in bundle.config["targets"]:
        config = bundle.of(name)
        if "run_as" in config and config.get("resources", {}).get("model_serving_endpoints"):
            yield f"target {name}: run_as and model_serving_endpoints do not go together"


def classes_refuse(config: Config) -> list[str]:
    """What Databricks' own classes say of the resources."""
    from databricks.bundles.experiments import MlflowExperiment
    from databricks.bundles.jobs import Job
    from databricks.bundles.model_serving_endpoints import ModelServingEndpoint
    from databricks.bundles.registered_models import RegisteredModel

    classes: dict[str, Any] = {
        "jobs": Job,
        "registered_models": RegisteredModel,
        "model_serving_endpoints": ModelServingEndpoint,
        "experiments": MlflowExperiment,
    }
    wrong = []
    for kind, found in config["resources"].items():
        if kind not in classes:
            wrong.append(f"{kind}: an unknown kind")
            continue
        for key, resource in found.items():
            try:
                classes[kind].from_dict(resource)
            except (ValueError, TypeError) as error:
                wrong.append(f"{kind}.{key}: {error}")
    return wrong


def schedules(bundle: Bundle, target: str) -> list[str]:
    """Whether each job's schedule is paused in this target."""
    jobs = _jobs(resolved(bundle, target, {"notify": "a@b.c"}))
    return [job["schedule"].get("pause_status", "UNPAUSED") for job in jobs.values()]
