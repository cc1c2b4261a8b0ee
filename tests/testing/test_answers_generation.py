"""Text from tokens: what is given away early is never taken back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogger.testing.generation import Text, token_bytes


def _decoded(tokens: Sequence[int]) -> str:
    """Each token is a byte."""
    return bytes(tokens).decode(errors="replace")


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=3))
@settings(deadline=None, max_examples=300)
def test_the_pieces_are_the_text_until_the_first_stop(text: str, stops: list[str]) -> None:
    written, pieces = Text(_decoded, stops), []
    for token in text.encode(errors="replace"):
        pieces.append(written.add(token))
        if written.stopped:
            break
    pieces.append(written.rest())
    said = text.encode(errors="replace").decode()
    ends = [at for stop in stops if (at := said.find(stop)) >= 0]
    if written.stopped:
        assert "".join(pieces) == said[: min(e for e in ends if said[e:].startswith(tuple(stops)))]
    else:
        assert (ends, "".join(pieces)) == ([], said)


@given(st.binary(max_size=30))
@settings(deadline=None)
def test_bytes_that_are_no_text_are_given_in_the_end(content: bytes) -> None:
    written = Text(_decoded, [])
    pieces = [written.add(token) for token in content]
    assert "".join([*pieces, written.rest()]) == content.decode(errors="replace")


def test_no_half_character_and_no_beginning_of_a_stop_is_given_away() -> None:
    written = Text(_decoded, ["END"])
    given_away = [written.add(token) for token in "é EN…".encode()]
    assert given_away == ["", "é", " ", "", "", "", "", "EN…"]


@pytest.mark.parametrize(
    ("piece", "byte_level", "content"),
    [
        ("Ġthe", True, b" the"),
        ("Ã", True, b"\xc3"),
        ("Ċ", True, b"\n"),
        ("<|eot|>", True, b"<|eot|>"),
        ("é漢", True, "é漢".encode()),  # an added token is spelled as it is
        ("▁the", False, b" the"),
        ("<0x0A>", False, b"\n"),
        ("<0xE6>", False, b"\xe6"),
        ("the", False, b"the"),
    ],
)
def test_the_bytes_of_a_token(piece: str, byte_level: bool, content: bytes) -> None:
    assert token_bytes(piece, byte_level=byte_level) == content


def test_a_byte_level_vocabulary_spells_every_byte() -> None:
    """Held against the alphabet of the tokenizers library."""
    from tokenizers import pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert sorted(token_bytes(letter, byte_level=True) for letter in alphabet) == [bytes([b]) for b in range(256)]
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("Grüße,\n🙂")
    whole = "".join(piece for piece, _ in spelled)
    assert token_bytes(whole, byte_level=True).decode() == "Grüße,\n🙂"
