"""Attention by the extension; contracts in encode.py and pages.py, kernels in csrc/attend.inl and csrc/pages.inl."""

from __future__ import annotations

from kogata import _native
from kogata.ops.attend.layout import Bytes, Floats, Ints, PageKind


def encode_attention(
    qkv_T3H: Floats, cu_seqlens: Ints, n_heads: int, reduced: bool, out_TH: Floats, lse_Th: Floats | None
) -> None:
    _native.encode_attention(qkv_T3H, cu_seqlens, n_heads, reduced, out_TH, lse_Th)


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
    q_gain_D: Floats | None,
    k_gain_D: Floats | None,
    eps: float,
) -> None:
    _native.rotate_and_write(
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
    lse_Th: Floats | None,
) -> None:
    _native.attend_pages(
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


def merge(
    out_a_TN: Floats, lse_a_Th: Floats, out_b_TN: Floats, lse_b_Th: Floats, out_TN: Floats, lse_Th: Floats
) -> None:
    _native.merge(out_a_TN, lse_a_Th, out_b_TN, lse_b_Th, out_TN, lse_Th)
