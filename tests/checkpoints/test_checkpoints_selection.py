"""Which files are taken, which are left out, and why."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogger.checkpoints.selection import is_licence, select

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # whatever else this machine does

OWN_FORMAT = "the authors' own format beside the Transformers one"
LEFT_OUT = {
    "original/consolidated.00.pth": OWN_FORMAT,
    "original/params.json": OWN_FORMAT,
    "original/tokenizer.model": OWN_FORMAT,
    "consolidated.safetensors": OWN_FORMAT,
    "consolidated-00001-of-00002.safetensors": OWN_FORMAT,
    "model-q4.gguf": "GGUF",
    "model.onnx": "ONNX",
    "model.onnx_data": "ONNX",
    "onnx/model.onnx": "ONNX",
    "onnx/config.json": "ONNX",
    "openvino/openvino_model.xml": "OpenVINO",
    "tf_model.h5": "TensorFlow twin",
    "flax_model.msgpack": "Flax twin",
    "rust_model.ot": "Rust twin",
    "coreml/model.mlpackage": "Core ML",
    "adapter_model.safetensors": "an adapter, not whole weights",
    "adapter_model.bin": "an adapter, not whole weights",
    "optimizer.pt": "training state",
    "optimizer.bin": "training state",
    "scheduler.pt": "training state",
    "rng_state_0.pth": "training state",
    "training_args.bin": "training state",
    "trainer_state.json": "training state",
    "fp16/model.safetensors": "not the checkpoint's own weights",
    "checkpoint-500/model.safetensors": "not the checkpoint's own weights",
    "pytorch_model.bin": "pickled weights",
    "pytorch_model-00001-of-00002.bin": "pickled weights",
    "model.pt": "pickled weights",
    "model.ckpt": "pickled weights",
    "data.csv": "not needed by the logged model",
    "2_Dense/config.json": "not needed by the logged model",
    "scripts/run.py": "not needed by the logged model",
}
SMALL = (
    "config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja", "modules.json",
    "1_Pooling/config.json", "LICENSE", "LICENSE.txt", "USE_POLICY.md", "NOTICE", "README.md",
)  # fmt: skip


@pytest.mark.parametrize("path", LEFT_OUT)
def test_left_out_with_the_reason(path: str) -> None:
    chosen = select([path, "config.json", "model.safetensors"])
    assert chosen.left_out == {path: LEFT_OUT[path]}
    assert (chosen.weights, chosen.small) == (("model.safetensors",), ("config.json",))


@pytest.mark.parametrize("path", SMALL)
def test_small_files(path: str) -> None:
    chosen = select([path])
    assert (chosen.small, chosen.left_out) == ((path,), {})


def test_shards_in_order() -> None:
    paths = [f"model-0000{n}-of-00003.safetensors" for n in (3, 1, 2)]
    assert select(paths).weights == tuple(sorted(paths))


def test_code_at_the_root() -> None:
    assert select(["modeling_x.py", "sub/other.py"]).code == ("modeling_x.py",)


def test_both_formats_take_safetensors_only() -> None:
    chosen = select(["pytorch_model.bin", "model.safetensors", "tf_model.h5", "flax_model.msgpack"])
    assert chosen.weights == ("model.safetensors",)
    assert chosen.pickled == ("pytorch_model.bin",)
    assert set(chosen.left_out) == {"pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"}


def test_training_state_is_not_mistaken_for_weights() -> None:
    assert select(["optimizer.pt", "rng_state.pth", "scheduler.pt", "training_args.bin"]).pickled == ()


def test_licence_is_at_the_root() -> None:
    assert is_licence("LICENSE")
    assert not is_licence("original/LICENSE")
    assert not is_licence("MY_LICENSE")


_PATHS = st.lists(
    st.one_of(
        st.sampled_from([*LEFT_OUT, *SMALL, "model.safetensors", "a.py"]),
        st.text("ab/.", min_size=1, max_size=8),
        st.text(min_size=1, max_size=8),
    ),
    unique=True,
)


@patient
@given(_PATHS)
def test_every_path_is_in_exactly_one_place(paths: list[str]) -> None:
    chosen = select(paths)
    assert sorted([*chosen.weights, *chosen.small, *chosen.code, *chosen.left_out]) == sorted(paths)
    assert set(chosen.pickled) <= set(chosen.left_out)
