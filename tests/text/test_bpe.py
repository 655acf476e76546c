"""The proof that tiktoken gives tokenizers' ids: canonical pairs against a slow run of each token's own bytes, and
merge lists made up at random, where "proven" must mean equal on every text."""

from __future__ import annotations

import json
import time
import unicodedata
from itertools import groupby, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken import Encoding
from tiny_tokenizers import PATTERNS, byte_level, theirs, tiktoken_like
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from kogata.text.bpe import ByteLevelBpe, byte_level_bpe, canonical_places
from kogata.text.vocabulary import byte_tokens

NEVER = 2**63 - 1


def slow_places(merges: list[tuple[str, str]], tokens: list[str]) -> list[int]:
    """Each token's last merge when its letters are merged one pair at a time, first pair of the list first."""
    order = {pair: place for place, pair in enumerate(merges)}
    found = []
    for token in tokens:
        parts, last = list(token), -1
        while len(parts) > 1:
            place, at = min((order.get((parts[i], parts[i + 1]), NEVER), i) for i in range(len(parts) - 1))
            if place == NEVER:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            last = place
        found.append(last if len(parts) == 1 else NEVER)
    return found


@pytest.mark.parametrize("source", [byte_level("qwen"), tiktoken_like()], ids=["trained", "every split"])
def test_canonical_places_of_trained_files(source: str) -> None:
    model = json.loads(source)["model"]
    tokens = list(model["vocab"])
    at = {token: place for place, token in enumerate(tokens)}
    merges = [(a, b) for a, b in model["merges"]]
    rows = np.array([(at[a], at[b], at[a + b]) for a, b in merges], np.int64)
    found = canonical_places(rows, np.array([len(token) for token in tokens]))
    assert found is not None
    assert found.tolist() == slow_places(merges, tokens)


words = ["".join(letters) for size in (2, 3, 4) for letters in product("ab", repeat=size)]


@st.composite
def merge_lists(draw: Any) -> list[tuple[str, str]]:
    """Merges whose parts exist, in any order: also such as no training would give."""
    known, merges = ["a", "b"], []
    for word in draw(st.lists(st.sampled_from(words), max_size=10)):
        splits = [(word[:i], word[i:]) for i in range(1, len(word)) if word[:i] in known and word[i:] in known]
        merges += draw(st.lists(st.sampled_from(splits), unique=True)) if splits else []
        known += [a + b for a, b in merges if a + b not in known]
    return draw(st.permutations(list(dict.fromkeys(merges))))


@settings(max_examples=200)
@given(merges=merge_lists(), data=st.data(), whole_words=st.booleans())
def test_whatever_is_proven_is_equal(merges: list[tuple[str, str]], data: st.DataObject, whole_words: bool) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made_up = data.draw(st.lists(st.sampled_from(words), max_size=3))
    vocab = {token: i for i, token in enumerate(dict.fromkeys([*alphabet, *(a + b for a, b in merges), *made_up]))}
    library = Tokenizer(models.BPE(vocab, merges, ignore_merges=whole_words))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = byte_level_bpe(json.loads(library.to_str()))
    if fast is None:
        return
    for size in range(1, 8):
        for letters in product("ab", repeat=size):
            text = "".join(letters)
            assert fast.encode(text, first=True).tolist() == library.encode(text).ids, (merges, text)


