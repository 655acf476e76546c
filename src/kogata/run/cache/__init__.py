"""What a decoder remembers of its texts: keys and values in pages of 64 tokens."""

from kogata.run.cache.pages import PAGE, OutOfPages, PagePool, Sequence

__all__ = ["PAGE", "OutOfPages", "PagePool", "Sequence"]
