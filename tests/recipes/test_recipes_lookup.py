"""Finding a recipe, reading a user's own, and saying everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from catalogger.errors import RecipeInvalid, RecipeNotFound
from catalogger.recipes import NamedRecipe, Recipe, library, load_recipe, lookup

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # whatever else this machine does

GOOD = """\
summary: Mine
task: llm/v1/embeddings
architectures: [BertModel]
"""
Problems = tuple[tuple[int | None, str, str], ...]


def _write(text: str, name: str = "mine.yaml") -> str:
    Path(name).write_text(dedent(text), encoding="utf-8")
    return f"./{name}"


def _problems(text: str, *overrides: str) -> Problems:
    with pytest.raises(RecipeInvalid) as refused:
        load_recipe(_write(text), overrides)
    return refused.value.problems


def test_unknown_name_suggests() -> None:
    with pytest.raises(RecipeNotFound) as refused:
        load_recipe("gte-lrge")
    assert refused.value.near[0] == "gte-large"
    assert str(refused.value).startswith('Unknown recipe "gte-lrge". Did you mean "gte-large"')
    assert refused.value.known == tuple(library())
    assert "--recipe ./gte-lrge.yaml" in refused.value.fix
    assert refused.value.exit_code == 2


def test_capitals_are_no_other_name_but_a_hint() -> None:
    with pytest.raises(RecipeNotFound, match='Did you mean "bge-large"'):
        load_recipe("BGE-Large")


def test_name_like_nothing_has_no_hint() -> None:
    with pytest.raises(RecipeNotFound) as refused:
        load_recipe("zzzzzzzz")
    assert refused.value.near == ()
    assert "Did you mean" not in str(refused.value)


@pytest.mark.parametrize("name", ["./nowhere.yaml", "nowhere.yml", "some/folder"])
def test_path_to_nothing(name: str) -> None:
    with pytest.raises(RecipeInvalid, match="there is no such file"):
        load_recipe(name)


def test_name_too_long_for_a_file_is_no_file() -> None:
    with pytest.raises((RecipeInvalid, RecipeNotFound)):
        load_recipe("x" * 300 + ".yaml")


def test_own_file_by_path() -> None:
    found = load_recipe(_write(GOOD))
    assert (found.name, found.file, found.recipe.summary) == ("mine", "./mine.yaml", "Mine")


def test_own_file_without_a_slash() -> None:
    _write(GOOD)
    assert load_recipe("mine.yaml").name == "mine"


def test_own_file_of_a_shipped_name_is_the_own_one() -> None:
    assert load_recipe(_write(GOOD, "gte-large.yaml")).recipe.architectures == ("BertModel",)


def test_unknown_key_has_line_and_suggestion() -> None:
    assert _problems(GOOD + "licnce: {id: mit}\n") == ((4, "licnce", 'unknown key; did you mean "licence"?'),)


def test_unknown_key_like_nothing() -> None:
    assert _problems(GOOD + "zzzz: 1\n") == ((4, "zzzz", "unknown key"),)


def test_unknown_nested_key_has_its_own_line() -> None:
    assert _problems(GOOD + "licence:\n  id: mit\n  link: x\n") == ((6, "licence.link", "unknown key"),)


def test_unknown_nested_key_suggests_too() -> None:
    (problem,) = _problems(GOOD + "licence: {id: mit, gatd: true}\n")
    assert 'did you mean "gated"?' in problem[2]


def test_all_problems_at_once_in_order_of_lines() -> None:
    problems = _problems(
        """\
        summary: Mine
        task: llm/v1/talk
        architectures: []
        dtype: int4
        context_length: -1
        tasks: x
        """
    )
    keys = [(line, key) for line, key, _ in problems]
    assert keys == [(2, "task"), (3, "architectures"), (4, "dtype"), (5, "context_length"), (6, "tasks")]


def test_message_names_file_line_and_key() -> None:
    with pytest.raises(RecipeInvalid) as refused:
        load_recipe(_write(GOOD + "version: 0\nvocabulary: many\n"))
    first, second, third = refused.value.message.splitlines()
    assert first == "The recipe ./mine.yaml has 2 problems:"
    assert second.startswith("  ./mine.yaml:4: version: ")
    assert third.startswith("  ./mine.yaml:5: vocabulary: ")
    assert third.endswith("not 'many'")


def test_missing_keys() -> None:
    assert _problems("version: 1\n") == tuple((None, k, "is missing") for k in ("summary", "task", "architectures"))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("version: '1'", "version"),
        ("version: true", "version"),
        ("context_length: 512.0", "context_length"),
        ("licence: mit", "licence"),
        ("licence: {id: 5}", "licence.id"),
        ("licence: {id: mit, url: 'http://plain'}", "licence.url"),
        ("licence: {id: mit, gated: 'yes'}", "licence.gated"),
        ("metadata: [a]", "metadata"),
        ("metadata: {a: [1]}", "metadata.a.str"),
        ("source: {repo: org/name, revision: main}", "source.revision"),
        ("source: {repo: no-slash}", "source.repo"),
        ("source: {repo: ../name}", "source.repo"),
        ("source: {repo: https://huggingface.co/org/name}", "source.repo"),
        ("embedding: {pooling: max}", "embedding.pooling"),
        ("embedding: {dimension: 0}", "embedding.dimension"),
        ("remote_code: {repo: org/name, consent: given}", "remote_code.consent"),
        ("serving: {unit: cores}", "serving.unit"),
        ("requirements: einops==1", "requirements"),
    ],
)
def test_wrong_value(line: str, key: str) -> None:
    problems = _problems(f"{GOOD}{line}\n")
    assert (problems[0][0], problems[0][1]) == (4, key)


@pytest.mark.parametrize("name", ["Bert Model", "Bert.Model", "1Bert", "", "x" * 101])
def test_architecture_is_a_class_name(name: str) -> None:
    (problem,) = _problems(f"summary: s\ntask: llm/v1/chat\narchitectures:\n- Good\n- {name!r}\n")
    assert problem[:2] == (5, "architectures.1")


def test_embedding_belongs_to_embeddings() -> None:
    (problem,) = _problems(GOOD.replace("embeddings", "chat") + "embedding: {pooling: cls}\n")
    assert "`embedding` belongs to task llm/v1/embeddings only" in problem[2]


def test_task_is_no_metadata() -> None:
    (problem,) = _problems(GOOD + "metadata: {task: llm/v1/chat}\n")
    assert problem == (4, "metadata", "say the task in `task`; the logger adds it to the metadata")


@pytest.mark.parametrize(
    "line", ["einops", "einops>=0.8", "einops==0.8,<1", "einops == 0.8", "-r other.txt", "git+https://x/y", "a==1; b"]
)
def test_requirement_that_is_not_pinned(line: str) -> None:
    (problem,) = _problems(f"{GOOD}requirements: ['{line}']\n")
    assert problem == (4, "requirements", f'"{line}" is not pinned; write name==version')


@pytest.mark.parametrize("said", ["below 5", "5", "<", "<five"])
def test_transformers_that_is_no_range(said: str) -> None:
    (problem,) = _problems(GOOD + f"transformers: {said!r}\n")
    assert problem[1:] == (
        "transformers", f'"{said}" is no range of versions; write it as pip does, for example <5',
    )  # fmt: skip


def test_range_of_transformers() -> None:
    assert load_recipe(_write(GOOD + "transformers: <5,>=4.45\n")).recipe.transformers == "<5,>=4.45"


def test_pinned_requirements() -> None:
    lines = ("einops==0.8.1", "torch[opt]==2.2.0+cpu", "a_b.c==1!2.0rc1")
    assert load_recipe(_write(f"{GOOD}requirements: {list(lines)}\n")).recipe.requirements == lines


def test_same_key_twice() -> None:
    assert _problems(GOOD + "summary: Again\n") == ((4, "summary", "is there twice"),)


def test_same_nested_key_twice() -> None:
    assert _problems(GOOD + "licence:\n  id: mit\n  id: x\n") == ((6, "licence.id", "is there twice"),)


def test_alias_is_refused() -> None:
    (problem,) = _problems(GOOD + "metadata: &m {a: b}\nlicence: *m\n")
    assert problem == (5, "", "is not YAML: aliases are not allowed")


def test_object_tag_is_refused() -> None:
    (problem,) = _problems(GOOD + "licence: !!python/object/apply:os.system ['true']\n")
    assert problem[0] == 4


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n", "# only a comment\n"])
def test_no_mapping(text: str) -> None:
    (problem,) = _problems(text)
    assert problem[2] == "is not a mapping of keys to values"


def test_broken_yaml_has_its_line() -> None:
    (problem,) = _problems(GOOD + "licence: {id: mit\n")
    assert problem[0] in (4, 5)
    assert problem[2].startswith("is not YAML: ")


def test_too_large_a_file() -> None:
    padding = "# " + "x" * (64 * 1024) + "\n"
    assert _problems(GOOD + padding) == ((None, "", "is larger than 64 KiB, so it is no recipe"),)


def test_largest_file() -> None:
    _write(GOOD + "#" * (64 * 1024 - len(GOOD)))
    assert Path("mine.yaml").stat().st_size == 64 * 1024
    assert load_recipe("mine.yaml").recipe.summary == "Mine"


def test_not_utf8() -> None:
    Path("mine.yaml").write_bytes(GOOD.encode() + b"licence: {id: \xff}\n")
    with pytest.raises(RecipeInvalid, match=r"cannot be read: .*utf-8"):
        load_recipe("mine.yaml")


def test_extends_merges_nested_keys() -> None:
    parent = load_recipe("bge-large").recipe
    found = load_recipe(
        _write("extends: bge-large\nsummary: Ours\nembedding: {pooling: mean}\nmetadata: {owner: ml}\n")
    ).recipe
    assert parent.embedding is not None
    assert found.embedding == parent.embedding.model_copy(update={"pooling": "mean"})
    assert found.metadata == {**parent.metadata, "owner": "ml"}
    assert (found.summary, found.source, found.task) == ("Ours", parent.source, parent.task)


def test_extends_replaces_lists() -> None:
    found = load_recipe(_write("extends: bge-large\narchitectures: [Other]\n")).recipe
    assert found.architectures == ("Other",)


def test_extends_can_take_away() -> None:
    assert load_recipe(_write("extends: bge-large\nsource: null\n")).recipe.source is None


@pytest.mark.parametrize(
    ("value", "hint"), [("bge-larg", 'did you mean "bge-large"'), ("zzzzzz", "is no recipe"), ("[a]", "is no recipe")]
)
def test_extends_an_unknown_recipe(value: str, hint: str) -> None:
    (problem,) = _problems(f"summary: s\nextends: {value}\n")
    assert problem[:2] == (2, "extends")
    assert hint in problem[2]


def test_extends_one_level_only(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("library").mkdir()
    _write(GOOD, "library/one.yaml")
    _write("extends: one\n", "library/two.yaml")
    lookup.library.cache_clear()
    monkeypatch.setattr(lookup, "LIBRARY", Path("library").absolute())
    try:
        assert load_recipe("two").recipe.summary == "Mine"
        assert _problems("extends: two\n") == ((1, "extends", '"two" extends another recipe itself; one level only'),)
    finally:
        lookup.library.cache_clear()


def test_problem_of_an_own_file_is_not_blamed_on_a_line_of_the_parent() -> None:
    assert _problems("extends: bge-large\ntask: llm/v1/chat\nlicence: {url: ftp://x}\n")[0][:2] == (3, "licence.url")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("metadata.model_type=bge-large", lambda r: r.metadata.get("model_type") == "bge-large"),
        ("metadata.size=7", lambda r: r.metadata.get("size") == 7),
        ("context_length=128", lambda r: r.context_length == 128),
        ("licence.gated=true", lambda r: r.licence.gated is True),
        ("summary=a=b", lambda r: r.summary == "a=b"),
        ("architectures=[A, B]", lambda r: r.architectures == ("A", "B")),
        ("source=", lambda r: r.source is None),
        ("embedding.pooling=mean", lambda r: r.embedding.pooling == "mean"),
    ],
)
def test_override(override: str, read: Callable[[Recipe], bool]) -> None:
    assert read(load_recipe("bge-small", [override]).recipe)
    assert not read(load_recipe("bge-small").recipe)


def test_later_override_wins() -> None:
    assert load_recipe("bge-small", ["context_length=1", "context_length=2"]).recipe.context_length == 2


@pytest.mark.parametrize(
    ("override", "key", "text"),
    [
        ("context_length", "context_length", "an override is written key=value or key.key=value"),
        ("=1", "=1", "an override is written key=value or key.key=value"),
        ("metadata.=1", "metadata.=1", "an override is written key=value or key.key=value"),
        ("summary={", "summary", '"{" is not YAML'),
        ("summary=*a", "summary", '"*a" is not YAML'),
        ("summary.x=1", "summary.x", '"summary" holds a value, not keys'),
        ("metadat.model_type=x", "metadat", 'unknown key; did you mean "metadata"?'),
        ("embedding.size=1", "embedding.size", "unknown key"),
        ("extends=bge-large", "extends", "unknown key"),
    ],
)
def test_override_that_is_wrong(override: str, key: str, text: str) -> None:
    with pytest.raises(RecipeInvalid) as refused:
        load_recipe("bge-small", [override])
    assert [p[1:] for p in refused.value.problems] == [(key, text)]


@pytest.mark.parametrize("value", ["2001-99-99", "!!bool x", "!!int ''", "\x00", "[" * 5000])
def test_override_with_a_strange_value(value: str) -> None:
    with pytest.raises(RecipeInvalid):
        load_recipe("bge-small", [f"context_length={value}"])


def test_all_wrong_overrides_at_once() -> None:
    with pytest.raises(RecipeInvalid) as refused:
        load_recipe("bge-small", ["nonsense", "task=x", "wrong=1"])
    assert {p[1] for p in refused.value.problems} == {"nonsense", "task", "wrong"}


def test_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("bge-small").recipe.summary = "x"


# What a file may hold: plain text, and the pieces that recipes and YAML are made of in any order.
_PIECES = st.sampled_from(
    [
        *GOOD.splitlines(keepends=True), "extends: bge-large\n", "licence: ", "metadata: ", "requirements: ", "<<: ",
        "{", "}", "[", "]", ": ", "- ", "? ", "\n", "  ", "&a ", "*a", "'", '"', "|\n", ">\n", "%", "---\n",
        "!!bool ", "!!int ", "!!set ", "!!omap ", "!!str ", "null", "true", "1e999", ".nan", "0x1f", "1:30",
        "2001-01-01", "2001-99-99",
    ]
)  # fmt: skip
_TEXT = st.one_of(st.text(), st.lists(st.one_of(_PIECES, st.text(max_size=3))).map("".join))
_DATA = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(list(Recipe.model_fields)), st.text(max_size=4)), inner, max_size=4),
    ),
    max_leaves=8,
)


def _accepted_or_refused(content: bytes) -> None:
    Path("any.yaml").write_bytes(content)
    with suppress(RecipeInvalid):
        assert isinstance(load_recipe("any.yaml"), NamedRecipe)


@patient
@given(_TEXT)
def test_any_text_is_accepted_or_refused(text: str) -> None:
    _accepted_or_refused(text.encode("utf-8", "replace"))


@patient
@given(st.binary(max_size=100))
@example(GOOD.encode("utf-16"))
@example(b"\xef\xbb\xbf" + GOOD.encode())
def test_any_bytes_are_accepted_or_refused(content: bytes) -> None:
    _accepted_or_refused(content)


@patient
@given(st.dictionaries(st.sampled_from(list(Recipe.model_fields)), _DATA))
def test_any_data_is_accepted_or_refused(data: dict[str, object]) -> None:
    text = yaml.safe_dump({"summary": "s", "task": "llm/v1/chat", "architectures": ["A"], **data}, allow_unicode=True)
    _accepted_or_refused(text.encode("utf-8", "replace"))


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 20_000,
        "a: " + "{a: " * 2_000,
        "- " * 20_000,
        "version: !!bool x",
        "version: !!int ''",
        "version: !!timestamp x",
        "version: !!float ''",
        "version: 0x" + "f" * 5000,
        "summary: 0x" + "f" * 5000,
        "summary: " + "1" * 5000,
        "summary: \x07",
        "1: 2",
        "? [a]\n: b",
        "? {a: b}\n: c",
        "<<: [1]",
        "<<: {summary: s}",
    ],
    ids=lambda text: str(text)[:20],
)
def test_hostile_text_is_refused(text: str) -> None:
    Path("any.yaml").write_text(text)
    with pytest.raises(RecipeInvalid):
        load_recipe("any.yaml")
