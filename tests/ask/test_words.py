"""Words against SQLite itself: what is searched is found, and nothing a person types is ever FTS5 syntax."""

from __future__ import annotations

import math
import re
import sqlite3
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogata.ask.words import fts, pruning
from kogata.ask.words.stem import stem
from kogata.ask.words.terms import find, query_terms, terms
from kogata.errors import BadInput


def index(*texts: str, titles: tuple[str, ...] = ()) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    columns = ", ".join(fts.COLUMNS)
    db.execute(f"CREATE VIRTUAL TABLE words USING fts5({columns}, content='', tokenize='{fts.TOKENIZE}')")
    for id_, text in enumerate(texts):
        title = titles[id_] if titles else ""
        fields = fts.index_fields(text, title, ())
        db.execute(f"INSERT INTO words(rowid, {', '.join(fts.COLUMNS)}) VALUES (?, ?, ?, ?)", (id_, *fields))
    return db


def search(db: sqlite3.Connection, query: str) -> list[int]:
    match = fts.match_query(query)
    if match is None:
        return []
    weights = ", ".join(map(str, fts.COLUMN_WEIGHTS))
    sql = f"SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, {weights}), rowid"
    return [row[0] for row in db.execute(sql, (match,))]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("潮位は気圧の影響を受ける。", "潮位"),
        ("東京の潮位表", "潮"),  # one kanji
        ("サーバーの設定", "ｻｰﾊﾞｰ"),  # half-width kana
        ("ﾃﾞｰﾀﾍﾞｰｽの更新", "データベース"),
        ("ＡＢＣ社の製品", "abc"),  # full-width Latin
        ("ABC社の製品", "ＡＢＣ社"),
        ("人々の暮らし", "人々"),
        ("人人の暮らし", "人々"),
        ("いすゞ自動車", "いすず"),
        ("㍿コガタ", "株式会社"),
        ("서울의 날씨", "서울"),
        ("A naïve café", "NAIVE CAFE"),
        ("He was searching the archives", "search archive"),
        ("use std::vector<int> here", "std::vector"),
        ("call get_user_name()", "user name"),
        ("call get_user_name()", "get_user_name"),
        ("class HttpServerError", "server error"),
        ("a hash map", "HashMap"),
        ("written in C++ mostly", "C++"),
        ("written in C# mostly", "c#"),
        ("a budget of 1,204 files", "1204"),
        ("a budget of 1204 files", "1,204"),
        ("a range of 10km", "10 km"),
        ("a range of 10 km", "10km"),
        ("version 3.5 of it", "3.5"),
        ("see nsa.pdf", "nsa.pdf"),
        ("the player's voice", "players"),
        ("全長10kmの道路", "10km 道路"),
        ("Привет, мир", "привет"),
    ],
)
def test_finds(text: str, query: str) -> None:
    db = index("something else entirely", text, "全く別の文章")
    assert search(db, query)[:1] == [1]


def test_title_and_heading_are_searched() -> None:
    db = sqlite3.connect(":memory:")
    db.execute(f"CREATE VIRTUAL TABLE words USING fts5({', '.join(fts.COLUMNS)}, tokenize='{fts.TOKENIZE}')")
    fields = fts.index_fields("body text", "潮位の手引き", ("Chapter Two", "観測"))
    db.execute("INSERT INTO words VALUES (?, ?, ?)", fields)
    assert search(db, "潮位") == search(db, "観測") == search(db, "chapter") == [1]


def test_c_plus_plus_ranks_above_c() -> None:
    db = index("the C language and C only", "the C++ language", "grade C")
    assert search(db, "C++")[0] == 1


def test_more_of_the_query_ranks_higher() -> None:
    db = index("tide tables of Tokyo", "tide and nothing", "an essay on Tokyo rail")
    assert search(db, "tide Tokyo")[0] == 0


def test_stop_words_are_dropped_only_beside_others() -> None:
    assert fts.query_phrases("what is the tide") == ["tide"]
    assert fts.query_phrases("what is the") == ["what", "is", "the"]
    phrases = fts.query_phrases("潮位とはどのような")
    assert "潮位" in phrases
    assert "どの" not in phrases
    db = index("to be or not to be", "tide tables")
    assert search(db, "to be or not to be") == [0]


def test_repeated_words_count_each_time() -> None:
    assert fts.query_phrases("tide tide") == ["tide", "tide"]


