"""Attention: bidirectional over packed sequences (the encoder's), causal over a cache of pages (the decoder's).

Row contract: a token's result is the same bits whatever the other tokens, the chunking and the number of threads.
"""

from __future__ import annotations

from kogata.ops.attend.encode import encode_attention
from kogata.ops.attend.layout import PAGE_TOKENS, PageKind, page_bytes
from kogata.ops.attend.pages import attend_pages, merge, new_pages, rotate_and_write

__all__ = [
    "PAGE_TOKENS",
    "PageKind",
    "attend_pages",
    "encode_attention",
    "merge",
    "new_pages",
    "page_bytes",
    "rotate_and_write",
]
