"""Pages: the memory of keys and values, given to texts in pieces of 64 tokens.

Shapes: L layers, P pages of the pool, M pages of a text, B bytes of a page of one layer and head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kogata.config import DecoderConfig
from kogata.errors import KogataError
from kogata.ops.attend import PAGE_TOKENS as PAGE
from kogata.ops.attend import PageKind, new_pages

__all__ = ["PAGE", "OutOfPages", "PagePool", "Sequence"]


class OutOfPages(KogataError):
    """The memory for keys and values is used up."""


@dataclass(eq=False)
class Sequence:
    """One text in the cache.

    Attributes:
        pages: Where its tokens are: entry i holds tokens 64 i to 64 i + 63.
        length: Tokens that are in the cache.
    """

    pages: list[int] = field(default_factory=list)
    length: int = 0


class PagePool:
    """A fixed number of pages for all texts. Memory is taken from the system when a page is first written.

    Args:
        config: The model.
        kind: How keys and values are stored: "f32", "bf16" or "int8".
        n_pages: P.

    Attributes:
        layers_LPHB: uint8 [L, P, n_kv_heads, B].
    """

    def __init__(self, config: DecoderConfig, kind: PageKind, n_pages: int) -> None:
        self.kind: PageKind = kind
        self.n_pages = n_pages
        self.layers_LPHB: NDArray[np.uint8] = new_pages(
            config.n_layers, n_pages, config.n_kv_heads, kind, config.d_head
        )
        self.nbytes_of_page = self.layers_LPHB.nbytes // max(n_pages, 1)
        self._fresh = 0  # pages from here on were never used: they are zero
        self._free: list[int] = []

    @property
    def free(self) -> int:
        """Pages that nobody has."""
        return len(self._free) + self.n_pages - self._fresh

    def reserve(self, sequence: Sequence, length: int) -> None:
        """Give a text the pages that it needs for ``length`` tokens.

        Raises:
            OutOfPages: There are not enough; nothing was given.
        """
        missing = -(-length // PAGE) - len(sequence.pages)
        if missing > self.free:
            raise OutOfPages(
                f"{length:,} tokens need {missing:,} more pages of {PAGE} tokens, but only {self.free:,} of "
                f"{self.n_pages:,} are free ({self.free * self.nbytes_of_page / 1e6:,.0f} MB)."
            )
        for _ in range(missing):
            if self._fresh < self.n_pages:
                page = self._fresh
                self._fresh += 1
            else:
                page = self._free.pop()
                self.layers_LPHB[:, page] = 0  # a masked 0 times an old NaN would be NaN
            sequence.pages.append(page)

    def release(self, sequence: Sequence) -> None:
        """Take a text's pages back."""
        self._free.extend(reversed(sequence.pages))
        sequence.pages.clear()
        sequence.length = 0