def test_nothing_to_search() -> None:
    assert fts.match_query("!?… 。、") is None
    assert fts.match_query("🌊") is None


@pytest.mark.parametrize("query", ["", "   ", "\n\t", "\ud800", "\x00"])
def test_empty_query_is_refused(query: str) -> None:
    with pytest.raises(BadInput, match="empty"):
        fts.match_query(query)


def test_a_query_of_a_megabyte_is_refused_at_once() -> None:
    started = time.perf_counter()
    with pytest.raises(BadInput, match="8,000"):
        fts.match_query("tide " * 200_000)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("unit", ["tide", "潮位", "a b c d ", "x1Y2", "1,204 ", "std::", '("', "é"])
def test_the_longest_query_works(unit: str) -> None:
    db = index("tide 潮位 x1Y2", "nothing")
    query = (unit * fts.MAX_QUERY_CHARS)[: fts.MAX_QUERY_CHARS]
    started = time.perf_counter()
    search(db, query)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "query",
    ['"', '""', "tide OR", "AND", "NOT tide", "tide*", "^tide", "body:tide", "{body parts}: tide", "NEAR(tide, 2)",
     "(tide", "tide)", "-tide", "+ tide", "tide\x00x", "tide;--", "'tide'", "\\tide", 'ti"de', "tide\udfff"],
)  # fmt: skip
def test_fts_syntax_is_only_text(query: str) -> None:
    db = index("the tide is high", "the body of a near thing")
    found = search(db, query)
    assert "tide" not in fts.fold(query) or 0 in found


@given(st.text(max_size=200))
@example('a"b')
@example("\ud83c\udf0a 潮")
@settings(deadline=None, max_examples=300)
def test_any_query_is_safe(query: str) -> None:
    db = index("tide 潮位")
    try:
        match = fts.match_query(query)
    except BadInput:
        assert not re.sub("[\ud800-\udfff\x00]", "", query).strip()
        return
    if match is not None:
        db.execute("SELECT rowid FROM words WHERE words MATCH ?", (match,)).fetchall()


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_text_can_be_indexed_and_finds_itself(text: str) -> None:
    db = index(text)
    for field in fts.index_fields(text):
        field.encode()  # no lone surrogates are left
    try:
        match = fts.match_query(text)
    except BadInput:
        return
    if match is not None and any(c.isascii() and c.isalnum() for c in text):
        assert search(db, text) == [0]


JAPANESE = st.text(alphabet="潮位東京ーァかなガ々ゞｶﾞ日本、。A1 ", max_size=40)


@given(JAPANESE)
@settings(deadline=None, max_examples=300)
def test_japanese_pairs_follow_the_definition(text: str) -> None:
    _, parts, _ = fts.index_fields(text)
    folded = fts.fold(text)
    pairs = {a + b for a, b in pairwise(folded) if fts.CJK_RUN.fullmatch(a + b)}
    singles = {c for c in folded if fts.CJK_RUN.fullmatch(c)}
    assert {part for part in parts.split() if fts.CJK_RUN.fullmatch(part)} == pairs | singles


def test_phrases_of_an_expression_are_those_it_was_made_of() -> None:
    query = "this/OR/that std::vector 潮位 tide tide"
    match = fts.match_query(query)
    assert match is not None
    assert fts.phrases_of(match) == [f'"{phrase}"' for phrase in fts.query_phrases(query)]
    assert '"this OR that"' in fts.phrases_of(match)


# --- pruning: what is worth its BM25 score


@given(
    st.lists(st.tuples(st.sets(st.integers(1, 60)), st.integers(1, 3)), max_size=6),
    st.integers(1, 20),
    st.one_of(st.none(), st.sets(st.integers(1, 60))),
)
@settings(deadline=None, max_examples=300)
def test_worth_scoring_follows_the_definition(
    terms_: list[tuple[set[int], int]], limit: int, allowed: set[int] | None
) -> None:
    weights: dict[int, float] = {}
    for passages, times in terms_:
        idf = max(1e-6, math.log((60 - len(passages) + 0.5) / (len(passages) + 0.5)))
        for passage in passages if allowed is None else passages & allowed:
            weights[passage] = weights.get(passage, 0.0) + times * idf
    ordered = sorted(weights.values(), reverse=True)
    least = pruning.MARGIN * ordered[limit - 1] if len(ordered) > limit else 0.0
    sure = {passage for passage, weight in weights.items() if weight >= least * 1.000001}
    maybe = {passage for passage, weight in weights.items() if weight >= least * 0.999999}
    rows = [np.array(sorted(passages), np.int64) for passages, _ in terms_]
    only = None if allowed is None else np.array(sorted(allowed), np.int64)
    found = pruning.worth_scoring(rows, [times for _, times in terms_], 60, limit, only).tolist()
    assert found == sorted(set(found))
    assert sure <= set(found) <= maybe


