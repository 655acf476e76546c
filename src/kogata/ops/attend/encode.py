"""Bidirectional attention over packed sequences of different lengths: no padding is computed.

Shapes: T tokens of all sequences packed, H = n_heads * D width, D head width, S sequences. float32, C-contiguous.
"""

from __future__ import annotations

from typing import Literal, overload

import numpy as np

from kogata.ops import dispatch
from kogata.ops.attend.layout import Floats, Ints


@overload
def encode_attention(
    qkv_T3H: Floats,
    cu_seqlens: Ints,
    n_heads: int,
    *,
    reduced: bool = ...,
    with_lse: Literal[False] = ...,
    out_TH: Floats | None = ...,
) -> Floats: ...
@overload
def encode_attention(
    qkv_T3H: Floats,
    cu_seqlens: Ints,
    n_heads: int,
    *,
    reduced: bool = ...,
    with_lse: Literal[True],
    out_TH: Floats | None = ...,
) -> tuple[Floats, Floats]: ...
def encode_attention(
    qkv_T3H: Floats,
    cu_seqlens: Ints,
    n_heads: int,
    *,
    reduced: bool = False,
    with_lse: bool = False,
    out_TH: Floats | None = None,
) -> Floats | tuple[Floats, Floats]:
    """softmax(q k^T / sqrt(D)) v of every head, each token over all tokens of its own sequence.

    Rows of qkv are q, k, v side by side, heads side by side inside; cu_seqlens int32 [S + 1] runs from 0 to T.
    `reduced` allows bf16 products where the instruction set has them. With `with_lse` also the log of each softmax's
    denominator,
    [T, n_heads], with which results over disjoint keys merge. A token's result depends on its sequence alone.
    Raises ValueError for shapes, TypeError for types that do not fit.
    """
    n_tokens, width = len(qkv_T3H), qkv_T3H.shape[1] // 3
    out = np.empty((n_tokens, width), np.float32) if out_TH is None else out_TH
    lse = np.empty((n_tokens, n_heads), np.float32) if with_lse else None
    dispatch.table().encode_attention(qkv_T3H, cu_seqlens, n_heads, reduced, out, lse)
    return out if lse is None else (out, lse)
