"""The rules on logged models: silent on right ones of every maker, and one code for one defect."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.models import Model
from validators.models import CASES, CHAT, COMPLETIONS, EMBEDDINGS, Recorded, by_catalogger, by_mlflow, edit, no_licence

import catalogger
from catalogger.checkpoints import open_logged
from catalogger.errors import CheckpointError
from catalogger.recipes import load_recipe
from catalogger.validators import Environment, Facts, Finding, Report, rules, run_rules

Maker = Callable[[str], Path]
FLAVOR = ("flavors", "transformers")
PYFUNC = ("flavors", "python_function")
EXAMPLE, SERVING = "input_example.json", "serving_input_example.json"


@pytest.fixture(scope="session")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """A model that catalogger has logged, made once; tests that change it work on a copy."""
    found: dict[str, Path] = {}

    def make(case: str) -> Path:
        if case not in found:
            found[case] = by_catalogger(CASES[case], tmp_path_factory.mktemp(case))
        return found[case]

    return make


@pytest.fixture
def copy(logged: Maker, work: Path) -> Maker:
    """A copy to be broken."""
    return lambda case: Path(shutil.copytree(logged(case), work / case))


def lint(model: Path, *, recipe: str | None = None) -> Report:
    """What catalogger says of the model."""
    return catalogger.lint(model, recipe=recipe).report


def _told(report: Report, *severities: str) -> list[Finding]:
    """The findings of a severity, errors and warnings without one; those on this machine's libraries left out."""
    here = ("EN", "ML020")
    wanted = severities or ("error", "warning")
    return [f for f in report.findings if f.severity in wanted and not f.code.startswith(here)]


# What is true of everything that MLflow logs from a local folder; Transformers 5 writes a tokenizer class of its own.
UPSTREAM = [("ML009", "warning"), ("ML016", "warning")]
TRANSFORMERS_5 = [("TK012", "warning")]


def _codes(report: Report) -> list[tuple[str, str]]:
    return sorted({(f.code, f.severity) for f in _told(report)})


def _ml(report: Report) -> set[str]:
    return {code for code in report.ran if code.startswith("ML")}


@pytest.mark.parametrize("case", CASES)
def test_what_catalogger_logs_is_right(case: str, logged: Maker) -> None:
    report = lint(logged(case))
    assert _told(report) == []
    assert _ml(report) == {code for code in rules() if code.startswith("ML")}
    with_recipe = lint(logged(case), recipe=CASES[case].recipe)
    assert _told(with_recipe) == []


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("from_folder", [False, True], ids=["components", "folder"])
def test_what_mlflow_logs_has_the_local_path_in_it(case: str, from_folder: bool, tmp_path: Path) -> None:
    model = by_mlflow(CASES[case], tmp_path, from_folder=from_folder)
    report = lint(model)
    assert _codes(report) == UPSTREAM + (TRANSFORMERS_5 if case != "embeddings" else [])
    assert _ml(report) == {code for code in rules() if code.startswith("ML")}
    name, licence = [f for f in _told(report) if f.code.startswith("ML")]
    source = json.dumps(str(tmp_path / "source"))
    assert name.message == f"says source_model_name {source}, a local path or nothing that the Hub could have"
    assert (licence.subject, licence.message) == (
        "LICENSE.txt",
        f"points to a page on the Hub for the local path {source}",
    )


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"task": "text-generation", "input_example": None}, ("ML003", "error")),
        ({"pip_requirements": ["transformers", "torch"]}, ("ML012", "warning")),
        ({"input_example": "Hello"}, ("ML013", "warning")),
    ],
    ids=["plain task", "open requirements", "text as example"],
)
def test_what_mlflow_lets_pass(more: dict[str, Any], code: tuple[str, str], tmp_path: Path) -> None:
    model = by_mlflow(CASES["completions"], tmp_path, from_folder=True, **more)
    assert _codes(lint(model)) == sorted([code, *UPSTREAM, *TRANSFORMERS_5])


@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")  # MLflow's under pandas 3
def test_arrays_and_tables_as_examples(tmp_path: Path) -> None:
    import numpy
    import pandas  # type: ignore[import-untyped]

    for number, example in enumerate(({"prompt": numpy.array(["x"])}, pandas.DataFrame({"prompt": ["x"]}))):
        model = by_mlflow(CASES["completions"], tmp_path / str(number), from_folder=True, input_example=example)
        (found,) = [f for f in _told(lint(model)) if f.code == "ML013"]
        wrapped = ("inputs", "dataframe_split")[number]
        assert (found.subject, found.severity) == (SERVING, "warning")
        assert found.message == f'is wrapped in "{wrapped}"; a request is {{"prompt": …}}'


