"""Prefixes: what was computed for one text serves every other that begins alike.

A prefix is known by a chain of hashes, a link a page: model, arithmetic, storage and salt first, then all tokens. So
two texts share a page only where everything before it is the same too. A text goes on from the deepest entry that it
begins with. In layers that attend to everything that may be anywhere; those with a sliding window can go on only where
the window's pages were kept: at the end of each prompt and of each turn.

Full pages are shared as they are. The last page of an entry, where it is not full, is copied: the text that it came
from may still be writing behind the tokens that count.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kogata.run.cache.disk import PageStore
from kogata.run.cache.pages import PAGE, PagePool, Sequence

__all__ = ["PrefixCache"]

Ints = NDArray[np.int32]


@dataclass(eq=False)
class _Entry:
    """A page of a prefix.

    Attributes:
        parent: The link of everything before the page.
        tokens: Of the page: 64, or fewer at the end of a prompt or turn.
        page: Where it is, in layers that attend to everything.
        window: The window's pages up to here, the last one this page's; None where they were not kept.
    """

    parent: bytes
    tokens: Ints
    page: int
    window: tuple[int, ...] | None


class PrefixCache:
    """Prefixes in a pool of pages, the least recently used thrown out when a page is needed.

    Args:
        pool: Whose pages.
        identity: Whatever decides the keys and values of a text besides its tokens.
        store: Where full pages are kept as well; None for nowhere.
    """

    def __init__(self, pool: PagePool, identity: str, store: PageStore | None = None) -> None:
        self._pool = pool
        self._store = store
        self._identity = identity.encode()
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the least recently used first
        self._children: dict[bytes, list[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def root(self, salt: bytes) -> bytes:
        """The link before a text's first page."""
        return hashlib.blake2b(self._identity, digest_size=32, key=hashlib.sha256(salt).digest()).digest()

    def resume(self, text: Sequence, tokens: Ints, salt: bytes) -> None:
        """Let an empty text begin with what is known of its tokens; its length says how many those are.

        A page that has to be copied is taken only where one is free.
        """
        links = [self.root(salt)]
        while len(links) * PAGE <= len(tokens):
            link = _link(links[-1], tokens[(len(links) - 1) * PAGE : len(links) * PAGE])
            if link not in self._entries:
                break
            links.append(link)
        for depth in range(len(links) - 1, -1, -1):
            begin = depth * PAGE
            found = self._deepest(links[depth], begin, tokens[begin : begin + PAGE])
            if found is None:
                continue
            link, entry, shared = found
            self._begin(text, [self._entries[one].page for one in links[1 : depth + 1]], entry, shared)
            self._used([*links[1 : depth + 1], link])
            return

    def remember(self, text: Sequence, tokens: Ints, links: list[bytes], *, ends: bool) -> None:
        """Keep a text's full pages and, where a prompt or turn ends, the point to go on from.

        Args:
            text: It has ``length`` tokens.
            tokens: Them, and perhaps more.
            links: Of its pages so far, the root first; new ones are added.
            ends: Whether a prompt or turn ends here.
        """
        added = False
        while len(links) * PAGE <= text.length:
            place = len(links) - 1
            links.append(self._add(text, links[-1], tokens[place * PAGE : (place + 1) * PAGE], place))
            self._put(text, links[-1], place)
            added = True
        if ends and text.length:
            place = (text.length - 1) // PAGE
            self._add(text, links[place], tokens[place * PAGE : text.length], place, ends=True)
            added = True
        if added:
            self._used(links[1:])
        if ends and self._store is not None:
            self._store.used(links[1:])

    def on_disk(self, tokens: Ints, links: list[bytes], most: int) -> list[bytes]:
        """The links of a text's next pages, as far as the disk has them.

        Args:
            tokens: All of the text that may be taken from there.
            links: Of its full pages so far, the root first.
            most: Pages.
        """
        found = [links[-1]]
        while self._store is not None and len(found) <= most:
            begin = (len(links) + len(found) - 2) * PAGE
            if begin + PAGE > len(tokens):
                break
            link = _link(found[-1], tokens[begin : begin + PAGE])
            if link not in self._store:
                break
            found.append(link)
        return found[1:]

    def load(self, text: Sequence, links: list[bytes]) -> None:
        """Take a text's next pages from the disk, up to the first that cannot be read; its length grows by them.

        Args:
            text: It has room for them. Where its last page is not full, what was computed of it is the same.
            links: Theirs, as :meth:`on_disk` gave them.
        """
        pool, store = self._pool, self._store
        assert store is not None, "on_disk found them there"
        for data in store.get_all(links, sum(group.nbytes_of_page for group in pool.groups)):
            place = text.length // PAGE
            if data is None:
                return
            pool.full.fill(text.pages[place], data[: pool.full.nbytes_of_page])
            if pool.window is not None:
                pool.window.fill(text.window[place], data[pool.full.nbytes_of_page :])
            text.length = (place + 1) * PAGE

    def make_room(self, text: Sequence, length: int) -> bool:
        """Throw out what is needed for ``length`` tokens of a text; whether they fit now."""
        self._pool.trim(text)
        missing = self._pool.missing(text, length)
        return self._free(missing)

    def clear(self) -> None:
        """Forget everything."""
        for link in list(self._entries):
            self._drop(link)

    def _put(self, text: Sequence, link: bytes, place: int) -> None:
        """Keep a full page on disk, unless its window's part was given back already."""
        pool = self._pool
        if self._store is None or link in self._store or (pool.window is not None and place < text.first):
            return
        parts = [pool.full.pages_PLHB[text.pages[place]]]
        if pool.window is not None:
            parts.append(pool.window.pages_PLHB[text.window[place]])
        self._store.put(link, parts)

    def _deepest(self, parent: bytes, begin: int, tokens: Ints) -> tuple[bytes, _Entry, int] | None:
        """The entry behind ``parent`` of which a text can take most tokens, and how many."""
        best = None
        for link in self._children.get(parent, ()):
            entry = self._entries[link]
            n = min(len(entry.tokens), len(tokens))
            differs = np.flatnonzero(entry.tokens[:n] != tokens[:n])
            shared = int(differs[0]) if len(differs) else n
            if begin + shared > 0 and self._serves(entry, begin, shared) and (best is None or shared > best[2]):
                best = link, entry, shared
        return best

    def _serves(self, entry: _Entry, begin: int, shared: int) -> bool:
        """Whether a text can go on behind so many tokens of the entry's page."""
        if self._pool.window is None:
            return True
        if entry.window is None:
            return False
        kept_from = begin // PAGE + 1 - len(entry.window)
        return self._pool.first_needed(begin + shared + 1) >= kept_from

    def _begin(self, text: Sequence, before: list[int], entry: _Entry, shared: int) -> None:
        """Give an empty text these pages, and so many tokens of the entry's."""
        pool, depth = self._pool, len(before)
        text.length = depth * PAGE + shared
        text.pages = [*before, entry.page] if shared else before
        for page in text.pages:
            pool.full.share(page)
        if pool.window is not None and entry.window is not None:
            kept_from = depth + 1 - len(entry.window)
            text.first = pool.first_needed(text.length + 1)
            text.window = [0] * text.first + list(entry.window[text.first - kept_from :])
            del text.window[len(text.pages) :]
            for page in text.window[text.first :]:
                pool.window.share(page)
        if shared in (0, PAGE):
            return
        tables = [text.pages, text.window][: len(pool.groups)]
        if not self._free([1] * len(tables)):  # no room for a copy
            if pool.window is None:
                text.length -= shared
                pool.full.give_back(text.pages.pop())
            else:
                pool.release(text)
            return
        for group, table in zip(pool.groups, tables, strict=True):
            source, table[-1] = table[-1], group.take()
            group.copy(source, table[-1], shared)
            group.give_back(source)

    def _free(self, wanted: list[int]) -> bool:
        """Throw out entries until so many pages of each group are free; False, and nothing done, where it cannot be."""
        groups = self._pool.groups
        if all(n <= group.free for group, n in zip(groups, wanted, strict=True)):
            return True  # as in almost every step
        if any(n > group.within_reach for group, n in zip(groups, wanted, strict=True)):
            return False
        for link, entry in list(self._entries.items()):
            lacks = [n > group.free for group, n in zip(groups, wanted, strict=True)]
            if not any(lacks):
                break
            if lacks[0] and not self._pool.full.in_use(entry.page):
                self._drop(link)
            elif lacks[-1] and self._pool.window is not None and entry.window is not None:
                if all(self._pool.window.in_use(page) for page in entry.window):
                    continue
                if len(entry.tokens) < PAGE:
                    self._drop(link)
                else:
                    self._forget_window(entry)
        return True

    def _used(self, links: list[bytes]) -> None:
        """These were used last, what is deeper before what it hangs on: so that is thrown out first."""
        for link in reversed(links):
            if link in self._entries:
                self._entries.move_to_end(link)

    def _add(self, text: Sequence, parent: bytes, tokens: Ints, place: int, *, ends: bool = False) -> bytes:
        link = _link(parent, tokens)
        pool = self._pool
        entry = self._entries.get(link)
        if entry is None:
            entry = self._entries[link] = _Entry(parent, tokens.copy(), text.pages[place], None)
            self._children.setdefault(parent, []).append(link)
            pool.full.keep(entry.page)
        if ends and entry.window is None and pool.window is not None:
            first = max(text.first, pool.first_needed(text.length))
            entry.window = tuple(text.window[first : place + 1])
            for page in entry.window:
                pool.window.keep(page)
        return link

    def _drop(self, link: bytes) -> None:
        entry = self._entries.pop(link)
        siblings = self._children[entry.parent]
        siblings.remove(link)
        if not siblings:
            del self._children[entry.parent]
        self._pool.full.forget(entry.page)
        self._forget_window(entry)

    def _forget_window(self, entry: _Entry) -> None:
        """The entry is no point to go on from any more."""
        if self._pool.window is not None:
            for page in entry.window or ():
                self._pool.window.forget(page)
        entry.window = None


def _link(parent: bytes, tokens: Ints) -> bytes:
    return hashlib.blake2b(tokens.astype("<i4").tobytes(), digest_size=32, key=parent).digest()
