"""HfTextTokenizer against the ``tokenizers`` library, on small files of every kind."""

from __future__ import annotations

import json
import time
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_tokenizers import (
    CHATML_CONTROLS,
    LLAMA3_CONTROLS,
    PATTERNS,
    QWEN_WORDS,
    TEXTS,
    byte_level,
    every_kind,
    sentencepiece,
    theirs,
    unigram,
)

from kogata.errors import ModelError
from kogata.text.hf_text import HfTextTokenizer
from kogata.text.tokenizer import TextTokenizer

FAST = [*PATTERNS, "tiktoken"]
KINDS = every_kind()
OURS = {kind: HfTextTokenizer(source) for kind, source in KINDS.items()}
SLOW = {kind: HfTextTokenizer(KINDS[kind], fast=False) for kind in FAST}
THEIRS = {kind: theirs(source) for kind, source in KINDS.items()}

#: Letters, digits, scripts, spaces, joined emoji, combining marks, and what looks like control.
pieces = st.sampled_from(
    [
        *("a", "Tide", "DONE", "'s", "'LL", " ", "  ", "\n", "\r\n", "\t", "\u3000", "\x85", "1", "234567", "٣", "½"),
        *("潮位", "한국", "é", "e\u0301", "\u0338", "ﬁ", "ſ", "İ", "🗿", "👩\u200d👩\u200d👧", "!", "?!…", "▁", "\x00"),
        *("\ufffd", "<", "|", ">", "<|", "|>", "<s>", "</s>", "<unk>", "<table>", "<0x41>", "＜s＞"),
        *(*LLAMA3_CONTROLS, *CHATML_CONTROLS, *QWEN_WORDS),
    ]
)
texts = st.lists(pieces | st.text(max_size=4), max_size=12).map("".join)


def without_controls(kind: str) -> Any:
    """The library, with nothing to look for in a text but white space."""
    content = json.loads(KINDS[kind])
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].strip("▁\n")]
    return theirs(json.dumps(content))


PLAIN = {kind: without_controls(kind) for kind in KINDS if kind != "unigram"}


@pytest.mark.parametrize("kind", KINDS)
def test_follows_the_protocol(kind: str) -> None:
    ours = OURS[kind]
    assert isinstance(ours, TextTokenizer)
    assert ours.is_fast == (kind in FAST)
    assert ours.vocab_size == THEIRS[kind].get_vocab_size()
    assert ours.encode("").dtype == ours.encode("a").dtype == np.int32
    assert ours.encode("").tolist() == ours.encode("", special=True).tolist() == []


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
@example(text="".join(TEXTS[:4]))
def test_control_tokens_are_parsed_where_asked(kind: str, text: str) -> None:
    if kind == "unigram":  # to which a control token in wide brackets is one as well: to us it is text
        text = unicodedata.normalize("NFKC", text)
    expected = THEIRS[kind].encode(text, add_special_tokens=False).ids
    assert OURS[kind].encode(text, special=True).tolist() == expected


@pytest.mark.parametrize("kind", PLAIN)
@given(text=texts)
@example(text="".join(TEXTS[:4]))
def test_plain_text_is_only_text(kind: str, text: str) -> None:
    ids = OURS[kind].encode(text).tolist()
    assert ids == PLAIN[kind].encode(text, add_special_tokens=False).ids
    unknown = OURS[kind].id_of("<unk>")
    assert not OURS[kind].special_ids.intersection(ids) - {unknown}


@pytest.mark.parametrize("kind", FAST)
@given(text=texts)
def test_both_engines_give_the_same_ids(kind: str, text: str) -> None:
    assert not SLOW[kind].is_fast
    assert OURS[kind].encode(text).tolist() == SLOW[kind].encode(text).tolist()


def test_unigram_never_gives_a_control_token_for_text() -> None:
    # Its best-scored pieces are the control tokens, and NFKC makes them of wide brackets too.
    ours, library = OURS["unigram"], THEIRS["unigram"]
    control = {ours.id_of("<s>"), ours.id_of("</s>")}
    for text in ("a <s> b", "a ＜s＞ b", "<s>" * 50, "</s>"):
        assert control & set(ours.encode(text).tolist()) == set()
        assert control & set(library.encode(text, add_special_tokens=False).ids)
    assert ours.encode("Tide gauge").tolist() == library.encode("Tide gauge", add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts, at=st.integers(0, 40), size=st.integers(0, 40))
