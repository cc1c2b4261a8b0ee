"""A model for another environment than the one at hand.  What that MLflow itself writes is compared in the matrix."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from cli.command import run
from fakes import checkpoints

from catalogger import check, log_model
from catalogger.loggers.outcome import Outcome
from catalogger.validators import environment
from catalogger.validators.runtimes import RUNTIMES, environment_of
from catalogger.validators.signatures import recorded

PAGE = Path(__file__).parents[2] / "docs" / "mlflow-versions.md"


@pytest.fixture
def llama(work: Path) -> Path:
    return checkpoints.llama(work / "llama")


def _logged(source: Path, asked: str | None, recipe: str = "llama-chat") -> Outcome:
    return log_model(recipe, source=source, name="main.ml.bot", written_for=asked)


def _mlmodel(outcome: Outcome) -> dict[str, Any]:
    said: dict[str, Any] = yaml.safe_load((Path(str(outcome.location)) / "MLmodel").read_text())
    return said


def test_an_older_mlflow(llama: Path) -> None:
    outcome = _logged(llama, "mlflow==2.12.2")
    said, folder = _mlmodel(outcome), Path(str(outcome.location))
    assert said["mlflow_version"] == "2.12.2"
    assert said["artifact_path"] == "bot"
    assert re.fullmatch("[0-9a-f]{32}", said["model_uuid"])
    assert not {"model_id", "prompts", "type_hint_from_example", "is_signature_from_type_hint"} & said.keys()
    assert json.loads(said["signature"]["inputs"]) == recorded("CHAT-A").inputs
    assert said["flavors"]["transformers"]["transformers_version"] == "4.39.3"
    assert (folder / "requirements.txt").read_text().splitlines()[:2] == ["mlflow==2.12.2", "transformers==4.39.3"]
    assert (folder / "metadata" / "MLmodel").read_text() == (folder / "MLmodel").read_text()
    assert not (folder / "serving_input_example.json").exists()
    assert any(
        note.startswith("written for mlflow==2.12.2: MLflow 2.12.2, Transformers 4.39.3") for note in outcome.notes
    )


def test_it_still_loads_here(llama: Path) -> None:
    outcome = _logged(llama, "dbr-15.4-ml")
    answer = mlflow.pyfunc.load_model(str(outcome.location)).predict(dict(outcome.example))
    assert answer[0]["choices"][0]["message"]["role"] == "assistant"


def test_each_environment_is_a_version_of_its_own(llama: Path) -> None:
    """The same content for the MLflow at hand is another model; for the same environment it is the same."""
    done = [_logged(llama, asked) for asked in (None, "dbr-15.4-ml", "dbr-15.4-ml", None)]
    seen = [(outcome.action, outcome.version) for outcome in done]
    assert seen == [("registered", "1"), ("registered", "2"), ("unchanged", "2"), ("unchanged", "1")]
    tags = mlflow.MlflowClient(done[0].tracking_uri).get_model_version("main.ml.bot", "2").tags
    assert tags["catalogger.written_for"] == "dbr-15.4-ml"


def test_a_dry_run_shows_it(llama: Path) -> None:
    plan = log_model("llama-chat", source=llama, written_for="dbr-16.4-ml", dry_run=True).plan
    assert plan is not None
    assert yaml.safe_load(plan.mlmodel)["mlflow_version"] == "2.21.3"


def test_what_a_runtime_holds(llama: Path) -> None:
    folder = Path(str(_logged(llama, "dbr-16.4-ml").location))
    wanted = ["mlflow==2.21.3", "transformers==4.50.2", "torch==2.6.0", "accelerate==1.5.2"]
    assert (folder / "requirements.txt").read_text().splitlines() == wanted
    assert yaml.safe_load((folder / "python_env.yaml").read_text())["python"].startswith("3.12")
    assert (folder / "metadata").is_dir(), "every Databricks Runtime writes it"


def test_what_is_not_known_of_a_runtime_is_said(llama: Path) -> None:
    outcome = _logged(llama, "dbr-18-ml")
    assert any("not known of it" in note and "Transformers" in note for note in outcome.notes)
    assert "EN003" in check("llama-chat", source=llama, written_for="dbr-18-ml").report.not_checked


def test_an_mlflow_that_nobody_knows_is_tried(llama: Path) -> None:
    outcome = _logged(llama, "mlflow==9.0.0")
    assert "EN001" in {f.code for f in outcome.report.findings if f.severity == "warning"}
    assert json.loads(_mlmodel(outcome)["signature"]["inputs"]) == recorded("CHAT-D").inputs


def test_versions_that_are_said_are_taken() -> None:
    said = environment_of("mlflow==3.1.4, transformers==4.48.0,python==3.12.3,torch==2.5.1")
    assert (said.mlflow, said.transformers, said.python, said.torch) == ("3.1.4", "4.48.0", "3.12.3", "2.5.1")
    assert said.asked == "mlflow==3.1.4,transformers==4.48.0,torch==2.5.1,python==3.12.3"
    here = environment()
    itself = environment_of(f"mlflow=={here.mlflow},transformers=={here.transformers}")
    assert (itself.torch, itself.accelerate, itself.python) == (here.torch, here.accelerate, here.python)


@pytest.mark.parametrize(
    ("recipe", "asked", "says"),
    [
        ("llama-chat", "dbr-14.3-ml", "EN001: mlflow of dbr-14.3-ml is 2.9.2; 2.11.5 is the oldest"),
        ("llama-chat", "mlflow==2.11.4", "is 2.11.4; 2.11.5 is the oldest"),
        ("bge-embeddings", "mlflow==2.12.1", "Write it for mlflow>=2.12.2"),
        ("llama-chat", "dbr-99-ml", '"dbr-99-ml" is no runtime that is known here'),
        ("llama-chat", "mlflow==2.15.0", "EN006: mlflow of mlflow==2.15.0 is 2.15.0, between two releases"),
        ("llama-chat", "transformers==4.50.0", "says no MLflow"),
        ("llama-chat", "mlflow==new", "names no environment"),
        ("llama-chat", "mlflow>=2.12", "names no environment"),
        ("llama-chat", "numpy==2.0,mlflow==2.12.2", '"numpy==2.0" names no environment'),
    ],
)  # fmt: skip
def test_refused_before_anything_is_read(recipe: str, asked: str, says: str, work: Path) -> None:
    source = str(work / "there-is-no-such-folder")
    done = run("--recipe", recipe, "--source", source, "--name", "main.ml.bot", "--for", asked, cwd=work)
    assert done.code == 2
    assert says in done.err
    assert list(work.iterdir()) == []


def test_the_page_has_every_runtime() -> None:
    rows = dict(re.findall(r"^\| `(dbr-[\d.]+-ml)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE))
    columns = ("mlflow", "transformers", "torch", "accelerate", "python")
    assert rows == {n: " | ".join(getattr(r, c) or "not known" for c in columns) for n, r in RUNTIMES.items()}
