"""Byte-level BPE through tiktoken: twice the speed of ``tokenizers`` or more, where its ids are provably the same.

``tokenizers`` (H) joins the neighbouring pair that stands first in the file's list of merges. tiktoken (T) joins the
pair whose *concatenation* has the lowest rank: it knows tokens, not pairs. Both take the leftmost of equals. They agree
on every text when

1. each token that H can make at all is made, from its own bytes, by one pair of the list, its *canonical* pair, and T
   ranks the tokens by the places of their canonical pairs;
2. T knows no token that H cannot make, or only ones of which every two-token split is in the list.

For as long as both have done the same so far, a pair (x, y) that T is about to join to a token t is a state that H
passes through on t's bytes alone, since nothing has crossed their borders yet; H is deterministic, so (x, y) is t's
canonical pair and in the list at the place that T ranks it by. :func:`canonical_places` finds the canonical pairs.

The pattern that cuts a text into words must mean the same to both regular expression engines: the patterns known to
are listed here. A file that is anything else is left to ``tokenizers``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.text.tokenizer import Ids
from kogata.text.vocabulary import byte_tokens

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CASED_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_PATTERN = _WORDS % r"\p{N}{1,3}"
QWEN_PATTERN = _WORDS % r"\p{N}"
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
#: GPT-2, Llama 3 (also BitNet 2B4T), Qwen 2 and 3, GPT-4o and Llama 4. All leave no character between their matches,
#: which matters: tiktoken drops what is not matched, ``tokenizers`` keeps it.
KNOWN_PATTERNS = frozenset({GPT2_PATTERN, LLAMA3_PATTERN, QWEN_PATTERN, CASED_PATTERN})

# tiktoken's engine keeps a way back for every space that \s+ took, and gives up after a million of them. The first
# blocks of 256 that are followed by another 256 are never given back, so taking them at once changes no match.
_TRAILING_SPACE = r"\s+(?!\S)"
_LONG_TRAILING_SPACE = r"(?:\s{256}(?=\s{256}))*+\s+(?!\S)"

_NEVER = np.iinfo(np.int64).max
_BYTE = -1
_MOST_STEPS = 30_000  # of some 30 us; 150,000 merges trained on text take some 1,500
_LONGEST_TOKEN = 1000  # of which all splits are tried


class ByteLevelBpe:
    """tiktoken over one vocabulary. Plain text only: it knows no control tokens.

    Args:
        ranks: tiktoken's ranks.
        ids_R: int32 [R], the id of each rank.
        pattern: One of :data:`KNOWN_PATTERNS`.
        normalise: What is done to a text first.
    """

    def __init__(
        self, ranks: dict[bytes, int], ids_R: NDArray[np.int32], pattern: str, normalise: Callable[[str], str] | None
    ) -> None:
        from tiktoken import Encoding

        pattern = pattern.replace(_TRAILING_SPACE, _LONG_TRAILING_SPACE)
        self._encoding = Encoding("kogata", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._ids_R = ids_R
        self._normalise = normalise

    def encode(self, text: str, *, first: bool) -> Ids:
        """The ids of a text without lone surrogates."""
        # Below U+0300 every text is in normal form C.
        if self._normalise is not None and not text.isascii() and max(text) >= "\u0300":
            text = self._normalise(text)
        found: Ids = self._ids_R[self._encoding.encode_to_numpy(text, disallowed_special=())]
        return found


def byte_level_bpe(content: dict[str, Any]) -> ByteLevelBpe | None:
    """The tokenizer of a ``tokenizer.json`` in tiktoken, or None where the ids might differ."""
    model = content["model"]
    if model.get("type", "BPE") != "BPE" or any(
        model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    ):
        return None
    normalizer = content.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}):
        return None
    pattern = _pattern(content.get("pre_tokenizer"))
    if pattern not in KNOWN_PATTERNS:
        return None
    found = _ranks(model)
    if found is None:
        return None
    normalise: Callable[[str], str] | None = None
    if normalizer is not None:
        from tokenizers import normalizers

        normalise = normalizers.NFC().normalize_str  # Python's own may know another version of Unicode
    return ByteLevelBpe(*found, pattern, normalise)


def _pattern(pre_tokenizer: Any) -> str:
    """The regular expression that cuts a text into words, or "" where it is more than that."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False} if pre_tokenizer.get("use_regex", True):
            return GPT2_PATTERN
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return ""


