"""The synthetic checkpoints held to what they claim by the real safetensors and transformers."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError, safe_open

from . import checkpoints

DECODERS = {"llama": checkpoints.llama, "mistral": checkpoints.mistral, "mixtral": checkpoints.mixtral}
MAKERS: dict[str, Callable[..., Path]] = {**DECODERS, "bert": checkpoints.bert}
TALK = [{"role": "user", "content": " Where is Paris? "}, {"role": "assistant", "content": "In France."}]


def _digests(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _json(file: Path) -> Any:
    return json.loads(file.read_text())


def _tensors(folder: Path) -> dict[str, Any]:
    """Every tensor of every shard, as torch reads it; a name in two shards is an error."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as shard:
            assert not found.keys() & set(shard.keys())
            found |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    return found


def _raw(tensor: Any) -> bytes:
    import torch

    return bytes(tensor.view(torch.uint8).numpy())


def _load(folder: Path, auto: str = "AutoModelForCausalLM") -> Any:
    """The model, after it has been seen that every tensor found its place."""
    import transformers

    model, info = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    assert {kind: list(names) for kind, names in info.items() if names} == {}
    return model.eval()


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("family", DECODERS)
def test_decoder_loads_and_writes(family: str, tmp_path: Path) -> None:
    folder = DECODERS[family](tmp_path / "model")
    model, tokenizer = _load(folder), _tokenizer(folder)
    assert type(model).__name__ == f"{family.capitalize()}ForCausalLM"
    assert {str(p.dtype) for p in model.parameters()} == {"torch.bfloat16"}
    prompt = tokenizer("Where is Paris?", return_tensors="pt")
    written = model.generate(**prompt, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=2)
    assert written.shape[1] == prompt["input_ids"].shape[1] + 3


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dtype(dtype: checkpoints.Dtype, tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "model", dtype=dtype)
    assert {str(p.dtype) for p in _load(folder).parameters()} == {f"torch.{dtype}"}


def test_weights_are_those_of_a_fresh_model(tmp_path: Path) -> None:
    for name, tensor in _tensors(checkpoints.bert(tmp_path / "model", dtype="bfloat16")).items():
        if name.endswith("bias"):
            assert tensor.eq(0).all(), name
        elif "LayerNorm" in name:
            assert tensor.eq(1).all(), name
        else:
            assert 0.01 < tensor.float().std() < 0.03, name


def test_shape(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "model", vocabulary=400, hidden=48, layers=3, heads=6, kv_heads=3)
    model = _load(folder)
    assert len(model.model.layers) == 3
    assert model.lm_head.weight.shape == (400, 48)
    assert model.model.layers[0].self_attn.k_proj.weight.shape == (24, 48)


