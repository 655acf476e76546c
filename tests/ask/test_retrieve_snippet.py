"""Snippets: whole words, true marks, bounded width."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.ask.search.snippet import WIDTH, make_snippet
from kogata.ask.words.terms import query_terms

ENGLISH = (
    "The harbour office keeps records of every ship. Tides are measured twice a day at the old gauge near the bridge. "
    "The gauge was built in 1872 by an engineer from Osaka. It has been repaired many times since then, most recently "
    "after the storm. Fishing boats leave before dawn and come back with the tide. Nobody remembers a higher tide than "
    "that of 1959, when the water stood in the streets for three days and the whole quarter had to be evacuated."
)
JAPANESE = (
    "港の事務所はすべての船の記録を保管している。潮位は一日に二回、橋の近くにある古い検潮所で測定される。"
    "検潮所は1872年に大阪出身の技師によって建てられた。その後何度も修理され、最近では嵐の後に修理された。"
    "漁船は夜明け前に出港し、潮とともに戻ってくる。1959年の高潮より高い潮位を覚えている者はいない。"
    "そのとき水は三日間にわたって通りに残り、地区全体が避難しなければならなかった。"
) * 2


def columns(text: str) -> int:
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def test_short_text_is_whole() -> None:
    assert make_snippet("Tides  rise\nand fall.", query_terms("tide")) == ("Tides rise and fall.", ((0, 5),))


def test_shows_the_part_that_matches() -> None:
    snippet, marks = make_snippet(ENGLISH, query_terms("highest tide of 1959 evacuated quarter"))
    marked = {snippet[start:end] for start, end in marks}
    assert {"1959", "quarter", "evacuated"} <= marked
    assert snippet.startswith("…")
    assert columns(snippet) <= WIDTH


def test_japanese_runs_are_marked_whole() -> None:
    snippet, marks = make_snippet(JAPANESE, query_terms("検潮所を建てた技師"))
    marked = {snippet[start:end] for start, end in marks}
    assert "検潮所" in marked
    assert "技師" in {text[:2] for text in marked}
    assert columns(snippet) <= WIDTH


def test_starts_at_a_sentence_where_one_is_near() -> None:
    snippet, _ = make_snippet(ENGLISH, query_terms("engineer from Osaka 1872"))
    assert snippet.lstrip("…").startswith(("The gauge", "Tides", "The harbour"))


def test_without_a_match_the_beginning_is_shown() -> None:
    snippet, marks = make_snippet(ENGLISH, query_terms("zebra"))
    assert snippet.startswith("The harbour office")
    assert snippet.endswith("…")
    assert marks == ()


@pytest.mark.parametrize("text", [ENGLISH, JAPANESE])
@pytest.mark.parametrize("query", ["gauge", "tide 1959", "potato", "潮位", "1872年", "避難"])
@pytest.mark.parametrize("width", [20, 61, 240])
def test_words_are_never_cut(text: str, query: str, width: int) -> None:
    snippet, marks = make_snippet(text, query_terms(query), width)
    inner = snippet.strip("…")
    assert inner in text
    at = text.index(inner)
    for border in (at, at + len(inner)):
        if 0 < border < len(text):
            left, right = text[border - 1], text[border]
            assert not (left.isascii() and right.isascii() and left.isalnum() and right.isalnum())
    assert all(0 <= start < end <= len(snippet) for start, end in marks)
    assert columns(snippet) <= width


@given(st.text(max_size=600), st.text(max_size=30), st.integers(10, 300))
@settings(deadline=None, max_examples=300)
def test_any_text(text: str, query: str, width: int) -> None:
    wanted = query_terms(query) if query.translate({0: " "}).strip() and query.isprintable() else {"x"}
    snippet, marks = make_snippet(text, wanted, width)
    assert "\n" not in snippet
    assert all(left[1] <= right[0] for left, right in pairwise(marks))
    assert columns(snippet) <= max(width, columns(text.strip()[:1]) + 2) or len(text) < 70


def test_marks_stay_with_their_letters() -> None:
    word = "e\u0301" * 400  # one endless word of decomposed letters
    snippet, _ = make_snippet(word, {"x"}, 21)
    assert snippet.rstrip("…").endswith("\u0301")
    family = "👨\u200d👩\u200d👧" * 60
    snippet, _ = make_snippet(family, {"x"}, 50)
    assert not snippet.rstrip("…").endswith("\u200d")
