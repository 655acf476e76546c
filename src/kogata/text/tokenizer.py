"""What a tokenizer does for the rest of Kogata: the protocol, and what all of them share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
#: Stretches of a text: start and end of each in characters, in order, not overlapping.
Spans = tuple[tuple[int, int], ...]

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


@runtime_checkable
class TextTokenizer(Protocol):
    """Text to token ids and back, for models that write. Adds no token of its own to a text, and never truncates.

    Lone surrogates (which are no characters) count as U+FFFD, so no text raises.
    """

    @property
    def vocab_size(self) -> int:
        """The largest id, plus one."""

    @property
    def special_ids(self) -> frozenset[int]:
        """The tokens that are marked as special: they steer the model, and are no part of what it says."""

    def encode(self, text: str, *, special: bool = False) -> Ids:
        """int32 [n]: the ids of a text.

        Args:
            text: Any text.
            special: Whether what looks like a control token is one; otherwise it is text like any other, which is how
                everything that a person or a document says must be encoded.
        """

    def encode_around(self, text: str, plain: Spans) -> Ids:
        """:meth:`encode` with ``special``, except that no control token is seen in, or partly in, the plain spans.

        Args:
            text: Any text.
            plain: Start and end of each, in characters, in order, not overlapping.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """A whole text, special tokens left out. Bytes that are no characters become U+FFFD.

        Where encoding puts a space before the first word, it is taken off again. A text that continues another is
        decoded from :meth:`token_bytes`, which keeps that space.
        """

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for: a special token for how it is written, an id without a token for nothing."""

    def id_of(self, text: str) -> int | None:
        """The id of the token that is this text, or None."""


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
