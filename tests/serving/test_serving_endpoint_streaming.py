"""Answers that come piece by piece: however the bytes are cut, and when they stop coming."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remote.answering import Answer, answer, reset, said, stall
from serving.scripted import CHUNKED, NAME, STREAM, chat, chunk, events, in_chunks, serving

from catalogger import Endpoint
from catalogger.errors import NetworkUnreachable, RegistryError, StreamBroken, UsageError
from catalogger.remote.patience import VARIABLE
from catalogger.serving.replies import Answer as Whole
from catalogger.serving.replies import Usage
from catalogger.serving.stream import Piece, Stream
from catalogger.serving.streaming import event_data

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
TOLD = [chunk("Grüße "), chunk("🙂\n"), chunk(finish_reason="stop", usage=USAGE)]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "20")


def _asked(given: Answer) -> tuple[Stream, list[Piece], BaseException | None]:
    """A streamed chat: the stream, its pieces, and what it ended with."""
    pieces: list[Piece] = []
    with serving(given) as server:
        stream = Endpoint(server.workspace, NAME).chat("?", stream=True)
        try:
            pieces.extend(stream)
        except Exception as error:
            return stream, pieces, error
        finally:
            assert server.queries == [{"messages": [{"role": "user", "content": "?"}], "stream": True}]
    return stream, pieces, None


def _cut(content: bytes, *at: int) -> list[bytes]:
    ends = sorted({0, len(content), *(min(place, len(content)) for place in at)})
    return [content[start:end] for start, end in itertools.pairwise(ends)]


@pytest.mark.parametrize("whole", [in_chunks([events(*TOLD)]), STREAM + events(*TOLD)], ids=["chunks", "until closed"])
def test_an_answer_comes_in_pieces(whole: bytes) -> None:
    stream, pieces, error = _asked(whole)
    assert error is None
    assert [piece.text for piece in pieces] == ["Grüße ", "🙂\n"]
    assert (stream.answer.text, stream.answer.finish_reason) == ("Grüße 🙂\n", "stop")
    assert stream.answer.usage == Usage(3, 2, 5)


def test_a_piece_is_given_before_the_next_one_is_there() -> None:
    """The server sends the second piece when the first one has been read."""
    seen: list[str] = []

    def slowly(connection: Any) -> None:
        connection.sendall(in_chunks([events(chunk("one"), end="")], end=b""))
        while seen != ["one"]:
            """Until it has been read."""
        connection.sendall(in_chunks([events(chunk("two", "stop"))]).removeprefix(CHUNKED))

    with serving(slowly) as server:
        for piece in Endpoint(server.workspace, NAME).chat("?", stream=True):
            seen.append(piece.text)
    assert seen == ["one", "two"]


def test_a_piece_of_an_answer_that_is_no_chunks_is_given_at_once_too() -> None:
    seen: list[str] = []

    def slowly(connection: Any) -> None:
        connection.sendall(STREAM + events(chunk("one"), end=""))
        while seen != ["one"]:
            """Until it has been read."""
        connection.sendall(events(chunk("two", "stop")))

    with serving(slowly) as server:
        for piece in Endpoint(server.workspace, NAME).chat("?", stream=True):
            seen.append(piece.text)
    assert seen == ["one", "two"]


def test_completions_and_several_choices_come_in_pieces() -> None:
    told = [{"choices": [{"index": n, "text": t, "finish_reason": r}]} for n, t, r in
            [(1, "b", None), (0, "a", None), (1, "B", "length"), (0, "A", "stop")]]  # fmt: skip
    with serving(in_chunks([events(*told)]), task="llm/v1/completions") as server:
        stream = Endpoint(server.workspace, NAME).complete(["x", "y"], stream=True)
        assert [(piece.index, piece.text) for piece in stream] == [(1, "b"), (0, "a"), (1, "B"), (0, "A")]
    assert stream.answer.texts == ["aA", "bB"]
    assert [choice.finish_reason for choice in stream.answer.choices] == ["stop", "length"]


def test_log_probabilities_come_in_pieces() -> None:
    def told(token: str, reason: str | None) -> dict[str, Any]:
        document = chunk(token, reason)
        document["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": -1.0, "bytes": [1]}]}
        return document

    with serving(in_chunks([events(told("a", None), told("b", "stop"))])) as server:
        stream = Endpoint(server.workspace, NAME).chat("?", stream=True, logprobs=True)
        assert [[token.token for token in piece.logprobs] for piece in stream] == [["a"], ["b"]]
    assert [token.token for token in stream.answer.logprobs] == ["a", "b"]


@pytest.mark.parametrize(
    "broken",
    [
        in_chunks([events(chunk("So far"), end="")], end=b""),
        in_chunks([events(chunk("So far"), end="")], end=b"40\r\ndata: {"),
        in_chunks([events(chunk("So far"), end=""), b'data: {"choices": [{"ind']),
        in_chunks([events(chunk("So far"), end="")]),
        STREAM + events(chunk("So far"), end=""),
    ],
    ids=["between chunks", "within a chunk", "within an event", "a polite end", "no chunks"],
)
def test_a_connection_that_is_lost_keeps_what_has_come(broken: bytes) -> None:
    stream, pieces, error = _asked(broken)
    assert isinstance(error, StreamBroken)
    assert isinstance(error, NetworkUnreachable)
    assert (error.text, error.exit_code) == ("So far", 5)
    assert "6 characters had come" in error.message
    assert [piece.text for piece in pieces] == ["So far"]
    assert stream.answer == Whole(stream.answer.choices)
    assert (stream.answer.text, stream.answer.finish_reason) == ("So far", None)


def test_a_stream_that_falls_silent_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalogger.serving import invocations

    def silent(connection: Any) -> None:
        connection.sendall(in_chunks([events(chunk("So far"), end="")], end=b""))
        stall(connection)

    monkeypatch.setattr(invocations, "_ON_THE_WAY", 0)
    with serving(silent) as server:
        stream = Endpoint(server.workspace, NAME, timeout=0.2).chat("?", stream=True)
        with pytest.raises(StreamBroken) as broken:
            stream.whole()
    assert broken.value.text == "So far"


def test_an_end_without_the_word_for_it_is_one_where_every_text_has_ended() -> None:
    stream, _, error = _asked(in_chunks([events(*TOLD, end="")]))
    assert (error, stream.answer.finish_reason) == (None, "stop")
    _, _, error = _asked(in_chunks([events(chunk("a", "stop"), chunk("b", index=1), end="")]))
    assert isinstance(error, StreamBroken)


def test_the_usage_stands_wherever_it_is_told() -> None:
    counted = {"choices": [], "usage": USAGE}
    for told in ([*TOLD[:2], chunk(finish_reason="stop"), counted], [counted, *TOLD[:2], chunk(finish_reason="stop")]):
        stream, _, error = _asked(in_chunks([events(*told)]))
        assert (error, stream.answer.usage) == (None, Usage(3, 2, 5))


def test_a_stream_that_could_not_begin_is_asked_for_again() -> None:
    with serving(reset, said(503, {"message": "Up."}, Retry_After="0"), in_chunks([events(*TOLD)])) as server:
        assert Endpoint(server.workspace, NAME).chat("?", stream=True).whole().text == "Grüße 🙂\n"
        assert len(server.queries) == 3


@pytest.mark.parametrize(
    "failure",
    [
        {"error": {"message": "Out of memory."}},
        {"error": "Out of memory."},
        {"error_code": "X", "message": "Out of memory."},
    ],
)
def test_an_endpoint_that_fails_in_the_middle(failure: dict[str, Any]) -> None:
    stream, pieces, error = _asked(in_chunks([events(chunk("So far"), failure)]))
    assert isinstance(error, RegistryError)
    assert "says: Out of memory." in str(error)
    assert (stream.answer.text, len(pieces)) == ("So far", 1)


@pytest.mark.parametrize(
    "data", ["no JSON", "7", "[]", '{"choices": [7]}', '{"choices": [{"delta": {}, "index": "x"}]}']
)
def test_chunks_of_another_form(data: str) -> None:
    _, _, error = _asked(in_chunks([f"data: {data}\n\n".encode()]))
    assert isinstance(error, RegistryError)
    assert "holds no chunks" in str(error)


def test_an_endpoint_that_does_not_stream() -> None:
    with serving(said(200, chat())) as server, pytest.raises(UsageError, match="does not answer this in a stream"):
        Endpoint(server.workspace, NAME).chat("?", stream=True)


def test_a_page_in_place_of_a_stream() -> None:
    page = answer(302, "<html>", Location="/login", Content_Type="text/html")
    with serving(page) as server, pytest.raises(UsageError, match="a redirection"):
        Endpoint(server.workspace, NAME).chat("?", stream=True)


# The events themselves


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=5),
    st.lists(st.integers(0, 200), max_size=10),
    st.sampled_from(["\n", "\r", "\r\n"]),
)
@settings(deadline=None, max_examples=300)
def test_events_are_the_same_however_their_bytes_are_cut(said: list[str], cuts: list[int], end: str) -> None:
    content = "".join(f": a comment{end}event: x{end}data: {line}{end}{end}" for line in said).encode()
    assert list(event_data(_cut(content, *cuts))) == said


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([b"data: a\ndata: b\n\n"], ["a\nb"]),
        ([b"data:a\n\ndata:  b\n\n"], ["a", " b"]),
        ([b"\xef\xbb\xbfdata: a\n\n"], ["a"]),
        ([b": keep alive\n\n\n", b"id: 7\nretry: 10\n\n", b"data: a\n\n"], ["a"]),
        ([b"data\n\n"], [""]),
        ([b"database: x\n\n"], []),
        ([b"data: a\r", b"\n\r\n", b"data: b\r", b"\r"], ["a", "b"]),
        ([b"data: a\r", b"", b"\n\r", b"\n"], ["a"]),
        ([b"data: a\r", b"\ndata: b\r\n\r\n"], ["a\nb"]),
        ([b"data: a\r", b"\n", b"\ndata: b\n\n"], ["a", "b"]),
        ([b"data: \xf0\x9f", b"\x99\x82\n\n"], ["🙂"]),
        ([b"data: a\xff\n\n"], ["a\ufffd"]),
        ([b"data: a\n"], ["a"]),
        ([b"data: a"], []),
        ([], []),
    ],
)  # fmt: skip
def test_events_by_their_standard(blocks: Sequence[bytes], expected: list[str]) -> None:
    assert list(event_data(blocks)) == expected
