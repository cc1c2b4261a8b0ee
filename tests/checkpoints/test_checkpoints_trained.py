"""Folders as torchtune, Unsloth and Axolotl leave them: converted, or refused with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from checkpoints.adapters import all_tensors, edit, with_tokens
from fakes import checkpoints, trained
from fakes.hub import Hub

from catalogger import CataloggerError, convert, open_source

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own advice


@pytest.fixture
def merged(base: Path, adapter: Path, tmp_path: Path) -> Path:
    convert(base, tmp_path / "merged", adapter=adapter)
    return tmp_path / "merged"


@pytest.mark.parametrize(("which", "epoch"), [("last", 1), ("0", 0)])
def test_torchtune(which: str, epoch: int, base: Path, adapter: Path, merged: Path, tmp_path: Path) -> None:
    """The whole weights, into which the adapter beside them is merged already: it is not merged twice."""
    run = trained.torchtune(base, merged, adapter, tmp_path / "run")
    done = convert(run, tmp_path / "out", checkpoint=which)
    assert done.base == str(run / f"epoch_{epoch}")
    assert all_tensors(tmp_path / "out") == all_tensors(merged)
    assert "torchtune has merged the adapter" in done.said[0]
    assert {p.suffix for p in (tmp_path / "out").iterdir()} <= {".json", ".safetensors", ".md", ""}
    with pytest.raises(CataloggerError, match="torchtune has merged it") as caught:
        convert(run / "epoch_0", tmp_path / "twice", adapter=run / "epoch_0")
    assert caught.value.exit_code == 2


def test_torchtune_adapter_alone(base: Path, adapter: Path, merged: Path, tmp_path: Path) -> None:
    """`save_adapter_weights_only`: there are no whole weights, and the adapter is merged into its base."""
    run = trained.torchtune(base, merged, adapter, tmp_path / "run")
    for file in (run / "epoch_1").glob("model*"):
        file.unlink()
    convert(run, tmp_path / "out", checkpoint="last", base=base)
    assert all_tensors(tmp_path / "out") == all_tensors(merged)
    (run / "epoch_1/adapter_model.safetensors").unlink()
    with pytest.raises(CataloggerError, match="torchtune's own form of an adapter") as caught:
        convert(run / "epoch_1", tmp_path / "none", base=base)
    assert "FullModelHFCheckpointer" in caught.value.fix


def test_torchtune_with_names_of_its_own(base: Path, adapter: Path, merged: Path, tmp_path: Path) -> None:
    """For a while it wrote `ft-` before the names of what it had trained."""
    run = trained.torchtune(base, merged, adapter, tmp_path / "run", epochs=1)
    for file in (run / "epoch_0").glob("model*.safetensors"):
        file.rename(file.with_name(f"ft-{file.name}"))
    convert(run, tmp_path / "out", checkpoint="last")
    assert all_tensors(tmp_path / "out") == all_tensors(merged)


def test_torchtune_without_its_own_form_is_ambiguous(base: Path, adapter: Path, merged: Path, tmp_path: Path) -> None:
    run = trained.torchtune(base, merged, adapter, tmp_path / "run")
    (run / "epoch_1/adapter_model.pt").unlink()
    with pytest.raises(CataloggerError, match="holds whole weights and an adapter"):
        convert(run / "epoch_1", tmp_path / "out")


def test_torchtune_of_old(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    run = trained.old_torchtune(source, tmp_path / "run")
    done = convert(run, tmp_path / "out", allow_pickle=True)
    assert all_tensors(tmp_path / "out") == all_tensors(source)
    assert done.pickled == ("hf_model_0001_0.pt", "hf_model_0002_0.pt")


def test_two_epochs_in_one_folder(tmp_path: Path) -> None:
    run = trained.old_torchtune(checkpoints.llama(tmp_path / "source"), tmp_path / "run", epochs=2)
    with pytest.raises(CataloggerError, match=r'twice: in "hf_model_0001_0\.pt" and in "hf_model_0001_1\.pt"'):
        convert(run, tmp_path / "out", allow_pickle=True)


def test_torchtune_naming(tmp_path: Path) -> None:
    run = trained.old_torchtune(checkpoints.llama(tmp_path / "source"), tmp_path / "run", tuned=True)
    with pytest.raises(CataloggerError, match="names its tensors as torchtune does") as caught:
        convert(run, tmp_path / "out", allow_pickle=True)
    assert (caught.value.exit_code, "FullModelHFCheckpointer" in caught.value.fix) == (2, True)


def test_naming_of_the_authors(tmp_path: Path) -> None:
    source = checkpoints.llama(tmp_path / "source")
    tensors = all_tensors(source)
    name = next(iter(tensors))
    checkpoints.write_safetensors(
        source / "model.safetensors", {"layers.0.attention.wq.weight": tensors[name], "norm.weight": tensors[name]}
    )
    with pytest.raises(CataloggerError, match="names its tensors as Meta does"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("said", "full"),
    [
        ("unsloth/llama-3-8b-Instruct-bnb-4bit", "unsloth/llama-3-8b-Instruct"),
        ("unsloth/Llama-3.2-1B-Instruct-unsloth-bnb-4bit", "unsloth/Llama-3.2-1B-Instruct"),
    ],
)
def test_unsloth_lora(said: str, full: str, base: Path, adapter: Path, merged: Path, tmp_path: Path) -> None:
    """The quantised base is not asked for: the full one is named, and merged into where it is given."""
    trained.unsloth_lora(adapter, said)
    with pytest.raises(CataloggerError, match="which is quantised") as caught:
        convert(adapter, tmp_path / "out")
    assert (caught.value.exit_code, f"--base {full}." in caught.value.fix) == (2, True)
    convert(adapter, tmp_path / "out", base=base)
    assert all_tensors(tmp_path / "out") == all_tensors(merged)


def test_unsloth_4bit(base: Path, adapter: Path, tmp_path: Path) -> None:
    trained.unsloth_4bit(base)
    with pytest.raises(CataloggerError, match=r'is quantised \("bitsandbytes"\)') as caught:
        convert(base, tmp_path / "out", adapter=adapter)
    assert "--base unsloth/llama-3-8b." in caught.value.fix
    with pytest.raises(CataloggerError, match=r'is quantised \("bitsandbytes"\)'):
        convert(base, tmp_path / "out", dtype="bfloat16")


def test_axolotl(base: Path, adapter: Path, merged: Path, tmp_path: Path) -> None:
    """The adapter at the top, one of its checkpoints, and what was merged below it already are the same model."""
    run = trained.axolotl(base, adapter, tmp_path / "run", merged=merged)
    convert(run, tmp_path / "top")
    convert(run, tmp_path / "last", checkpoint="last")
    convert(run / "merged", tmp_path / "below")
    for name in ("top", "last", "below"):
        assert all_tensors(tmp_path / name) == all_tensors(merged), name
        assert not list((tmp_path / name).glob("*.pt")), name
    assert (tmp_path / "top/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_axolotl_without_the_end_of_a_training(base: Path, adapter: Path, tmp_path: Path) -> None:
    """A training that was interrupted leaves checkpoints only: the message names the way to one."""
    run = trained.axolotl(base, adapter, tmp_path / "run")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (run / name).unlink()
    with pytest.raises(CataloggerError, match="has no safetensors") as caught:
        convert(run, tmp_path / "out")
    assert "--checkpoint last" in caught.value.fix


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        ("pytorch_model_fsdp_0/__0_0.distcp", "axolotl merge-sharded-fsdp-weights"),
        ("global_step10/mp_rank_00_model_states.pt", "zero_to_fp32.py"),
    ],
)
def test_weights_in_pieces(piece: str, says: str, base: Path, tmp_path: Path) -> None:
    """FSDP's and DeepSpeed's own forms, as they lie in a checkpoint of a training on many processors."""
    run = trained.without_weights(base, tmp_path / "run")
    (run / piece).parent.mkdir()
    (run / piece).write_bytes(b"\0" * 100)
    with pytest.raises(CataloggerError, match="has no safetensors") as caught:
        convert(run, tmp_path / "out")
    assert says in caught.value.fix


def _names(base: Path, folder: Path, how: str) -> Path:
    """A checkpoint without a tokenizer that names its base somewhere."""
    trained.without_tokenizer(folder)
    if how == "config":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": str(base)}))
    if how == "adapter":
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    if how == "card":
        (folder / "README.md").write_text(f"---\nbase_model:\n- {base}\n---\n")
    if how == "torchtune":
        (folder / "original_repo_id.json").write_text(json.dumps({"repo_id": str(base)}))
    return folder


@pytest.mark.parametrize("how", ["config", "card", "torchtune", "adapter"])
def test_the_tokenizer_of_the_base(how: str, base: Path, tmp_path: Path) -> None:
    folder = _names(base, checkpoints.llama(tmp_path / "tuned", seed=3), how)
    done = convert(folder, tmp_path / "out", adapter="none" if how == "adapter" else None)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()
    assert f'that of "{base}" is taken' in done.said[0]
    assert open_source(str(tmp_path / "out")).probe.tokenizer.entries > 0


def test_the_tokenizer_around_a_checkpoint(tmp_path: Path) -> None:
    """A Trainer that was given no tokenizer saves none into `checkpoint-N`; beside it, its user did."""
    run = checkpoints.llama(tmp_path / "run")
    step = trained.without_tokenizer(shutil.copytree(run, tmp_path / "run/checkpoint-10"))
    done = convert(run, tmp_path / "out", checkpoint="last")
    assert done.base == str(step)
    assert "which is the folder around it" in done.said[0]
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (run / "tokenizer.json").read_bytes()


def test_the_tokenizer_of_a_base_on_the_hub(hub: Hub, base: Path, adapter: Path, tmp_path: Path) -> None:
    """The weights of that base are not fetched."""
    hub.add("org/base", base)
    folder = trained.without_tokenizer(checkpoints.llama(tmp_path / "tuned", hidden=64))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (adapter / name).unlink(missing_ok=True)
    edit(adapter, base_model_name_or_path="org/base")
    done = convert(folder, tmp_path / "out", adapter=adapter)
    assert 'that of "org/base" is taken, which "adapter_config.json" names' in done.said[0]
    assert not [p for p in (tmp_path / "hub").rglob("*") if p.name.endswith("safetensors")]


def test_no_tokenizer_anywhere(base: Path, tmp_path: Path) -> None:
    folder = _names(tmp_path / "gone", checkpoints.llama(tmp_path / "tuned"), "config")
    with pytest.raises(CataloggerError, match="has no tokenizer, and none is at") as caught:
        convert(folder, tmp_path / "out")
    assert (caught.value.exit_code, str(tmp_path / "gone") in caught.value.message) == (2, True)
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    with pytest.raises(CataloggerError, match="names no base that has one"):
        convert(folder, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_tokenizer_with_more_tokens(base: Path, tmp_path: Path) -> None:
    (tmp_path / "larger").mkdir()
    with_tokens(tmp_path / "larger", base, 4)
    folder = _names(tmp_path / "larger", checkpoints.llama(tmp_path / "tuned"), "config")
    with pytest.raises(CataloggerError, match="is another one: it has token 303, the embedding 300 rows"):
        convert(folder, tmp_path / "out")