def test_random_lists_are_proven_often_enough() -> None:
    # A test that always skips would pass.
    lists = [[("a", "b")], [("a", "b"), ("ab", "a")], [("a", "a"), ("aa", "a"), ("aa", "aa")]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    for merges in lists:
        vocab = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
        library = Tokenizer(models.BPE(vocab, merges))
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        assert isinstance(byte_level_bpe(json.loads(library.to_str())), ByteLevelBpe)


def changed(source: str, **model: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(source)
    content["model"] |= model
    return content


def test_what_is_not_proven_is_left_to_the_library() -> None:
    source = byte_level("gpt2")
    content = json.loads(source)
    vocab, merges = content["model"]["vocab"], content["model"]["merges"]
    assert byte_level_bpe(content) is not None
    refused = {
        "a byte is missing": changed(source, vocab={token: i for token, i in vocab.items() if token != "!"}),
        "a pair twice": changed(source, merges=[*merges, merges[0]]),
        "a token before its parts": changed(source, merges=merges[::-1]),
        "a token that words are looked up for, made otherwise": changed(
            source, ignore_merges=True, vocab=vocab | {"abab": 5000, "aba": 5001, "ba": 5002}, merges=[["b", "a"]]
        ),
        "dropout": changed(source, dropout=0.1),
        "parts of words": changed(source, continuing_subword_prefix="##"),
        "normalizer": content | {"normalizer": {"type": "Lowercase"}},
        "prefix space": content | {"pre_tokenizer": content["pre_tokenizer"] | {"add_prefix_space": True}},
        "pattern": content | {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated"}},
        "digits as repeats of threes": json.loads(byte_level("llama3").replace("{1,3}", "{1,3}+")),
        "no pre-tokenizer": content | {"pre_tokenizer": None},
    }
    accepted = [name for name, content in refused.items() if byte_level_bpe(content) is not None]
    assert accepted == []


# The planes that hold any: what lies beyond is unassigned or private.
EVERY_CHARACTER = "".join(chr(code) for code in [*range(0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE0200)])
LETTERS = [rf"\p{{{kind}}}" for kind in ("L", "Lu", "Lt", "Lm", "Lo", "Ll", "M", "N")]


@pytest.mark.parametrize(
    "kind", [r"\p{L}", r"\p{N}", r"\s", r"\p{M}", r"\p{Lu}", r"\p{Lt}", r"\p{Lm}", r"\p{Lo}", r"\p{Ll}"]
)
def test_both_engines_know_the_same_characters(kind: str) -> None:
    library = pre_tokenizers.Split(Regex(kind), "removed")
    left = "".join(part for part, _ in library.pre_tokenize_str(EVERY_CHARACTER))
    one_byte_each = {bytes([byte]): byte for byte in range(256)}
    fast = Encoding("bytes", pat_str=f"[^{kind}]+", mergeable_ranks=one_byte_each, special_tokens={})
    assert bytes(fast.encode_ordinary(EVERY_CHARACTER)).decode() == left


@pytest.mark.parametrize("kind", PATTERNS)
def test_characters_of_each_category_are_cut_alike(kind: str) -> None:
    fast, library = byte_level_bpe(json.loads(byte_level(kind))), theirs(byte_level(kind))
    assert fast is not None
    # Both ends of each run of one category, and all that folds to an ASCII letter.
    ends = (list(run) for _, run in groupby(EVERY_CHARACTER, unicodedata.category))
    characters = [c for run in ends for c in (run[0], run[-1])] + [c for c in EVERY_CHARACTER if c.casefold() < "\x80"]
    text = "".join(f"a{c}1{c}{c} {c}'{c}\n" for c in characters)
    assert fast.encode(text, first=True).tolist() == library.encode(text, add_special_tokens=False).ids


def test_proof_is_quick() -> None:
    """As many merges as Qwen has, of words as long as its."""
    rng = np.random.default_rng(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys(alphabet)
    pool = list(tokens)
    merges = []
    while len(merges) < 150_000:
        left, right = (pool[int(i)] for i in (len(pool) * rng.random(2) ** 2))
        if left + right not in tokens and len(left + right) < 16:
            tokens[left + right] = None
            pool.append(left + right)
            merges.append((left, right))
    at = {token: place for place, token in enumerate(tokens)}
    rows = np.array([(at[a], at[b], at[a + b]) for a, b in merges], np.int64)
    sizes = np.array([len(token or b"") for token in byte_tokens(tokens)], np.int64)
    began = time.perf_counter()
    found = canonical_places(rows, sizes)
    took = time.perf_counter() - began
    made = 0 if found is None else int((found < NEVER).sum())
    print(f"{len(rows):,} merges in {took:.2f} s, {made:,} tokens that merges make")
    assert took < 5


def test_files_made_to_take_long_are_left_alone() -> None:
    """Tokens 200.. are each one letter before the last, then each of those gets the letter 199 behind it: whether that
    is how it is made shows only when all of the token is taken apart."""
    places = {}
    for n in (30, 300):
        inner = [(i % 198, 198 if i == 0 else 199 + i, 200 + i) for i in range(n)]
        outer = [(200 + i, 199, 200 + n + i) for i in range(n)]
        sizes = np.array([1] * 200 + [2 + i for i in range(n)] + [3 + i for i in range(n)])
        began = time.perf_counter()
        places[n] = canonical_places(np.array(inner + outer, np.int64), sizes)
        print(f"{n} levels: {time.perf_counter() - began:.2f} s")
        assert time.perf_counter() - began < 20
    assert places[30] is not None
    assert places[30][200:].tolist() == list(range(60))
    assert places[300] is None
