"""Sentence borders: a table of hard cases, and properties on any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogata.ask.documents import sentences

# '|' is where a border belongs.
CASES = [
    "One sentence.|Another one!|A third?|And the rest",
    "Dr. Smith met Mrs. Jones at 3.14 p.m. on Jan. 5, 1990.|They left.",
    "It was 98.6 degrees (see Fig. 3 and Eq. (2)).|Then it fell.",
    "J. R. R. Tolkien wrote it.|C. S. Lewis did not.",
    "He lives in the U.S. and works there.|She left the U.S.|The trip was long.",
    "Use tools, e.g. hammers, i.e. simple ones, etc. and so on.|Fine.",
    "“Is it true?” he asked.|“Yes!” she said.|They went on.",
    'He said: "I am here."|Then he left.',
    "Apple Inc. makes phones.|Acme Corp.|The firm closed.",
    "Brown v. Board of Education was decided.|It changed much.",
    "Wait... what?|Nothing...|He slept.",
    "Visit example.com or file.txt now.|Version 2.0.1 is out.|.NET is old.",
    "The price is $5.00.|It fell to $4.50!|Why?!|Nobody knows.",
    "1. First point.|2. Second point.",
    "He arrived in 1990.|In 1991 he left.",
    "Heading\n\n|Text begins here.|And goes on.",
    "- item one\n|- item two\n|- item three",
    "name | value\n|a | 1\n|b | 2",
    "A line that is long enough to be wrapped by hand, and which\ncontinues on the next line.|Next.",
    "No. 5 is alive.|No, it is not.",
    "See pp. 3-5 and vol. 2.|Read them.",
    "iPhone sales rose.|iPhone prices fell.",
    "She earned a Ph.D. in 2001.|He did not.",
    "It works (really!).|Try it.",
    "That is vitamin C.|The other is D.",
    "吾輩は猫である。|名前はまだ無い。",
    "「行きます。」と彼は言った。|そして出かけた。",
    "「何だ？」|彼は驚いた。",
    "本当？|はい！|そうです。",
    "彼は「そうだ。それでいい。」と言って笑った。|終わり。",
    "価格は3.5円です。|安い。",
    "（注：これは例です。）|次の文。",
    "えっ！？|何ですか。",
    "Yahoo!ニュースを読む。|そして寝る。",
    "東京・大阪。|名古屋。",
    "これは文です.|英語の点です",
    "『吾輩は猫である。』は小説である。|漱石の作だ。",
    "見出し\n\n|本文です。|続きです。",
    "・項目一\n|・項目二",
    "会議は午後３時から。|場所は未定。",
]


@pytest.mark.parametrize("case", CASES)
def test_hard_cases(case: str) -> None:
    expected = [part.strip() for part in case.split("|")] if " | " not in case else None
    if expected is None:  # a table: its own bars are not borders
        text, expected = case.replace("\n|", "\n"), [line.strip() for line in case.split("\n|")]
    else:
        text = case.replace("|", " " if case.isascii() or "“" in case else "")
        text = text.replace(" \n", "\n").replace("\n ", "\n") if "\n" in text else text
    assert [text[start:end] for start, end in sentences(text)] == expected


@given(st.text(alphabet=st.sampled_from("aA1 .!?。！？「」『』（）()\"'\n・-、,|é猫🙂\u3000 "), max_size=80))
def test_spans_are_in_order_and_hold_everything(text: str) -> None:
    spans = sentences(text)
    position = 0
    covered = ""
    for start, end in spans:
        assert position <= start < end <= len(text)
        assert not text[position:start].strip()
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        covered += text[start:end]
        position = end
    assert not text[position:].strip()
    assert "".join(covered.split()) == "".join(text.split())


@given(st.text(max_size=200))
def test_any_text_has_borders(text: str) -> None:
    for language in (None, "en", "ja"):
        spans = sentences(text, language)
        assert all(start < end for start, end in spans)


def test_a_megabyte_is_quick() -> None:
    import time

    for text in ("「" * 500_000, "a" * 1_000_000, "a. " * 300_000, "。" * 500_000, "\n" * 1_000_000, "x\n" * 300_000):
        begin = time.perf_counter()
        sentences(text)
        assert time.perf_counter() - begin < 5.0
