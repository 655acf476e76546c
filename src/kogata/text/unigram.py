"""SentencePiece's Unigram model (Kudo, 2018, arXiv 1804.10959) over a table that stays mapped from a file.

A text is normalised character by character, runs of spaces become one, each word takes the space before it as ``▁``,
and every word is cut into the pieces whose scores (log probabilities) sum highest. A character without a piece costs
the lowest score minus 10, and neighbouring ones become one unknown token, as SentencePiece and ``tokenizers`` do.

The native side (csrc/unigram.cpp) builds its tables in a few milliseconds; where there is no extension, the Python
here gives the same ids.

Shape suffixes: V pieces, B bytes of all pieces, M characters of the normalisation map, O its outputs, n tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kogata.errors import ModelError
from kogata.text.tokenizer import Ids, as_unicode, covered_share

_UNKNOWN_PENALTY = 10.0
_SPACES = re.compile(" {2,}")
_META = "▁"
#: No published vocabulary has longer pieces; it bounds the work per character.
LONGEST_PIECE = 64


@dataclass(frozen=True, slots=True, eq=False)
class UnigramTable:
    """Pieces, scores and the normalisation map, as arrays.

    Attributes:
        blob_B: uint8, all pieces in UTF-8, one after another. A word's leading space is ``▁`` (U+2581).
        offsets_V1: uint32 [V + 1], where each piece starts in ``blob_B``.
        scores_V: float32 [V].
        norm_from_M: uint32 [M], the characters that are replaced, ascending.
        norm_offsets_M1: uint32 [M + 1], where each one's replacement starts in ``norm_to_O``.
        norm_to_O: uint32 [O], replacing characters.
        bos_id, eos_id, unk_id: Ids of the special tokens.
    """

    blob_B: NDArray[np.uint8]
    offsets_V1: NDArray[np.uint32]
    scores_V: NDArray[np.float32]
    norm_from_M: NDArray[np.uint32]
    norm_offsets_M1: NDArray[np.uint32]
    norm_to_O: NDArray[np.uint32]
    bos_id: int
    eos_id: int
    unk_id: int

    def check(self) -> None:
        """Refuse a table that could not be used safely.

        Raises:
            ModelError: Offsets, characters, scores or ids are out of range.
        """
        n = len(self.scores_V)
        if n < 1 or len(self.offsets_V1) != n + 1:
            raise ModelError("The vocabulary is damaged: pieces and scores do not match.")
        lengths = np.diff(self.offsets_V1.astype(np.int64))
        if self.offsets_V1[0] != 0 or self.offsets_V1[-1] != len(self.blob_B) or lengths.min() < 1:
            raise ModelError("The vocabulary is damaged: its pieces do not lie one after another.")
        if lengths.max() > 4 * LONGEST_PIECE:
            raise ModelError(f"The vocabulary is damaged: a piece is longer than {4 * LONGEST_PIECE} bytes.")
        if not np.isfinite(self.scores_V).all():
            raise ModelError("The vocabulary is damaged: a score is not a number.")
        for name in ("bos_id", "eos_id", "unk_id"):
            if not 0 <= getattr(self, name) < n:
                raise ModelError(f"The vocabulary is damaged: its {name} is {getattr(self, name)} of {n} pieces.")
        self._check_map()

    def check_text(self) -> None:
        """Refuse pieces that are not text; apart from :meth:`check`, because it reads every byte.

        Raises:
            ModelError: The pieces are not UTF-8, or one begins inside a character.
        """
        starts = self.blob_B[self.offsets_V1[:-1]]
        try:
            self.blob_B.tobytes().decode()
        except UnicodeDecodeError:
            raise ModelError("The vocabulary is damaged: its pieces are not UTF-8.") from None
        if ((starts & 0xC0) == 0x80).any():
            raise ModelError("The vocabulary is damaged: a piece begins inside a character.")

    def _check_map(self) -> None:
        m = len(self.norm_from_M)
        offsets = self.norm_offsets_M1.astype(np.int64)
        damaged = len(offsets) != m + 1 or offsets[0] != 0 or offsets[-1] != len(self.norm_to_O)
        if damaged or (np.diff(offsets) < 0).any() or (np.diff(self.norm_from_M.astype(np.int64)) <= 0).any():
            raise ModelError("The vocabulary is damaged: its normalisation map is not in order.")
        for values in (self.norm_from_M, self.norm_to_O):
            if ((values > 0x10FFFF) | ((values >= 0xD800) & (values < 0xE000))).any():
                raise ModelError("The vocabulary is damaged: its normalisation map names what is no character.")


class UnigramTokenizer:
    """A :class:`UnigramTable` behind the :class:`~kogata.text.tokenizer.Tokenizer` protocol.

    Args:
        table: The pieces; already checked.
    """

    n_special = 2

    def __init__(self, table: UnigramTable) -> None:
        self._table = table

    @property
    def unk_id(self) -> int:
        return self._table.unk_id

    def encode(self, text: str) -> Ids:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        first, last = [self._table.bos_id], [self._table.eos_id]
        return [np.array(first + self._python.ids(as_unicode(text)) + last, np.int32) for text in texts]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self._python.ids(as_unicode(text))) for text in texts]

    def spans(self, text: str) -> NDArray[np.int32]:
        return self._python.spans(as_unicode(text))[1]

    def coverage(self, text: str) -> float:
        text = as_unicode(text)
        ids_n, spans_n2 = self._python.spans(text)
        return covered_share(text, spans_n2[ids_n == self.unk_id])

    @cached_property
    def _python(self) -> PythonUnigram:
        return PythonUnigram(self._table)


class PythonUnigram:
    """The tokenizer in plain Python: the same ids as csrc/unigram.cpp, slower."""

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

    def ids(self, text: str) -> list[int]:
        """Ids without special tokens."""
        normal = _SPACES.sub(" ", text.translate(self._map))
        found: list[int] = []
        for word in _words(normal):
            found += [i for i, _ in self._cut(word)]
        return found

    def spans(self, text: str) -> tuple[Ids, NDArray[np.int32]]:
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
        if n <= LONGEST_PIECE and len(self._words) < 100_000:
            self._words[word] = found
        return found


def _words(normal: str) -> list[str]:
    """The words of a normalised text, each with its ``▁``."""
    if not normal:
        return []
    if not normal.startswith(" "):
        normal = " " + normal
    return [_META + word for word in normal[1:].split(" ")]
