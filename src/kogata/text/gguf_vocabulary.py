"""The vocabulary in the header of a GGUF file, written as the ``tokenizer.json`` that it once came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kogata.errors import ModelError
from kogata.text.bpe import CASED_PATTERN, GPT2_PATTERN, LLAMA3_PATTERN, QWEN_PATTERN

_PATTERNS = {
    "deepseek-r1-qwen": QWEN_PATTERN,
    "falcon3": LLAMA3_PATTERN,
    "gpt-2": GPT2_PATTERN,
    "gpt-4o": CASED_PATTERN,
    "llama-bpe": LLAMA3_PATTERN,
    "llama-v3": LLAMA3_PATTERN,
    "llama3": LLAMA3_PATTERN,
    "llama4": CASED_PATTERN,
    "pixtral": LLAMA3_PATTERN,
    "qwen2": QWEN_PATTERN,
    "smollm": GPT2_PATTERN,  # after each digit is cut off
}
_LONGEST_PIECE = 1000  # published ones have some 50 characters at most
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


def tokenizer_json(told: Mapping[str, Any]) -> str:
    """The text of a ``tokenizer.json`` for :class:`~kogata.text.hf_text.HfTextTokenizer`.

    Args:
        told: The header's values by their names; those that begin with ``tokenizer.ggml.`` are read.

    Raises:
        ModelError: There is no vocabulary, or one of a kind that is not known.
    """
    kind, tokens = told.get("tokenizer.ggml.model"), told.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens) or not tokens:
        raise ModelError("The GGUF file has no vocabulary.")
    types = told.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens) or not all(type(kind) is int for kind in types):
        raise ModelError("The GGUF file's vocabulary has not one type for each token.")
    if kind == "gpt2":
        content = _byte_level(told, tokens)
    elif kind == "llama":
        content = _sentencepiece(told, tokens, types)
    else:
        raise ModelError(f"The GGUF file has a vocabulary of kind {kind!r}; known are 'gpt2' and 'llama'.")
    content["added_tokens"] = [
        {"id": place, "content": token, "special": type_ != _USER_DEFINED}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for place, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ in (_UNKNOWN, _CONTROL, _USER_DEFINED) and token
    ]
    return json.dumps({"version": "1.0", "truncation": None, "padding": None, "post_processor": None, **content})


def _byte_level(told: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    name = told.get("tokenizer.ggml.pre", "gpt-2")
    pattern = _PATTERNS.get(str(name))
    if pattern is None:
        known = ", ".join(sorted(_PATTERNS))
        raise ModelError(f"The GGUF file cuts text into words by rules named {name!r}; known are {known}.")
    merges = told.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise ModelError("The GGUF file's vocabulary has no merges.")
    cuts = [
        {"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False}
        for each in ([r"\p{N}", pattern] if name == "smollm" else [pattern])
    ]
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": {"type": "NFC"} if name == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, to_bytes]},
        "decoder": to_bytes,
        # Llama 3's words that are tokens are those tokens, though no merges lead there.
        "model": _bpe(tokens, merges) | {"ignore_merges": pattern == LLAMA3_PATTERN},
    }


def _sentencepiece(told: Mapping[str, Any], tokens: list[str], types: list[int]) -> dict[str, Any]:
    scores = told.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens) or not all(map(_is_number, scores)):
        raise ModelError("The GGUF file's vocabulary has not one score for each token.")
    if max(map(len, tokens)) > _LONGEST_PIECE:
        raise ModelError(f"The GGUF file's vocabulary has a token of more than {_LONGEST_PIECE:,} characters.")
    pieces = {token: place for place, token in enumerate(tokens) if types[place] in (_NORMAL, _USER_DEFINED)}
    # SentencePiece joins whatever is a piece, best score first.
    merges: list[list[str]] = []
    for token in sorted(pieces, key=lambda token: -scores[pieces[token]]):
        splits = [[token[:i], token[i:]] for i in range(1, len(token)) if token[:i] in pieces and token[i:] in pieces]
        merges += [
            [left, right] for left, right in sorted(splits, key=lambda split: (pieces[split[0]], pieces[split[1]]))
        ]
    unknown = told.get("tokenizer.ggml.unknown_token_id")
    spaced = told.get("tokenizer.ggml.add_space_prefix", True)
    before = [{"type": "Prepend", "prepend": "▁"}] if spaced else []
    after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if spaced else []
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    written = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [written, {"type": "ByteFallback"}, {"type": "Fuse"}, *after]},
        "model": _bpe(tokens, merges)
        | {
            "unk_token": tokens[unknown] if isinstance(unknown, int) and 0 <= unknown < len(tokens) else None,
            "fuse_unk": True,
            "byte_fallback": _BYTE in types,
        },
    }


def _bpe(tokens: list[str], merges: list[Any]) -> dict[str, Any]:
    vocab = {token: place for place, token in enumerate(tokens)}
    return {"type": "BPE", "vocab": vocab, "merges": merges}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value