RECORDED = {
    "3.18.0 chat": (Recorded("3.18.0", "5.20.2", CHAT, "LlamaForCausalLM", "CHAT-D"), []),
    "3.18.0 completions": (
        Recorded("3.18.0", "5.20.2", COMPLETIONS, "MixtralForCausalLM", "COMPLETIONS"),
        ["CK010"],
    ),
    "3.18.0 embeddings": (Recorded("3.18.0", "5.20.2", EMBEDDINGS, "BertModel", "EMBEDDINGS"), []),
    "2.22.5 chat": (Recorded("2.22.5", "4.51.2", CHAT, "LlamaForCausalLM", "CHAT-D"), []),
    "2.22.5 completions": (
        Recorded("2.22.5", "4.51.2", COMPLETIONS, "MixtralForCausalLM", "COMPLETIONS"),
        ["CK010"],
    ),
    "2.22.5 embeddings": (Recorded("2.22.5", "4.51.2", EMBEDDINGS, "BertModel", "EMBEDDINGS"), []),
    "2.18.0 chat": (Recorded("2.18.0", "4.46.2", CHAT, "LlamaForCausalLM", "CHAT-C"), []),
    "2.16.2 chat": (Recorded("2.16.2", "4.44.2", CHAT, "LlamaForCausalLM", "CHAT-B"), []),
    "2.12.2 chat": (Recorded("2.12.2", "4.39.3", CHAT, "LlamaForCausalLM", "CHAT-A"), []),
    "2.11.5 chat": (Recorded("2.11.5", "4.37.2", CHAT, "LlamaForCausalLM", "CHAT-A"), []),
    "2.11.5 completions": (
        Recorded("2.11.5", "4.37.2", COMPLETIONS, "MixtralForCausalLM", "COMPLETIONS"),
        ["CK010"],
    ),
    "2.11.5 embeddings": (Recorded("2.11.5", "4.37.2", EMBEDDINGS, "BertModel", "EMB-OLD"), []),
}


@pytest.mark.parametrize("which", RECORDED)
def test_what_older_and_newer_mlflows_wrote(which: str, work: Path) -> None:
    recorded, codes = RECORDED[which]
    report = lint(recorded.write(work / "model"))
    assert [f.code for f in _told(report)] == codes
    assert _ml(report) == {code for code in rules() if code.startswith("ML")}
    tables = [f.message for f in _told(report, "note") if f.code == "ML013"]
    written = "is a table, as MLflow 2.11.5 writes it; a request is a JSON object"
    assert tables == ([written] if recorded.mlflow == "2.11.5" else [])


@pytest.mark.parametrize(
    ("written", "signature", "codes"),
    [
        ("2.14.3", "CHAT-B", [("ML007", "error")]),
        ("2.15.0", "CHAT-A", []),
        ("2.15.0", "CHAT-B", []),
        ("2.15.0", "CHAT-C", [("ML007", "error")]),
        ("2.18.1", "CHAT-D", []),
        ("3.0.0rc1", "CHAT-D", []),
        ("3.18.7", "CHAT-C", [("ML007", "error")]),
        ("3.19.0", "CHAT-D", []),
        ("3.19.0", "CHAT-C", [("ML007", "warning")]),
        ("2.10.2", "CHAT-D", []),
        ("no version", "CHAT-A", []),
        (None, "CHAT-A", []),
    ],
)
def test_ml007_by_the_mlflow_that_wrote_it(
    written: str | None, signature: str, codes: list[tuple[str, str]], work: Path
) -> None:
    model = Recorded("3.18.0", "5.20.2", CHAT, "LlamaForCausalLM", signature).write(work / "model")
    edit(model, "mlflow_version", to=written)
    report = lint(model)
    assert _codes(report) == codes
    assert ("ML007" in report.not_checked) == (written in ("2.10.2", "no version", None))