def _ranks(model: dict[str, Any]) -> tuple[dict[bytes, int], NDArray[np.int32]] | None:
    """tiktoken's ranks and the id of each, or None."""
    vocab: dict[str, int] = model["vocab"]
    places: dict[str, int] = {token: place for place, token in enumerate(vocab)}
    tokens = byte_tokens(vocab)
    sizes_V = np.array([0 if token is None else len(token) for token in tokens], np.int64)
    if len({token for token in tokens if token is not None and len(token) == 1}) < 256:
        return None
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    try:
        merges_M3 = np.array([(places[a], places[b], places[a + b]) for a, b in merges], np.int64).reshape(-1, 3)
    except (KeyError, ValueError, TypeError):
        return None
    places_V = canonical_places(merges_M3, sizes_V)
    if places_V is None:
        return None

    ids = list(vocab.values())
    n_ranks = 256 + len(merges)
    rank_ids: dict[int, int] = {}
    ranks: dict[bytes, int] = {}
    pairs: set[tuple[int, int]] | None = None
    by_bytes: dict[bytes, int] = {}
    for place, (token, canonical) in enumerate(zip(tokens, places_V.tolist(), strict=True)):
        if token is None:
            continue
        if canonical == _BYTE:
            rank = token[0]
        elif canonical < _NEVER:
            rank = 256 + canonical
        elif not model.get("ignore_merges"):
            continue
        else:
            # A word that is a token is that token, though no merges lead there.
            if pairs is None:
                pairs = set(map(tuple, merges_M3[:, :2].tolist()))
                by_bytes = {token: place for place, token in enumerate(tokens) if token is not None}
            if len(token) > _LONGEST_TOKEN:
                return None
            splits = ((by_bytes.get(token[:i]), by_bytes.get(token[i:])) for i in range(1, len(token)))
            if any(None not in split and split not in pairs for split in splits):
                return None
            rank = n_ranks
            n_ranks += 1
        ranks[token] = rank
        rank_ids[rank] = ids[place]
    ids_R = np.zeros(n_ranks, np.int32)
    ids_R[list(rank_ids)] = list(rank_ids.values())
    return ranks, ids_R


def canonical_places(merges_M3: NDArray[np.int64], sizes_V: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The place, in the list of merges, of the pair that each token is made of, starting from its bytes.

    A pair (a, b) is canonical if, while a and b are being made from their bytes beside each other, no merge across
    their border comes first. Going back in time, the part at the right edge of a and the part at the left edge of b
    are undone, the later one first; the two that then touch must have no merge that comes before the one undone. (A
    merge inside a stands left of the border and wins against an equal one across it; one inside b does not.)

    Args:
        merges_M3: int64 [M, 3], left, right and joined token of each merge, first merge first.
        sizes_V: int64 [V], the bytes of each token; 0 for what is no byte-level token.

    Returns:
        int64 [V], -1 for single bytes and 2^63 - 1 for what merges never make. None where a token is made before its
        parts (time then is not the order of the merges, and nothing is proven), where a pair stands there twice, and
        where looking would take long, as only files made for that do.
    """
    n_tokens = len(sizes_V)
    place_V = np.full(n_tokens, _NEVER)
    place_V[sizes_V == 1] = _BYTE
    left_V, right_V = np.arange(n_tokens), np.arange(n_tokens)
    keys_M = merges_M3[:, 0] * n_tokens + merges_M3[:, 1]
    order_M = np.argsort(keys_M, kind="stable")
    sorted_M = keys_M[order_M]
    if (sorted_M[1:] == sorted_M[:-1]).any():
        return None
    sorted_M = np.append(sorted_M, _NEVER)
    order_M = np.append(order_M, _NEVER)

    def place_of(left_R: NDArray[np.int64], right_R: NDArray[np.int64]) -> NDArray[np.int64]:
        keys_R = left_R * n_tokens + right_R
        at_R = np.searchsorted(sorted_M, keys_R)
        found: NDArray[np.int64] = np.where(sorted_M[at_R] == keys_R, order_M[at_R], _NEVER)
        return found

    joined_sizes_M = sizes_V[merges_M3[:, 2]]
    by_size_M = np.argsort(joined_sizes_M, kind="stable")
    borders = np.flatnonzero(np.diff(joined_sizes_M[by_size_M])) + 1
    steps = 0
    for rows_R in np.split(by_size_M, borders):  # a token's parts are shorter than it
        a_R, b_R, joined_R = merges_M3[rows_R].T
        made_R = np.maximum(place_V[a_R], place_V[b_R])
        keep_R = made_R < _NEVER
        rows_R, a_R, b_R, joined_R, made_R = (column[keep_R] for column in (rows_R, a_R, b_R, joined_R, made_R))
        canonical_R = np.ones(len(rows_R), bool)
        todo_R = np.arange(len(rows_R))
        x_R, y_R = a_R.copy(), b_R.copy()
        while len(todo_R):
            steps += 1
            if steps > _MOST_STEPS:
                return None
            x, y = x_R[todo_R], y_R[todo_R]
            in_a = place_V[x] > place_V[y]
            undone = np.maximum(place_V[x], place_V[y])
            x = np.where(in_a, right_V[x], x)
            y = np.where(in_a, y, left_V[y])
            crossed = (undone != _BYTE) & (place_of(x, y) < undone + ~in_a)
            canonical_R[todo_R[crossed]] = False
            x_R[todo_R], y_R[todo_R] = x, y
            todo_R = todo_R[~crossed & (undone != _BYTE)]
        rows_R, a_R, b_R, joined_R, made_R = (column[canonical_R] for column in (rows_R, a_R, b_R, joined_R, made_R))
        if (made_R >= rows_R).any():
            return None
        place_V[joined_R], left_V[joined_R], right_V[joined_R] = rows_R, a_R, b_R
    return place_V
