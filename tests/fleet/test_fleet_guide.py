"""The guide on many models shows commands and keys that there are, and a manifest that is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from cli.command import run
from cli.guide import require_known

import catalogger
from catalogger.fleet.entries import Consent
from catalogger.fleet.manifest import SHORT, Entry, OnChange
from catalogger.fleet.reading import read_manifests
from catalogger.fleet.schema import Subject, schema, shipped, written

PAGE = (Path(__file__).parents[2] / "docs" / "many-models.md").read_text()


@pytest.mark.parametrize("shown", re.findall(r"^\$ log-model (.+)$", PAGE, re.MULTILINE))
def test_every_command_is_one_and_takes_its_options(shown: str) -> None:
    require_known(shown)


def test_the_manifest_is_right(work: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(.+?)```", PAGE, re.DOTALL)
    (work / "models.yaml").write_text(shown)
    wish = read_manifests(["models.yaml"], {"CATALOG": "prod"}, Consent())
    assert [w.name for w in wish.entries] == ["prod.ml.bge_base", "prod.ml.support_bot"]


def test_every_key_is_named() -> None:
    assert {key for key in {*Entry.model_fields, *SHORT} if f"`{key}`" not in PAGE} <= {*SHORT.values(), "tag"}
    for value in get_args(OnChange):
        assert f"`{value}`" in PAGE


def test_every_function_of_the_table_is_public() -> None:
    named = re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)
    assert len(named) >= 2
    assert set(named) <= set(catalogger.__all__)


@pytest.mark.parametrize("subject", get_args(Subject))
def test_the_shipped_schema_is_the_generated_one(subject: Subject) -> None:
    assert shipped(subject).read_text() == written(subject), "python -m catalogger.fleet.schema writes it"
    done = run("schema", subject)
    assert json.loads(done.out) == schema(subject)


def test_every_reference_of_the_schema_is_there() -> None:
    document = schema("manifest")
    named = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(document)))
    assert named
    assert named <= set(document["$defs"])
    assert set(document["$defs"]["Entry"]["properties"]) == {*Entry.model_fields, *SHORT}
