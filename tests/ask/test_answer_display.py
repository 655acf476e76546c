"""What an answer shows around its sentences: no glued headings, one citation for neighbours, composed queries."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from kogata import Index
from kogata.ask.search.snippet import after_headings
from kogata.ask.words.fts import check_query

GUIDE = (
    "# 索引の場所\n\n索引は一つのファイルに保存されます。保存された索引のファイルはディスクの標準の場所にあります。\n"
)


def test_headings_stay_out_and_neighbours_share_a_citation(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "guide.md").write_text(GUIDE, encoding="utf-8")
    with Index(tmp_path / "index.sqlite") as index:
        index.add([tmp_path / "texts"])
        answer = index.ask("索引はどこに保存されますか？")
    assert answer.found
    assert len(answer.sentences) == 2
    assert [sentence.citation for sentence in answer.sentences] == [1, 1]
    assert len(answer.citations) == 1
    assert answer.citations[0].before == ""
    assert all(sentence.text in answer.citations[0].text for sentence in answer.sentences)
    assert answer.hits[0].snippet.startswith("索引は一つの")


def test_a_passage_of_headings_only_keeps_them() -> None:
    assert after_headings("A\n\nB\n", ("A", "B")) == "A\n\nB\n"
    assert after_headings("A\n\nB c.", ("A",)) == "B c."


def test_queries_are_composed() -> None:
    for text in ("がぎぐ", "café"):
        assert check_query(unicodedata.normalize("NFD", text)) == text


def test_an_index_without_documents_says_so(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    with Index(tmp_path / "index.sqlite") as index:
        index.add([tmp_path / "texts"])
        empty = index.ask("索引はどこに保存されますか？")
        (tmp_path / "texts" / "guide.md").write_text(GUIDE, encoding="utf-8")
        index.add([tmp_path / "texts"])
        filled = index.ask("索引はどこに保存されますか？")
    assert (empty.found, filled.found) == (False, True)
    assert [note for note in empty.notes if "no document" in note]
    assert not [note for note in filled.notes if "no document" in note]
