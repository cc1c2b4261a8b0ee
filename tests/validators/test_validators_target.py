"""Names and aliases that a Unity Catalog takes, and what the rules say of the catalog and schema that a name is in."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogger.errors import NameInvalid
from catalogger.recipes import library
from catalogger.validators import Environment, Facts, Report, Target, check_alias, check_name, default_name, run_rules
from catalogger.validators.facts import Place

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # whatever else this machine does


@pytest.mark.parametrize("name", ["main.ml.gte_large", "a.b.c", "A1._.x_9", f"{'c' * 255}.{'s' * 255}.{'m' * 255}"])
def test_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "has 1 part; a Unity Catalog name has three"),
        ("model", "has 1 part; a Unity Catalog name has three"),
        ("ml.model", "has 2 parts; a Unity Catalog name has three"),
        ("main.ml.gte.large", "has 4 parts; a Unity Catalog name has three"),
        ("main..model", "has an empty schema"),
        (".ml.model", "has an empty catalog"),
        ("main.ml.", "has an empty model"),
        ("main.ml.my model", 'has " " in its model'),
        (" main.ml.model", 'has " " in its catalog'),
        ("main.ml.model\n", 'has "\n" in its model'),
        ("main.ml.a/b", 'has "/" in its model'),
        ("main.my-schema.model", 'has "-" in its schema'),
        ("main.ml.modèle", 'has "è" in its model'),
        ("main.ml.modelе", 'has "е" in its model'),  # noqa: RUF001  the Cyrillic letter
        ("main.ml.٣", 'has "٣" in its model'),
        ("`main`.ml.model", 'has "`" in its catalog'),
        ("main.ml.model;drop", 'has ";" in its model'),
        (f"main.ml.{'x' * 300}", "has a model of 300 characters; 255 are allowed"),
        (f"main.ml.{'x' * 256}", "has a model of 256 characters; 255 are allowed"),
    ],
)
def test_name_that_is_none(name: str, reason: str) -> None:
    with pytest.raises(NameInvalid) as refused:
        check_name(name)
    assert refused.value.reason == reason
    assert refused.value.exit_code == 2
    assert refused.value.fix
    assert len(refused.value.message) < 300


def test_fix_shows_a_part_that_would_do() -> None:
    with pytest.raises(NameInvalid) as refused:
        check_name("main.ml.my model/v2")
    assert refused.value.fix == 'Letters, digits and _ are allowed: "my_model_v2".'


@patient
@given(st.text())
def test_any_text_is_a_name_or_refused(name: str) -> None:
    with suppress(NameInvalid):
        assert re.fullmatch(r"\w+\.\w+\.\w+", check_name(name), re.ASCII)


@pytest.mark.parametrize("alias", ["champion", "challenger", "v", "version1", "2024-06_01", "x" * 255, "v1beta"])
def test_alias(alias: str) -> None:
    assert check_alias(alias) == alias


@pytest.mark.parametrize(
    ("alias", "reason"),
    [
        ("latest", "is reserved"),
        ("Latest", "is reserved"),
        ("v1", "is reserved"),
        ("V12", "is reserved"),
        ("", "is no alias"),
        ("the champion", "is no alias"),
        ("champion ", "is no alias"),
        ("champion\n", "is no alias"),
        ("a/b", "is no alias"),
        ("a.b", "is no alias"),
        ("a@b", "is no alias"),
        ("ä", "is no alias"),
        ("x" * 256, "is no alias"),
    ],
)
def test_alias_that_is_none(alias: str, reason: str) -> None:
    with pytest.raises(NameInvalid) as refused:
        check_alias(alias)
    assert refused.value.reason == reason


def test_alias_of_digits_only_is_a_version_to_some_readers() -> None:
    """`models:/name@3` is an alias and `models:/name/3` a version; MLflow takes both, so it is allowed."""
    assert check_alias("3") == "3"


@pytest.mark.parametrize(
    ("recipe", "name"), [("gte-large", "main.default.gte_large"), ("my model.v2", "main.default.my_model_v2")]
)
def test_default_name(recipe: str, name: str) -> None:
    assert default_name(recipe) == name


def test_default_name_of_every_recipe_is_a_name() -> None:
    for recipe in library():
        assert check_name(default_name(recipe))


@patient
@given(st.text(min_size=1))
def test_default_name_is_always_a_name(recipe: str) -> None:
    assert check_name(default_name(recipe))


REGISTRY = "Unity Catalog at http://127.0.0.1:8081"
RIGHT = Place(REGISTRY, True, True, privileges_known=True, storage="s3://models/root", storage_missing=False)
UNKNOWN = Place(REGISTRY)
PLACES = ("UC005", "UC006", "UC007", "UC008", "UC009", "UC010")
CANNOT_TELL = "the registry cannot tell"


def _judged(place: Place | None, name: str = "main.ml.bot", **target: Any) -> Report:
    return run_rules(
        Facts(Environment("3.17.2"), target=Target(name, "uc:http://x", place=place, **target)), only=("UC",)
    )


def _only(place: Place) -> tuple[str, str, str, str]:
    """Code, severity, sentence and fix of the one finding."""
    (found,) = _judged(place).findings
    return found.code, found.severity, f"{found.subject} {found.message}", found.fix


def test_a_place_where_all_is_right_is_given_no_finding() -> None:
    report = _judged(RIGHT)
    assert report.findings == ()
    assert set(PLACES) <= set(report.ran)


def test_what_nobody_can_tell_is_not_checked() -> None:
    report = _judged(UNKNOWN)
    assert report.findings == ()
    assert report.not_checked == dict.fromkeys(PLACES, CANNOT_TELL)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({}, "the registry has no catalogs and schemas"),
        ({"unreachable": "it is down"}, "the registry could not be asked"),
    ],
)
def test_a_registry_without_catalogs_or_without_an_answer_is_not_checked(target: dict[str, str], why: str) -> None:
    report = _judged(None, **target)
    assert {code: report.not_checked[code] for code in PLACES} == dict.fromkeys(PLACES, why)


def test_without_a_target_there_is_no_place() -> None:
    report = run_rules(Facts(Environment("3.17.2")), only=PLACES)
    assert report.not_checked == dict.fromkeys(PLACES, "nothing is to be registered")


@pytest.mark.parametrize("name", ["", "bot", "ml.bot", "a.b.c.d", "main..bot"])
def test_a_name_that_is_none_has_no_place(name: str) -> None:
    report = _judged(replace(RIGHT, catalog_exists=False, needs="boto3"), name)
    assert [f.code for f in report.findings] == ["UC001"]
    assert {code: report.not_checked[code] for code in PLACES} == dict.fromkeys(
        PLACES, "the name is none, as UC001 says"
    )


def test_uc005_catalog() -> None:
    gone = Place(REGISTRY, catalog_exists=False, privileges_known=True, storage_missing=True, needs="boto3")
    code, severity, said, fix = _only(gone)
    assert (code, severity) == ("UC005", "error")
    assert said == f'name names the catalog "main", which {REGISTRY} does not have'
    assert "Create the catalog" in fix
    left = _judged(gone).not_checked
    assert left == dict.fromkeys(PLACES[1:], "the catalog does not exist, as UC005 says")


def test_uc006_schema() -> None:
    gone = Place(REGISTRY, catalog_exists=True, schema_exists=False, storage_missing=True, needs="boto3")
    code, severity, said, fix = _only(gone)
    assert (code, severity) == ("UC006", "error")
    assert said == f'name names the schema "main.ml", which {REGISTRY} does not have'
    assert "Create the schema" in fix
    assert _judged(gone).not_checked == dict.fromkeys(PLACES[2:], "the schema does not exist, as UC006 says")


def test_uc006_schema_of_a_catalog_that_may_not_be_seen() -> None:
    assert _only(replace(RIGHT, catalog_exists=None, schema_exists=False))[0] == "UC006"
    assert _judged(replace(RIGHT, schema_exists=None)).not_checked["UC006"] == CANNOT_TELL


def test_uc007_privileges_each_with_its_grant() -> None:
    missing = (
        ("USE CATALOG", "catalog", "main"),
        ("CREATE MODEL", "schema", "main.ml"),
        ("CREATE MODEL VERSION", "model", "main.ml.bot"),
        ("EXECUTE", "function", "main.ml.bot"),
    )
    code, severity, said, fix = _only(replace(RIGHT, missing=missing))
    assert (code, severity) == ("UC007", "error")
    assert said == (
        "privileges are missing: USE CATALOG on catalog main, CREATE MODEL on schema main.ml, "
        "CREATE MODEL VERSION on model main.ml.bot, EXECUTE on function main.ml.bot"
    )
    assert fix.split(";") == [
        "GRANT USE CATALOG ON CATALOG `main` TO `<you>`",
        " GRANT CREATE MODEL ON SCHEMA `main`.`ml` TO `<you>`",
        " GRANT CREATE MODEL VERSION ON FUNCTION `main`.`ml`.`bot` TO `<you>`",
        " GRANT EXECUTE ON FUNCTION `main`.`ml`.`bot` TO `<you>`",
        "",
    ]


def test_uc007_what_is_known_to_be_missing_is_said_where_the_rest_is_not_known() -> None:
    hidden = replace(UNKNOWN, missing=(("USE CATALOG", "catalog", "main"),))
    assert _only(hidden)[0] == "UC007"
    assert _judged(hidden).not_checked == {code: CANNOT_TELL for code in PLACES if code != "UC007"}


def test_uc007_privileges_that_are_not_known() -> None:
    assert _judged(replace(RIGHT, privileges_known=False)).not_checked == {"UC007": CANNOT_TELL}


def test_uc008_storage() -> None:
    none = replace(RIGHT, storage=None, storage_missing=True, needs="boto3")
    code, severity, said, fix = _only(none)
    assert (code, severity) == ("UC008", "error")
    assert said == f"storage of {REGISTRY} is not configured: it would refuse every model"
    assert "storage-root.models" in fix
    assert _judged(none).not_checked == {"UC010": "no storage is configured, as UC008 says"}


@pytest.mark.parametrize(
    ("storage", "missing", "ran"),
    [("s3://b/x", None, True), ("s3://b/x", False, True), (None, False, True), (None, None, False)],
)
def test_uc008_storage_that_is_there_or_not_known(storage: str | None, missing: bool | None, ran: bool) -> None:
    report = _judged(replace(RIGHT, storage=storage, storage_missing=missing))
    assert report.findings == ()
    assert ("UC008" in report.ran) == ran
    assert report.not_checked.get("UC008") == (None if ran else CANNOT_TELL)


def test_uc009_names_that_differ_in_case() -> None:
    code, severity, said, fix = _only(replace(RIGHT, similar=("main.ml.Bot", "main.ml.BOT")))
    assert (code, severity) == ("UC009", "warning")
    assert said == 'name "main.ml.bot" differs in case only from "main.ml.BOT", "main.ml.Bot"'
    assert fix
    assert _judged(replace(RIGHT, schema_exists=None)).not_checked["UC009"] == CANNOT_TELL


@pytest.mark.parametrize(
    ("needs", "extra"),
    [("boto3", "s3"), ("azure.storage.filedatalake", "databricks"), ("google.cloud.storage", "databricks")],
)
def test_uc010_client_library(needs: str, extra: str) -> None:
    code, severity, said, fix = _only(replace(RIGHT, needs=needs))
    assert (code, severity) == ("UC010", "error")
    assert said == f"{needs} is not installed, and sending files to s3://models/root takes it"
    assert fix == f"pip install 'catalogger[{extra}]'"


def test_uc010_is_not_checked_where_nobody_knows_where_files_go() -> None:
    nowhere = replace(RIGHT, storage=None)
    assert _judged(nowhere).not_checked == {"UC010": CANNOT_TELL}
    assert REGISTRY in _only(replace(nowhere, needs="boto3"))[2]


@pytest.mark.parametrize("code", PLACES)
def test_what_a_registry_says_of_a_place_can_be_ignored(code: str) -> None:
    gone = Place(REGISTRY, catalog_exists=False)
    facts = Facts(Environment("3.17.2"), target=Target("main.ml.bot", "uc:http://x", place=gone))
    assert code not in {f.code for f in run_rules(facts, (code,), only=PLACES).findings}
