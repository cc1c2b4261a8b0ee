"""An MLflow that cannot log the model is refused before anything is read; one that nobody knows yet is tried."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from catalogger import log_model
from catalogger.errors import CheckFailed
from catalogger.validators import Environment, Facts, run_rules

Installed = Callable[..., None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Have these versions found before those that are really installed, by their metadata on the path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])

    def install(**versions: str) -> None:
        for name, version in versions.items():
            folder = site / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        importlib.invalidate_caches()

    return install


@pytest.mark.parametrize(
    ("recipe", "versions", "message", "fix"),
    [
        ("llama-chat", {"mlflow": "2.11.0"}, "is 2.11.0; 2.11.5 is the oldest", "mlflow>=2.11.5"),
        ("llama-chat", {"mlflow": "2.11.4"}, "is 2.11.4; 2.11.5 is the oldest", "mlflow>=2.11.5"),
        ("llama-chat", {"mlflow": "2.10.2"}, "is 2.10.2; 2.11.5 is the oldest", "mlflow>=2.11.5"),
        ("bge-embeddings", {"mlflow": "2.12.1"}, "is 2.12.1, which refuses every way", "mlflow>=2.12.2"),
        ("llama-chat", {"mlflow": "3.1.0", "sqlalchemy": "2.1.0"}, "FallbackAsyncAdaptedQueuePool", "sqlalchemy<2.1"),
        ("llama-chat", {"mlflow": "2.13.2", "setuptools": "82.0.0"}, "'pkg_resources'", "setuptools<82"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_read(
    recipe: str, versions: dict[str, str], message: str, fix: str, installed: Installed, work: Path
) -> None:
    installed(**({"sqlalchemy": "2.0.58", "setuptools": "80.9.0"} | versions))
    with pytest.raises(CheckFailed) as refused:
        log_model(recipe, source=work / "there-is-no-such-folder", name="main.ml.bot")
    errors = [f for f in refused.value.findings if f["severity"] == "error"]
    assert [message in str(f["message"]) and fix in str(f["fix"]) for f in errors] == [True]
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("mlflow", "setuptools", "speaks"),
    [("2.15.1", "0", True), ("2.16.0", "0", False), ("2.13.2", "81.0.0", False), ("2.13.2", None, False)],
)
def test_old_mlflows_need_an_old_setuptools(mlflow: str, setuptools: str | None, speaks: bool) -> None:
    report = run_rules(Facts(Environment(mlflow, setuptools=setuptools)), only=("EN002",))
    assert [f.subject for f in report.findings] == ["setuptools"] * speaks
    assert all("not installed" in f.message for f in report.findings)


def test_no_mlflow_at_all() -> None:
    (found,) = run_rules(Facts(Environment("0")), only=("EN001",)).findings
    assert (found.severity, found.message) == ("error", "is not installed here")


@pytest.mark.parametrize(("mlflow", "says"), [("3.18.4", []), ("3.19.0", ["warning"]), ("4.0.0", ["warning"])])
def test_an_unknown_mlflow_is_tried(mlflow: str, says: list[str]) -> None:
    report = run_rules(Facts(Environment(mlflow)), only=("EN001",))
    assert [f.severity for f in report.findings] == says
    assert not report.failed()
