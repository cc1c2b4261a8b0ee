"""Manifests: what they may say, and every mistake of every file at once, with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from fakes.secrets import secret

from catalogger.errors import ManifestInvalid
from catalogger.fleet.entries import Consent
from catalogger.fleet.reading import Wish, read_manifests


def write(text: str, name: str = "models.yaml") -> Path:
    file = Path.cwd() / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(text))
    return file


def read(*files: Path, variables: Mapping[str, str] | None = None, consent: Consent | None = None) -> Wish:
    return read_manifests(files, variables or {}, consent or Consent())


def refused(*files: Path, **more: Any) -> list[tuple[str, int | None, str, str]]:
    with pytest.raises(ManifestInvalid) as caught:
        read(*files, **more)
    assert caught.value.exit_code == 2
    return [(Path(file).name, line, key, text) for file, line, key, text in caught.value.problems]


def test_defaults_variables_and_every_option(work: Path) -> None:
    file = write("""
        variables: {CATALOG: main, SCHEMA: ml}
        defaults: {alias: champion, tags: {team: search}, on_change: candidate}
        models:
          - {recipe: bge-small, name: "${CATALOG}.${SCHEMA}.bge"}
          - recipe: llama-chat
            source: ./checkpoints/bot
            name: ${CATALOG}.${SCHEMA}.bot
            aliases: [challenger, newest]
            tags: {build: 7, final: true}
            set: metadata.owner=me
            weights: copy
            deploy: {endpoint: bot, min_throughput: "0", max_throughput: 980}
          - {recipe: bge-base, name: main.ml.base, deploy: true, alias: [], on_change: fail}
        """)
    first, second, third = read(file, variables={"SCHEMA": "gold"}).entries

    assert (first.name, first.entry.aliases, dict(first.entry.tags)) == (
        "main.gold.bge",
        ("champion",),
        {"team": "search"},
    )
    assert first.source == "BAAI/bge-small-en-v1.5"
    assert first.entry.on_change == "candidate"
    assert second.source == str(work / "checkpoints/bot"), "beside the manifest"
    assert second.entry.aliases == ("challenger", "newest")
    assert dict(second.entry.tags) == {"team": "search", "build": "7", "final": "true"}
    assert second.recipe.recipe.metadata["owner"] == "me"
    assert second.entry.deploy is not None
    assert second.entry.deploy.model_dump(exclude_unset=True) == {
        "endpoint": "bot",
        "min_throughput": 0,
        "max_throughput": 980,
    }
    assert second.at == f"{file}:6"
    assert third.entry.deploy is not None
    assert third.entry.aliases == ()
    assert third.entry.on_change == "fail"


def test_what_an_entry_is_written_for_and_in_whose_words(work: Path) -> None:
    file = write("""
        defaults: {for: dbr-15.4-ml}
        models:
          - {recipe: bge-small, name: main.ml.a}
          - {recipe: bge-small, name: main.ml.b, for: "transformers==4.39.3, mlflow == 2.12.2", normalize: 4}
          - {recipe: bge-small, name: main.ml.c, for: null}
        """)
    options = [wanted.options() for wanted in read(file).entries]
    assert [(o["written_for"], o["normalize"]) for o in options] == [
        ("dbr-15.4-ml", None),
        ("mlflow==2.12.2,transformers==4.39.3", 4),
        (None, None),
    ]


def test_a_recipe_inline_and_one_beside_the_manifest(work: Path) -> None:
    write("extends: llama-chat\nmetadata: {model_type: mine}\n", "recipes/mine.yaml")
    file = write("""
        models:
          - {recipe: recipes/mine.yaml, source: ORG/repo, name: main.ml.a}
          - name: main.ml.b
            source: ORG/repo@abc
            recipe: {extends: llama-chat, metadata: {model_type: other}}
        """)
    beside, inline = read(file).entries
    assert (beside.recipe.name, beside.recipe.recipe.metadata["model_type"]) == ("mine", "mine")
    assert (inline.recipe.name, inline.recipe.recipe.metadata["model_type"]) == ("inline", "other")


def test_many_files_and_what_they_include(work: Path) -> None:
    write('models: [{recipe: bge-small, name: "${C}.ml.small"}]\n', "more/a.yaml")
    write("defaults: {alias: newest}\nmodels: [{recipe: bge-base, name: main.ml.base}]\n", "more/b.yaml")
    first = write("""
        variables: {C: prod}
        include: [more/*.yaml]
        defaults: {alias: champion, weights: copy}
        models: []
        """)
    second = write("models: [{recipe: bge-large, name: main.ml.large}]\n", "second.yaml")
    small, base, large = read(first, second).entries
    assert (small.name, small.entry.aliases) == ("prod.ml.small", ("champion",))
    assert (base.entry.aliases, base.entry.weights) == (("newest",), "copy")
    assert large.entry.aliases == ()


def test_the_digest_is_over_content_and_variables(work: Path) -> None:
    file = write('variables: {C: main}\nmodels: [{recipe: bge-small, name: "${C}.ml.small"}]\n')
    digests = {read(file).digest, read(file, variables={"C": "prod"}).digest}
    assert read(file).digest in digests
    write('variables: {C: main}\nmodels: [{recipe: bge-small, name: "${C}.ml.other"}]\n')
    digests.add(read(file).digest)
    assert len(digests) == 3


def test_all_mistakes_of_all_files_at_once(work: Path) -> None:
    first = write("""\
        defaults: {weight: copy}
        models:
          - {recipe: bge-smal, name: main.ml.a}
          - {recipe: bge-small, name: two.parts}
          - recipe: bge-small
            name: main.ml.b
            alias: v3
            deploy: {endpont: x}
            weights: move
        modles: []
        """)
    second = write("models: [{recipe: bge-small, nmae: main.ml.c}, 7]\n", "second.yaml")
    found = refused(first, second)
    assert [(file, line, key) for file, line, key, _ in found] == [
        ("models.yaml", 1, "defaults.weight"),
        ("models.yaml", 3, "models.0.recipe"),
        ("models.yaml", 4, "models.1.name"),
        ("models.yaml", 8, "models.2.deploy.endpont"),
        ("models.yaml", 9, "models.2.weights"),
        ("models.yaml", 10, "modles"),
        ("second.yaml", 1, "models.0.nmae"),
        ("second.yaml", 1, "models.1"),
    ]
    texts = [text for *_, text in found]
    assert texts[0] == 'unknown key; did you mean "weights"?'
    assert 'Did you mean "bge-small"' in texts[1]
    assert texts[3] == 'unknown key; did you mean "endpoint"?'
    assert texts[5] == 'unknown key; did you mean "models"?'


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", None, "is empty"),
        ("  \n\n", None, "is empty"),
        ("models: []\n", 1, "holds no entry"),
        ("- a\n- b\n", 1, "is not a mapping"),
        ("models: [\n", 2, "is not YAML"),
        ("models: {a: b}\n", 1, "is no list"),
        ("models:\n  - &a {recipe: bge-small}\n  - *a\n", 3, "aliases are not allowed"),
        ("models: [{recipe: bge-small}]\nmodels: []\n", 2, "is there twice"),
        ("models: [{recipe: bge-small, name: '${NOBODY}.ml.a'}]\n", 1, "${NOBODY} is not set"),
        ("models: [{recipe: bge-small, name: '${}.ml.a'}]\n", 1, "${} is not set"),
        ("models: [{recipe: 7}]\n", 1, "is neither a name, a file nor a recipe"),
        ("models: [{recipe: {task: llm/v1/chat}}]\n", 1, "is missing"),
        ("models: [{recipe: gone.yaml}]\n", 1, "there is no such file"),
        ("models: [{recipe: llama-chat, name: main.ml.a}]\n", 1, "names no source"),
        ("models: [{recipe: bge-small, alias: a, aliases: [b]}]\n", 1, "either `aliases` or `alias`"),
        ("models: [{recipe: bge-small, on_change: maybe}]\n", 1, "'register', 'candidate' or 'fail'"),
        ("models: [{recipe: bge-small, deploy: {timeout: -1}}]\n", 1, "greater than 0"),
        ("models: [{recipe: bge-small, tags: [a]}]\n", 1, "valid dictionary"),
        (
            "models: [{recipe: bge-small, for: dbr-17.0-ml, written_for: dbr-17.0-ml}]\n",
            1,
            "either `written_for` or `for`",
        ),
        ("models:\n  - recipe: bge-small\n    for: dbr-99-ml\n", 3, "is no runtime that is known here. Known are dbr-"),
        ("models:\n  - recipe: bge-small\n    for: mlflow-2.12\n", 3, '"mlflow-2.12" names no environment.'),
        ("models:\n  - recipe: bge-small\n    for: 2.12\n", 3, "valid string"),
        ("defaults:\n  alias: a\n  for: torch==2.3.1\nmodels: [{recipe: bge-small}]\n", 3, "says no MLflow"),
        ("models:\n  - recipe: bge-small\n    normalize: 3\n", 3, "4 or 5"),
        ("models:\n  - recipe: bge-small\n    alias: {a: b}\n", 3, "valid tuple"),
        ("models:\n  - recipe: bge-small\n    tags:\n      aliases: [b]\n", 4, "valid string"),
        ("defaults: [a]\nmodels: [{recipe: bge-small}]\n", 1, "is not a mapping"),
        ("include: [gone/*.yaml]\nmodels: [{recipe: bge-small}]\n", 1, "names no file"),
        ("models: [{recipe: bge-small, allow_pickle: true}]\n", 1, "--allow-pickle"),
        ("models: [{recipe: bge-small, trust_remote_code: true}]\n", 1, "--trust-remote-code"),
        ("defaults: {trust_remote_code: true}\nmodels: [{recipe: bge-small}]\n", 2, "--trust-remote-code"),
    ],
)
def test_a_mistake(work: Path, text: str, line: int | None, said: str) -> None:
    found = refused(write(text))
    assert any(found_line == line and said in sentence for _, found_line, _, sentence in found), found


def test_consent_of_the_command_and_the_entry_together(work: Path) -> None:
    file = write("models: [{recipe: bge-small, trust_remote_code: true, allow_pickle: true}]\n")
    (wanted,) = read(file, consent=Consent(remote_code=True, pickle=True)).entries
    assert (wanted.options()["trust_remote_code"], wanted.options()["allow_pickle"]) == (True, True)


@pytest.mark.parametrize(
    "second",
    ["main.ml.bge", "main.ml.BGE"],
)
def test_two_entries_that_name_one_target(work: Path, second: str) -> None:
    first = write("models: [{recipe: bge-small, name: main.ml.bge}]\n")
    other = write(f"models: [{{recipe: bge-base, name: {second}}}]\n", "other.yaml")
    ((file, line, key, text),) = refused(first, other)
    assert (file, line, key) == ("other.yaml", 1, "name")
    assert "models.yaml:1" in text


def test_two_entries_whose_name_is_derived(work: Path) -> None:
    ((_, line, key, _),) = refused(write("models:\n  - {recipe: bge-small}\n  - {recipe: bge-small}\n"))
    assert (line, key) == (3, "name")


def test_a_cycle_of_includes(work: Path) -> None:
    write("include: c.yaml\nmodels: []\n", "b.yaml")
    write("include: a.yaml\nmodels: []\n", "c.yaml")
    found = refused(write("include: b.yaml\nmodels: []\n", "a.yaml"))
    assert [(file, text) for file, _, _, text in found] == [("a.yaml", "a cycle: a.yaml → b.yaml → c.yaml → a.yaml")]


def test_a_file_that_is_included_twice(work: Path) -> None:
    write("models: [{recipe: bge-small}]\n", "b.yaml")
    assert ("b.yaml", None, "include", "is there twice") in refused(write("include: [b.yaml, '*b.yaml']\nmodels: []\n"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("models: [{recipe: ../outside.yaml, name: main.ml.a}]\n", "models.0.recipe"),
        ("models: [{recipe: link.yaml, name: main.ml.a}]\n", "models.0.recipe"),
        ("models: [{recipe: /etc/passwd.yaml, name: main.ml.a}]\n", "models.0.recipe"),
        ("models: [{recipe: bge-small, source: ./../outside}]\n", "models.0.source"),
        ("models: [{recipe: bge-small, source: ../outside}]\n", "models.0.source"),
        ("include: ../outside.yaml\nmodels: []\n", "include"),
        ("include: [link.yaml]\nmodels: []\n", "include.0"),
        ("include: [/etc/*.yaml]\nmodels: []\n", "include.0"),
    ],
)
def test_no_path_leads_out_of_the_folder(work: Path, text: str, key: str) -> None:
    write("models: [{recipe: bge-small}]\n", "outside.yaml")
    (work / "inside").mkdir()
    (work / "inside/link.yaml").symlink_to(work / "outside.yaml")
    assert key in [found for _, _, found, _ in refused(write(text, "inside/models.yaml"))]


def test_only_variables_that_are_meant_for_it(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", secret("a variable of the environment"))
    monkeypatch.setenv("CATALOGGER_VAR_C", "prod")
    entry = "{recipe: bge-small, name: '${C}.ml.a', tag: {t: '${SOME_PASSWORD}'}}"
    (wanted,) = read(write(f"variables: {{SOME_PASSWORD: none}}\nmodels: [{entry}]\n")).entries
    assert (wanted.name, dict(wanted.entry.tags)) == ("prod.ml.a", {"t": "none"})


def test_a_value_is_not_looked_through_again_and_two_dollars_are_one(work: Path) -> None:
    file = write("models: [{recipe: bge-small, tag: {a: '${X}', b: '$${X}'}}]\n")
    (wanted,) = read(file, variables={"X": "${Y}"}).entries
    assert dict(wanted.entry.tags) == {"a": "${Y}", "b": "${X}"}


def test_ten_megabytes_are_no_manifest(work: Path) -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "b: [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n" * 260_000
    file = write(laughs)
    assert file.stat().st_size > 9_000_000
    assert refused(file) == [("models.yaml", None, "", "is larger than 1 MiB, so it is no manifest")]


def test_a_small_file_of_aliases_is_refused_before_it_grows(work: Path) -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12))
    found = refused(write(f"l0: &l0 [lol]\n{levels}\n"))
    assert [(line, text) for _, line, _, text in found] == [(2, "is not YAML: aliases are not allowed")]


@pytest.mark.parametrize("name", ["gone.yaml", "."])
def test_what_cannot_be_read(work: Path, name: str) -> None:
    ((_, _, _, text),) = refused(Path(name))
    assert text.startswith("cannot be read")


def test_only_names_entries(work: Path) -> None:
    wish = read(write("models: [{recipe: bge-small, name: main.ml.a}, {recipe: bge-base, name: main.ml.b}]\n"))
    assert [w.name for w in wish.only(["main.ml.b"]).entries] == ["main.ml.b"]
    assert len(wish.only([]).entries) == 2
    with pytest.raises(ManifestInvalid, match=r"main\.ml\.c is the name of no entry|main\.ml\.c: is the name"):
        wish.only(["main.ml.c"])
