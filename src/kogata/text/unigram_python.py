"""The Unigram tokenizer in plain Python, for where there is no extension: the same ids as csrc/unigram.cpp, slower."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kogata.text.tokenizer import Ids
from kogata.text.unigram_table import UnigramTable

_UNKNOWN_PENALTY = 10.0
_SPACES = re.compile(" {2,}")
_META = "▁"
_REMEMBERED_WORDS = 100_000
_LONGEST_REMEMBERED = 64


class PythonUnigram:
    """Ids and spans over a table of pieces.

    Args:
        table: The pieces; already checked.
    """

    def __init__(self, table: UnigramTable) -> None:
        blob = table.blob_B.tobytes()
        cuts = table.offsets_V1.tolist()
        self._unk_id = table.unk_id
        scores = table.scores_V.tolist()
        self._unk_score = min(scores) - _UNKNOWN_PENALTY
        pieces = [blob[a:b].decode() for a, b in pairwise(cuts)]
        self._longest = max(map(len, pieces))
        self._pieces = {piece: (i, scores[i]) for i, piece in reversed(list(enumerate(pieces)))}
        self._pieces.pop(pieces[table.unk_id], None)
        outs = table.norm_to_O.tolist()
        ends = table.norm_offsets_M1.tolist()
        self._map = {
            point: "".join(map(chr, outs[ends[i] : ends[i + 1]])) for i, point in enumerate(table.norm_from_M.tolist())
        }
        self._words: dict[str, list[tuple[int, int]]] = {}

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """int32 [n] of each text: its ids, special tokens left out."""
        return [np.array(self._ids(text), np.int32) for text in texts]

    def _ids(self, text: str) -> list[int]:
        normal = _SPACES.sub(" ", text.translate(self._map))
        found: list[int] = []
        for word in _words(normal):
            found += [i for i, _ in self._cut(word)]
        return found

    def encode_spans(self, text: str) -> tuple[Ids, NDArray[np.int32]]:
        """(int32 [n] ids without special tokens, int32 [n, 2] character spans in ``text``)."""
        normal: list[str] = []
        origin: list[int] = []
        for at, char in enumerate(text):
            for out in self._map.get(ord(char), char):
                if out == " " and normal and normal[-1] == " ":
                    continue
                normal.append(out)
                origin.append(at)
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        at = 0
        for word in _words("".join(normal)):
            made = at == 0 and normal[0] != " "  # the first word's space is not in the text
            at -= made
            for i, length in self._cut(word):
                first, last = max(at, 0), at + length - 1
                # A piece's span leaves its space out, unless the space is all there is.
                if normal[first] == " " and last > first:
                    first += 1
                ids.append(i)
                spans.append((origin[first], origin[last] + 1 if last >= 0 else origin[first]))
                at += length
        return np.array(ids, np.int32), np.array(spans, np.int32).reshape(-1, 2)

    def _cut(self, word: str) -> list[tuple[int, int]]:
        """The best pieces of a word: (id, characters) of each."""
        if (known := self._words.get(word)) is not None:
            return known
        n = len(word)
        best = [0.0] + [-np.inf] * n
        back: list[tuple[int, int]] = [(0, 0)] * (n + 1)
        get = self._pieces.get
        for start in range(n):
            score = best[start]
            single = False
            for end in range(start + 1, min(n, start + self._longest) + 1):
                piece = get(word[start:end])
                if piece is not None:
                    single = single or end == start + 1
                    if score + piece[1] > best[end]:
                        best[end], back[end] = score + piece[1], (piece[0], start)
            if not single and score + self._unk_score > best[start + 1]:
                best[start + 1], back[start + 1] = score + self._unk_score, (self._unk_id, start)
        found: list[tuple[int, int]] = []
        end = n
        while end > 0:
            i, start = back[end]
            if i == self._unk_id and found and found[-1][0] == i:
                found[-1] = (i, found[-1][1] + end - start)
            else:
                found.append((i, end - start))
            end = start
        found.reverse()
        if n <= _LONGEST_REMEMBERED and len(self._words) < _REMEMBERED_WORDS:
            self._words[word] = found
        return found


def _words(normal: str) -> list[str]:
    """The words of a normalised text, each with its ``▁``."""
    if not normal:
        return []
    if not normal.startswith(" "):
        normal = " " + normal
    return [_META + word for word in normal[1:].split(" ")]
