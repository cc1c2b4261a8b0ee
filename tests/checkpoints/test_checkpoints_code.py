"""Code that a checkpoint borrows from another repository: brought along at one commit, and named as its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints.shard_bytes import CONFIG, files
from fakes.hub import Hub

from catalogger.checkpoints import Checkpoint, borrowed_repos, fetch, open_source, with_borrowed_code
from catalogger.errors import AccessDenied, CheckpointError, RepositoryNotFound
from catalogger.files.digests import DigestMemory

NAME, CODE = "org/tiny", "org/code"
AUTO_MAP = {"AutoModel": f"{CODE}--modeling.NewModel", "AutoConfig": f"{CODE}--configuration.NewConfig"}
MODULES = {"modeling.py": b"import configuration\n", "configuration.py": b"raise RuntimeError('imported')\n"}


def _config(**more: Any) -> bytes:
    return json.dumps({**CONFIG, **more}).encode()


@pytest.fixture
def borrower(hub: Hub) -> Checkpoint:
    """A checkpoint whose model class lives elsewhere."""
    tokenizer = json.dumps({"auto_map": {"AutoTokenizer": [f"{CODE}--tokenization.T", None]}, "model_max_length": 8})
    hub.add(NAME, files(**{"config.json": _config(auto_map=AUTO_MAP), "tokenizer_config.json": tokenizer.encode()}))
    return open_source(NAME)


@pytest.fixture
def code(hub: Hub) -> str:
    """The commit of the code that is borrowed."""
    return hub.add(CODE, {**MODULES, "README.md": b"x", "model.safetensors": b"x", "sub/other.py": b"x"})


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({}, set()),
        ({"auto_map": {"AutoModel": "modeling.Own"}}, set()),
        ({"auto_map": AUTO_MAP}, {CODE}),
        ({"auto_map": {"AutoTokenizer": [f"{CODE}--t.T", None]}}, {CODE}),
        ({"auto_map": {"A": "a/b--m.M", "B": "c/d--m.M", "C": "own.M"}}, {"a/b", "c/d"}),
        ({"auto_map": "a/b--m.M"}, {"a/b"}),
        ({"auto_map": None}, set()),
    ],
)
def test_borrowed_repos(config: dict[str, Any], found: set[str], work: Path) -> None:
    for path, content in files(**{"config.json": _config(**config)}).items():
        (work / path).write_bytes(content)
    assert borrowed_repos(open_source(".")) == found


def test_tokenizers_borrow_too(borrower: Checkpoint) -> None:
    assert borrowed_repos(borrower) == {CODE}


def test_code_comes_along_at_one_commit(borrower: Checkpoint, code: str) -> None:
    found = with_borrowed_code(borrower, CODE, None)
    assert found.code == f"{CODE}@{code}"
    assert {path: found.small[path] for path in MODULES} == MODULES
    assert set(found.small) == set(borrower.small) | set(MODULES)
    assert {f.path for f in found.files} == {*found.small, "model.safetensors"}


def test_auto_map_names_the_code_as_its_own(borrower: Checkpoint, code: str) -> None:
    found = with_borrowed_code(borrower, CODE, code)
    assert found.config["auto_map"] == {"AutoModel": "modeling.NewModel", "AutoConfig": "configuration.NewConfig"}
    assert found.tokenizer_config["auto_map"] == {"AutoTokenizer": ["tokenization.T", None]}
    assert borrowed_repos(found) == set()
    rest = {key: value for key, value in found.config.items() if key != "auto_map"}
    assert rest == CONFIG
    assert found.tokenizer_config["model_max_length"] == 8


def test_digests_and_sizes_are_of_the_new_content(borrower: Checkpoint, code: str) -> None:
    import hashlib

    found = with_borrowed_code(borrower, CODE, code)
    facts = {f.path: (f.size, f.sha256) for f in found.files}
    assert {path: facts[path] for path in found.small} == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in found.small.items()
    }
    weights = {f.path: f for f in borrower.files}["model.safetensors"]
    assert facts["model.safetensors"] == (weights.size, weights.sha256)


def test_only_code_is_fetched(borrower: Checkpoint, code: str, hub: Hub) -> None:
    with_borrowed_code(borrower, CODE, code)
    read = {r.path.rsplit("/", 1)[-1] for r in hub.requests if f"/{CODE}/resolve/" in r.path and r.method == "GET"}
    assert "model.safetensors" not in read
    assert set(MODULES) <= read


def test_pinned_commit_and_no_other(borrower: Checkpoint, code: str, hub: Hub) -> None:
    hub.add(CODE, {"modeling.py": b"worse"})
    pinned, newest = with_borrowed_code(borrower, CODE, code), with_borrowed_code(borrower, CODE, None)
    assert (pinned.small["modeling.py"], newest.small["modeling.py"]) == (MODULES["modeling.py"], b"worse")
    assert pinned.code == f"{CODE}@{code}" != newest.code


def test_code_of_another_repository_stays_named(hub: Hub, code: str) -> None:
    auto_map = {"AutoModel": f"{CODE}--modeling.NewModel", "AutoConfig": "org/else--c.C"}
    hub.add(NAME, files(**{"config.json": _config(auto_map=auto_map)}))
    found = with_borrowed_code(open_source(NAME), CODE, code)
    assert found.config["auto_map"] == {"AutoModel": "modeling.NewModel", "AutoConfig": "org/else--c.C"}


def test_clash_of_names(hub: Hub, code: str) -> None:
    hub.add(NAME, files(**{"config.json": _config(auto_map=AUTO_MAP), "modeling.py": b"mine"}))
    with pytest.raises(CheckpointError, match=f'and "{CODE}" both have a file "modeling.py"'):
        with_borrowed_code(open_source(NAME), CODE, code)


def test_code_that_is_not_there(borrower: Checkpoint) -> None:
    with pytest.raises(RepositoryNotFound, match=CODE):
        with_borrowed_code(borrower, CODE, None)


def test_commit_that_is_not_there(borrower: Checkpoint, code: str) -> None:
    with pytest.raises(RepositoryNotFound, match="has no branch, tag or commit"):
        with_borrowed_code(borrower, CODE, "f" * 40)


def test_gated_code(borrower: Checkpoint, hub: Hub) -> None:
    hub.add(CODE, MODULES, gated=True)
    with pytest.raises(AccessDenied, match=f'The repository "{CODE}" is gated'):
        with_borrowed_code(borrower, CODE, None)


def test_corrupt_code_is_not_taken(borrower: Checkpoint, code: str, hub: Hub) -> None:
    """Code is what runs: it is compared with the Hub's digest like every other file."""
    hub.corrupt("*/modeling.py", times=99)
    with pytest.raises(CheckpointError):
        with_borrowed_code(borrower, CODE, code)


def test_code_survives_the_fetch(borrower: Checkpoint, code: str) -> None:
    found = fetch(with_borrowed_code(borrower, CODE, code), DigestMemory())
    assert found.code == f"{CODE}@{code}"
    assert found.small["modeling.py"] == MODULES["modeling.py"]
