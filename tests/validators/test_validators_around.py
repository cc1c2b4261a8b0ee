"""The rules on what is around a model: environment, target, serving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from validators.judge import Judge

from catalogger.checkpoints import Tensor
from catalogger.recipes import load_recipe
from catalogger.validators import Environment, Existing, Facts, Finding, Report, Target, run_rules

NEWEST = Environment("3.17.2", "5.17.0", "2.0.44", "3.11.7")


def _judge(facts: Facts, code: str) -> Report:
    return run_rules(facts, only=(code,))


def _said(facts: Facts, code: str) -> list[str]:
    """Severity and message of what the rule says; it must have run."""
    report = _judge(facts, code)
    assert report.ran == (code,), report.not_checked
    return [f"{f.severity}: {f.message}" for f in report.findings]


def _only(facts: Facts, code: str) -> Finding:
    (found,) = _judge(facts, code).findings
    return found


@pytest.mark.parametrize(
    ("mlflow", "sqlalchemy", "speaks"),
    [
        ("2.11.5", "2.1.0", True),
        ("2.12.2", "2.1.9", True),
        ("3.1.0", "2.1.0", True),
        ("3.1.0", "2.0.44", False),
        ("3.17.2", "2.1.9", False),
    ],
)
def test_en002_sqlalchemy(mlflow: str, sqlalchemy: str, speaks: bool) -> None:
    facts = Facts(Environment(mlflow, None, sqlalchemy))
    assert len(_said(facts, "EN002")) == speaks
    if speaks:
        found = _only(facts, "EN002")
        assert (found.severity, found.subject) == ("error", "sqlalchemy")
        assert "cannot import name 'FallbackAsyncAdaptedQueuePool'" in found.message
        assert "sqlalchemy<2.1" in found.fix


@pytest.mark.parametrize(
    ("mlflow", "transformers", "speaks"),
    [
        ("3.17.2", "5.23.0", True),
        ("3.18.0", "5.24.1", True),
        ("3.17.2", "5.22.2", False),
        ("3.16.1", "5.23.0", False),
        ("3.17.2", None, False),
    ],
)
def test_en002_upstream_error_that_catalogger_avoids(mlflow: str, transformers: str | None, speaks: bool) -> None:
    said = _said(Facts(Environment(mlflow, transformers)), "EN002")
    assert [s.partition(":")[0] for s in said] == (["note"] if speaks else [])
    assert all("AttributeError: 'str' object has no attribute '__name__'" in s for s in said)


@pytest.mark.parametrize(
    ("mlflow", "transformers", "says"),
    [
        ("2.11.5", "4.37.2", []),
        ("2.11.5", "4.38.0", ["warning: is 4.38.0; MLflow 2.11.5 declares 4.25.1 to 4.37.2"]),
        ("3.17.2", "5.17.0", []),
        ("3.17.2", "5.18.0", ["warning: is 5.18.0; MLflow 3.17.2 declares 4.45.2 to 5.17.0"]),
        ("3.17.2", "4.45.1", ["warning: is 4.45.1; MLflow 3.17.2 declares 4.45.2 to 5.17.0"]),
        ("3.1.4", "4.52.4", []),
        ("3.10.1", "4.57.5", []),
        ("3.18.0", "5.20.2", []),
    ],
)
def test_en003_declared_range(mlflow: str, transformers: str, says: list[str]) -> None:
    assert _said(Facts(Environment(mlflow, transformers)), "EN003") == says


@pytest.mark.parametrize(
    ("mlflow", "transformers", "why"),
    [
        ("3.17.2", None, "Transformers is not installed here"),
        ("3.19.0", "5.20.2", "the range that MLflow 3.19.0 declares is not known here"),
        ("2.10.2", "4.37.1", "the range that MLflow 2.10.2 declares is not known here"),
    ],
)
def test_en003_is_not_checked(mlflow: str, transformers: str | None, why: str) -> None:
    assert _judge(Facts(Environment(mlflow, transformers)), "EN003").not_checked == {"EN003": why}


@pytest.mark.parametrize(
    ("mlflow", "speaks"),
    [("2.11.5", False), ("2.12.2", True), ("2.13.3", False), ("2.16.2", True), ("2.17.2", False), ("2.18.0", False)],
)
def test_en004_upload_where_no_tokens_are_vended(mlflow: str, speaks: bool) -> None:
    facts = Facts(Environment(mlflow), target=Target("main.ml.bot", "databricks-uc"))
    assert len(_said(facts, "EN004")) == speaks
    assert _said(replace(facts, target=Target("main.ml.bot", "sqlite:///x.db")), "EN004") == []
    assert "EN004" in _judge(replace(facts, target=None), "EN004").not_checked


def test_en005_code_that_is_not_adapted_to_this_transformers() -> None:
    def said(recipe: str, transformers: str) -> list[str]:
        return _said(Facts(Environment("3.17.2", transformers), recipe=load_recipe(recipe).recipe), "EN005")

    assert said("gte-large", "5.17.0") == [
        "note: is 5.17.0; the recipe's model is known to work with <5, and asks for that"
    ]
    assert said("gte-large", "4.57.6") == []
    assert said("bge-large", "5.17.0") == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("main.ml.bot", None),
        ("ml.bot", "has 2 parts; a Unity Catalog name has three"),
        ("a.b.c.d", "has 4 parts; a Unity Catalog name has three"),
        ("main.ml.my bot", 'has " " in its model'),
        ("main.ml/x.bot", 'has "/" in its schema'),
        ("main..bot", "has an empty schema"),
        (f"main.ml.{'x' * 256}", "has a model of 256 characters; 255 are allowed"),
    ],
)
def test_uc001_name(name: str, reason: str | None) -> None:
    said = _said(Facts(NEWEST, target=Target(name, "")), "UC001")
    assert [s.endswith(reason or "") for s in said] == ([True] if reason else [])


@pytest.mark.parametrize(
    ("name", "speaks"),
    [
        ("system.ai.bot", True),
        ("System.ai.bot", True),
        ("hive_metastore.default.bot", True),
        ("main.information_schema.bot", True),
        ("main.default.bot", False),
        ("systems.ml.bot", False),
        ("bot", False),
        ("", False),
    ],
)
def test_uc002_reserved(name: str, speaks: bool) -> None:
    assert len(_said(Facts(NEWEST, target=Target(name, "")), "UC002")) == speaks


def test_uc003_registry_that_cannot_be_asked() -> None:
    facts = Facts(NEWEST, target=Target("main.ml.bot", "http://x", unreachable='"http://x" cannot be reached.'))
    assert _said(facts, "UC003") == ['error: "http://x" cannot be reached.']
    assert _judge(facts, "UC004").not_checked == {"UC004": "the registry could not be asked"}
    assert _said(replace(facts, target=Target("main.ml.bot", "http://x")), "UC003") == []


def test_uc004_another_kind_under_the_same_name(made: Callable[[str], Path], facts: Judge) -> None:
    def said(existing: Existing | None) -> list[str]:
        return _said(facts(made("llama"), target=Target("main.ml.bot", "", existing=existing)), "UC004")

    assert said(None) == []
    assert said(Existing("7")) == [], "a version of somebody who wrote no such tags"
    assert said(Existing("7", "llm/v1/chat", "LlamaForCausalLM")) == []
    assert said(Existing("7", "llm/v1/embeddings", "BertModel")) == [
        "warning: main.ml.bot version 7 has task llm/v1/embeddings; this one has llm/v1/chat",
        "warning: main.ml.bot version 7 has architecture BertModel; this one has LlamaForCausalLM",
    ]


def test_pt001_family(made: Callable[[str], Path], facts: Judge) -> None:
    assert _said(facts(made("bert"), "bge-embeddings"), "PT001") == []
    seen = facts(made("llama"))
    assert _said(seen, "PT001") == []
    assert seen.checkpoint
    other = replace(
        seen.checkpoint, small={**seen.checkpoint.small, "config.json": b'{"architectures": ["QwenForCausalLM"]}'}
    )
    assert _said(replace(seen, checkpoint=other), "PT001") == [
        'warning: says "QwenForCausalLM", of no family that provisioned throughput is known to serve'
    ]


@pytest.mark.parametrize(
    ("count", "speaks"),
    [(8_030_261_248, False), (1_235_814_400, False), (70_553_706_496, False), (405_853_388_800, False),
     (2_000_000_000, True), (60_000_000_000, True)],
)  # fmt: skip
def test_pt002_size_of_a_published_llama(made: Callable[[str], Path], facts: Judge, count: int, speaks: bool) -> None:
    seen = facts(made("llama"))
    assert seen.checkpoint
    (shard, *_) = seen.checkpoint.shards
    large = replace(shard, tensors=(Tensor("w", "BF16", (count,), 0, 2 * count),))
    seen = replace(seen, checkpoint=replace(seen.checkpoint, shards=(large,)))
    assert [s.partition(":")[0] for s in _said(seen, "PT002")] == (["note"] if speaks else [])


def test_pt003_retired(made: Callable[[str], Path], facts: Judge) -> None:
    assert _said(facts(made("llama"), "llama-3.1-8b-instruct"), "PT003") == []
    (said,) = _said(facts(made("llama"), "llama-3.1-405b-instruct"), "PT003")
    assert "provisioned throughput on 2026-05-15" in said


@pytest.mark.parametrize(
    ("region", "says"),
    [
        ("eastus2", []),
        ("EastUS2", []),
        ("us-central1", []),
        ("westeurope", ['warning: "westeurope" is not listed for LlamaForCausalLM']),
    ],
)
def test_pt004_region(made: Callable[[str], Path], facts: Judge, region: str, says: list[str]) -> None:
    assert _said(facts(made("llama"), region=region), "PT004") == says


@pytest.mark.parametrize(
    ("region", "family", "why"),
    [
        (None, "llama", "no --region was given"),
        ("mars-1", "llama", '"mars-1" is in none of the tables of regions that are known'),
        ("eastus", "mixtral", "no table of regions is known for MixtralForCausalLM"),
    ],
)
def test_pt004_is_not_checked(
    made: Callable[[str], Path], facts: Judge, region: str | None, family: str, why: str
) -> None:
    report = _judge(facts(made(family), f"{family}-chat", region=region), "PT004")
    assert report.not_checked == {"PT004": why}


def test_pt005_what_only_the_server_can_say(made: Callable[[str], Path], facts: Judge) -> None:
    recipe = load_recipe("llama-3.1-8b-instruct").recipe
    (said,) = _said(facts(made("llama"), recipe), "PT005")
    assert said.startswith("note: says only of a registered version whether it serves it")
    assert "tokens per second" in said