def test_at_most_so_many_passages_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "MOST", 5)
    rows = [np.arange(1, 9), np.arange(4, 21)]
    assert pruning.worth_scoring(rows, [1, 1], 100, 2).tolist() == [4, 5, 6, 7, 8]  # both terms
    # As many as are asked for, and ties.
    assert pruning.worth_scoring(rows, [1, 1], 100, 7).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


# --- terms: the same units as the index, with offsets


def fts_stem(words_: list[str]) -> list[str]:
    db = sqlite3.connect(":memory:")
    db.execute(f"CREATE VIRTUAL TABLE t USING fts5(a, tokenize='{fts.TOKENIZE}')")
    db.executemany("INSERT INTO t(rowid, a) VALUES (?, ?)", enumerate(words_))
    db.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, instance)")
    found = dict(db.execute("SELECT doc, term FROM v"))
    return [found[i] for i in range(len(words_))]


SUFFIXES = [
    "", "s", "es", "ies", "sses", "ed", "eed", "ing", "ational", "tional", "enci", "anci", "izer", "bli", "alli",
    "entli", "eli", "ousli", "ization", "ation", "ator", "alism", "iveness", "fulness", "ousness", "aliti", "iviti",
    "biliti", "logi", "icate", "ative", "alize", "iciti", "ical", "ful", "ness", "al", "ance", "ence", "er", "ic",
    "able", "ible", "ant", "ement", "ment", "ent", "sion", "tion", "ion", "ou", "ism", "ate", "iti", "ous", "ive",
    "ize", "ll", "e", "y", "bling", "izing", "ating", "tting", "lling", "ssed",
]  # fmt: skip


WORDS = st.builds(str.__add__, st.from_regex("[a-z]{0,9}", fullmatch=True), st.sampled_from(SUFFIXES)).filter(bool)


@given(st.lists(WORDS, min_size=1))
@example(["ies", "sses", "s", "eed", "eing", "a" * 70, "ab", "abc", "sky", "yyy", "agreed", "ion", "tion", "falling"])
@settings(deadline=None, max_examples=300)
def test_stems_are_those_of_sqlite(words_: list[str]) -> None:
    assert [stem(word) for word in words_] == fts_stem(words_)


@given(st.text(max_size=120))
@settings(deadline=None, max_examples=300)
def test_terms_have_true_offsets(text: str) -> None:
    last = 0
    for start, end, term in terms(text):
        assert 0 <= start < end <= len(text)
        assert start >= last
        last = start
        assert term


@given(JAPANESE)
@settings(deadline=None, max_examples=200)
def test_terms_of_japanese_are_the_indexed_pairs(text: str) -> None:
    _, parts, _ = fts.index_fields(text)
    pairs = [term.term for term in terms(text) if len(term.term) == 2 and fts.CJK_RUN.fullmatch(term.term)]
    assert set(pairs) == {part for part in parts.split() if len(part) == 2 and fts.CJK_RUN.fullmatch(part)}


def test_find_merges_pairs_into_runs() -> None:
    text = "日本の梅雨前線は日本付近に停滞する。"
    spans = find(text, query_terms("梅雨前線"))
    assert [text[start:end] for start, end in spans] == ["梅雨前線"]


def test_find_marks_inflections_and_folded_forms() -> None:
    text = "ｻｰﾊﾞｰ was Searching cafés; 潮"
    spans = find(text, query_terms("サーバー searched café 潮"))
    assert [text[start:end] for start, end in spans] == ["ｻｰﾊﾞｰ", "Searching", "cafés", "潮"]


def test_query_terms_leave_stop_words_out() -> None:
    assert query_terms("What is the tide?") == {"tide"}
    assert query_terms("what is it") == {stem("what"), stem("is"), stem("it")}
