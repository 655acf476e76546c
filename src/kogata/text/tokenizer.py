"""What a tokenizer does for the rest of Kogata: the protocol, and what all of them share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]

_SURROGATES = re.compile("[\ud800-\udfff]")


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids. Never truncates and never pads: who calls knows the limits.

    Lone surrogates (which are no characters) count as U+FFFD, so no text raises.
    """

    @property
    def unk_id(self) -> int | None:
        """The id of the unknown token, or None where every text is covered."""

    @property
    def n_special(self) -> int:
        """How many special tokens :meth:`encode` adds around a text."""

    @property
    def n_leading(self) -> int:
        """How many of them stand before the text's own tokens."""

    def encode(self, text: str) -> Ids:
        """int32 [n]: the ids of a text, special tokens included."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """:meth:`encode` of several texts."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special tokens not counted."""

    def spans(self, text: str) -> NDArray[np.int32]:
        """int32 [n, 2]: start and end of each token in the text's characters, special tokens left out.

        Tokens in order; a token made by the tokenizer itself (a leading space, say) is empty where it stands.
        """

    def coverage(self, text: str) -> float:
        """The share of the text's non-space characters that are not inside an unknown token; 1.0 where there are none.

        Below about 0.8 a vector made of this text says little about it.
        """


def as_unicode(text: str) -> str:
    """The text with each lone surrogate replaced by U+FFFD: same length, always encodable."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("�", text)
    return text


def covered_share(text: str, unknown_Z2: NDArray[np.int32]) -> float:
    """The share of non-space characters outside the given spans.

    Args:
        text: The text.
        unknown_Z2: int32 [Z, 2], character spans of unknown tokens, in order.
    """
    total = len("".join(text.split()))
    if not total:
        return 1.0
    lost, done = 0, 0
    for start, end in unknown_Z2.tolist():
        lost += len("".join(text[max(start, done) : end].split()))
        done = max(done, end)
    return 1.0 - lost / total
