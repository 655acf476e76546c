"""The kind of thing a question asks for, and which sentences have one."""

from __future__ import annotations

import numpy as np
import pytest

from kogata.ask.answers import cues
from kogata.ask.answers.evidence import FEATURES, Passage, weigh


@pytest.mark.parametrize(
    ("question", "sentence", "amount", "name"),
    [
        ("橋は何年に架けられたか。", "橋は1916年に架けられた。", True, False),
        ("橋は何年に架けられたか。", "橋は同年6月に架けられた。", False, False),
        ("橋は何年に架けられたか。", "橋は一九一六年に架けられた。", True, False),
        ("1916年に架けられた橋は何メートルか。", "1916年に架けられた。", False, False),
        ("1916年に架けられた橋は何メートルか。", "長さは42メートルである。", True, False),
        ("彼は何歳で亡くなったか。", "享年84才であった。", True, False),
        ("橋が架けられたのはいつですか。", "完成は3月である。", True, False),
        ("橋が架けられたのはいつですか。", "長さは42メートルである。", False, False),
        ("橋はどこにありますか。", "橋は大阪市にある。", False, True),
        ("橋は誰が設計したか。", "設計はルグランによる。", False, True),
        ("ルグランは何をしたか。", "ルグランは橋を設計した。", False, False),
        ("When was the bridge built?", "It was built in 1916.", True, False),
        ("When was the bridge built?", "It is 42 metres long.", False, False),
        ("How long is the bridge?", "It is 42 metres long.", True, False),
        ("What percentage is paved?", "About 30% of it.", True, False),
        ("Who drew the bridge?", "The plans are by Mara Lind.", False, True),
        ("Who was Mara Lind?", "The plans are by Mara Lind.", False, False),
    ],
)
def test_what_is_asked_and_offered(question: str, sentence: str, amount: bool, name: bool) -> None:
    assert cues.wanted(question).offered_by(sentence) == (amount, name)


def test_the_end_of_a_japanese_question_counts_more() -> None:
    """Both sentences have a word of the question; in English neither is preferred for where it stands in it."""
    late = FEATURES.index("late_words")
    rarity = {"潮位": 2.0, "観測": 2.0}
    japanese = weigh("潮位は誰が観測したか", None, [Passage("潮位の話をしよう。観測は毎日である。", 0.0, None)], rarity)
    np.testing.assert_allclose(japanese.features_SF[:, late], [0.0, 0.5])
    english = weigh(
        "who read tides", None, [Passage("Tides are told here. They read them daily.", 0.0, None)], {"tide": 1.0}
    )
    np.testing.assert_allclose(english.features_SF[:, late], [0.0, 0.0])


def test_a_sentence_that_points_back_has_the_words_of_the_one_before() -> None:
    pointed = FEATURES.index("words_pointed_at")
    text = "The gauge stands at the pier. It was built by hand. Everyone liked it very much."
    weighed = weigh("Who built the gauge?", None, [Passage(text, 0.0, None)], {"gaug": 3.0, "built": 1.0})
    np.testing.assert_allclose(weighed.features_SF[:, pointed], [0.0, 0.75, 0.0])


@pytest.mark.parametrize(
    ("sentence", "question", "echo"),
    [
        ("The deposit is three months' rent.", "the deposit", False),
        ("潮位とは、基準面から測った海面の高さです。", "潮位とは", False),
        ("潮位とは", "潮位とは", True),
        ("The deposit.", "The deposit", True),
        ("# Where is the key?", "Where is the key", True),
        ("She asked: where is the key?", "Where is the key?", True),
        ("The boiler was serviced in May.", "the boiler was serviced", False),
        ("満潮は何回起こりますか、と聞かれた。", "満潮は何回起こりますか", True),
        ("Is rent paid monthly?", "monthly rent", False),
    ],
)
def test_a_sentence_that_only_repeats_the_question_is_no_answer(sentence: str, question: str, echo: bool) -> None:
    assert cues.echoes(sentence, question) == echo
