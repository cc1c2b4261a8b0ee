"""The process of one served model: MLflow loads it, and it answers until nobody asks any more.

One order is one line of JSON on stdin: first `{"folder", "task"}`, then what is to be answered.  Each is followed by
lines of JSON on stdout; the last of them holds `done`, `refused` (the order was wrong) or `failed`.  Whatever libraries
print goes to stderr.  When stdin is closed, the process ends.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from catalogger.testing.generation import Sampling, Step, Text, steps, token_bytes

Event = Mapping[str, Any]
EMBEDDINGS = "llm/v1/embeddings"


class _RefusedError(ValueError):
    """The order is one that no model could follow."""


class _Served(Protocol):
    def answer(self, order: Mapping[str, Any]) -> Iterator[Event]: ...


def main() -> None:
    """Load and answer.  The exit code is 1 where the model does not load."""
    with os.fdopen(os.dup(1), "w", buffering=1) as lines:
        os.dup2(2, 1)
        first = json.loads(sys.stdin.readline())
        try:
            served: _Served = (_Embedder if first["task"] == EMBEDDINGS else _Generator)(first["folder"])
        except BaseException as error:  # also SystemExit, by code that the model brings
            traceback.print_exc()
            print(json.dumps({"failed": _sentence(error)}), file=lines)
            sys.exit(1)
        print(json.dumps({"done": {}}), file=lines)
        for line in sys.stdin:
            for event in _answered(served, json.loads(line)):
                print(json.dumps(event), file=lines)


def _answered(served: _Served, order: Mapping[str, Any]) -> Iterator[Event]:
    try:
        yield from served.answer(order)
    except _RefusedError as error:
        yield {"refused": str(error)}
    except Exception as error:
        traceback.print_exc()
        yield {"failed": _sentence(error)}


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


class _Embedder:
    """Answers as MLflow does: the hidden state of each text's first token."""

    def __init__(self, folder: str) -> None:
        import mlflow

        self._model = mlflow.pyfunc.load_model(folder)

    def answer(self, order: Mapping[str, Any]) -> Iterator[Event]:
        said = self._model.predict({"input": order["texts"]})
        vectors = [[float(number) for number in row["embedding"]] for row in said["data"]]
        yield {"done": {"vectors": vectors, "prompt_tokens": said["usage"]["prompt_tokens"]}}


class _Generator:
    """Answers one prompt after another with the model and the tokenizer that MLflow has loaded."""

    def __init__(self, folder: str) -> None:
        import mlflow

        loaded = mlflow.transformers.load_model(folder)
        self._model, self._tokenizer = loaded.model.eval(), loaded.tokenizer
        backend = json.loads(self._tokenizer.backend_tokenizer.to_str())
        self._byte_level = "ByteLevel" in json.dumps(backend["decoder"])
        self._window = int(self._model.config.max_position_embeddings)
        ends = self._model.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}

    def answer(self, order: Mapping[str, Any]) -> Iterator[Event]:
        """Events `{"text", "token"}`, one for each token of the text."""
        prompt = self._prompt(order)
        text, count, reason = Text(self._decoded, order["stop"]), 0, "length"
        for step in self._steps(prompt, order):
            count += 1
            if step.token in self._ends:
                reason = "stop"
                break
            yield {"text": text.add(step.token), "token": self._told(step)}
            if text.stopped:
                reason = "stop"
                break
        usage = {"prompt_tokens": len(prompt), "completion_tokens": count}
        yield {"done": {"text": text.rest(), "finish_reason": reason, **usage}}

    def _steps(self, prompt: list[int], order: Mapping[str, Any]) -> Iterator[Step]:
        left = self._window - len(prompt)
        if left < 1 or not prompt:
            raise _RefusedError(f"The prompt has {len(prompt)} tokens, and the model has room for {self._window}.")
        sampling, limit = Sampling(**order["sampling"]), min(left, order["max_tokens"])
        return steps(self._model, prompt, sampling, limit, order["top_logprobs"])

    def _prompt(self, order: Mapping[str, Any]) -> list[int]:
        """The tokens of the prompt: of a text with those that the tokenizer puts around it, of messages by the chat
        template alone.
        """
        if "text" in order:
            return list(self._tokenizer(order["text"])["input_ids"])
        try:
            prompt = self._tokenizer.apply_chat_template(order["messages"], tokenize=False, add_generation_prompt=True)
        except Exception as error:
            raise _RefusedError(f"The chat template refuses the messages: {error}") from error
        return list(self._tokenizer(prompt, add_special_tokens=False)["input_ids"])

    def _decoded(self, tokens: Any) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _told(self, step: Step) -> Event:
        top = [self._named(token, logprob) for token, logprob in step.top]
        return {**self._named(step.token, step.logprob), "top_logprobs": top}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        """As OpenAI writes a token: bytes that are no text are spelled out, and a row of the embedding that is no token
        of the tokenizer, as where it was filled up to a round number, is none.
        """
        piece = self._tokenizer.convert_ids_to_tokens(token) or ""
        content = token_bytes(piece, byte_level=self._byte_level)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
        return {"token": text, "logprob": logprob, "bytes": list(content)}


if __name__ == "__main__":
    main()
