"""Each rule: that it speaks where it should, with its own code and no other, and is silent where it should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints.shard_bytes import safetensors_bytes, table, weights
from fakes import checkpoints
from validators.judge import Judge

from catalogger.errors import CheckFailed, UsageError
from catalogger.recipes import Recipe, load_recipe
from catalogger.validators import Facts, Finding, Report, rules, run_rules

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]


@pytest.fixture
def llama(made: Callable[[str], Path], work: Path) -> Path:
    """A healthy chat Llama in three shards, to be broken."""
    return Path(shutil.copytree(made("llama"), work / "model"))


@pytest.fixture
def bert(made: Callable[[str], Path], work: Path) -> Path:
    """A healthy BGE-like embedding model in one file, to be broken."""
    return Path(shutil.copytree(made("bert"), work / "model"))


def _edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**data, **changes}.items() if v is not ...}))


def _index(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return found


def _one(facts: Facts, severity: str = "error") -> Finding:
    """The only finding of this severity, after it has been seen that no other error is there."""
    report = run_rules(facts)
    found = [f for f in report.findings if f.severity in ("error", severity)]
    assert len(found) == 1, found
    assert found[0].severity == severity
    return found[0]


def _errors(report: Report) -> list[tuple[str, str]]:
    return [(f.code, f.subject) for f in report.findings if f.severity == "error"]


@pytest.mark.parametrize(
    ("family", "recipe"),
    [
        ("llama", "llama-chat"),
        ("llama", "llama-completions"),
        ("mistral", "mistral-chat"),
        ("mixtral", "mixtral-chat"),
        ("mixtral", "mixtral-completions"),
        ("bert", "bge-embeddings"),
    ],
)
def test_healthy(family: str, recipe: str, made: Callable[[str], Path], facts: Judge) -> None:
    report = run_rules(facts(made(family), recipe))
    assert [f for f in report.findings if f.severity != "note"] == []
    assert {*report.ran, *report.not_checked} == set(rules())
    assert {code for code in report.not_checked if code[:2] in ("CK", "TK")} <= {"TK007"}, "there is no target"
    assert {code[:2] for code in report.not_checked if code != "TK007"} <= {"ML", "UC", "EN", "PT"}
    assert report.ignored == ()
    report.raise_on_error()


def test_ck001_other_architecture(bert: Path, facts: Judge) -> None:
    (bert / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    found = _one(facts(bert, "llama-chat"))
    assert (found.code, found.subject) == ("CK001", "config.json")
    assert found.message == 'says architecture "BertModel"; the recipe is for LlamaForCausalLM'


def test_ck001_no_architecture(llama: Path, facts: Judge) -> None:
    _edit(llama / "config.json", architectures=...)
    found = _one(facts(llama))
    assert (found.code, found.message) == ("CK001", "names no architecture; the recipe is for LlamaForCausalLM")


def test_ck001_any_of_several(llama: Path, facts: Judge) -> None:
    recipe = load_recipe("llama-chat", ["architectures=[Other, LlamaForCausalLM]"]).recipe
    assert _errors(run_rules(facts(llama, recipe))) == []


def test_ck002_broken_header(bert: Path, facts: Judge) -> None:
    (bert / "model.safetensors").write_bytes(safetensors_bytes(b"nonsense", 10))
    found = _one(facts(bert, "bge-embeddings"))
    assert (found.code, found.subject) == ("CK002", "model.safetensors")


def test_ck002_header_longer_than_the_file(llama: Path, facts: Judge) -> None:
    (llama / SHARDS[1]).write_bytes(b"\xff" * 7 + b"\0" + b"{}")
    found = _one(facts(llama))
    assert (found.code, found.subject) == ("CK002", SHARDS[1])


@pytest.mark.parametrize(("change", "text"), [(-1, "1 B are missing"), (5000, "5.0 kB too many")])
def test_ck003_other_length(llama: Path, facts: Judge, change: int, text: str) -> None:
    size = (llama / SHARDS[2]).stat().st_size
    with (llama / SHARDS[2]).open("rb+") as file:
        file.truncate(size + change)
    found = _one(facts(llama))
    assert (found.code, found.subject) == ("CK003", SHARDS[2])
    assert found.message == f"is {size + change} bytes long, its header promises {size}: {text}"


def test_ck004_shard_that_is_not_there(llama: Path, facts: Judge) -> None:
    (llama / SHARDS[0]).unlink()
    found = _one(facts(llama))
    assert (found.code, found.subject, found.message) == ("CK004", SHARDS[0], "is named by the index but is not there")


def test_ck004_no_index(llama: Path, facts: Judge) -> None:
    (llama / INDEX).unlink()
    found = _one(facts(llama))
    assert (found.code, found.subject, found.message) == ("CK004", INDEX, "is missing beside 3 shards")


def test_ck005_shard_that_the_index_does_not_name(llama: Path, facts: Judge) -> None:
    (llama / "model-00009-of-00003.safetensors").write_bytes(weights(other=[1]))
    found = _one(facts(llama))
    assert (found.code, found.subject) == ("CK005", "model-00009-of-00003.safetensors")
    assert found.message == "is not named by the index"


def test_ck006_tensor_that_the_index_promises(llama: Path, facts: Judge) -> None:
    _edit(llama / INDEX, weight_map={**_index(llama), "ghost.weight": SHARDS[0]})
    found = _one(facts(llama))
    assert (found.code, found.subject) == ("CK006", SHARDS[0])
    assert found.message == 'lacks what the index says it holds: "ghost.weight"'


def test_ck006_tensor_that_the_index_does_not_name(llama: Path, facts: Judge) -> None:
    index = _index(llama)
    name = next(n for n, shard in index.items() if shard == SHARDS[1])
    _edit(llama / INDEX, weight_map={n: shard for n, shard in index.items() if n != name})
    found = _one(facts(llama))
    assert (found.code, found.subject) == ("CK006", SHARDS[1])
    assert found.message == f'holds what the index says is elsewhere or nowhere: "{name}"'


def test_ck006_tensor_in_another_shard(llama: Path, facts: Judge) -> None:
    index = _index(llama)
    name = next(n for n, shard in index.items() if shard == SHARDS[1])
    _edit(llama / INDEX, weight_map={**index, name: SHARDS[2]})
    assert _errors(run_rules(facts(llama))) == [("CK006", SHARDS[1]), ("CK006", SHARDS[2])]


def test_ck007_only_pickled_weights(bert: Path, facts: Judge) -> None:
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    found = _one(facts(bert, "bge-embeddings"))
    assert (found.code, found.subject) == ("CK007", "pytorch_model.bin")
    assert found.message == "is pickled, and there are no safetensors beside it"
    assert "--allow-pickle" in found.fix


def test_ck007_pickled_weights_that_are_allowed(bert: Path, facts: Judge) -> None:
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    assert _errors(run_rules(facts(bert, "bge-embeddings", pickle_allowed=True))) == []


def test_ck007_only_an_adapter(bert: Path, facts: Judge) -> None:
    (bert / "model.safetensors").rename(bert / "adapter_model.safetensors")
    found = _one(facts(bert, "bge-embeddings"))
    assert (found.code, found.subject) == ("CK007", "adapter_model.safetensors")
    assert found.message == "is an adapter; the whole weights are not here"


def test_ck007_no_weights(bert: Path, facts: Judge) -> None:
    (bert / "model.safetensors").unlink()
    found = _one(facts(bert, "bge-embeddings"))
    assert (found.code, found.subject, found.message) == ("CK007", str(bert), "holds no weights")


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        ("base_model.model.layers.0.q_proj.base_layer.weight", True),
        ("base_model.model.layers.0.q_proj.lora_A.default.weight", True),
        ("layers.0.q_proj.lora_B.weight", True),
        ("layers.0.embed.lora_embedding_A", True),
        ("layers.0.q_proj.weight", False),
        ("layers.0.lora_Alike.weight", False),
    ],
)
def test_ck008_adapter_around_the_weights(bert: Path, facts: Judge, name: str, wrapped: bool) -> None:
    (bert / "model.safetensors").write_bytes(safetensors_bytes(table({name: ("F32", [2])})))
    report = run_rules(facts(bert, "bge-embeddings"))
    said = [f for f in report.findings if f.code == "CK008"]
    assert [f.subject for f in said] == (["model.safetensors"] if wrapped else [])
    if wrapped:
        assert {code for code, _ in _errors(report)} == {"CK008"}
        assert f'"{name}"' in report.findings[0].message


def test_ck009_code_of_its_own_needs_consent(llama: Path, facts: Judge) -> None:
    _edit(llama / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    found = _one(facts(llama))
    assert (found.code, found.message) == ("CK009", "asks for code of its own: modeling_x.X")
    assert "--trust-remote-code" in found.fix
    assert _errors(run_rules(facts(llama, remote_code_consent=True))) == []


@pytest.mark.parametrize("consent", [False, True])
def test_ck009_borrowed_code_that_the_recipe_does_not_know(bert: Path, facts: Judge, consent: bool) -> None:
    _edit(bert / "config.json", auto_map={"AutoModel": "evil/code--modeling.X"})
    report = run_rules(facts(bert, "bge-embeddings", remote_code_consent=consent))
    assert {f.code for f in report.findings if f.severity == "error"} == {"CK009"}
    assert 'takes code from "evil/code", unknown to the recipe' in [f.message for f in report.findings]


def test_ck009_borrowed_code_that_the_recipe_knows(bert: Path, facts: Judge) -> None:
    _edit(bert / "config.json", auto_map={"AutoModel": "Alibaba-NLP/new-impl--m.M"}, architectures=["NewModel"])
    assert _one(facts(bert, "gte-embeddings")).code == "CK009"
    assert _errors(run_rules(facts(bert, "gte-embeddings", remote_code_consent=True))) == []


def test_ck009_code_of_the_tokenizer_needs_consent_too(llama: Path, facts: Judge) -> None:
    _edit(llama / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]})
    assert _one(facts(llama)).code == "CK009"
    assert _errors(run_rules(facts(llama, remote_code_consent=True))) == []


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("float32", "are float32; the recipe says bfloat16: 151.2 kB to move and serve instead of 75.6 kB"),
        ("float16", ""),
    ],
)
def test_ck010_other_dtype(work: Path, facts: Judge, dtype: checkpoints.Dtype, text: str) -> None:
    checkpoints.llama(work / "model", dtype=dtype)
    found = _one(facts(work / "model"), "warning")
    assert (found.code, found.subject) == ("CK010", "weights")
    assert found.message.startswith(text or "are float16; the recipe says bfloat16")
    assert ("instead of" in found.message) == bool(text)


def test_ck010_recipe_without_a_dtype(work: Path, facts: Judge) -> None:
    recipe = load_recipe("llama-chat", ["dtype="]).recipe
    plain = checkpoints.llama(work / "model", dtype="float16")
    assert [f for f in run_rules(facts(plain, recipe)).findings if f.severity != "note"] == []
    _edit(plain / "config.json", torch_dtype="bfloat16")
    assert _one(facts(plain, recipe), "warning").message == "are float16; config.json says bfloat16"


def test_ck010_float32_of_a_language_model_whoever_says_it(work: Path, facts: Judge) -> None:
    checkpoints.llama(work / "model", dtype="float32")
    found = _one(facts(work / "model", load_recipe("llama-chat", ["dtype="]).recipe), "warning")
    assert (found.code, found.fix) == ("CK010", "Save it with torch_dtype=bfloat16.")
    assert found.message.startswith("are float32, which no served language model needs: 151.2 kB")


def test_ck010_is_not_checked_without_headers(bert: Path, facts: Judge) -> None:
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    recipe = load_recipe("bge-embeddings", ["dtype=float32"]).recipe
    report = run_rules(facts(bert, recipe, pickle_allowed=True))
    assert report.not_checked["CK010"] == "no header of a weight file could be read"
    assert "CK010" not in report.ran


def test_ck011_pooling_that_mlflow_does_not_do(work: Path, facts: Judge) -> None:
    checkpoints.bert(work / "model", pooling="mean")
    found = _one(facts(work / "model", "bge-embeddings"), "warning")
    assert (found.code, found.subject) == ("CK011", "1_Pooling/config.json")
    assert found.message.startswith("pools by mean; MLflow serves the first token's vector")


@pytest.mark.parametrize(("said", "codes"), [("mean", ["CK011"]), ("cls", [])])
def test_ck011_pooling_that_only_the_recipe_says(work: Path, facts: Judge, said: str, codes: list[str]) -> None:
    checkpoints.bert(work / "model", pooling=None)
    recipe = load_recipe("bge-embeddings", [f"embedding.pooling={said}"]).recipe
    report = run_rules(facts(work / "model", recipe))
    assert [f.code for f in report.findings if f.severity != "note"] == codes


def test_ck011_is_not_checked_where_nobody_says(work: Path, facts: Judge) -> None:
    checkpoints.bert(work / "model", pooling=None)
    recipe = load_recipe("bge-embeddings", ["embedding="]).recipe
    report = run_rules(facts(work / "model", recipe))
    assert {code for code in report.not_checked if code[:2] == "CK"} == {"CK011"}


@pytest.mark.parametrize(
    ("normalise", "pooling", "recipe", "speaks"),
    [
        (True, "cls", "true", True),
        (True, "cls", "false", True),
        (False, "cls", "true", False),
        (False, None, "true", True),
        (False, None, "false", False),
    ],
)
def test_ck012_normalisation(
    work: Path, facts: Judge, normalise: bool, pooling: Any, recipe: str, speaks: bool
) -> None:
    checkpoints.bert(work / "model", pooling=pooling, normalise=normalise)
    changed = load_recipe("bge-embeddings", [f"embedding.normalised={recipe}"]).recipe
    notes = [(f.code, f.severity) for f in run_rules(facts(work / "model", changed), only=("CK011", "CK012")).findings]
    assert notes == ([("CK012", "note")] if speaks else [])


def test_embedding_rules_are_silent_for_other_tasks(work: Path, facts: Judge) -> None:
    checkpoints.bert(work / "model", pooling="mean")
    recipe = Recipe(summary="s", task="llm/v1/completions", architectures=("BertModel",))
    embedding = ("CK011", "CK012", "CK020", "CK021")
    report = run_rules(facts(work / "model", recipe), only=embedding)
    assert (report.findings, report.ran) == ((), embedding)


def test_tk001_no_tokenizer(llama: Path, facts: Judge) -> None:
    (llama / "tokenizer.json").unlink()
    found = _one(facts(llama))
    assert (found.code, found.message) == ("TK001", "is missing, and there is no other tokenizer file")


@pytest.mark.parametrize("slow", ["tokenizer.model", "vocab.txt", "vocab.json", "spiece.model"])
def test_tk001_slow_tokenizer_only(llama: Path, facts: Judge, slow: str) -> None:
    (llama / "tokenizer.json").rename(llama / slow)
    if slow.endswith(".json"):
        (llama / slow).write_text("{}")
    found = _one(facts(llama), "warning")
    assert (found.code, found.subject) == ("TK001", "tokenizer.json")


def test_tk002_chat_without_a_template(work: Path, facts: Judge) -> None:
    checkpoints.llama(work / "model", task_template=False)
    found = _one(facts(work / "model"))
    assert (found.code, found.message) == ("TK002", "has no chat template, which task llm/v1/chat needs")
    assert _errors(run_rules(facts(work / "model", "llama-completions"))) == []


def test_tk002_template_in_its_own_file(work: Path, facts: Judge) -> None:
    checkpoints.llama(work / "model", task_template=False)
    (work / "model" / "chat_template.jinja").write_text("{{ messages }}")
    assert _errors(run_rules(facts(work / "model"))) == []


@pytest.mark.parametrize(
    ("mlflow", "recipe", "speaks"),
    [
        ("2.11.4", "bge-embeddings", True),
        ("2.11.5", "bge-embeddings", False),
        ("2.12.1", "bge-embeddings", True),
        ("2.12.2", "bge-embeddings", False),
        ("3.17.2", "bge-embeddings", False),
        ("3.18.0", "bge-embeddings", False),
    ],
)
def test_en001_mlflow(bert: Path, facts: Judge, mlflow: str, recipe: str, speaks: bool) -> None:
    report = run_rules(facts(bert, recipe, mlflow=mlflow))
    assert _errors(report) == ([("EN001", "mlflow")] if speaks else [])
    if speaks:
        assert mlflow in report.findings[0].message


def test_en001_chat_is_fine_where_embeddings_are_not(llama: Path, facts: Judge) -> None:
    assert _errors(run_rules(facts(llama, mlflow="2.12.1"))) == []


def test_all_errors_at_once_and_worst_first(llama: Path, facts: Judge) -> None:
    _edit(llama / "config.json", architectures=["Other"])
    (llama / "tokenizer.json").unlink()
    (llama / SHARDS[0]).unlink()
    (llama / SHARDS[1]).write_bytes(safetensors_bytes(table({"w": ("F32", [2])})))
    report = run_rules(facts(llama))
    assert {code for code, _ in _errors(report)} == {"CK001", "CK004", "CK006", "TK001"}
    order = [("error", "warning", "note").index(f.severity) for f in report.findings]
    assert order == sorted(order)
    with pytest.raises(CheckFailed) as failed:
        report.raise_on_error()
    assert failed.value.exit_code == 2
    assert failed.value.message.endswith("Nothing was changed.")
    assert list(failed.value.findings) == [f.document() for f in report.findings]


def test_ignoring_is_recorded(work: Path, facts: Judge) -> None:
    checkpoints.llama(work / "model", dtype="float32", task_template=False)
    report = run_rules(facts(work / "model"), ["TK002", "CK010"])
    assert [f for f in report.findings if f.severity != "note"] == []
    assert report.ignored == ("CK010", "TK002")
    assert {"TK002", "CK010"} & {*report.ran, *report.not_checked} == set()
    assert {*report.ran, *report.ignored, *report.not_checked} == set(rules())


@pytest.mark.parametrize(
    "code",
    ["CK001", "CK002", "CK003", "CK004", "CK005", "CK006", "CK007", "CK008", "CK009", "TK001", "EN001"],
)
def test_rule_that_protects_data_cannot_be_ignored(code: str, made: Callable[[str], Path], facts: Judge) -> None:
    with pytest.raises(UsageError, match=f"{code} cannot be ignored: it protects data"):
        run_rules(facts(made("llama")), [code])


@pytest.mark.parametrize("code", ["CK010", "CK011", "CK012", "TK002"])
def test_rule_that_may_be_ignored(code: str, made: Callable[[str], Path], facts: Judge) -> None:
    assert run_rules(facts(made("llama")), [code]).ignored == (code,)


@pytest.mark.parametrize("code", ["CK999", "ck010", ""])
def test_unknown_code(code: str, made: Callable[[str], Path], facts: Judge) -> None:
    with pytest.raises(UsageError, match=f'There is no rule "{code}" to ignore') as refused:
        run_rules(facts(made("llama")), [code])
    assert "CK001" in refused.value.fix


def test_every_rule_is_said_in_one_line() -> None:
    for code, rule in rules().items():
        assert rule.code == code
        assert rule.title
        assert not rule.title.endswith(".")
        assert "\n" not in rule.title


def test_every_finding_is_json_with_a_fix(llama: Path, facts: Judge) -> None:
    _edit(llama / "config.json", architectures=["Other"])
    (llama / "tokenizer.json").unlink()
    for finding in run_rules(facts(llama)).findings:
        assert set(finding.document()) == {"code", "severity", "subject", "message", "fix"}
        assert all(finding.document().values())
        json.dumps(finding.document())
