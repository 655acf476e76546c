"""What a decoder remembers of its texts: keys and values in pages of 64 tokens, and the prefixes that texts share."""

from kogata.run.cache.disk import PageStore
from kogata.run.cache.pages import PAGE, OutOfPages, PagePool, Sequence, pages_within, pool_bytes
from kogata.run.cache.prefixes import PrefixCache

__all__ = ["PAGE", "OutOfPages", "PagePool", "PageStore", "PrefixCache", "Sequence", "pages_within", "pool_bytes"]
