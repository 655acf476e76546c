"""How keys and values lie in a page: 64 tokens of one KV head, the same bytes on every instruction set and on disk.

    f32   K [D][64]        V [64][D]
    bf16  K [D/2][64][2]   V [32][D][2]
    int8  K [D/4][64][4]   V [16][D][4], then a float32 scale for each of the 64 keys and each of the 64 values

int8 codes are symmetric per token and head: scale = max|x| / 127, x = scale * code, rounded half to even.
Shapes: D head width, … any leading dimensions (pages, KV heads).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]
PageKind = Literal["f32", "bf16", "int8"]

PAGE_TOKENS = 64
_TERMS = {"f32": 1, "bf16": 2, "int8": 4}  # neighbours along the sum in a cell of 4 bytes
_CELLS: dict[str, type[np.generic]] = {"f32": np.float32, "bf16": np.uint16, "int8": np.int8}


def page_bytes(kind: PageKind, d_head: int) -> int:
    """Bytes of a page of one KV head, K and V: a multiple of 64.

    Raises ValueError for an unknown kind, or a width that is no multiple of 8 between 16 and 256.
    """
    if kind not in _TERMS:
        raise ValueError("kind must be f32, bf16 or int8")
    if not 16 <= d_head <= 256 or d_head % 8:
        raise ValueError("d_head must be a multiple of 8 between 16 and 256")
    cells = 2 * PAGE_TOKENS * d_head * (4 // _TERMS[kind])
    if kind == "int8":
        return cells + 2 * PAGE_TOKENS * 4
    return cells + (64 if d_head % 16 else 0)  # kernels read the last row of values in whole panels of 16


def views(pages: Bytes, kind: PageKind, d_head: int) -> tuple[NDArray[np.generic], NDArray[np.generic], Floats | None]:
    """K [..., D/t, 64, t], V [..., 64/t, D, t] and, for int8, scales [..., 2, 64] of pages [..., page_bytes]."""
    terms, half = _TERMS[kind], PAGE_TOKENS * d_head * (4 // _TERMS[kind])
    lead = pages.shape[:-1]
    keys = pages[..., :half].view(_CELLS[kind]).reshape(*lead, d_head // terms, PAGE_TOKENS, terms)
    values = pages[..., half : 2 * half].view(_CELLS[kind]).reshape(*lead, PAGE_TOKENS // terms, d_head, terms)
    scales = pages[..., 2 * half :].view(np.float32).reshape(*lead, 2, PAGE_TOKENS) if kind == "int8" else None
    return keys, values, scales
