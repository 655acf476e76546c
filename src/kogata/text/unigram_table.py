"""The vocabulary of a Unigram model as arrays, which may stay mapped from a file.

Shape suffixes: V pieces, B bytes of all pieces, M characters of the normalisation map, O its outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kogata.errors import ModelError

#: Bytes of a piece; published vocabularies stay below 64. It bounds the work per character.
_LONGEST_PIECE = 256


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
        if lengths.max() > _LONGEST_PIECE:
            raise ModelError(f"The vocabulary is damaged: a piece is longer than {_LONGEST_PIECE} bytes.")
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