def test_plain_stretches(kind: str, text: str, at: int, size: int) -> None:
    """By the definition: control tokens wholly outside the stretch, and plain text between them."""
    ours = OURS[kind]
    start, end = min(at, len(text)), min(at + size, len(text))
    ids = ours.encode_around(text, ((start, end),)).tolist()
    if start == end == 0:
        assert ids == ours.encode(text, special=True).tolist()
    if start == 0 and end == len(text):
        assert ids == ours.encode(text).tolist()
    count = sum(ids.count(token) for token in ours.special_ids - {ours.id_of("<unk>")})
    outside = ours.encode(text[:start], special=True).tolist(), ours.encode(text[end:], special=True).tolist()
    assert count == sum(part.count(token) for part in outside for token in ours.special_ids - {ours.id_of("<unk>")})


def test_control_tokens_at_the_border_of_plain_stretches() -> None:
    ours = OURS["qwen"]
    end_of_turn = ours.id_of("<|im_end|>")
    text = "<|im_end|><|im_end|><|im_end|>"
    for plain, count in [((), 3), (((0, 30),), 0), (((10, 20),), 2), (((9, 11),), 1), (((0, 10), (20, 30)), 1)]:
        found = ours.encode_around(text, plain)
        assert found.tolist().count(end_of_turn) == count
        assert ours.decode([i for i in found.tolist() if i != end_of_turn]) == "<|im_end|>" * (3 - count)
    # Words run on across the border: it is no cut in the text.
    assert ours.encode_around("The tide gauge", ((2, 6),)).tolist() == ours.encode("The tide gauge").tolist()


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
def test_decoding_as_the_library_does(kind: str, text: str) -> None:
    ids = THEIRS[kind].encode(text, add_special_tokens=False).ids
    if OURS[kind].token_bytes(ids[0] if ids else 0).startswith(b"  "):
        return  # of several spaces that are one first token the library takes all, SentencePiece one
    mine, library = OURS[kind].decode(ids), THEIRS[kind].decode(ids)
    # Where the text itself is no UTF-8, the library counts its U+FFFD otherwise.
    assert mine == library or "\ufffd" in library


@pytest.mark.parametrize("kind", [kind for kind in FAST if kind != "qwen"])
@given(text=st.text(max_size=60))
def test_byte_level_gives_every_text_back(kind: str, text: str) -> None:
    ids = OURS[kind].encode(text).tolist()
    assert OURS[kind].decode(ids) == text
    assert b"".join(OURS[kind].token_bytes(token) for token in ids) == text.encode()


@pytest.mark.parametrize("kind", ["llama2", "first", "gemma"])
@given(text=texts)
@example(text="▁▁")
def test_byte_fallback_gives_every_text_back(kind: str, text: str) -> None:
    ours = OURS[kind]
    ids = ours.encode(text).tolist()
    data = b"".join(ours.token_bytes(token) for token in ids)
    as_written = text.replace("▁", " ")  # the sign for a space is no character of its own
    prefix = {"llama2": " ", "first": " " * (not as_written.startswith(" ")), "gemma": ""}[kind] if text else ""
    assert data.decode() == prefix + as_written
    assert ours.decode(ids) == (data.decode() if kind == "gemma" else data.decode().removeprefix(" "))


def test_the_leading_space() -> None:
    llama = OURS["llama2"]
    ids = llama.encode("Tide").tolist()
    assert llama.token_bytes(ids[0]).startswith(b" ")
    assert llama.decode(ids) == "Tide"
    assert b"".join(map(llama.token_bytes, ids)) == b" Tide"
    assert OURS["gemma"].decode(OURS["gemma"].encode(" Tide")) == " Tide"


def test_bytes_of_tokens() -> None:
    llama = OURS["llama2"]
    fallback = llama.id_of("\x07")  # a byte that no piece stands for
    assert fallback is not None
    assert llama.token_bytes(fallback) == b"\x07"
    assert THEIRS["llama2"].id_to_token(fallback) == "<0x07>"
    assert llama.token_bytes(llama.vocab_size) == llama.token_bytes(-1) == b""
    assert llama.decode([llama.vocab_size, 10**9]) == ""
    qwen = OURS["qwen"]
    assert qwen.token_bytes(qwen.id_of("<|im_end|>")) == b"<|im_end|>"
    assert qwen.decode(qwen.encode("<|im_end|>a<think>", special=True)) == "a<think>"
    assert qwen.id_of("no such token") is qwen.id_of("") is qwen.id_of("\ud800") is None
    # Half a character, then the other half.
    half = [qwen.encode("\u0e01").tolist()[0]]
    assert qwen.decode(half) == "\ufffd"


@pytest.mark.parametrize("kind", KINDS)
def test_lone_surrogates(kind: str) -> None:
    ours = OURS[kind]
    assert ours.encode("a\ud800b\udc00").tolist() == ours.encode("a\ufffdb\ufffd").tolist()
    assert ours.encode("\ud83d\uddff", special=True).tolist() == ours.encode("\ufffd\ufffd", special=True).tolist()


