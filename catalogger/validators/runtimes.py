"""What a model is written for, where that is not what is installed here: named versions, or a Databricks Runtime ML.

What a runtime holds is known from its release notes only as far as the table says; unknown stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from catalogger.errors import UsageError
from catalogger.validators.facts import Environment, environment
from catalogger.validators.mlflow_versions import declared_transformers, is_declared, is_version, older

_SAID = ("mlflow", "transformers", "torch", "accelerate", "python")
"""What may be said of an environment."""


PINS = {"transformers": "4.57.6", "torch": "2.9.1", "accelerate": "1.12.0"}
"""Asked for where nothing says which: the generation that provisioned throughput reads."""


@dataclass(frozen=True)
class Runtime:
    """What a Databricks Runtime ML holds; None is unknown.  Of its Python only the minor version is."""

    mlflow: str
    transformers: str | None = None
    torch: str | None = None
    accelerate: str | None = None
    python: str | None = None


RUNTIMES: Mapping[str, Runtime] = {
    "dbr-13.3-ml": Runtime("2.5.0", "4.30.2", "1.13.1", "0.20.3", "3.10"),
    "dbr-14.2-ml": Runtime("2.8.1", "4.34.0", "2.0.1", "0.23.0", "3.10"),
    "dbr-14.3-ml": Runtime("2.9.2", "4.36.1", "2.0.1", "0.25.0", "3.10"),
    "dbr-15.1-ml": Runtime("2.11.1", "4.36.2", "2.1.2", "0.25.0", "3.11"),
    "dbr-15.4-ml": Runtime("2.13.1", "4.41.2", "2.3.1", "0.31.0", "3.11"),
    "dbr-16.1-ml": Runtime("2.15.1", "4.46.3", "2.5.0", "1.1.1", "3.12"),
    "dbr-16.4-ml": Runtime("2.21.3", "4.50.2", "2.6.0", "1.5.2", "3.12"),
    "dbr-17.0-ml": Runtime("3.0.0", "4.51.3", "2.7.0", "1.5.2", "3.12"),
    "dbr-17.1-ml": Runtime("3.0.1", "4.51.3", "2.7.0", "1.5.2", "3.12"),
    "dbr-17.2-ml": Runtime("3.0.1", "4.51.3", "2.7.0", "1.5.2", "3.12"),
    "dbr-17.3-ml": Runtime("3.0.1", "4.51.3", "2.7.0", "1.5.2", "3.12"),
    "dbr-18-ml": Runtime("3.8.1"),
    "dbr-19-ml": Runtime("3.12.0"),
}
"""Read: MLflow of 13.3, 14.3, 15.4, 16.4, 17.3, 18 and 19 in Databricks' compatibility matrix of MLflow and runtimes;
all else in lists of the packages of each runtime (https://github.com/pietern/databricks-environments, 2025-12-09).
"""


def environment_of(said: str) -> Environment:
    """The environment that `dbr-15.4-ml`, or `mlflow==2.12.2,transformers==4.39.3`, names.

    Of versions, what is not said is what is installed here, or catalogger's choice where the MLflow does not declare
    that Transformers.  Raises UsageError for an unknown runtime and for what is not of this form.
    """
    if runtime := RUNTIMES.get(said):
        return _environment(said, {name: getattr(runtime, name) for name in _SAID})
    if said.startswith("dbr"):
        raise UsageError(
            f'"{said}" is no runtime that is known here.',
            f"Known are {', '.join(RUNTIMES)}.  Of another, say what it holds: mlflow==2.13.1,transformers==4.41.2",
        )
    versions = dict(_version(one) for one in said.split(","))
    if "mlflow" not in versions:
        raise UsageError(f'"{said}" says no MLflow.', "Write mlflow==VERSION, or the name of a runtime: dbr-15.4-ml")
    here = environment()
    declared = here.transformers if here.transformers and is_declared(versions["mlflow"], here.transformers) else None
    known = {
        "transformers": declared or pinned("transformers", versions["mlflow"]),
        "torch": here.torch,
        "accelerate": here.accelerate,
    }
    return _environment(",".join(f"{n}=={versions[n]}" for n in _SAID if n in versions), known | versions)


def pinned(package: str, mlflow: str) -> str:
    """catalogger's own choice of a package's version, as new as this MLflow declares at most."""
    declared = declared_transformers(mlflow) if package == "transformers" else None
    return older(PINS[package], ".".join(map(str, declared[1]))) if declared else PINS[package]


def unknown_of(target: Environment) -> list[str]:
    """What is not known of the environment that a model is written for."""
    runtime = RUNTIMES.get(target.asked or "")
    return [name for name in _SAID if runtime and getattr(runtime, name) is None]


def _environment(asked: str, known: Mapping[str, str | None]) -> Environment:
    here = Environment("")
    python = known.get("python") or here.python
    if here.python.startswith(f"{python}."):
        python = here.python
    said = {name: known.get(name) for name in ("transformers", "torch", "accelerate")}
    return replace(here, mlflow=str(known["mlflow"]), python=python, asked=asked, **said)


def _version(one: str) -> tuple[str, str]:
    name, equals, version = (part.strip() for part in one.partition("=="))
    if not equals or name not in _SAID or not is_version(version):
        raise UsageError(
            f'"{one}" names no environment.', f"Write NAME==VERSION of {', '.join(_SAID)}, or a runtime: dbr-15.4-ml"
        )
    return name, version
