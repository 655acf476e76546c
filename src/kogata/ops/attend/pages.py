"""Causal attention over a cache of pages: prefill chunks and decode rows of several sequences in one call.

A layer's pages are uint8 [P, n_kv_heads, page_bytes], the heads of a page side by side; those of other layers may lie
between them. layout.py says what is in them. Sequence s keeps its positions
64 i to 64 i + 63 in page page_table[s, i]; entries that nothing reads may hold anything. The rows of a step lie side by
side, those of sequence s from cu_rows[s] to cu_rows[s + 1]; a sequence may have none.

Shapes: T rows, N columns, S sequences, M pages of a sequence, P pages, D head width, h query heads. Floats are float32,
integers int32, all but the pages C-contiguous.
"""

from __future__ import annotations

import numpy as np

from kogata.ops import dispatch
from kogata.ops.attend.layout import Bytes, Floats, Ints, PageKind, page_bytes

_ALIGNMENT = 64


def new_pages(n_pages: int, n_layers: int, n_kv_heads: int, kind: PageKind, d_head: int) -> Bytes:
    """Pages of zeros, [n_pages, n_layers, n_kv_heads, page_bytes], aligned to cache lines; memory is taken by use.

    A page's layers lie side by side: with each layer's pages together, a short text would touch as many huge pages of
    the system as there are layers, and waste half of each.
    """
    shape = (n_pages, n_layers, n_kv_heads, page_bytes(kind, d_head))
    n_bytes = int(np.prod(shape, dtype=np.int64))
    memory = np.zeros(n_bytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + n_bytes].reshape(shape)


def rotate_and_write(
    qkv_TN: Floats,
    positions_T: Ints,
    cos_PD2: Floats,
    sin_PD2: Floats,
    pages: Bytes,
    kind: PageKind,
    page_table_SM: Ints,
    cu_rows_S1: Ints,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    q_gain_D: Floats | None = None,
    k_gain_D: Floats | None = None,
    eps: float = 0.0,
) -> None:
    """Rotates the queries in place and writes the rotated keys and the values to their positions' pages.

    A row of qkv is the query heads, the key heads, the value heads, N = (n_heads + 2 * n_kv_heads) * D; keys and values
    in it stay as they are. Where gains are given, every head first goes through x / sqrt(mean x^2 + eps) * gain. The
    rotation is the half-split one by row `position` of cos and sin, [positions, D / 2].
    Raises ValueError for shapes, positions and page ids that do not fit, TypeError for types.
    """
    dispatch.table().rotate_and_write(
        qkv_TN,
        positions_T,
        cos_PD2,
        sin_PD2,
        pages,
        kind,
        page_table_SM,
        cu_rows_S1,
        n_heads,
        n_kv_heads,
        d_head,
        q_gain_D,
        k_gain_D,
        eps,
    )


def attend_pages(
    qkv_TN: Floats,
    pages: Bytes,
    kind: PageKind,
    page_table_SM: Ints,
    cu_rows_S1: Ints,
    lengths_S: Ints,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
    scale: float,
    window: int,
    out_TN: Floats,
    lse_Th: Floats | None = None,
) -> None:
    """softmax(scale * q k^T) v of every query head over its KV head's pages, into out [T, n_heads * D].

    Row i of sequence s stands at position lengths[s] - rows of s + i, and sees the keys up to its own: all of them
    where window is 0, else the last `window`. Its keys must have been written. lse, where given, receives the logarithm
    of each softmax's denominator, with which results over disjoint keys merge.
    Keys and values are finite. f32: products in f32. bf16: queries and weights are rounded to bf16 where the
    instruction set has its dot products. int8: queries are quantised to 8 bits by row and head, weights to 14 bits by
    page.
    Raises ValueError for shapes, lengths and page ids that do not fit, TypeError for types.
    """
    dispatch.table().attend_pages(
        qkv_TN,
        pages,
        kind,
        page_table_SM,
        cu_rows_S1,
        lengths_S,
        n_heads,
        n_kv_heads,
        d_head,
        scale,
        window,
        out_TN,
        lse_Th,
    )


def merge(out_a_TN: Floats, lse_a_Th: Floats, out_b_TN: Floats, lse_b_Th: Floats) -> tuple[Floats, Floats]:
    """One softmax's result from its parts over disjoint keys, [T, h * D] and [T, h]; an empty part is (0, -inf)."""
    out_TN, lse_Th = np.empty_like(out_a_TN), np.empty_like(lse_a_Th)
    dispatch.table().merge(out_a_TN, lse_a_Th, out_b_TN, lse_b_Th, out_TN, lse_Th)
    return out_TN, lse_Th
