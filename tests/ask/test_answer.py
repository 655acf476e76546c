"""Search and answers over a real index with the default model: right passages, exact citations, honest refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kogata import Index
from kogata.ask.answers.answer import join, tidy
from kogata.ask.search import fusion
from kogata.ask.search.retrieve import MAX_K
from kogata.errors import BadInput

TEXTS = {
    "tides.txt": "Tides at the harbour are measured twice a day. The gauge was calibrated in May 2021 by Mara Lind. "
    "Before that, readings were taken by hand from the old bridge.",
    "boats.txt": "Fishing boats leave before dawn. The largest boat carries eleven people. It was built in Osaka.",
    "潮位.txt": "潮位は基準面から測った海面の高さである。満潮は一日に二回起こる。"
    "検潮所は大阪の技師によって建てられた。",
    "cats.txt": "Cats sleep for most of the day. A kitten opens its eyes after about ten days.",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("answers")
    (folder / "texts").mkdir()
    for name, text in TEXTS.items():
        (folder / "texts" / name).write_text(text, encoding="utf-8")
    with Index(folder / "index.sqlite") as made:
        made.add([folder / "texts"])
        yield made


def name(path: bytes) -> str:
    return Path(path.decode()).name


@pytest.mark.parametrize("mode", ["hybrid", "meaning", "words"])
@pytest.mark.parametrize(("query", "file"), [("when was the gauge calibrated", "tides.txt"), ("満潮", "潮位.txt")])
def test_each_mode_finds_it(index: Index, mode: str, query: str, file: str) -> None:
    result = index.search(query, mode=mode)  # type: ignore[arg-type]
    assert result.mode == mode
    assert name(result.hits[0].path) == file
    assert [hit.rank for hit in result.hits] == list(range(1, len(result.hits) + 1))
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert (result.hits[0].meaning is None) == (mode == "words")
    assert (result.hits[0].words is None) == (mode == "meaning")


def test_meaning_crosses_languages(index: Index) -> None:
    assert name(index.search("子猫", mode="meaning").hits[0].path) == "cats.txt"


def test_filters(index: Index) -> None:
    assert {name(hit.path) for hit in index.search("tide", paths=["boats.txt"]).hits} == {"boats.txt"}
    nothing = index.search("tide", paths=["nowhere"])
    assert nothing.hits == ()
    assert nothing.notes


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "3"])
def test_k_is_a_number_from_one(index: Index, k: object) -> None:
    with pytest.raises(BadInput, match="k is"):
        index.search("tide", k)  # type: ignore[arg-type]


def test_huge_k_is_bounded_and_says_so(index: Index) -> None:
    result = index.search("tide", 10**9)
    assert len(result.hits) == len(TEXTS)
    assert f"{MAX_K:,}" in result.notes[0]


@pytest.mark.parametrize("query", ["", " ", "x" * 1_000_000, "\ud800"])
def test_bad_queries(index: Index, query: str) -> None:
    for call in (index.search, index.ask):
        with pytest.raises(BadInput):
            call(query)


@pytest.mark.parametrize("query", ["潮", "the of and", '"tide" NEAR( *', "!?", "🌊", "tide\ud800gauge", "tide " * 1500])
def test_odd_queries_work(index: Index, query: str) -> None:
    assert index.search(query).hits
    index.ask(query)


def test_unknown_mode(index: Index) -> None:
    with pytest.raises(BadInput, match="mode"):
        index.search("tide", mode="fuzzy")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "expected", "file"),
    [
        ("When was the gauge calibrated?", "May 2021", "tides.txt"),
        ("How many people does the largest boat carry?", "eleven", "boats.txt"),
        ("満潮は一日に何回起こりますか？", "二回", "潮位.txt"),
        ("誰が検潮所を建てたか", "大阪の技師", "潮位.txt"),
    ],
)
def test_answers_with_exact_citations(index: Index, question: str, expected: str, file: str) -> None:
    answer = index.ask(question)
    assert answer.found
    assert expected in answer.sentences[0].text
    assert answer.text.startswith(answer.sentences[0].text)
    for number, citation in enumerate(answer.citations, 1):
        text = TEXTS[name(citation.path)]
        assert citation.number == number
        assert text[citation.start : citation.end] == citation.text
        assert citation.before in text[: citation.start]
        assert citation.after in text[citation.end :]
    assert name(answer.citations[0].path) == file
    assert len({sentence.text for sentence in answer.sentences}) == len(answer.sentences) <= 3


def test_what_is_not_there_is_refused(index: Index) -> None:
    answer = index.ask("Which chess opening did the champion of Uruguay prefer in 1934?")
    assert not answer.found
    assert answer.text == ""
    assert answer.citations == ()
    assert answer.hits
    assert answer.confidence < 0.5


def test_json(index: Index) -> None:
    import json

    assert json.loads(json.dumps(index.ask("When was the gauge calibrated?").to_dict()))["found"] is True
    assert json.loads(json.dumps(index.search("tide").to_dict()))["hits"]


def test_lines_are_joined_as_each_language_does() -> None:
    assert tidy("- a line\n  goes on") == "a line goes on"
    assert tidy("満潮は\n一日に") == "満潮は一日に"
    assert join(["One.", "Two.", "三。", "四。"]) == "One. Two. 三。四。"
    assert join(["~/文書", "Without a folder", "索引"]) == "~/文書 Without a folder 索引"


# --- fusion


def test_fusion_is_the_weighted_sum_of_z_scores() -> None:
    rng = np.random.default_rng(3)
    meaning, words = rng.normal(0.8, 0.02, 50), rng.gamma(2, 5, 50)
    expected = 0.6 * (meaning - meaning.mean()) / meaning.std() + 0.4 * (words - words.mean()) / words.std()
    np.testing.assert_allclose(fusion.fuse(meaning, words, 0.6), expected, atol=1e-12)


def test_scale_and_offset_of_a_side_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    meaning, words = rng.random(30), rng.random(30)
    scaled = fusion.fuse(meaning * 0.1 + 7, words * 900, 0.7)
    np.testing.assert_allclose(fusion.fuse(meaning, words, 0.7), scaled, atol=1e-9)


def test_without_a_vector_words_alone_decide() -> None:
    words = np.array([3.0, 1.0, 2.0])
    fused = fusion.fuse([np.nan, 0.5, 0.1], words, 0.7)
    assert fused[0] == pytest.approx(fusion.standardise(words)[0])
    np.testing.assert_array_equal(fusion.fuse([0.5, 0.5], [1.0, 1.0], 0.7), [0.0, 0.0])
    assert fusion.fuse([], [], 0.7).size == 0


def test_equal_scores_come_in_the_order_of_their_ids() -> None:
    assert fusion.best_first([1.0, 2.0, 2.0, 1.0], [9, 8, 7, 3], 4).tolist() == [2, 1, 3, 0]