def test_tie(tmp_path: Path) -> None:
    folder = checkpoints.llama(tmp_path / "model", tie=True)
    assert "lm_head.weight" not in _tensors(folder)
    model = _load(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_bert_loads_and_embeds(tmp_path: Path) -> None:
    folder = checkpoints.bert(tmp_path / "model")
    model, tokenizer = _load(folder, "AutoModel"), _tokenizer(folder)
    assert type(model).__name__ == "BertModel"
    pair = tokenizer(["A tensor.", "A longer sentence."], padding=True, return_tensors="pt")
    assert model(**pair).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("family", MAKERS)
def test_tokenizer(family: str, tmp_path: Path) -> None:
    folder = MAKERS[family](tmp_path / "model")
    tokenizer, vocabulary = _tokenizer(folder), _json(folder / "config.json")["vocab_size"]
    assert 250 < len(tokenizer) <= vocabulary
    assert max(tokenizer.get_vocab().values()) < vocabulary
    text = "the weights of a model"
    numbers = tokenizer(text)["input_ids"]
    assert len(numbers) < len(text)
    assert tokenizer.unk_token_id not in numbers
    assert tokenizer.decode(numbers, skip_special_tokens=True) == text


def test_byte_level_tokenizer_takes_any_text(tmp_path: Path) -> None:
    tokenizer = _tokenizer(checkpoints.llama(tmp_path / "model"))
    numbers = tokenizer("Zoë 你好 🚀")["input_ids"]
    assert numbers[0] == tokenizer.bos_token_id == 1
    assert tokenizer.decode(numbers[1:]) == "Zoë 你好 🚀"


def test_wordpiece(tmp_path: Path) -> None:
    folder = checkpoints.bert(tmp_path / "model")
    tokenizer = _tokenizer(folder)
    assert type(tokenizer).__name__.startswith("BertTokenizer")
    words = (folder / "vocab.txt").read_text().splitlines()
    assert tokenizer.convert_ids_to_tokens(range(len(words))) == words
    pair = tokenizer("Tensor", "MODEL")
    tokens = tokenizer.convert_ids_to_tokens(pair["input_ids"])
    assert (tokens[0], tokens[-1], tokens.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    assert set(pair["token_type_ids"]) == {0, 1}
    assert "[UNK]" not in tokens


@pytest.mark.parametrize("family", DECODERS)
def test_chat_template(family: str, tmp_path: Path) -> None:
    tokenizer = _tokenizer(DECODERS[family](tmp_path / "model"))
    assert tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=True) == (
        "<s>[user] Where is Paris?</s>[assistant] In France.</s>[assistant] "
    )


def test_no_chat_template(tmp_path: Path) -> None:
    assert _tokenizer(checkpoints.llama(tmp_path / "model", task_template=False)).chat_template is None


@pytest.mark.parametrize(("pooling", "normalise"), [("cls", True), ("mean", False)])
def test_sentence_transformers_files(pooling: Any, normalise: bool, tmp_path: Path) -> None:
    folder = checkpoints.bert(tmp_path / "model", pooling=pooling, normalise=normalise, hidden=16)
    kinds = [module["type"].rpartition(".")[2] for module in _json(folder / "modules.json")]
    assert kinds == ["Transformer", "Pooling", "Normalize"][: 3 if normalise else 2]
    config = _json(folder / "1_Pooling" / "config.json")
    assert config.pop("word_embedding_dimension") == 16
    assert [mode for mode, on in config.items() if on] == [
        {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}[pooling]
    ]


def test_bert_without_sentence_transformers_files(tmp_path: Path) -> None:
    with_files = _digests(checkpoints.bert(tmp_path / "with"))
    without = _digests(checkpoints.bert(tmp_path / "without", pooling=None))
    assert with_files.keys() - without.keys() == {
        "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json",
    }  # fmt: skip


@pytest.mark.parametrize("family", MAKERS)
def test_published_files(family: str, tmp_path: Path) -> None:
    folder = MAKERS[family](tmp_path / "deep" / "model")
    assert (folder / "README.md").read_text().startswith("---\nlicense: apache-2.0\n---\n")
    assert "Apache-2.0" in (folder / "LICENSE").read_text()
    assert _json(folder / "config.json").keys() >= {"torch_dtype", "transformers_version"}
    assert _json(folder / "special_tokens_map.json")["unk_token"] == _tokenizer(folder).unk_token
    assert (folder / "generation_config.json").exists() == (family != "bert")


@pytest.mark.parametrize("family", MAKERS)
def test_same_arguments_same_bytes_in_any_process(family: str, tmp_path: Path) -> None:
    here = _digests(MAKERS[family](tmp_path / "here", shards=2))
    script = f"from pathlib import Path; from fakes import checkpoints; checkpoints.{family}(Path('there'), shards=2)"
    search = {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=search, check=True)
    assert _digests(tmp_path / "there") == here


@pytest.mark.parametrize("family", MAKERS)
def test_another_seed_changes_the_weights_only(family: str, tmp_path: Path) -> None:
    one, two = (_digests(MAKERS[family](tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert {name for name in one if one[name] != two[name]} == {"model.safetensors"}


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("shards", [2, 7])
def test_shards_hold_the_same_tensors(family: str, shards: int, tmp_path: Path) -> None:
    whole = _tensors(MAKERS[family](tmp_path / "whole"))
    folder = MAKERS[family](tmp_path / "cut", shards=shards)
    cut = _tensors(folder)
    assert cut.keys() == whole.keys()
    assert all(cut[name].equal(whole[name]) for name in whole)
    index = _json(folder / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.values())
    files = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    assert (
        sorted(file.name for file in folder.glob("*.safetensors")) == files == sorted({*index["weight_map"].values()})
    )
    for name, file in index["weight_map"].items():
        with safe_open(folder / file, "pt") as shard:
            assert name in shard.keys()  # noqa: SIM118


def test_sharded_loads(tmp_path: Path) -> None:
    _load(checkpoints.mixtral(tmp_path / "model", shards=5))


def test_one_tensor_a_shard_is_the_end(tmp_path: Path) -> None:
    count = len(_tensors(checkpoints.llama(tmp_path / "whole")))
    assert len([*checkpoints.llama(tmp_path / "cut", shards=count).glob("*.safetensors")]) == count
    with pytest.raises(ValueError, match=f"{count} tensors into {count + 1} shards"):
        checkpoints.llama(tmp_path / "more", shards=count + 1)


@pytest.mark.parametrize("maker", [checkpoints.llama, checkpoints.bert])
def test_vocabulary_that_is_too_small(maker: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least"):
        maker(tmp_path / "model", vocabulary=20)


def test_big_llama(tmp_path: Path) -> None:
    folder = checkpoints.big_llama(tmp_path / "model", 0.02, shards=3)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) == 3
    sizes = [file.stat().st_size for file in shards]
    assert sum(sizes) == pytest.approx(0.02e9, rel=0.1)
    assert max(sizes) < 1.2 * min(sizes)
    tensors = _tensors(folder)
    assert all(t.isfinite().all() for t in tensors.values())
    drawn = [name for name in tensors if "norm" not in name]
    assert len({hashlib.sha256(_raw(tensors[name])).digest() for name in drawn}) == len(drawn)
    model = _load(folder)
    assert model(_tokenizer(folder)("Paris", return_tensors="pt")["input_ids"]).logits.isfinite().all()


def test_big_llama_seed(tmp_path: Path) -> None:
    one, same, other = (
        _digests(checkpoints.big_llama(tmp_path / name, 0.004, shards=2, seed=seed))
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert one == same
    assert {name for name in one if one[name] != other[name]} == {name for name in one if name.startswith("model-0")}


def test_a_tensor_of_many_blocks_does_not_repeat(tmp_path: Path) -> None:
    folder = checkpoints.big_llama(tmp_path / "model", 0.3, shards=1, sparse=True)
    size = folder.joinpath("model.safetensors").stat().st_size
    assert size == pytest.approx(0.3e9, rel=0.1)
    blocks = [hashlib.sha256(b).digest() for b in checkpoints._Bulk(0).blocks("x", 40 << 20)]
    assert len(set(blocks)) == 3


@pytest.mark.parametrize("gigabytes", [0.003, 0.1, 1, 13.5, 140])
def test_big_llama_sizes(gigabytes: float, tmp_path: Path) -> None:
    folder = checkpoints.big_llama(tmp_path / "model", gigabytes, shards=4, sparse=True)
    total = _json(folder / "model.safetensors.index.json")["metadata"]["total_size"]
    assert total == pytest.approx(gigabytes * 1e9, rel=0.05)
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) > total
    assert _disk(folder) < 4e6


def test_big_llama_that_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Llama is as small as"):
        checkpoints.big_llama(tmp_path / "model", 0.001, shards=1)


def test_big_llama_stays_small_in_memory(tmp_path: Path) -> None:
    """The most that the process held is measured in a process of its own, before and after 200 MB were written."""
    script = (
        "import resource; from pathlib import Path; from fakes import checkpoints\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "checkpoints.llama(Path('warm')); before = most()\n"
        "checkpoints.big_llama(Path('big'), 0.2, shards=2); print((most() - before) << 10)\n"
    )
    search = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=search, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 64e6


def _disk(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))


def test_sparse_llama_405b(tmp_path: Path) -> None:
    folder = checkpoints.sparse_llama_405b(tmp_path / "model")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) == 191
    assert sum(file.stat().st_size for file in shards) == pytest.approx(811.7e9, rel=0.01)
    assert max(file.stat().st_size for file in shards) < 8e9
    assert _disk(folder) < 8e6
    index = _json(folder / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == 2 * 405_853_388_800  # parameters of Llama 3.1 405B
    found: dict[str, tuple[int, ...]] = {}
    for file in shards:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        assert header.pop("__metadata__") == {"format": "pt"}
        assert file.stat().st_size == 8 + length + max(entry["data_offsets"][1] for entry in header.values())
        assert {index["weight_map"][name] for name in header} == {file.name}
        found |= {name: tuple(entry["shape"]) for name, entry in header.items()}
    assert found.keys() == index["weight_map"].keys()
    assert found == _llama_405b_shapes(folder)


def _llama_405b_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """What transformers makes of the config, without memory for it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (126, 16384, 128256)
    assert (config.max_position_embeddings, config.rope_parameters["rope_theta"]) == (131072, 500000.0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_safe_open_reads_a_hole(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    checkpoints.write_safetensors(
        file, {"full": ("F32", (2,), struct.pack("<2f", 1, 2)), "hole": ("BF16", (3, 5), None)}
    )
    with safe_open(file, "pt") as shard:
        assert shard.metadata() == {"format": "pt"}
        assert shard.get_tensor("full").tolist() == [1, 2]
        assert shard.get_tensor("hole").tolist() == [[0] * 5] * 3


@pytest.mark.parametrize("name", ["w", "we", "wei", "weig", "weigh", "weight", "weights", "weights2"])
def test_header_ends_on_eight_bytes(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    checkpoints.write_safetensors(file, {name: ("U8", (1,), b"x")}, {"made": "by a test"})
    length = int.from_bytes(file.read_bytes()[:8], "little")
    assert length % 8 == 0
    assert file.stat().st_size == 8 + length + 1
    with safe_open(file, "np") as shard:
        assert shard.metadata() == {"made": "by a test"}


def test_no_metadata_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    checkpoints.write_safetensors(file, {"x": ("U8", (1,), b"x")}, {})
    with safe_open(file, "np") as shard:
        assert not shard.metadata()


@pytest.mark.parametrize("content", [b"xxx", b"xxxxx", iter([b"xx", b"x"])])
def test_content_of_a_wrong_length(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'x' is [-+]1 bytes off"):
        checkpoints.write_safetensors(tmp_path / "x.safetensors", {"x": ("U8", (4,), content)})


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys; from fakes import checkpoints; print({'torch', 'transformers', 'tokenizers'} & {*sys.modules})"
    )
    search = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=search, check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_truncation_is_seen(tmp_path: Path) -> None:
    """That safe_open accepts our files means something: it refuses one that lacks a byte."""
    file = checkpoints.llama(tmp_path / "model") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SafetensorError):
        _tensors(file.parent)
