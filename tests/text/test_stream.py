"""Utf8Stream against bytes.decode, StopStrings against a search that looks at every prefix of the text."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kogata.errors import BadInput
from kogata.text.stream import StopStrings, Utf8Stream


def cut(whole: str | bytes, places: list[int]) -> list[Any]:
    borders = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[a:b] for a, b in pairwise(borders)]


@given(data=st.binary(max_size=40) | st.text(max_size=20).map(str.encode), places=st.lists(st.integers(0, 40)))
@example(data="é漢🗿".encode(), places=list(range(10)))
@example(data=b"\xf0\x9f\x97a\xff\xe6\xbc", places=list(range(8)))
def test_utf8_is_what_python_decodes(data: bytes, places: list[int]) -> None:
    stream = Utf8Stream()
    shown = [stream.push(piece) for piece in cut(data, places)]
    assert "".join(shown) + stream.flush() == data.decode(errors="replace")
    assert stream.flush() == ""


def test_no_character_is_split() -> None:
    stream = Utf8Stream()
    assert [stream.push(bytes([byte])) for byte in "a漢🗿".encode()] == ["a", "", "", "漢", "", "", "", "🗿"]
    # What cannot become a character any more is not waited for.
    assert [stream.push(byte) for byte in (b"\xe6", b"\xbc", b"x")] == ["", "", "\ufffdx"]
    assert stream.push(b"\xf0\x9f") == ""
    assert stream.flush() == "\ufffd"


def expected(text: str, strings: list[str]) -> tuple[str, str | None]:
    """By the definition: the shortest prefix that ends with a stop string, the longest of them."""
    for end in range(len(text) + 1):
        if found := [string for string in strings if text[:end].endswith(string)]:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


def may_become(tail: str, strings: list[str]) -> bool:
    return any(string.startswith(tail) for string in strings)


letters = st.sampled_from(["a", "b", "é", "🗿"])


@given(
    text=st.text(letters, max_size=30),
    strings=st.lists(st.text(letters, min_size=1, max_size=6), max_size=6),
    places=st.lists(st.integers(0, 30), max_size=8),
)
@example(text="abcd", strings=["abcd", "bc"], places=[])
@example(text="aaab", strings=["aab"], places=[1, 2, 3])
def test_stop_strings_follow_the_definition(text: str, strings: list[str], places: list[int]) -> None:
    stops, shown, given_so_far = StopStrings(strings), "", ""
    for piece in cut(text, places):
        shown += stops.push(piece)
        given_so_far += piece
        if stops.matched is None:
            held = given_so_far[len(shown) :]
            # Exactly the longest tail that may still become a stop string.
            tails = [given_so_far[i:] for i in range(len(given_so_far)) if may_become(given_so_far[i:], strings)]
            assert held == max(tails, key=len, default="")
    if stops.matched is None:
        shown += stops.flush()
    assert (shown, stops.matched) == expected(text, strings)
    assert stops.matched is None or stops.push("more") == stops.flush() == ""


def test_across_pieces() -> None:
    stops = StopStrings(["</answer>", "\n\n"])
    pieces = ["four", " <", "/ans", "wer x", "\n", "y\n", "\nz"]
    assert [stops.push(piece) for piece in pieces] == ["four", " ", "", "</answer x", "", "\ny", ""]
    assert stops.matched == "\n\n"


def test_thousands_are_as_fast_as_one() -> None:
    strings = [f"stop number {i} of many" for i in range(5000)]
    began = time.perf_counter()
    stops = StopStrings(strings)
    built = time.perf_counter() - began
    text = "stop number of many, stop number 5000 of man, " * 2000
    began = time.perf_counter()
    shown = "".join(stops.push(text[i : i + 4]) for i in range(0, len(text), 4)) + stops.push(strings[4321] + "x")
    took = time.perf_counter() - began
    print(f"built in {built:.3f} s, {len(text):,} characters in {took:.3f} s")
    assert (shown, stops.matched) == (text, strings[4321])
    assert built < 5
    assert took < 5


def test_bounds() -> None:
    with pytest.raises(BadInput, match="must not be empty"):
        StopStrings(["a", ""])
    with pytest.raises(BadInput, match="200,000 characters"):
        StopStrings(f"{i:09}" for i in range(100_000))
    # A text that is nothing but the beginning of a stop string is not looked at again and again.
    stops = StopStrings(["a" * 100_000 + "b"])
    assert "".join(stops.push("a" * 1000) for _ in range(300)) + stops.flush() == "a" * 300_000
    assert StopStrings([]).push("anything") == "anything"
