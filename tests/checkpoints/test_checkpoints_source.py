"""What the user writes as a source, and what it is taken for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints.shard_bytes import CONFIG, files, folder
from fakes.hub import Hub
from safetensors.numpy import save_file

from catalogger.checkpoints import open_source, save_objects
from catalogger.errors import CataloggerError, RepositoryNotFound, SourceInvalid


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed distribution that carries two models and imports nothing."""
    site = tmp_path / "site"
    paths = [
        *(f"my_models/bge/{path}" for path in files()),
        *(f"my_models/nested/bge-large/{path}" for path in files()),
        "my_models/__init__.py",
    ]
    for path in paths:
        folder(site, {path: files().get(path.rsplit("/", 1)[-1], b"raise RuntimeError('imported')")})
    info = site / "my_models-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-models\nVersion: 1.2\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in paths))
    monkeypatch.syspath_prepend(str(site))
    return "my-models"


@pytest.mark.parametrize(
    ("below", "found"),
    [
        ("/my_models/bge", "my_models/bge"),
        ("/bge", "my_models/bge"),
        ("/bge-large", "my_models/nested/bge-large"),
        ("/nested/bge-large", "my_models/nested/bge-large"),
    ],
)
def test_folder_of_a_distribution(distribution: str, below: str, found: str, tmp_path: Path) -> None:
    checkpoint = open_source(f"package:{distribution}{below}")
    assert checkpoint.root == tmp_path / "site" / found
    assert (checkpoint.origin.kind, checkpoint.origin.revision) == ("package", "1.2")
    assert checkpoint.origin.asked == f"package:{distribution}{below}"


@pytest.mark.parametrize("below", ["", "/large", "/nowhere", "/my_models", "/../bge"])
def test_no_single_folder_of_a_distribution(distribution: str, below: str) -> None:
    with pytest.raises(SourceInvalid, match=r'names no single folder with a config\.json in "my-models"') as refused:
        open_source(f"package:{distribution}{below}")
    assert refused.value.fix == "Folders with one: my_models/bge, my_models/nested/bge-large."


def test_distribution_with_one_model_needs_no_folder(distribution: str, tmp_path: Path) -> None:
    record = tmp_path / "site" / "my_models-1.2.dist-info" / "RECORD"
    record.write_text("".join(line for line in record.read_text().splitlines(True) if "nested" not in line))
    assert open_source(f"package:{distribution}").root == tmp_path / "site" / "my_models" / "bge"


@pytest.mark.parametrize("name", ["no-such-distribution", ""])
def test_wrong_distribution(name: str) -> None:
    with pytest.raises(SourceInvalid, match=f'names the distribution "{name}", which is not installed'):
        open_source(f"package:{name}/bge")


def test_distribution_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(SourceInvalid) as refused:
        open_source("package:pytest")
    assert refused.value.fix == "Folders with one: none."


@pytest.mark.parametrize("spelling", ["org/tiny", "org/tiny@main", "org/tiny@v1.0", "org/tiny@refs/pr/1"])
def test_repository(hub: Hub, spelling: str) -> None:
    commit = hub.add("org/tiny", files())
    hub.tag("org/tiny", "v1.0", commit)
    hub.move("org/tiny", "refs/pr/1", commit)
    origin = open_source(spelling).origin
    assert (origin.kind, origin.location, origin.revision, origin.asked) == ("hub", "org/tiny", commit, spelling)


def test_folder_that_looks_like_a_repository_is_a_folder(hub: Hub, work: Path) -> None:
    hub.add("org/tiny", files())
    folder(Path("org/tiny"), files())
    found = open_source("org/tiny")
    assert (found.origin.kind, found.origin.location) == ("folder", str(work / "org/tiny"))
    assert hub.requests == ()


def test_home_is_understood() -> None:
    folder(Path.home() / "model", files())
    assert open_source("~/model").root == Path.home() / "model"


@pytest.mark.parametrize("asked", ["gpt2", "", "org/tiny@", "org/tiny/sub", "https://huggingface.co/org/tiny", "a b/c"])
def test_neither_one_nor_the_other(asked: str) -> None:
    with pytest.raises(SourceInvalid) as refused:
        open_source(asked)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "asked", ["x" * 5000, "./" + "x" * 300, "~nobody-of-this-name/model", "org/ti\0ny", "./ti\0ny"]
)
def test_strange_sources_are_refused(asked: str) -> None:
    with pytest.raises(CataloggerError) as refused:
        open_source(asked)
    assert refused.value.exit_code == 2
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("repo", ["org/--", "org/a..b", "org/" + "x" * 100, "org/.git", "org/tiny.git"])
def test_names_that_no_repository_can_have(hub: Hub, repo: str) -> None:
    with pytest.raises(RepositoryNotFound):
        open_source(repo)


class Trained:
    """What `save_objects` needs of a model, writing real files."""

    name_or_path = "org/base"

    def __init__(self) -> None:
        self.asked: dict[str, object] = {}

    def save_pretrained(self, folder: Path, **options: object) -> None:
        self.asked = options
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        save_file({"w": np.zeros((2, 2), np.float16)}, folder / "model.safetensors")


class Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


def test_objects_in_memory_are_saved_once(work: Path) -> None:
    model = Trained()
    found = save_objects(model, Tokenizer(), work / "saved")
    assert (found.origin.kind, found.origin.location, found.root) == ("memory", "org/base", work / "saved")
    assert (found.dtype, found.parameters) == ("float16", 4)
    assert model.asked["safe_serialization"] is True


@pytest.mark.parametrize(("model", "tokenizer", "role"), [(5, Tokenizer(), "model"), (Trained(), "text", "tokenizer")])
def test_objects_that_cannot_save_themselves(model: object, tokenizer: object, role: str, work: Path) -> None:
    with pytest.raises(SourceInvalid, match=f"is no Transformers {role}: it has no save_pretrained"):
        save_objects(model, tokenizer, work / "saved")
    assert not (work / "saved").exists()


def test_adapter_is_to_be_merged_first(work: Path) -> None:
    model = Trained()
    model.peft_config = {}  # type: ignore[attr-defined]
    with pytest.raises(SourceInvalid, match="is an adapter around a base model") as refused:
        save_objects(model, Tokenizer(), work / "saved")
    assert "merge_and_unload" in refused.value.fix
    assert not (work / "saved").exists()