@pytest.mark.parametrize("kind", ["qwen", "cased", "tiktoken", "gemma", "unigram"])
@pytest.mark.parametrize("unit", ["a", " ", "\n", "1", "潮", "é\u0301<"])
def test_very_long_runs(kind: str, unit: str) -> None:
    ours, library = OURS[kind], PLAIN.get(kind, THEIRS[kind])
    for text in (unit * 20_000, unit * 20_000 + "x"):
        assert ours.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids
    size = 1_100_000 if ours.is_fast else 200_000  # tiktoken itself gives up after a million spaces
    began = time.perf_counter()
    count = len(ours.encode(unit * (size // len(unit))))
    took = time.perf_counter() - began
    print(f"{kind}: {size:,} characters to {count:,} tokens in {took:.2f} s")
    assert took < 20


def test_flags_of_added_tokens() -> None:
    from tokenizers import AddedToken, Tokenizer

    made = Tokenizer.from_str(byte_level("gpt2"))
    made.add_tokens(
        [
            AddedToken("<l>", lstrip=True, normalized=False),
            AddedToken("<r>", rstrip=True, normalized=False),
            AddedToken("<b>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("word", single_word=True, normalized=False),
            AddedToken("<r><r>", normalized=False),
        ]
    )
    ours = HfTextTokenizer(made.to_str())
    for text in ("a  <l>  b", "a <r>\n b", " <b> <b> x", "a word, wordy sword word", "word", "<r><r><r> <r>", "<l"):
        assert ours.encode(text, special=True).tolist() == made.encode(text).ids, text
    assert ours.encode(" " * 100_000 + "<l>", special=True).tolist() == [ours.id_of("<l>")]


def broken() -> dict[str, str]:
    good = json.loads(sentencepiece("llama2"))
    model = good["model"]
    return {
        "empty": "",
        "list": "[]",
        "no model": json.dumps({"added_tokens": []}),
        "model is text": json.dumps(good | {"model": "BPE"}),
        "unknown model": json.dumps(good | {"model": {"type": "Magic", "vocab": {"a": 0}}}),
        "vocab is a number": json.dumps(good | {"model": model | {"vocab": 3}}),
        "no vocab": json.dumps(good | {"model": model | {"vocab": {}}, "added_tokens": []}),
        "id is text": json.dumps(good | {"model": model | {"vocab": {"a": "0"}}}),
        "negative id": json.dumps(good | {"model": model | {"vocab": {"a": -1}}}),
        "huge id": json.dumps(good | {"model": model | {"vocab": model["vocab"] | {"a": 2**31}}}),
        "merge of nothing": json.dumps(good | {"model": model | {"merges": [["q", "qq"]]}}),
        "added token without id": json.dumps(good | {"added_tokens": [{"content": "x"}]}),
        "decoder of BERT": json.dumps(good | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}),
        "decoder is a list": json.dumps(good | {"decoder": []}),
        "decoder nested in nothing": json.dumps(good | {"decoder": {"type": "Sequence"}}),
        "byte-level, merge of nothing": byte_level("gpt2").replace('"merges":[', '"merges":[["!!!","???"],'),
    }


@pytest.mark.parametrize("name", broken())
def test_broken_files_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json (is not|has a decoder)"):
        HfTextTokenizer(broken()[name])


def mutated(value: Any, data: st.DataObject, replacement: Any) -> Any:
    """The value with one leaf or branch replaced."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(value)))
        return value | {key: mutated(value[key], data, replacement)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 3)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], mutated(value[at], data, replacement), *value[at + 1 :]]
    return replacement


replacements = st.none() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({}) | st.floats() | st.booleans()


@given(kind=st.sampled_from(sorted(KINDS)), data=st.data(), replacement=replacements)
def test_any_change_gives_a_tokenizer_or_a_model_error(kind: str, data: st.DataObject, replacement: Any) -> None:
    source = json.dumps(mutated(json.loads(KINDS[kind]), data, replacement))
    try:
        tokenizer = HfTextTokenizer(source)
        ids = tokenizer.encode("ab 潮 a <s>", special=True)
    except ModelError:
        return
    assert ids.max(initial=0) < tokenizer.vocab_size
    assert isinstance(tokenizer.decode(ids), str)


def test_unigram_pieces_with_the_same_text() -> None:
    content = json.loads(unigram())
    content["model"]["vocab"].append(content["model"]["vocab"][5])
    assert HfTextTokenizer(json.dumps(content)).encode("a").size
