"""Vocabularies of GGUF files: small tokenizer.json files taken apart as llama.cpp does it, and put together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_tokenizers import TEXTS, byte_level, sentencepiece, theirs, tiktoken_like

from kogata.errors import ModelError
from kogata.text.gguf_vocabulary import tokenizer_json
from kogata.text.hf_text import HfTextTokenizer


def taken_apart(source: str, **more: Any) -> dict[str, Any]:
    content = json.loads(source)
    vocab: dict[str, int] = dict(content["model"]["vocab"])
    types = {place: 6 if token.startswith("<0x") else 1 for token, place in vocab.items()}
    for added in content["added_tokens"]:
        vocab[added["content"]] = added["id"]
        types[added["id"]] = 3 if added["special"] else 4
    tokens = sorted(vocab, key=vocab.__getitem__)
    told = {"tokens": tokens, "token_type": [types[place] for place in range(len(tokens))], **more}
    if more["model"] == "gpt2":
        told["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    else:
        told["scores"] = [-float(place) for place in range(len(tokens))]
        told["unknown_token_id"] = vocab["<unk>"]
    return {f"tokenizer.ggml.{name}": value for name, value in told.items()}


def without_spaces(source: str) -> str:
    """The file without words of spaces that no merges lead to (in published ones merges do)."""
    content = json.loads(source)
    content["added_tokens"] = [token for token in content["added_tokens"] if "▁" not in token["content"]]
    known = len(content["model"]["vocab"])
    for place, token in enumerate(token for token in content["added_tokens"] if token["id"] >= known):
        token["id"] = known + place
    return json.dumps(content)


CASES = {
    "gpt2": (byte_level("gpt2"), {"model": "gpt2", "pre": "gpt-2"}),
    "llama3": (tiktoken_like(), {"model": "gpt2", "pre": "llama-bpe"}),
    "qwen": (byte_level("qwen"), {"model": "gpt2", "pre": "qwen2"}),
    "cased": (byte_level("cased"), {"model": "gpt2", "pre": "gpt-4o"}),
    "llama2": (sentencepiece("llama2"), {"model": "llama"}),
    "gemma": (without_spaces(sentencepiece("gemma")), {"model": "llama", "add_space_prefix": False}),
}
OURS = {name: HfTextTokenizer(tokenizer_json(taken_apart(source, **more))) for name, (source, more) in CASES.items()}
DIRECT = {name: HfTextTokenizer(source) for name, (source, _) in CASES.items()}
THEIRS = {name: theirs(source) for name, (source, _) in CASES.items()}
N_TOKENS = DIRECT["gpt2"].vocab_size
pieces = st.sampled_from(["<|im_end|>", "<s>", "<think>", "<table>", "  ", "\n\n", "1234", "潮位", "tide", "aa"])


@pytest.mark.parametrize("name", CASES)
@given(text=st.lists(pieces | st.text(max_size=5), max_size=8).map("".join))
@example(text="".join(TEXTS[:4]))
def test_same_ids_as_the_file_it_came_from(name: str, text: str) -> None:
    ids = THEIRS[name].encode(text, add_special_tokens=False).ids
    assert OURS[name].encode(text, special=True).tolist() == ids
    assert OURS[name].special_ids == DIRECT[name].special_ids
    assert OURS[name].decode(ids) == DIRECT[name].decode(ids)


def test_the_unknown_token_is_none_of_the_text() -> None:
    told = taken_apart(*CASES["llama2"][:1], **CASES["llama2"][1])
    place = told["tokenizer.ggml.tokens"].index("<unk>")
    told["tokenizer.ggml.token_type"][place] = 2  # as converters mark it
    tokenizer = HfTextTokenizer(tokenizer_json(told))
    assert place in tokenizer.special_ids
    assert tokenizer.encode("a <unk>").tolist() == OURS["llama2"].encode("a <unk>").tolist()


def test_digits_are_cut_off_one_by_one() -> None:
    """SmolLM's rules, which tokenizers has as two steps."""
    from tokenizers import Tokenizer, pre_tokenizers

    source, more = CASES["gpt2"]
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    other = Tokenizer.from_str(source)
    other.pre_tokenizer = pre_tokenizers.Sequence(steps)
    ours = HfTextTokenizer(tokenizer_json(taken_apart(source, **more | {"pre": "smollm"})))
    for text in ["1234 the 12", " 7 潮位٣٤", "a1b22", *TEXTS[:4]]:
        assert ours.encode(text, special=True).tolist() == other.encode(text, add_special_tokens=False).ids


def test_byte_level_stays_fast() -> None:
    assert [name for name in CASES if OURS[name].is_fast] == ["gpt2", "llama3", "qwen", "cased"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokens": None}, "no vocabulary"),
        ({"tokens": []}, "no vocabulary"),
        ({"tokens": [1, 2]}, "no vocabulary"),
        ({"token_type": [1]}, "not one type for each token"),
        ({"model": "bert"}, "kind 'bert'; known are 'gpt2' and 'llama'"),
        ({"model": None}, "kind None"),
        ({"pre": "viking"}, "named 'viking'; known are deepseek-r1-qwen"),
        ({"merges": None}, "no merges"),
        ({"model": "llama"}, "not one score for each token"),
        ({"model": "llama", "scores": [0.0]}, "not one score for each token"),
        ({"model": "llama", "scores": ["a"] * N_TOKENS}, "not one score for each token"),
        ({"model": "llama", "scores": [float("nan")] * N_TOKENS}, "not one score for each token"),
        ({"model": "llama", "scores": [0.0], "tokens": ["a" * 1001], "token_type": [1]}, "more than 1,000 characters"),
        ({"pre": ["a"]}, "known are deepseek-r1-qwen"),
    ],
)
def test_what_is_not_known_is_refused(change: dict[str, Any], reason: str) -> None:
    told = taken_apart(*CASES["gpt2"][:1], **CASES["gpt2"][1])
    with pytest.raises(ModelError, match=reason):
        tokenizer_json(told | {f"tokenizer.ggml.{name}": value for name, value in change.items()})
    tokenizer_json(told)


def test_words_of_spaces() -> None:
    told = taken_apart(*CASES["gemma"][:1], **CASES["gemma"][1])
    told["tokenizer.ggml.tokens"] = [*told["tokenizer.ggml.tokens"], "  ", "\n\n\n\n"]
    told["tokenizer.ggml.token_type"] = [*told["tokenizer.ggml.token_type"], 4, 4]
    told["tokenizer.ggml.scores"] = [*told["tokenizer.ggml.scores"], -1000.0, -1000.0]
    tokenizer = HfTextTokenizer(tokenizer_json(told))
    two, four = tokenizer.vocab_size - 2, tokenizer.vocab_size - 1
    ids = tokenizer.encode("a  b\n\n\n\nc").tolist()
    assert (ids.count(two), ids.count(four)) == (1, 1)
    assert tokenizer.decode(ids) == "a  b\n\n\n\nc"
