"""Pages: the memory of keys and values, given to texts in pieces of 64 tokens.

Layers that attend to everything keep all pages of a text, those with a sliding window only the last ones: two groups,
each with pages of its own. A page may belong to several texts that begin alike, and to the prefix cache; it is free
when nobody has it any more.

Shapes: L layers of a group, P pages of it, B bytes of a page of one layer and head.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kogata.config import DecoderConfig
from kogata.errors import KogataError
from kogata.ops.attend import PAGE_TOKENS as PAGE
from kogata.ops.attend import PageKind, new_pages, page_bytes
from kogata.ops.attend.layout import views

__all__ = ["PAGE", "OutOfPages", "PageGroup", "PagePool", "Sequence", "pages_within", "pool_bytes"]

CHUNK_PAGES = 10
"""Pages that the rows of one step (512) may touch beyond those of a window."""


class OutOfPages(KogataError):
    """The memory for keys and values is used up."""


@dataclass(eq=False)
class Sequence:
    """One text in the cache.

    Attributes:
        pages: Where its tokens are in layers that attend to everything: entry i holds tokens 64 i to 64 i + 63.
        window: The same for layers with a sliding window; entries before ``first`` were given back.
        first: See there.
        length: Tokens that are in the cache.
    """

    pages: list[int] = field(default_factory=list)
    window: list[int] = field(default_factory=list)
    first: int = 0
    length: int = 0


class PageGroup:
    """A fixed number of pages for some layers. Memory is taken from the system when a page is first written.

    Attributes:
        pages_PLHB: uint8 [P, L, n_kv_heads, B].
        free: Pages that nobody has.
        evictable: Pages that only the prefix cache has.
        nbytes_of_page: Bytes of a page in all layers of the group.
    """

    def __init__(self, n_layers: int, n_pages: int, n_kv_heads: int, kind: PageKind, d_head: int) -> None:
        self.kind: PageKind = kind
        self.d_head = d_head
        self.n_pages = n_pages
        self.pages_PLHB: NDArray[np.uint8] = new_pages(n_pages, n_layers, n_kv_heads, kind, d_head)
        self.nbytes_of_page = self.pages_PLHB.nbytes // max(n_pages, 1)
        self.free = n_pages
        self.evictable = 0
        self._fresh = 0  # pages from here on were never used: they are zero
        self._freed: list[int] = []
        self._texts = [0] * n_pages  # texts that have the page
        self._kept = [0] * n_pages  # entries of the prefix cache that have it

    @property
    def within_reach(self) -> int:
        """Pages that are free or can be made so."""
        return self.free + self.evictable

    @property
    def held(self) -> int:
        """Pages that texts have."""
        return self.n_pages - self.within_reach

    def take(self) -> int:
        """A page of zeros for one text; one must be free."""
        if self._fresh < self.n_pages:
            page = self._fresh
            self._fresh += 1
        else:
            page = self._freed.pop()
            self.pages_PLHB[page] = 0  # a masked 0 times an old NaN would be NaN
        self.free -= 1
        self._texts[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more text has the page."""
        if self._texts[page] == 0:
            self.evictable -= 1
        self._texts[page] += 1

    def give_back(self, page: int) -> None:
        """A text has it no longer."""
        self._texts[page] -= 1
        if self._texts[page] == 0:
            if self._kept[page]:
                self.evictable += 1
            else:
                self._release(page)

    def keep(self, page: int) -> None:
        """One more entry of the prefix cache has the page, which some text has."""
        self._kept[page] += 1

    def forget(self, page: int) -> None:
        """An entry of the prefix cache has it no longer."""
        self._kept[page] -= 1
        if self._kept[page] == 0 and self._texts[page] == 0:
            self.evictable -= 1
            self._release(page)

    def in_use(self, page: int) -> bool:
        """Whether a text has the page."""
        return self._texts[page] > 0

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """The first tokens of a page into another one; zeros after them, whatever the source holds there."""
        self.pages_PLHB[target] = self.pages_PLHB[source]
        keys, values, scales = views(self.pages_PLHB[target], self.kind, self.d_head)
        row, lane = divmod(n_tokens, values.shape[-1])
        keys[..., n_tokens:, :] = 0
        values[..., row, :, lane:] = 0
        values[..., row + 1 :, :, :] = 0
        if scales is not None:
            scales[..., n_tokens:] = 0

    def fill(self, page: int, data_B: NDArray[np.uint8]) -> None:
        """Put into a page what ``pages_PLHB[page]`` of another pool was."""
        self.pages_PLHB[page] = data_B.reshape(self.pages_PLHB[page].shape)

    def _release(self, page: int) -> None:
        self.free += 1
        self._freed.append(page)


