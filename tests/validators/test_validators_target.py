"""Names and aliases that a Unity Catalog takes, and those that it does not."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogger.errors import NameInvalid
from catalogger.recipes import library
from catalogger.validators import check_alias, check_name, default_name

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
