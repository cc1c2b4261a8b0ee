"""`log-model query`: ask a serving endpoint, whatever its task is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catalogger.cli.options import DEBUG, PROFILE
from catalogger.cli.output import Terminal, emit
from catalogger.errors import UsageError, human
from catalogger.quiet import quiet

if TYPE_CHECKING:
    from catalogger.serving.endpoint import Endpoint
    from catalogger.serving.replies import Answer, Choice, TokenLogprob
    from catalogger.serving.stream import Stream

CHAT, COMPLETIONS, EMBEDDINGS = "llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"
_FITS = {
    "system": (CHAT,),
    "logprobs": (CHAT,),
    "top_logprobs": (CHAT,),
    "stream": (CHAT, COMPLETIONS),
    "max_tokens": (CHAT, COMPLETIONS),
    "temperature": (CHAT, COMPLETIONS),
    "stop": (CHAT, COMPLETIONS),
    "normalize": (EMBEDDINGS,),
    "recipe": (EMBEDDINGS,),
    "instruction": (EMBEDDINGS,),
}
_ASKED = ("max_tokens", "temperature", "stop")
_TELLING = ("logprobs", "top_logprobs")


@click.command("query")
@click.argument("endpoint")
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--input", "file", metavar="FILE", type=click.Path(path_type=Path), help="Ask each line of this file.")
@click.option("--system", metavar="TEXT", help="What a chat model is told first.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Tokens of each answer at the most.")
@click.option("--temperature", type=click.FloatRange(0, 2), metavar="T", help="0 for the likeliest tokens, up to 2.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated.")
@click.option("--stream", is_flag=True, help="Print the answer as it comes.")
@click.option("--logprobs", is_flag=True, help="Give the log probability of each token.")
@click.option("--top-logprobs", type=click.IntRange(0, 20), metavar="N", help="And of the N likeliest at its place.")
@click.option("--normalize", is_flag=True, help="Scale each vector to length 1, as BGE endpoints do and GTE's do not.")
@click.option("--recipe", metavar="NAME", help="The texts are queries: with the instruction of this recipe's authors.")
@click.option("--instruction", metavar="TEXT", help="Another text to put before each text that is embedded.")
@click.option("--timeout", default=120.0, metavar="S", help="Seconds that one answer may take.  [default: 120]")
@PROFILE
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
@DEBUG
def command(
    endpoint: str,
    texts: Sequence[str],
    file: Path | None,
    profile: str | None,
    timeout: float,
    output: str,
    debug: bool,
    **options: Any,
) -> None:
    """Ask the serving endpoint ENDPOINT: a chat, the rest of a text, or the vector of each TEXT.

    \b
    log-model query support-bot "What is Unity Catalog?" --max-tokens 100
    cat letter.txt | log-model query support-bot - --system "Answer in one sentence." --stream
    log-model query bge-large "how do I register a model" --recipe bge-large -o json

    TEXT is - for what stands on stdin.  An endpoint takes 4 MB a request and ends it after 120 seconds; texts to embed
    are spread over as many requests as it takes.
    """
    from catalogger.remote.workspace import workspace_client
    from catalogger.serving.endpoint import Endpoint

    quiet(debug=debug)
    every = _texts(texts, file)
    asked = Endpoint(workspace_client(profile), endpoint, timeout=timeout)
    task = _fitting(asked, options)
    limits = f"{human(asked.payload_limit)} and {timeout:g} s a request at the most"
    Terminal().say(f"Asking {endpoint} ({task}): {limits}")
    if task == EMBEDDINGS:
        _embed(asked, every, options, as_json=output == "json")
    else:
        _generate(asked, task, every, options, as_json=output == "json")


def _texts(texts: Sequence[str], file: Path | None) -> list[str]:
    """What is to be asked: each TEXT, then each line of the file that says something."""
    try:
        every = [sys.stdin.buffer.read().decode() if text == "-" else text for text in texts]
        if file is not None:
            every += [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        source = "stdin" if file is None else f'"{file}"'
        raise UsageError(f"{source} cannot be read as text: {error}.", "Give UTF-8.") from error
    if not every or not all(text.strip() for text in every):
        raise UsageError("There is nothing to ask.", "Give a TEXT, - for stdin, or --input FILE.")
    return every


def _fitting(endpoint: Endpoint, options: Mapping[str, Any]) -> str:
    """The endpoint's task.  Raises UsageError where an option is of another one."""
    task = endpoint.task
    if task not in (CHAT, COMPLETIONS, EMBEDDINGS):
        said = "names no task" if task is None else f"serves {task}"
        raise UsageError(f'The endpoint "{endpoint.name}" {said}.', "Ask one that serves an llm/v1 task.")
    for name, tasks in _FITS.items():
        if _given(options[name]) and task not in tasks:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f'{option} is for {" and ".join(tasks)}; the endpoint "{endpoint.name}" serves {task}.',
                f"Leave {option} out, or ask another endpoint.",
            )
    return task