class PagePool:
    """The pages of all texts.

    Args:
        config: The model.
        kind: How keys and values are stored: "f32", "bf16" or "int8".
        n_pages: Pages for layers that attend to everything. Layers with a window get as many as texts of that many
            tokens need, and some for points from which texts may go on.

    Attributes:
        full: Pages of the layers that attend to everything.
        window: Pages of those with a sliding window, or None where there is none.
        most_window_pages: Most that one text has of the latter at any time.
        layer_pages: For each layer, its uint8 [P, n_kv_heads, B], a view.
    """

    def __init__(self, config: DecoderConfig, kind: PageKind, n_pages: int) -> None:
        self.kind: PageKind = kind
        self.n_pages = n_pages
        self.window_tokens = config.window
        shape = config.n_kv_heads, kind, config.d_head
        sliding = config.pattern.count("W")
        self.full = PageGroup(config.n_layers - sliding, n_pages, *shape)
        self.window = PageGroup(sliding, _window_pages(config, n_pages), *shape) if sliding else None
        self.groups = [self.full] if self.window is None else [self.full, self.window]
        self.most_window_pages = _live_pages(config.window) + CHUNK_PAGES
        counts = {"F": 0, "W": 0}
        self.layer_pages = []
        for letter in config.pattern:
            group = self.window if letter == "W" and self.window is not None else self.full
            self.layer_pages.append(group.pages_PLHB[:, counts[letter]])
            counts[letter] += 1

    @property
    def free(self) -> int:
        """Pages that nobody has, of the layers that attend to everything."""
        return self.full.free

    def first_needed(self, length: int) -> int:
        """The first page whose keys the token at this place sees through the window, or the one before it.

        One token more, so that a text can also go on from the token before its last one.
        """
        return max(0, length - self.window_tokens) // PAGE

    def trim(self, sequence: Sequence) -> None:
        """Take back what a text's window has left behind."""
        if self.window is None:
            return
        first = self.first_needed(sequence.length)
        for place in range(sequence.first, min(first, len(sequence.window))):
            self.window.give_back(sequence.window[place])
            sequence.window[place] = 0
        sequence.first = max(sequence.first, first)
        sequence.window += [0] * (sequence.first - len(sequence.window))

    def missing(self, sequence: Sequence, length: int) -> list[int]:
        """Pages of each group that a text lacks for ``length`` tokens."""
        pages = -(-length // PAGE)
        return [pages - len(sequence.pages), pages - len(sequence.window)][: len(self.groups)]

    def reserve(self, sequence: Sequence, length: int) -> None:
        """Give a text the pages that it needs for ``length`` tokens; take back what its window has left behind.

        Raises:
            OutOfPages: There are not enough; nothing was given.
        """
        self.trim(sequence)
        for group, lacks in zip(self.groups, self.missing(sequence, length), strict=True):
            if lacks > group.free:
                raise OutOfPages(
                    f"{length:,} tokens need {lacks:,} more pages of {PAGE} tokens, but only {group.free:,} of "
                    f"{group.n_pages:,} are free ({group.free * group.nbytes_of_page / 1e6:,.0f} MB)."
                )
        while len(sequence.pages) * PAGE < length:
            sequence.pages.append(self.full.take())
        while self.window is not None and len(sequence.window) * PAGE < length:
            sequence.window.append(self.window.take())

    def release(self, sequence: Sequence) -> None:
        """Take a text's pages back."""
        for page in reversed(sequence.pages):
            self.full.give_back(page)
        if self.window is not None:
            for page in reversed(sequence.window[sequence.first :]):
                self.window.give_back(page)
        sequence.pages.clear()
        sequence.window.clear()
        sequence.first = sequence.length = 0


def pool_bytes(config: DecoderConfig, kind: PageKind, n_pages: int) -> int:
    """Bytes of a :class:`PagePool` with so many pages, those of a sliding window included."""
    sliding = config.pattern.count("W")
    pages = (config.n_layers - sliding) * n_pages + sliding * _window_pages(config, n_pages)
    return pages * config.n_kv_heads * page_bytes(kind, config.d_head)


def pages_within(config: DecoderConfig, kind: PageKind, n_bytes: int, most: int) -> int:
    """How many pages a pool of so many bytes can have: 0 to ``most``."""
    return bisect_right(range(1, most + 1), n_bytes, key=lambda n_pages: pool_bytes(config, kind, n_pages))


def _live_pages(window: int) -> int:
    """Most pages of a window that one text keeps between two steps."""
    return -(-(window + 64) // PAGE) + 1


def _window_pages(config: DecoderConfig, n_pages: int) -> int:
    """Pages of the window group beside so many of the other: what four texts keep, what a step writes, and an eighth
    for many short texts and for points to go on from."""
    return min(n_pages, n_pages // 8 + 4 * _live_pages(config.window) + CHUNK_PAGES)
