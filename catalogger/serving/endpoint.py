"""The endpoint, for those who ask it: chat, completions and embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from catalogger.errors import UsageError, human
from catalogger.recipes import load_recipe
from catalogger.serving.invocations import EXECUTION, Invocations, size_of
from catalogger.serving.replies import Answer, Embeddings, Usage, answer_of, embeddings_of
from catalogger.serving.stream import Stream

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

CHAT, COMPLETIONS, EMBEDDINGS = "llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"
_INSTEAD = {CHAT: "`chat` asks that.", COMPLETIONS: "`complete` asks that.", EMBEDDINGS: "`embed` asks that."}
_BATCH = 32  # texts of 512 tokens, at the 980 tokens per second of the smallest endpoint, take 17 of the 120 seconds

Messages = str | Sequence[Mapping[str, Any]]


class Endpoint:
    """A serving endpoint of a workspace, by its name.

        endpoint = Endpoint(WorkspaceClient(), "support-bot")
        print(endpoint.chat("What is Unity Catalog?", max_tokens=100).text)

    `timeout` is how many seconds one answer may take; an endpoint itself ends a request after 120.

    429, 503 and what else may pass is asked again, after as long as the endpoint says, for `CATALOGGER_RETRY_SECONDS`
    (300) at the most.

    What every query raises, before anything is sent: UsageError where there is no such endpoint, where it serves
    another task, and where the request is larger than the endpoint takes (4 MB); DeploymentPending and DeploymentFailed
    where it is not ready.  After that: AccessDenied, NetworkUnreachable, UsageError where the endpoint finds the
    request wrong, and RegistryError where it fails.
    """

    def __init__(self, workspace: WorkspaceClient, name: str, *, timeout: float = EXECUTION) -> None:
        if not name:
            raise UsageError("The endpoint has no name.", "The page of serving endpoints lists them.")
        if not 0 < timeout <= EXECUTION:
            raise UsageError(
                f"A query is to have {timeout:g} s.", f"An endpoint ends it after {EXECUTION:g} s: give it less."
            )
        self.name = name
        self._invocations = Invocations(workspace, name, timeout)

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r})"

    @property
    def url(self) -> str:
        """Its page, for people."""
        return self._invocations.url

    @property
    def task(self) -> str | None:
        """The llm/v1 task that it serves, as the workspace says; None where it says none."""
        task = self._invocations.described.get("task")
        return None if task is None else str(task)

    @property
    def payload_limit(self) -> int:
        """Bytes that one request may have."""
        return self._invocations.payload_limit

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[False] = False, logprobs: bool = False,
        top_logprobs: int | None = None, **options: Any,
    ) -> Answer: ...  # fmt: skip
    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[True], logprobs: bool = False,
        top_logprobs: int | None = None, **options: Any,
    ) -> Stream: ...  # fmt: skip
    def chat(
        self,
        messages: Messages,
        *,
        stream: bool = False,
        logprobs: bool = False,
        top_logprobs: int | None = None,
        **options: Any,
    ) -> Answer | Stream:
        """Ask a chat model.

        messages: a text of the user, or `{"role", "content"}` of each turn.
        stream: give the answer piece by piece.
        logprobs: give the log probability of each token, and by `top_logprobs` those of the 0 to 20 likeliest ones.
        options: what else the request is to say: `max_tokens`, `temperature`, `top_p`, `top_k`, `stop`, `n`, …
        """
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        asked = {"logprobs": True, "top_logprobs": top_logprobs} if logprobs or top_logprobs is not None else {}
        return self._generated(CHAT, {"messages": said, **asked, **options}, stream=stream)

    @overload
    def complete(self, prompt: str | Sequence[str], *, stream: Literal[False] = False, **options: Any) -> Answer: ...
    @overload
    def complete(self, prompt: str | Sequence[str], *, stream: Literal[True], **options: Any) -> Stream: ...
    def complete(self, prompt: str | Sequence[str], *, stream: bool = False, **options: Any) -> Answer | Stream:
        """Have a text continued, or several in one request: the answer has a choice for each.

        options: `max_tokens`, `temperature`, `top_p`, `top_k`, `stop`, `n`, `echo`, …
        """
        said = prompt if isinstance(prompt, str) else list(prompt)
        return self._generated(COMPLETIONS, {"prompt": said, **options}, stream=stream)

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        normalize: bool = False,
        recipe: str | None = None,
        instruction: str | None = None,
        batch_size: int = _BATCH,
    ) -> Embeddings:
        """The vector of each text, in as many requests as it takes.

        normalize: scale every vector to length 1.  BGE endpoints do so themselves, GTE endpoints do not.
        recipe: the texts are queries to the model of this recipe; the instruction that its authors put before a query
            goes along.
        instruction: the text to put before each text, in place of the recipe's.
        batch_size: texts in one request, where the payload limit does not ask for fewer.
        """
        every = [texts] if isinstance(texts, str) else list(texts)
        if not every or batch_size < 1:
            raise UsageError("There is nothing to embed.", "Give one text or more, and a batch size of 1 or more.")
        if instruction is None and recipe is not None:
            instruction = query_instruction(recipe)
        self._invocations.require_task(EMBEDDINGS, _INSTEAD)
        shared = {} if instruction is None else {"instruction": instruction}
        vectors, usage = [], Usage()
        for batch in list(self._batches(every, shared, batch_size)):
            part = embeddings_of(self._invocations.ask({"input": batch, **shared}), len(batch))
            vectors += part.vectors
            usage += part.usage
        return Embeddings([_normalised(vector) for vector in vectors] if normalize else vectors, usage)

    def _generated(self, task: str, payload: Mapping[str, Any], *, stream: bool) -> Answer | Stream:
        self._invocations.require_task(task, _INSTEAD)
        asked = {key: value for key, value in payload.items() if value is not None}
        if stream:
            return Stream(self._invocations.stream(asked))
        return answer_of(self._invocations.ask(asked))

    def _batches(self, texts: Sequence[str], shared: Mapping[str, Any], most: int) -> Iterator[list[str]]:
        """Texts that go together.  Raises UsageError for one that is too large alone."""
        room = self.payload_limit - size_of({"input": [], **shared})
        batch: list[str] = []
        size = 0
        for number, text in enumerate(texts, 1):
            own = size_of(text) + len(", ")
            if own > room:
                raise UsageError(
                    f"Text {number} has {human(own)}, and a request has room for {human(max(room, 0))}.",
                    "Cut it: a model reads no more than its window of tokens anyway.",
                )
            if batch and (size + own > room or len(batch) == most):
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += own
        yield batch


def query_instruction(recipe: str) -> str:
    """What the authors of the recipe's model put before a query.  Raises UsageError where they put nothing."""
    embedding = load_recipe(recipe).recipe.embedding
    if embedding is None or embedding.query_instruction is None:
        raise UsageError(f'The recipe "{recipe}" has no instruction for queries.', "Embed them as they are.")
    return embedding.query_instruction


def _normalised(vector: Sequence[float]) -> list[float]:
    """At length 1; a vector of zeros stays."""
    length = math.hypot(*vector) or 1.0
    return [number / length for number in vector]
