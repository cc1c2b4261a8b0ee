"""The facts of a checkpoint that is a folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from checkpoints.shard_bytes import CONFIG, files, folder, safetensors_bytes, table, weights

from catalogger.checkpoints import Checkpoint, open_source
from catalogger.checkpoints.folder import LARGEST_SMALL
from catalogger.errors import CataloggerError, CheckpointError, SourceInvalid


def _open(content: Mapping[str, bytes], *, allow_pickle: bool = False) -> Checkpoint:
    return open_source(str(folder(Path("model"), content).absolute()), allow_pickle=allow_pickle)


def _with(path: str, content: object) -> dict[str, bytes]:
    return {**files(), path: content if isinstance(content, bytes) else json.dumps(content).encode()}


def _card(text: str) -> Checkpoint:
    return _open(_with("README.md", text.encode()))


def test_facts_of_one_file() -> None:
    found = _open(files())
    assert found.architecture == "LlamaForCausalLM"
    assert (found.dtype, found.parameters, found.dtypes) == ("bfloat16", 4, {"bfloat16": 8})
    assert found.weight_bytes == len(weights(w=[2, 2]))
    assert found.root == Path("model").absolute()
    assert (found.index, found.chat_template, found.pooling, found.normalises, found.licence) == (None,) * 5
    assert (found.origin.kind, found.origin.revision) == ("folder", None)


def test_small_files_have_their_digest_and_weights_have_none_yet() -> None:
    found = {f.path: f for f in _open(files()).files}
    config = files()["config.json"]
    assert (found["config.json"].size, found["config.json"].sha256) == (len(config), hashlib.sha256(config).hexdigest())
    assert found["model.safetensors"].sha256 is None


def test_facts_of_shards() -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    found = _open(
        {
            "config.json": json.dumps(CONFIG).encode(),
            "model-1.safetensors": weights(a=[8]),
            "model-2.safetensors": safetensors_bytes(table({"b": ("F32", [2]), "ids": ("I64", [512])})),
            "model.safetensors.index.json": json.dumps(index).encode(),
        }
    )
    assert found.index == index["weight_map"]
    assert list(found.dtypes.items()) == [("int64", 4096), ("bfloat16", 16), ("float32", 8)]
    assert (found.dtype, found.parameters) == ("bfloat16", 8 + 2 + 512)


def test_a_tensor_in_two_shards_is_counted_once() -> None:
    found = _open({**files(), "model-2.safetensors": weights(w=[2, 2])})
    assert found.parameters == 4


@pytest.mark.parametrize("config", [{}, {"architectures": []}, {"architectures": "Llama"}])
def test_config_without_an_architecture(config: dict[str, object]) -> None:
    assert _open(_with("config.json", config)).architecture is None


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ text }}", "{{ text }}"),
        ([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}], "D"),
        ([{"name": "tool_use", "template": "T"}], None),
        ([], None),
        (["text"], None),
        (None, None),
        ({"default": "D"}, None),
    ],
)
def test_chat_template_in_the_tokenizer_config(template: object, found: str | None) -> None:
    assert _open(_with("tokenizer_config.json", {"chat_template": template})).chat_template == found


def test_chat_template_in_its_own_file_goes_first() -> None:
    content = {**_with("tokenizer_config.json", {"chat_template": "old"}), "chat_template.jinja": b"new"}
    assert _open(content).chat_template == "new"


@pytest.mark.parametrize(
    ("modes", "found"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls+mean"),
        ({"word_embedding_dimension": 384}, None),
    ],
)
def test_pooling(modes: dict[str, object], found: str | None) -> None:
    assert _open(_with("1_Pooling/config.json", modes)).pooling == found


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        ([{"type": "sentence_transformers.models.Transformer"}], False),
        ([{"type": "x.Pooling"}, {"type": "sentence_transformers.models.Normalize"}], True),
        ([], False),
        (["x"], False),
    ],
)
def test_normalises(modules: object, found: bool) -> None:
    assert _open(_with("modules.json", modules)).normalises is found


def test_modules_that_are_no_list() -> None:
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        _open(_with("modules.json", 5)).normalises  # noqa: B018


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: mit", "mit"),
        ("language: en\nlicense: 'apache-2.0'\ntags: [a]", "apache-2.0"),
        ("license: other\nlicense_name: llama3.1", "llama3.1"),
        ("license: other", "other"),
        ("language: en", None),
        ("license:\n- mit", "mit"),
        ("license:\nlanguage: en", None),
    ],
)
def test_licence_from_the_card(front: str, licence: str | None) -> None:
    assert _card(f"---\n{front}\n---\n# Model\nlicense: not this\n").licence == licence


def test_licence_from_a_card_with_windows_line_ends() -> None:
    assert _card("---\r\nlicense: mit\r\n---\r\n").licence == "mit"


def test_card_without_front_matter() -> None:
    assert _card("# Model\nlicense: mit\n").licence is None


def test_no_config() -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json, so it is no Transformers checkpoint") as refused:
        _open({"model.safetensors": weights(w=[1])})
    assert refused.value.fix == "Point --source at the folder that holds config.json."


def test_no_config_but_one_in_a_folder_below() -> None:
    with pytest.raises(CheckpointError) as refused:
        _open({"checkpoint-500/config.json": b"{}", "checkpoint-1000/config.json": b"{}"})
    assert refused.value.fix == "There is one below it: checkpoint-1000, checkpoint-500."


@pytest.mark.parametrize(
    ("path", "content", "text"),
    [
        ("config.json", b"{", "is not JSON"),
        ("config.json", b"\xff{}", "is not JSON"),
        ("config.json", b"[" * 100_000, "is not JSON"),
        ("config.json", b"[]", "is no JSON object"),
        ("tokenizer_config.json", b"null", "is no JSON object"),
        ("model.safetensors.index.json", b"<html>", "is not JSON"),
        ("modules.json", b"[", "is not JSON"),
    ],
)
def test_not_json(path: str, content: bytes, text: str) -> None:
    with pytest.raises(CheckpointError, match=text) as refused:
        _open(_with(path, content))
    assert f'"{path}"' in refused.value.message
    assert refused.value.exit_code == 2


def test_no_folder() -> None:
    with pytest.raises(SourceInvalid, match="is neither a folder nor ORG/REPO"):
        open_source("./nowhere")
    Path("file").write_text("x")
    with pytest.raises(SourceInvalid, match="is neither a folder nor ORG/REPO"):
        open_source("./file")


@pytest.mark.parametrize("path", ["config.json", "README.md", "modeling_x.py", "1_Pooling/config.json"])
def test_link_out_of_the_folder(path: str) -> None:
    Path("secret").write_text("{}")
    at = folder(Path("model"), files())
    (at / path).parent.mkdir(exist_ok=True)
    (at / path).unlink(missing_ok=True)
    (at / path).symlink_to(Path("secret").absolute())
    with pytest.raises(CheckpointError, match="that is a link out of the folder") as refused:
        open_source("./model")
    assert f'"{path}"' in refused.value.message


def test_linked_folder_out_of_the_folder() -> None:
    folder(Path("elsewhere"), {"config.json": b"{}"})
    folder(Path("model"), files())
    Path("model/1_Pooling").symlink_to(Path("elsewhere").absolute())
    with pytest.raises(CheckpointError, match="that is a link out of the folder"):
        open_source("./model")


def test_link_to_a_folder_called_blobs_is_a_link_out_too() -> None:
    folder(Path("blobs"), {"secret": b"{}"})
    folder(Path("model"), files())
    Path("model/generation_config.json").symlink_to(Path("blobs/secret").absolute())
    with pytest.raises(CheckpointError, match="that is a link out of the folder"):
        open_source("./model")


def test_link_within_the_folder() -> None:
    folder(Path("model"), files())
    Path("model/vocab.txt").symlink_to("tokenizer.json")
    assert open_source("./model").small["vocab.txt"] == b"{}"


def test_folder_that_is_itself_a_link() -> None:
    folder(Path("model"), files())
    Path("latest").symlink_to("model")
    assert open_source("./latest").architecture == "LlamaForCausalLM"


def test_link_that_leads_to_itself_is_no_file() -> None:
    folder(Path("model"), files())
    Path("model/loop").symlink_to("loop")
    Path("model/nowhere.json").symlink_to("missing")
    found = open_source("./model")
    assert {f.path for f in found.files} == set(files())


def test_snapshot_of_the_hubs_cache_gives_digests_by_the_names_of_its_blobs() -> None:
    repo = Path("hub/models--org--tiny")
    snapshot = repo / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for path, content in files().items():
        lfs = path.endswith(".safetensors")
        name = hashlib.sha256(content).hexdigest() if lfs else hashlib.sha1(content, usedforsecurity=False).hexdigest()
        (repo / "blobs" / name).write_bytes(content)
        (snapshot / path).symlink_to(Path("../../blobs") / name)
    found = {f.path: f.sha256 for f in open_source(f"./{snapshot}").files}
    assert found == {path: hashlib.sha256(content).hexdigest() for path, content in files().items()}


def test_link_that_is_no_blob_gives_no_digest() -> None:
    folder(Path("model"), files())
    other = Path("0" * 64)
    Path("model/model.safetensors").rename(other)
    Path("model/model.safetensors").symlink_to(other.absolute())
    assert {f.path: f.sha256 for f in open_source("./model").files}["model.safetensors"] is None


def test_too_large_a_small_file() -> None:
    folder(Path("model"), files())
    with Path("model/tokenizer.json").open("wb") as file:
        file.truncate(LARGEST_SMALL + 1)
    with pytest.raises(CheckpointError, match=r'has a "tokenizer.json" of 64\.0 MB, which is too large to be one'):
        open_source("./model")


def test_weights_are_not_read() -> None:
    folder(Path("model"), files())
    header = safetensors_bytes(table({"w": ("F32", [10**12])}), 0)
    with Path("model/model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + 4 * 10**12)  # 4 TB of holes, which nobody could read in a test
    found = open_source("./model")
    assert found.parameters == 10**12
    assert found.shards[0].expected == found.weight_bytes


def test_pickled_weights_only_when_they_are_allowed() -> None:
    content = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    refused = _open(content)
    assert (refused.shards, refused.left_out) == ((), {"pytorch_model.bin": "pickled weights"})
    allowed = _open(content, allow_pickle=True)
    assert [s.file.path for s in allowed.shards] == ["pytorch_model.bin"]
    assert (allowed.left_out, allowed.weight_bytes) == ({}, 6)


def test_pickled_weights_stay_out_beside_safetensors() -> None:
    found = _open({**files(), "pytorch_model.bin": b"pickle"}, allow_pickle=True)
    assert [s.file.path for s in found.shards] == ["model.safetensors"]
    assert found.left_out == {"pytorch_model.bin": "pickled weights"}


def test_version_control_and_caches_are_not_seen() -> None:
    found = _open({**files(), ".git/config": b"x", ".cache/x": b"x", "__pycache__/x.pyc": b"x", ".gitattributes": b"x"})
    assert found.left_out == {}


def test_broken_shard_is_a_fact() -> None:
    found = _open(_with("model.safetensors", b"short"))
    assert found.shards[0].problem is not None
    assert (found.dtype, found.parameters) == (None, 0)


@pytest.fixture
def open_world() -> Iterator[Path]:
    """A folder that everybody may enter, with a short name."""
    with tempfile.TemporaryDirectory(prefix="open-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _closed(path: Path) -> str:
    path.chmod(0)
    return str(path)


def test_folder_that_may_not_be_read(open_world: Path, request: pytest.FixtureRequest) -> None:
    source = _closed(folder(open_world / "model", files()))
    request.getfixturevalue("ordinary_user")
    with pytest.raises(SourceInvalid, match="cannot be read: permission denied"):
        open_source(source)


def test_folder_in_a_folder_that_may_not_be_entered(open_world: Path, request: pytest.FixtureRequest) -> None:
    source = folder(open_world / "closed" / "model", files())
    _closed(open_world / "closed")
    request.getfixturevalue("ordinary_user")
    with pytest.raises(CataloggerError, match="model"):
        open_source(str(source))


def test_small_file_that_may_not_be_read(open_world: Path, request: pytest.FixtureRequest) -> None:
    source = folder(open_world / "model", files())
    _closed(source / "config.json")
    request.getfixturevalue("ordinary_user")
    with pytest.raises(CheckpointError, match=r'has a "config.json" that cannot be read: Permission denied'):
        open_source(str(source))


def test_shard_that_may_not_be_read(open_world: Path, request: pytest.FixtureRequest) -> None:
    source = folder(open_world / "model", files())
    _closed(source / "model.safetensors")
    request.getfixturevalue("ordinary_user")
    assert open_source(str(source)).shards[0].problem == "cannot be read: Permission denied"


def test_subfolder_that_may_not_be_read(open_world: Path, request: pytest.FixtureRequest) -> None:
    source = folder(open_world / "model", {**files(), "runs/log": b"x"})
    _closed(source / "runs")
    request.getfixturevalue("ordinary_user")
    with pytest.raises(SourceInvalid, match="runs"):
        open_source(str(source))


def test_facts_do_not_change(work: Path) -> None:
    found = _open(files())
    with pytest.raises(AttributeError):
        found.licence = "mit"  # type: ignore[misc]
    assert os.fspath(found.root or "") == str(work / "model")
