"""Answers to queries by the registered model itself: MLflow loads the version's files, and its numbers are the answer.

Tokens are the likeliest ones unless the request gives a `temperature`: an endpoint's own default is 1.0, by which no
two answers are alike.  Chance is repeatable: it goes by the `seed` of the request, else by that of `ModelAnswers`.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from catalogger.testing.answers_forms import Choice, Count, Form, embeddings, normalised, server_sent
from catalogger.testing.answers_requests import (
    CHAT,
    EMBEDDINGS,
    Generation,
    WrongRequestError,
    generation_of,
    texts_of,
)
from catalogger.testing.model_process import ModelFailedError, ModelProcess, WrongOrderError
from catalogger.testing.servable import ServedVersion

_NORMALISED = "bge"
"""Of this family an endpoint returns vectors of length 1; of GTE and others it returns them as they are."""


@dataclass(frozen=True)
class Answer:
    """What goes back to who asked; a stream of server-sent events has no length beforehand."""

    status: int
    headers: Mapping[str, str]
    body: bytes | Iterable[bytes]

    def blocks(self) -> Iterator[bytes]:
        yield from [self.body] if isinstance(self.body, bytes) else self.body


class ModelAnswers:
    """Answers with the models themselves, each in a process of its own that begins with the first query and ends with
    `close` (or the `with` block).
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._processes: dict[Path, ModelProcess] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            while self._processes:
                self._processes.popitem()[1].close()

    @property
    def pids(self) -> list[int]:
        """The processes that are running."""
        with self._lock:
            return [process.pid for process in self._processes.values() if not process.ended]

    def answer(self, entity: ServedVersion, task: str, document: Mapping[str, Any]) -> Answer:
        """The answer to what was sent to `/invocations`.  A wrong request is 400, a model that fails 500."""
        try:
            if task == EMBEDDINGS:
                return _json(self._embedded(entity, document))
            return self._generated(entity, task, generation_of(task, document, self._seed))
        except (WrongRequestError, WrongOrderError) as error:
            return _json({"error_code": "BAD_REQUEST", "message": str(error)}, 400)
        except ModelFailedError as error:
            return _json({"error_code": "INTERNAL_ERROR", "message": str(error)}, 500)

    def _process(self, entity: ServedVersion, task: str) -> ModelProcess:
        if not entity.folder.is_dir():
            raise ModelFailedError(f"{entity.name}/{entity.number} has no files on this machine.")
        with self._lock:
            running = self._processes.get(entity.folder)
            if running and not running.ended:
                return running
            if running:
                running.close()
            self._processes[entity.folder] = ModelProcess(entity.folder, task)
            return self._processes[entity.folder]

    def _embedded(self, entity: ServedVersion, document: Mapping[str, Any]) -> dict[str, Any]:
        texts = texts_of(document)
        (said,) = self._process(entity, EMBEDDINGS).ask({"texts": texts})
        vectors = said["vectors"]
        if (entity.model_type or "").lower().startswith(_NORMALISED):
            vectors = [normalised(vector) for vector in vectors]
        return embeddings(entity.name, vectors, said["prompt_tokens"])

    def _generated(self, entity: ServedVersion, task: str, asked: Generation) -> Answer:
        process = self._process(entity, task)
        form = Form(entity.name, chat=task == CHAT, logprobs=asked.top_logprobs is not None)
        if asked.stream:
            chunks = _chunks(process, form, asked)
            first = next(chunks)  # what is wrong shows now, when it can still be an answer of its own
            return Answer(200, {"Content-Type": "text/event-stream"}, server_sent(itertools.chain([first], chunks)))
        count, choices = Count(), []
        for index, events in enumerate(_choices(process, asked, count)):
            choices.append(choice := Choice(index))
            for event in events:
                choice.take(event)
        return _json(form.whole(choices, count.document()))


def _chunks(process: ModelProcess, form: Form, asked: Generation) -> Iterator[dict[str, Any]]:
    """One chunk an event; the last one carries the usage."""
    count, last = Count(), len(asked.prompts) * asked.n - 1
    for index, events in enumerate(_choices(process, asked, count)):
        for number, event in enumerate(events):
            if not number and form.chat:
                yield form.opening(index)
            part = Choice(index)
            part.take(event)
            ended = index == last and part.finish_reason is not None
            yield form.part(part, count.document() if ended else None)


def _choices(process: ModelProcess, asked: Generation, count: Count) -> Iterator[Iterator[Mapping[str, Any]]]:
    """The events of each choice, which are to be read to their end before those of the next one."""
    for prompt in asked.prompts:
        for number in range(asked.n):
            yield _events(process, asked, prompt, number, count)


def _events(
    process: ModelProcess, asked: Generation, prompt: Mapping[str, Any], number: int, count: Count
) -> Iterator[Mapping[str, Any]]:
    echo = prompt["text"] if asked.echo else ""
    sampling = replace(asked.sampling, seed=asked.sampling.seed + number)
    order = {
        **prompt,
        "max_tokens": asked.max_tokens,
        "sampling": vars(sampling),
        "stop": asked.stop,
        "top_logprobs": asked.top_logprobs or 0,
    }
    for event in process.ask(order):
        if "finish_reason" in event:
            count.prompt += event["prompt_tokens"] if not number else 0
            count.completion += event["completion_tokens"]
        yield {**event, "text": echo + event["text"]}
        echo = ""


def _json(document: Mapping[str, Any], status: int = 200) -> Answer:
    body = json.dumps(document).encode()
    return Answer(status, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)
