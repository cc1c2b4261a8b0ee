"""Check and lint against stores of every kind; nothing is changed by either."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import checkpoints

from catalogger import check, lint, log_model
from catalogger.errors import CheckpointError, NetworkUnreachable, SourceInvalid


def test_a_model_on_a_server_is_looked_at_by_its_small_files(llama: Path, mlflow_server: str) -> None:
    log_model("llama-chat", source=llama, name="main.ml.bot", aliases=["champion"], tracking_uri=mlflow_server)
    for model in ("models:/main.ml.bot/1", "models:/main.ml.bot@champion"):
        report = lint(model, tracking_uri=mlflow_server).report
        assert [f for f in report.findings if f.severity == "error"] == []
        assert {"ML001", "ML007", "ML011", "ML014", "ML015", "CK017", "TK003", "TK008"} <= set(report.ran)
        unread = {c for c, why in report.not_checked.items() if why.startswith("the weights are on another machine")}
        assert {"CK002", "CK003", "CK004", "CK010", "CK026"} <= unread

    twin = check("llama-chat", source=llama, name="main.ml.bot", tracking_uri=mlflow_server).report
    assert "UC004" in twin.ran
    assert not [f for f in twin.findings if f.code.startswith("UC")]
    with pytest.raises(CheckpointError, match="is not there"):
        lint("models:/main.ml.other/1", tracking_uri=mlflow_server)


def test_another_kind_on_a_server(llama: Path, tmp_path: Path, mlflow_server: str) -> None:
    bert = checkpoints.bert(tmp_path / "bert", pooling="cls")
    log_model("bge-embeddings", source=bert, name="main.ml.bot", tracking_uri=mlflow_server)
    report = check("llama-chat", source=llama, name="main.ml.bot", tracking_uri=mlflow_server).report
    assert [f.code for f in report.findings if f.code.startswith("UC")] == ["UC004", "UC004"]
    outcome = log_model("llama-chat", source=llama, name="main.ml.bot", tracking_uri=mlflow_server)
    assert [f.code for f in outcome.report.findings if f.code.startswith("UC")] == ["UC004", "UC004"]


def test_a_server_that_does_not_answer(llama: Path) -> None:
    nobody = "http://127.0.0.1:9"
    found = [f for f in check("llama-chat", source=llama, tracking_uri=nobody).report.findings if f.severity == "error"]
    assert [(f.code, nobody in f.message) for f in found] == [("UC003", True)]
    with pytest.raises(NetworkUnreachable):
        lint("models:/main.ml.bot/1", tracking_uri=nobody)


@pytest.mark.parametrize("model", ["", "nowhere", "models", "s3://bucket/model", "runs/x"])
def test_no_address_of_a_model(model: str) -> None:
    with pytest.raises(SourceInvalid, match="is no folder, runs:/… or models:/…"):
        lint(model)


def test_what_is_checked_prints_well_and_in_a_notebook(llama: Path) -> None:
    checked = check("llama-chat", source=llama)
    assert str(checked).splitlines()[-1].startswith("Checked ")
    assert checked._repr_html_().startswith("<pre>")
    assert not checked.failed()
    assert checked.failed(strict=True) == any(f.severity == "warning" for f in checked.report.findings)
