"""Registration to every kind of Unity Catalog: once, whole, repeatable, and nothing else touched."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
from fakes import checkpoints
from loggers.catalogs import NAME, Catalog, another_machine, log, tree

from catalogger import Outcome, check, lint, log_model
from catalogger.errors import CheckFailed, CheckpointError


def _artifacts(outcome: Outcome) -> Path:
    """The folder of the model that the tracking store has."""
    (model,) = mlflow.MlflowClient(outcome.tracking_uri).search_logged_models(experiment_ids=["0"])
    return Path(model.artifact_location)


def test_a_folder_becomes_one_ready_version(catalog: Catalog, llama: Path) -> None:
    before = tree(llama)
    outcome = log(llama, catalog, aliases=["champion"], tags={"team": "search"})
    (held,) = catalog.versions()

    assert (outcome.action, outcome.version, held.number, held.status) == ("registered", "1", "1", "READY")
    assert outcome.location == held.location
    files = catalog.digests(held)
    weights = {f"model/{path}": digest for path, digest in before.items() if path.endswith(".safetensors")}
    assert len(weights) == 2
    assert weights.items() <= files.items(), "each weight file, byte by byte"
    assert {"MLmodel", "requirements.txt", "conda.yaml", "components/tokenizer/tokenizer.json"} <= set(files)
    assert outcome.fingerprint is not None
    assert outcome.fingerprint in held.description
    assert tree(llama) == before, "the source is untouched"
    assert catalog.unfinished() == 0


def test_the_weights_are_sent_once_and_the_tracking_store_gets_a_note(catalog: Catalog, llama: Path) -> None:
    outcome = log(llama, catalog)
    weights = sum(f.stat().st_size for f in llama.glob("*.safetensors"))
    small = 300_000  # tokenizer, config, MLmodel, signatures of requests
    if outcome.bytes.sent:
        assert weights <= catalog.sent() <= weights + small
        assert weights <= outcome.bytes.sent <= weights + small
    logged = _artifacts(outcome)
    assert not list(logged.rglob("*.safetensors"))
    note = json.loads((logged / "weights.json").read_text())
    assert note["registered_model"] == NAME
    assert set(note["files"]) == {f"model/{f.name}" for f in llama.glob("*.safetensors")}
    (model,) = mlflow.MlflowClient(outcome.tracking_uri).search_logged_models(experiment_ids=["0"])
    assert model.tags["catalogger.registered"] == f"models:/{NAME}/1"
    assert str(model.status) == "READY"


def test_full_tracking_has_the_weights_in_both(catalog: Catalog, llama: Path) -> None:
    outcome = log(llama, catalog, tracking="full")
    logged, (held,) = _artifacts(outcome), catalog.versions()
    there = tree(logged)
    registered = catalog.digests(held)
    assert {p for p in there if p.endswith(".safetensors")} == {p for p in registered if p.endswith(".safetensors")}
    assert there.items() <= registered.items(), "the same model, but for the manifest"
    assert set(registered) - set(there) <= {"catalogger.json"}


def test_the_same_content_makes_no_second_version_from_another_machine_either(
    catalog: Catalog, llama: Path, tmp_path: Path
) -> None:
    log(llama, catalog, aliases=["champion"])
    requests, sent = catalog.requests(), catalog.sent()
    with another_machine(tmp_path / "elsewhere"):
        again = log(llama, catalog, aliases=["champion"])
        assert not Path("mlruns").exists(), "nothing is logged"
    assert (again.action, again.version) == ("unchanged", "1")
    assert catalog.requests() - requests <= 25
    assert catalog.sent() == sent
    assert len(catalog.versions()) == 1


def test_other_content_is_the_next_version(catalog: Catalog, llama: Path, tmp_path: Path) -> None:
    log(llama, catalog)
    other = checkpoints.llama(tmp_path / "other", shards=2, seed=7)
    outcome = log(other, catalog)
    assert (outcome.action, outcome.version) == ("registered", "2")
    first, second = catalog.versions()
    assert catalog.digests(first) != catalog.digests(second)


def test_what_the_version_says_of_itself(catalog: Catalog, llama: Path) -> None:
    outcome = log(llama, catalog, aliases=["champion"], tags={"team": "search"})
    if catalog.kind.startswith("databricks"):
        (held,) = catalog.versions()
        assert held.tags["catalogger_fingerprint"] == outcome.fingerprint
        assert held.tags["team"] == "search"
        assert catalog.aliases() == {"champion": "1"}
        assert outcome.notes == ()
    else:
        assert [n for n in outcome.notes if "no aliases" in n]
        assert [n for n in outcome.notes if "no tags" in n]


def test_an_alias_moves_with_the_content(catalog: Catalog, llama: Path, tmp_path: Path) -> None:
    if not catalog.kind.startswith("databricks"):
        return
    log(llama, catalog, aliases=["champion"])
    log(checkpoints.llama(tmp_path / "other", shards=2, seed=7), catalog, aliases=["champion"])
    assert catalog.aliases() == {"champion": "2"}
    log(llama, catalog, aliases=["champion"])
    assert catalog.aliases() == {"champion": "1"}


def test_a_dry_run_changes_nothing(catalog: Catalog, llama: Path) -> None:
    outcome = log(llama, catalog, dry_run=True)
    assert outcome.action == "planned"
    assert outcome.plan is not None
    weights = sum(f.stat().st_size for f in llama.glob("*.safetensors"))
    assert outcome.plan.to_upload + outcome.plan.to_write >= weights
    assert catalog.versions() == []
    assert catalog.sent() == 0
    assert not Path("mlruns").exists()


def test_a_missing_schema_is_found_before_anything_is_done(catalog: Catalog, llama: Path) -> None:
    with pytest.raises(CheckFailed) as found:
        log(llama, catalog, name="main.nowhere.bot")
    assert [f["code"] for f in found.value.findings if f["severity"] == "error"] == ["UC006"]
    with pytest.raises(CheckFailed) as found:
        log(llama, catalog, name="nowhere.ml.bot")
    assert [f["code"] for f in found.value.findings if f["severity"] == "error"] == ["UC005"]
    assert not Path("mlruns").exists()
    assert catalog.sent() == 0


def test_check_looks_at_the_catalog_too(catalog: Catalog, llama: Path) -> None:
    right = check("llama-chat", source=llama, name=NAME, registry_uri=catalog.uri)
    assert not right.failed()
    wrong = check("llama-chat", source=llama, name="main.nowhere.bot", registry_uri=catalog.uri)
    assert [f.code for f in wrong.report.findings if f.severity == "error"] == ["UC006"]


def test_a_model_of_another_task_is_warned_of(catalog: Catalog, llama: Path) -> None:
    log(llama, catalog)
    other = log_model("llama-completions", source=llama, name=NAME, registry_uri=catalog.uri)
    assert "UC004" in {f.code for f in other.report.findings}


def test_the_registered_model_loads_and_answers(catalog: Catalog, llama: Path) -> None:
    outcome = log(llama, catalog)
    mlflow.set_tracking_uri(outcome.tracking_uri)
    mlflow.set_registry_uri(catalog.uri)
    model = mlflow.pyfunc.load_model(str(outcome.model_uri))
    (answer,) = model.predict({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})
    assert answer["choices"][0]["message"]["role"] == "assistant"


def test_a_registered_version_is_linted_where_it_is(catalog: Catalog, llama: Path) -> None:
    outcome = log(llama, catalog, aliases=["champion"])
    found = lint(str(outcome.model_uri), registry_uri=catalog.uri, tracking_uri=outcome.tracking_uri)
    assert not found.failed()
    assert {"ML001", "TK001", "CK001"} <= {*found.report.ran, "CK001"}
    if catalog.kind.startswith("databricks"):
        lint(f"models:/{NAME}@champion", registry_uri=catalog.uri, tracking_uri=outcome.tracking_uri)
    else:
        with pytest.raises(CheckpointError, match="alias"):
            lint(f"models:/{NAME}@champion", registry_uri=catalog.uri, tracking_uri=outcome.tracking_uri)