def _columns(model: Path, side: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    text = yaml.safe_load((model / "MLmodel").read_text())["signature"][side]
    columns = json.loads(text)
    change(columns)
    edit(model, "signature", side, to=json.dumps(columns))


@pytest.mark.parametrize(
    ("side", "change", "message"),
    [
        ("inputs", lambda c: c.pop(5), '"stream" is missing'),
        ("inputs", lambda c: c.append({"type": "string", "name": "user"}), '"user" is more than MLflow writes'),
        ("inputs", lambda c: c[1].update(type="float"), '"temperature" is float instead of double'),
        ("inputs", lambda c: c[3].update(items={"type": "long"}), '"stop[]" is long instead of string'),
        ("inputs", lambda c: c[0].update(required=False), '"messages" is optional instead of required'),
        ("inputs", lambda c: c[0]["items"]["properties"].pop("role"), '"messages[].role" is missing'),
        ("inputs", lambda c: c[-1].update(values=7), '"custom_inputs{}" is of no type instead of any'),
        ("inputs", lambda c: c.append(c[1]), "a field is there twice"),
        ("inputs", lambda c: c.reverse(), "the fields are in another order"),
        ("outputs", lambda c: c[5].update(required=True), '"usage" is required instead of optional'),
    ],
)
def test_ml007_says_the_field(
    side: str, change: Callable[[list[dict[str, Any]]], Any], message: str, copy: Maker
) -> None:
    model = copy("chat")
    _columns(model, side, change)
    (found,) = _told(lint(model))
    assert (found.code, found.severity) == ("ML007", "error")
    assert found.message.endswith(f"writes for llm/v1/chat: {side}: {message}")


def test_ml007_says_the_first_few_of_many(copy: Maker) -> None:
    model = copy("chat")
    _columns(model, "inputs", lambda c: c.__delitem__(slice(3, 10)))
    edit(model, "signature", "params", to="[]")
    (found,) = _told(lint(model))
    assert found.message.endswith('"top_p" is missing; and 4 more')


def _write(model: Path, name: str, text: str) -> int:
    return (model / name).write_text(text)


def _example(model: Path, example: Any) -> None:
    for name in (EXAMPLE, SERVING):
        _write(model, name, json.dumps(example))


def _requirements(model: Path, *changes: tuple[str, str]) -> None:
    text = (model / "requirements.txt").read_text()
    for old, new in changes:
        line = next(line for line in text.splitlines() if line.startswith(old))
        text = text.replace(line, new)
    _write(model, "requirements.txt", text)


def _reference(model: Path) -> None:
    """As `save_pretrained=False` leaves it."""
    edit(model, *FLAVOR, "model_binary")
    edit(model, *FLAVOR, "source_model_revision", to="0" * 40)
    shutil.rmtree(model / "model")
    shutil.rmtree(model / "components")


def _peft(model: Path) -> None:
    """As MLflow logs a PEFT model."""
    _reference(model)
    edit(model, *FLAVOR, "peft_adaptor", to="peft")
    (model / "peft").mkdir()
    _write(model, "peft/adapter_config.json", "{}")


def _gone(*names: str) -> Callable[[Path], None]:
    def remove(model: Path) -> None:
        for name in names:
            shutil.rmtree(model / name) if (model / name).is_dir() else (model / name).unlink()

    return remove


def _set(*path: str, to: Any = ...) -> Callable[[Path], None]:
    return lambda model: edit(model, *path, to=to)


BOMB: list[Any] = ["ha"]
for _ in range(60):
    BOMB = [BOMB, BOMB]

DEFECTS: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "no transformers flavor": ("chat", _set(*FLAVOR), "ML001", "has no transformers flavor"),
    "flavor of no fields": ("chat", _set(*FLAVOR, to=[1]), "ML001", "has no transformers flavor"),
    "no pyfunc flavor": ("chat", _set(*PYFUNC), "ML001", "has no python_function flavor"),
    "other loader": (
        "chat",
        _set(*PYFUNC, "loader_module", to="mlflow.sklearn"),
        "ML001",
        'is loaded by "mlflow.sklearn" instead of mlflow.transformers',
    ),
    "no task": ("chat", _set(*FLAVOR, "task"), "ML002", "says no task, which loading needs"),
    "no pipeline_model_type": (
        "chat",
        _set(*FLAVOR, "pipeline_model_type"),
        "ML002",
        "says no pipeline_model_type, which loading needs",
    ),
    "no tokenizer_type": (
        "chat",
        _set(*FLAVOR, "tokenizer_type"),
        "ML002",
        "says no tokenizer_type, which loading needs",
    ),
    "no components": ("chat", _set(*FLAVOR, "components"), "ML002", "says no components, which loading needs"),
    "empty components": (
        "chat",
        _set(*FLAVOR, "components", to=[]),
        "ML002",
        "says a list as components, which loading needs",
    ),
    "no model_binary": ("chat", _set(*FLAVOR, "model_binary"), "ML002", "says no model_binary, which loading needs"),
    "number as model_binary": (
        "chat",
        _set(*FLAVOR, "model_binary", to=5),
        "ML002",
        "says 5 as model_binary, which loading needs",
    ),
    "no inference_task": (
        "chat",
        _set(*FLAVOR, "inference_task"),
        "ML003",
        'says no inference_task beside task "text-generation"',
    ),
    "no inference_task of a newer embedding model": (
        "embeddings",
        _set(*FLAVOR, "inference_task"),
        "ML003",
        'says no inference_task beside task "feature-extraction"',
    ),
    "unknown inference_task": (
        "chat",
        _set(*FLAVOR, "inference_task", to="llm/v2/chat"),
        "ML003",
        'says inference_task "llm/v2/chat", which is none',
    ),
    "inference_task of another pipeline": (
        "chat",
        _set(*FLAVOR, "inference_task", to=EMBEDDINGS),
        "ML003",
        'says inference_task llm/v1/embeddings and task "text-generation"; it goes with feature-extraction',
    ),
    "other pipeline task": (
        "embeddings",
        _set(*FLAVOR, "task", to="text-generation"),
        "ML003",
        'says inference_task llm/v1/embeddings and task "text-generation"; it goes with feature-extraction',
    ),
    "no metadata": ("chat", _set("metadata"), "ML004", "says no task in its metadata; inference_task is llm/v1/chat"),
    "other metadata task": (
        "chat",
        _set("metadata", "task", to=COMPLETIONS),
        "ML004",
        'says task "llm/v1/completions" in its metadata; inference_task is llm/v1/chat',
    ),
    "other inference_task of the same pipeline": (
        "chat",
        _set(*FLAVOR, "inference_task", to=COMPLETIONS),
        "ML004",
        'says task "llm/v1/chat" in its metadata; inference_task is llm/v1/completions',
    ),
    "no model_type": (
        "embeddings",
        _set("metadata", "model_type"),
        "ML005",
        "says no model_type in its metadata, which a fine-tuned BGE needs",
    ),
    "no signature": ("chat", _set("signature"), "ML006", "has no signature"),
    "no outputs": (
        "chat",
        _set("signature", "outputs", to=None),
        "ML006",
        "has no signature that can be read (outputs)",
    ),
    "signature that is none": (
        "chat",
        _set("signature", "inputs", to="[" * 100_000),
        "ML006",
        "has no signature that can be read (inputs)",
    ),
    "other pipeline_model_type": (
        "chat",
        _set(*FLAVOR, "pipeline_model_type", to="MistralForCausalLM"),
        "ML008",
        'says pipeline_model_type "MistralForCausalLM"; config.json says "LlamaForCausalLM"',
    ),
    "no source_model_name": (
        "chat",
        _set(*FLAVOR, "source_model_name"),
        "ML009",
        "says source_model_name null, so that nothing tells the base model",
    ),
    "path as source_model_name": (
        "chat",
        _set(*FLAVOR, "source_model_name", to="./out/llama"),
        "ML009",
        'says source_model_name "./out/llama", a local path or nothing that the Hub could have',
    ),
    "volume as source_model_name": (
        "chat",
        _set(*FLAVOR, "source_model_name", to="/Volumes/main/ml/llama"),
        "ML009",
        'says source_model_name "/Volumes/main/ml/llama", a local path or nothing that the Hub could have',
    ),
    "other torch_dtype": (
        "chat",
        _set(*FLAVOR, "torch_dtype", to="torch.float32"),
        "ML010",
        'says torch_dtype "torch.float32"; the weights are bfloat16',
    ),
    "torch_dtype auto": (
        "chat",
        _set(*FLAVOR, "torch_dtype", to="auto"),
        "ML010",
        'says torch_dtype "auto", which is none',
    ),
    "component without files": (
        "chat",
        lambda m: (
            _set(*FLAVOR, "components", to=["tokenizer", "image_processor"])(m),
            _set(*FLAVOR, "image_processor_type", to="P")(m),
        ),
        "ML011",
        "is named by MLmodel and has no files",
    ),
    "component without a type": (
        "chat",
        lambda m: (
            _set(*FLAVOR, "components", to=["tokenizer", "processor"])(m),
            shutil.copytree(m / "components/tokenizer", m / "components/processor"),
        ),
        "ML002",
        "says no processor_type, which loading needs",
    ),
    "no tokenizer among the components": (
        "completions",
        lambda m: (
            _set(*FLAVOR, "components", to=["processor"])(m),
            _set(*FLAVOR, "processor_type", to="P")(m),
            shutil.copytree(m / "components/tokenizer", m / "components/processor"),
        ),
        "ML011",
        "names no tokenizer among its components, which every llm/v1 task needs",
    ),
    "component that is no name": (
        "chat",
        lambda m: (
            _set(*FLAVOR, "components", to=["tokenizer", "../model"])(m),
            _set(*FLAVOR, "../model_type", to="P")(m),
        ),
        "ML011",
        'names "../model" as a component',
    ),
    "no tokenizer": ("completions", _gone("components/tokenizer"), "TK001", ""),
    "no requirements": ("chat", _gone("requirements.txt"), "ML012", "is missing"),
    "open requirement": (
        "chat",
        lambda m: _requirements(m, ("torch", "torch>=2"), ("accelerate", "accelerate==1.*")),
        "ML012",
        'does not pin "accelerate", "torch" by ==',
    ),
    "requirement that is none": (
        "chat",
        lambda m: _write(m, "requirements.txt", (m / "requirements.txt").read_text() + "\n%%%"),
        "ML012",
        'does not pin "%%%" by ==',
    ),
    "no torch": (
        "chat",
        lambda m: _requirements(m, ("torch", "--extra-index-url https://x.example # torch")),
        "ML012",
        "asks for no torch",
    ),
    "other transformers": (
        "chat",
        lambda m: _requirements(m, ("transformers", "transformers==4.44.2")),
        "ML012",
        'asks for transformers 4.44.2; MLmodel says that "',
    ),
    "stop as text": (
        "chat",
        lambda m: _example(m, {"messages": [{"role": "user", "content": "x"}], "stop": ""}),
        "ML013",
        'is no request that the signature takes: "stop" is "", not array<string>',
    ),
    "no role": (
        "chat",
        lambda m: _example(m, {"messages": [{"content": "x"}], "max_tokens": 1.5}),
        "ML013",
        'is no request that the signature takes: "messages[0].role" is missing; "max_tokens" is 1.5, not long',
    ),
    "number as prompt": (
        "completions",
        lambda m: _example(m, {"prompt": True, "temperature": False}),
        "ML013",
        'is no request that the signature takes: "prompt" is true, not string; "temperature" is false, not double',
    ),
    "no input": (
        "embeddings",
        lambda m: _example(m, {"text": "x"}),
        "ML013",
        'is no request that the signature takes: "input" is missing',
    ),
    "table as example": (
        "chat",
        lambda m: _write(m, SERVING, '{"dataframe_split": {}}'),
        "ML013",
        'is wrapped in "dataframe_split"; a request is {"messages": …}',
    ),
    "list as example": (
        "embeddings",
        lambda m: _example(m, ["x"]),
        "ML013",
        'is a list; a request is {"input": …}',
    ),
    "example that is no JSON": ("chat", lambda m: _write(m, SERVING, "{"), "ML013", "is not JSON"),
    "info that is none": (
        "chat",
        _set("saved_input_example_info", to="x"),
        "ML013",
        'says "x" as saved_input_example_info',
    ),
    "no conda.yaml": ("chat", _gone("conda.yaml"), "ML014", "is named by MLmodel as env.conda and is not there"),
    "no example": ("chat", _gone(EXAMPLE), "ML014", "is named by MLmodel as artifact_path and is not there"),
    "no code": (
        "chat",
        _set(*FLAVOR, "code", to="code"),
        "ML014",
        "is named by MLmodel as transformers.code and is not there",
    ),
    "environment elsewhere": (
        "chat",
        _set(*PYFUNC, "env", "virtualenv", to="../python_env.yaml"),
        "ML014",
        'names "../python_env.yaml" as env.virtualenv, which leads out of the model',
    ),
    "environment that is none": ("chat", _set(*PYFUNC, "env", to=7), "ML014", "names 7 as env, which is no path"),
    "weights elsewhere": (
        "chat",
        _set(*FLAVOR, "model_binary", to="/etc"),
        "ML014",
        'names "/etc" as model_binary, which leads out of the model',
    ),
    "no model folder": ("chat", _gone("model"), "ML015", 'names no weights that can be read: "model" is not there'),
    "long model_binary": (
        "chat",
        _set(*FLAVOR, "model_binary", to="x" * 5000),
        "ML015",
        f'names no weights that can be read: "{"x" * 80}" cannot be read: File name too long',
    ),
    "tokenizer that is no JSON": (
        "chat",
        lambda m: _write(m, "components/tokenizer/tokenizer_config.json", "{"),
        "ML015",
        'names no weights that can be read: "components/tokenizer" has a "tokenizer_config.json" that is not JSON',
    ),
    "no weights": ("chat", _gone("model/model.safetensors"), "CK007", "holds no weights"),
    "reference only": (
        "chat",
        _reference,
        "ML015",
        f'holds no weights, it refers to "source" at "{"0" * 40}"; registration and loading need the Hub',
    ),
    "no licence": ("chat", _gone("LICENSE"), "ML016", "is missing"),
    "licence of a local path": (
        "chat",
        lambda m: _write(m, "LICENSE.txt", no_licence("/tmp/llama")),  # noqa: S108
        "ML016",
        'points to a page on the Hub for the local path "/tmp/llama"',
    ),
    "licence of another model": (
        "chat",
        lambda m: _write(m, "LICENSE.txt", no_licence("acme/other")),
        "ML016",
        'is about "acme/other"; MLmodel says that the model is "source"',
    ),
    "adapter": ("chat", _peft, "ML017", 'says peft_adaptor "peft": the model is an adapter that was never merged'),
    "adapter beside whole weights": (
        "chat",
        lambda m: shutil.copytree(m / "components", m / "peft"),
        "ML017",
        "has a peft folder beside it: the model is an adapter that was never merged",
    ),
    "other instance_type": (
        "chat",
        _set(*FLAVOR, "instance_type", to="FeatureExtractionPipeline"),
        "ML019",
        'says instance_type "FeatureExtractionPipeline"; llm/v1/chat goes with TextGenerationPipeline',
    ),
    "a yaml bomb": ("chat", _set(*FLAVOR, "instance_type", to=BOMB), "ML019", "says instance_type a list; llm/v1/chat"),
    "a bomb as task": (
        "chat",
        _set(*FLAVOR, "inference_task", to=BOMB),
        "ML003",
        "says inference_task a list, which is none",
    ),
}
ONLY_WARNED = {
    "no model_type", "no source_model_name", "path as source_model_name", "volume as source_model_name",
    "other torch_dtype", "no requirements", "open requirement", "requirement that is none", "no torch",
    "table as example", "list as example", "reference only", "no licence", "licence of a local path",
    "licence of another model",
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_one_defect_one_code(defect: str, copy: Maker) -> None:
    case, break_it, code, message = DEFECTS[defect]
    model = copy(case)
    break_it(model)
    report = lint(model)
    found = _told(report)
    assert {f.code for f in found} == {code}, found
    assert {f.severity for f in found} == {"warning" if defect in ONLY_WARNED else "error"}
    assert found[0].message.startswith(message)
    assert all(f.fix for f in found)


@pytest.mark.parametrize("code", [c for c in rules() if c.startswith("ML") and c not in ("ML007", "ML018", "ML020")])
def test_every_rule_has_a_defect(code: str) -> None:
    assert code in {found for _, _, found, _ in DEFECTS.values()}


OTHER_FORMS = """-c constraints.txt
Torch[opt]==2.9.1+cpu ; python_version > '3' --hash=sha256:00  # a
code/own-1.0-py3-none-any.whl
own @ https://x.example/own.whl"""
NEAR_MISSES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no instance_type": ("chat", _set(*FLAVOR, "instance_type")),
    "framework": ("chat", _set(*FLAVOR, "framework", to="pt")),
    "other metadata too": ("chat", _set("metadata", "source", to="huggingface")),
    "repository": ("chat", _set(*FLAVOR, "source_model_name", to="meta-llama/Llama-3.1-8B")),
    "short dtype": ("chat", _set(*FLAVOR, "torch_dtype", to="bfloat16")),
    "null dtype under Transformers 5": ("chat", _set(*FLAVOR, "torch_dtype", to=None)),
    "no dtype of float32": ("embeddings", _set(*FLAVOR, "torch_dtype")),
    "one text": ("embeddings", lambda m: _example(m, {"input": "one"})),
    "unknown field": ("completions", lambda m: _example(m, {"prompt": "x", "user": 1, "stop": None, "temperature": 1})),
    "tools": (
        "chat",
        lambda m: _example(m, {"messages": [{"role": "user"}], "custom_inputs": {"a": [1, {"b": None}]}}),
    ),
    "no example": (
        "chat",
        lambda m: (_gone(EXAMPLE, SERVING)(m), _set("saved_input_example_info")(m)),
    ),
    "example with parameters": (
        "completions",
        lambda m: (
            _set("saved_input_example_info", "params", to="true")(m),
            _write(m, EXAMPLE, '{"inputs": {"prompt": "x"}, "params": {"max_tokens": 3}}'),
        ),
    ),
    "requirements of other forms": (
        "chat",
        lambda m: _requirements(
            m,
            ("torch", OTHER_FORMS),
        ),
    ),
    "environment as one file": ("chat", _set(*PYFUNC, "env", to="conda.yaml")),
    "licence of that model": (
        "chat",
        lambda m: (
            _write(m, "LICENSE", no_licence("acme/base")),
            _set(*FLAVOR, "source_model_name", to="acme/base")(m),
        ),
    ),
    "own id of the family": (
        "embeddings",
        lambda m: (
            _set("metadata", "model_type")(m),
            _set(*FLAVOR, "source_model_name", to="BAAI/bge-small-en-v1.5")(m),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", NEAR_MISSES)
def test_near_misses(change: str, copy: Maker) -> None:
    case, change_it = NEAR_MISSES[change]
    model = copy(case)
    change_it(model)
    assert _told(lint(model)) == []


def test_the_dtype_of_transformers_4(copy: Maker) -> None:
    model = copy("chat")
    edit(model, *FLAVOR, "torch_dtype", to=None)
    edit(model, *FLAVOR, "transformers_version", to="4.51.2")
    _requirements(model, ("transformers", "transformers==4.51.2"))
    (found,) = [f for f in _told(lint(model)) if f.code.startswith("ML")]
    assert (found.code, found.severity) == ("ML010", "warning")
    assert found.message == "says no torch_dtype; Transformers 4.51.2 loads the bfloat16 weights as float32"
    edit(model, *FLAVOR, "transformers_version")
    assert lint(model).not_checked["ML010"] == "MLmodel says no transformers_version"


def test_ml010_leaves_it_to_the_config(copy: Maker) -> None:
    model = copy("chat")
    config = json.loads((model / "model/config.json").read_text())
    (model / "model/config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    edit(model, *FLAVOR, "torch_dtype", to="torch.float16")
    report = lint(model)
    assert [f.code for f in _told(report)] == ["CK010"]
    assert report.not_checked["ML010"] == "the weights are not what their config says, as CK010 says"


@pytest.mark.parametrize(
    ("case", "recipe", "codes"),
    [
        ("chat", "llama-completions", ["ML004"]),
        ("embeddings", "bge-small", ["CK018"]),
        ("embeddings", "bge-base", ["CK018", "ML005"]),
        ("embeddings", "all-minilm-l6-v2", ["CK018", "CK011"]),
    ],
)
def test_beside_a_recipe(case: str, recipe: str, codes: list[str], logged: Maker) -> None:
    assert [f.code for f in _told(lint(logged(case), recipe=recipe))] == codes


def test_ml005_where_the_recipe_knows_of_no_family(copy: Maker) -> None:
    model = copy("embeddings")
    edit(model, "metadata", "model_type")
    assert "ML005" not in {f.code for f in lint(model, recipe="all-minilm-l6-v2").findings}
    assert "ML005" in {f.code for f in lint(model, recipe="bge-embeddings").findings}


def test_a_model_that_says_two_tasks_has_none(copy: Maker) -> None:
    model = copy("chat")
    edit(model, "metadata", "task", to=EMBEDDINGS)
    assert open_logged(model).task is None
    assert [f.code for f in _told(lint(model))] == ["ML004"], "not that a Llama gives no embeddings"
    edit(model, "metadata", "task")
    assert open_logged(model).task == CHAT


def test_ml018_another_python(logged: Maker) -> None:
    def told(python: str) -> list[str]:
        facts = Facts(Environment("3.17.2", python=python), model=open_logged(logged("chat")))
        return [f.message for f in run_rules(facts, only=("ML018",)).findings]

    written = yaml.safe_load((logged("chat") / "MLmodel").read_text())["flavors"]["python_function"]["python_version"]
    assert told(f"{written}rc1") == []
    assert told("3.99.1") == [f'says Python "{written}"; this is 3.99.1']


def test_ml020_a_model_of_a_later_mlflow(copy: Maker) -> None:
    model = copy("chat")
    edit(model, "mlflow_version", to="3.17.2")

    def told(mlflow: str) -> list[str]:
        return [
            f.message for f in run_rules(Facts(Environment(mlflow), model=open_logged(model)), only=("ML020",)).findings
        ]

    assert told("3.17.0") == told("3.18.0") == []
    assert told("3.16.1") == ["says MLflow 3.17.2, later than 3.16.1"]
    assert told("2.22.5") == ["says MLflow 3.17.2, later than 2.22.5"]


def test_other_flavors_are_not_judged_further(copy: Maker) -> None:
    model = copy("chat")
    edit(model, *FLAVOR)
    why = {code: why for code, why in lint(model).not_checked.items() if code.startswith("ML")}
    assert set(why) == {code for code in rules() if code.startswith("ML")} - {"ML001"}
    assert set(why.values()) == {"the model is of another flavor, as ML001 says"}


def test_no_logged_model_no_judgement(made: Callable[[str], Path]) -> None:
    from catalogger.checkpoints import open_source

    facts = Facts(Environment("3.17.2"), open_source(str(made("llama"))), load_recipe("llama-chat").recipe)
    report = run_rules(facts, only=("ML",))
    assert set(report.not_checked.values()) == {"there is no logged model yet"}


@pytest.mark.parametrize(("left", "codes"), [(True, []), (False, ["ML015"])])
def test_ml015_where_the_weights_are_on_another_machine(left: bool, codes: list[str], copy: Maker) -> None:
    model = copy("chat")
    listed = {p.relative_to(model).as_posix(): p.stat().st_size for p in model.rglob("*") if p.is_file()}
    (model / "model/model.safetensors").unlink()
    if not left:
        del listed["model/model.safetensors"]
    found = open_logged(model, location="s3://bucket/model", listed=listed)
    report = run_rules(Facts(Environment("3.17.2"), found.checkpoint, model=found))
    assert [f.code for f in _told(report)] == codes
    assert report.not_checked["CK007"].startswith("the weights are on another machine")


def test_lint_of_a_folder_imports_nothing_heavy(logged: Maker) -> None:
    script = f"""
import sys, catalogger
report = catalogger.lint({str(logged("chat"))!r}).report
print(len(report.ran), [m for m in ("mlflow", "torch", "transformers") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    ran, _, heavy = done.stdout.partition(" ")
    assert int(ran) > 40
    assert heavy == "[]\n"


NASTY = [
    CHAT, EMBEDDINGS, "text-generation", "..", "/", ".", "model\0", "3.18.0", "2.11.5", "torch.float16", "[]", "[{}]",
    '[{"type": "array", "name": "messages"}]', "0x" + "f" * 5000, "LICENSE", "MLmodel",
]  # fmt: skip
JSONLIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
PLACES: list[tuple[str, ...]] = [
    *(
        (),
        ("flavors",),
        FLAVOR,
        PYFUNC,
        ("metadata",),
        ("signature",),
        ("mlflow_version",),
        ("saved_input_example_info",),
    ),
    *(("metadata", key) for key in ("task", "model_type")),
    *(("signature", key) for key in ("inputs", "outputs", "params")),
    *(("saved_input_example_info", key) for key in ("artifact_path", "serving_input_path", "type")),
    *((*PYFUNC, key) for key in ("env", "loader_module", "python_version", "code")),
    *((*FLAVOR, key) for key in ("code", "components", "inference_task", "instance_type", "model_binary", "task")),
    *((*FLAVOR, key) for key in ("pipeline_model_type", "source_model_name", "tokenizer_type", "torch_dtype")),
    *((*FLAVOR, key) for key in ("transformers_version", "peft_adaptor", "source_model_revision")),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(PLACES), JSONLIKE), min_size=1, max_size=3), st.sampled_from(sorted(CASES)))
def test_no_mlmodel_breaks_a_rule_or_is_clean_where_mlflow_refuses_it(
    logged: Maker, changes: list[tuple[tuple[str, ...], Any]], case: str
) -> None:
    model = Path(shutil.copytree(logged(case), "model"))
    try:
        data = yaml.safe_load((model / "MLmodel").read_text())
        for place, value in changes:
            data = _changed(data, place, value)
        (model / "MLmodel").write_text(yaml.safe_dump(data, allow_unicode=False))
        with suppress(CheckpointError):
            checked = lint(model)
            str(checked).encode()
            if not checked.failed():
                Model.load(str(model))
    finally:
        shutil.rmtree(model)


def _changed(data: Any, place: tuple[str, ...], value: Any) -> Any:
    if not place:
        return value
    held = data if isinstance(data, dict) else {}
    return {**held, place[0]: _changed(held.get(place[0]), place[1:], value)}