def _given(value: object) -> bool:
    """Whether an option was given; 0 is a value."""
    return value is not None and value is not False and value != ()


def _embed(endpoint: Endpoint, texts: Sequence[str], options: Mapping[str, Any], *, as_json: bool) -> None:
    chosen = {name: options[name] for name in ("normalize", "recipe", "instruction")}
    embeddings = endpoint.embed(texts, **chosen)
    if as_json:
        emit({"endpoint": endpoint.name, "task": EMBEDDINGS, **embeddings.document()})
        return
    for vector in embeddings.vectors:
        click.echo(json.dumps(vector))


def _generate(
    endpoint: Endpoint, task: str, texts: Sequence[str], options: Mapping[str, Any], *, as_json: bool
) -> None:
    from catalogger.serving.replies import Usage

    if options["stream"] and len(texts) > 1:
        raise UsageError(f"{len(texts)} texts cannot be answered in one stream.", "Give one text, or no --stream.")
    answers: list[Choice] = []
    usage = Usage()
    for answer in _answers(endpoint, task, texts, options, silent=as_json):
        answers += answer.choices
        usage += answer.usage or Usage()
    if as_json:
        said = [{**choice.document(), "index": index} for index, choice in enumerate(answers)]
        emit({"endpoint": endpoint.name, "task": task, "answers": said, "usage": asdict(usage)})
        return
    cut = sum(choice.finish_reason == "length" for choice in answers)
    if cut:
        what = "The answer was" if len(answers) == 1 else f"{cut} of {len(answers)} answers were"
        Terminal().say(f"{what} cut off at its limit of tokens; --max-tokens sets another.")


def _answers(
    endpoint: Endpoint, task: str, texts: Sequence[str], options: Mapping[str, Any], *, silent: bool
) -> Iterator[Answer]:
    """The answer to each request, printed already unless `silent`."""
    asked = {name: options[name] for name in _ASKED if _given(options[name])}
    if task == COMPLETIONS:
        prompt = texts[0] if len(texts) == 1 else texts
        if options["stream"]:
            yield _printed(endpoint.complete(prompt, stream=True, **asked), silent=silent)
        else:
            yield _shown(endpoint.complete(prompt, **asked), silent=silent)
        return
    asked |= {name: options[name] for name in _TELLING if _given(options[name])}
    first = [{"role": "system", "content": options["system"]}] if options["system"] else []
    for text in texts:
        messages = [*first, {"role": "user", "content": text}]
        if options["stream"]:
            yield _printed(endpoint.chat(messages, stream=True, **asked), silent=silent)
        else:
            yield _shown(endpoint.chat(messages, **asked), silent=silent)


def _shown(answer: Answer, *, silent: bool) -> Answer:
    if not silent:
        for choice in answer.choices:
            click.echo(choice.text)
            _tell(choice.logprobs)
    return answer


def _printed(stream: Stream, *, silent: bool) -> Answer:
    """Print the pieces as they come.  What has come of a stream that breaks off ends with a line end too."""
    if silent:
        return stream.whole()
    try:
        for piece in stream:
            click.echo(piece.text, nl=False)
    finally:
        click.echo()
    _tell(stream.answer.logprobs)
    return stream.answer


def _tell(tokens: Sequence[TokenLogprob]) -> None:
    """The log probabilities, beside the answer: stdout holds nothing but text."""
    for token in tokens:
        others = "".join(f"  {other.logprob:.4f} {json.dumps(other.token)}" for other in token.top)
        Terminal().say(f"{token.logprob:9.4f} {json.dumps(token.token):<12}{others}".rstrip())
