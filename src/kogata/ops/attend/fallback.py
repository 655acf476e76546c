"""Attention without the extension: native's signatures, the reference over blocks of queries of one sequence at a time.

Over pages the arithmetic is float32 on what the pages hold, for every kind.
Shapes: T tokens or rows, H = h * D width, h heads, g KV heads, D head width, L keys, B queries of a block; the rest as
in encode.py and pages.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kogata.ops.attend import reference
from kogata.ops.attend.layout import PAGE_TOKENS, Bytes, Floats, Ints, PageKind, page_bytes, views
from kogata.ops.linear.fallback import round_bf16

_QUERIES = 256


def encode_attention(
    qkv_T3H: Floats, cu_seqlens: Ints, n_heads: int, reduced: bool, out_TH: Floats, lse_Th: Floats | None
) -> None:
    n_tokens, width = out_TH.shape
    if width % n_heads or qkv_T3H.shape != (n_tokens, 3 * width):
        raise ValueError("qkv must be [T, 3 * H] and out [T, H], H a multiple of n_heads")
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != n_tokens or (np.diff(cu_seqlens) < 0).any():
        raise ValueError("cu_seqlens must rise from 0 to the number of tokens")
    for begin, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        qkv = qkv_T3H[begin:end].reshape(end - begin, 3, n_heads, width // n_heads).transpose(1, 2, 0, 3)
        for first in range(0, end - begin, _QUERIES):
            out_hBD, lse_hB = reference.attention(qkv[0][:, first : first + _QUERIES], qkv[1], qkv[2])
            rows = slice(begin + first, begin + first + out_hBD.shape[1])
            out_TH[rows] = out_hBD.transpose(1, 0, 2).reshape(-1, width)
            if lse_Th is not None:
                lse_Th[rows] = lse_hB.T


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
    _check(qkv_TN, pages, kind, page_table_SM, cu_rows_S1, n_heads, n_kv_heads, d_head)
    n_rows = len(qkv_TN)
    if positions_T.shape != (n_rows,):
        raise ValueError("positions must be [T]")
    if cos_PD2.shape[1:] != (d_head // 2,) or sin_PD2.shape != cos_PD2.shape:
        raise ValueError("cos and sin must be [positions, d_head / 2]")
    if any(gain is not None and gain.shape != (d_head,) for gain in (q_gain_D, k_gain_D)):
        raise ValueError("q_gain and k_gain must be [d_head]")
    if not 0 <= eps < np.inf:
        raise ValueError("eps must not be negative")
    if ((positions_T < 0) | (positions_T >= len(cos_PD2))).any():
        raise ValueError("a position is outside cos and sin")
    if (positions_T >= PAGE_TOKENS * page_table_SM.shape[1]).any():
        raise ValueError("a position is outside page_table")
    sequence_T = np.repeat(np.arange(len(page_table_SM)), np.diff(cu_rows_S1))
    pages_T = page_table_SM[sequence_T, positions_T // PAGE_TOKENS]
    _check_ids(pages_T, pages)

    heads_ThD = qkv_TN.reshape(n_rows, n_heads + 2 * n_kv_heads, d_head)
    q, k, v = heads_ThD[:, :n_heads], heads_ThD[:, n_heads:-n_kv_heads], heads_ThD[:, -n_kv_heads:]
    cos, sin = cos_PD2[positions_T, None], sin_PD2[positions_T, None]
    if q_gain_D is not None:
        q[:] = reference.rms_norm(q, q_gain_D, eps)
    if k_gain_D is not None:
        k = reference.rms_norm(k, k_gain_D, eps)
    q[:] = reference.rotate(q, cos, sin)
    k = reference.rotate(k, cos, sin)

    keys, values, scales = views(pages, kind, d_head)
    slots_T = positions_T % PAGE_TOKENS
    terms = keys.shape[-1]
    k_codes, v_codes = _coded(k, kind), _coded(v, kind)
    keys[pages_T, :, :, slots_T] = k_codes.reshape(n_rows, n_kv_heads, d_head // terms, terms)
    values[pages_T, :, slots_T // terms, :, slots_T % terms] = v_codes
    if scales is not None:
        scales[pages_T, :, 0, slots_T], scales[pages_T, :, 1, slots_T] = _scale(k), _scale(v)


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
    _check(qkv_TN, pages, kind, page_table_SM, cu_rows_S1, n_heads, n_kv_heads, d_head)
    n_rows = len(qkv_TN)
    if lengths_S.shape != (len(page_table_SM),):
        raise ValueError("lengths must be [S]")
    if out_TN.shape != (n_rows, n_heads * d_head):
        raise ValueError("out must be [T, n_heads * d_head]")
    if lse_Th is not None and lse_Th.shape != (n_rows, n_heads):
        raise ValueError("lse must be [T, n_heads]")
    if window < 0:
        raise ValueError("window must be 0 (all keys) or a number of keys")
    if not np.isfinite(scale):
        raise ValueError("scale must be finite")

    heads_ThD = qkv_TN.reshape(n_rows, n_heads + 2 * n_kv_heads, d_head)
    group = n_heads // n_kv_heads
    for s, (begin, end) in enumerate(zip(cu_rows_S1[:-1].tolist(), cu_rows_S1[1:].tolist(), strict=True)):
        if begin == end:
            continue
        length = int(lengths_S[s])
        first = length - (end - begin)
        if first < 0:
            raise ValueError("a sequence has more rows than its length")
        if length > PAGE_TOKENS * page_table_SM.shape[1]:
            raise ValueError("a length is outside page_table")
        oldest = max(0, first - window + 1) // PAGE_TOKENS if window else 0
        ids = page_table_SM[s, oldest : (length - 1) // PAGE_TOKENS + 1]
        _check_ids(ids, pages)
        k_gLD, v_gLD = _gather(pages, ids, kind, d_head, length - oldest * PAGE_TOKENS)
        places_L = np.arange(oldest * PAGE_TOKENS, length)
        for block in range(begin, end, _QUERIES):
            rows = slice(block, min(end, block + _QUERIES))
            own_B1 = np.arange(first + rows.start - begin, first + rows.stop - begin)[:, None]
            seen_BL = places_L <= own_B1
            if window:
                seen_BL &= places_L > own_B1 - window
            q_BhD = heads_ThD[rows, :n_heads]
            q_ghBD = q_BhD.reshape(-1, n_kv_heads, group, d_head).transpose(1, 2, 0, 3)
            out, lse = reference.attention(q_ghBD, k_gLD[:, None], v_gLD[:, None], scale, seen_BL)
            out_TN[rows] = out.transpose(2, 0, 1, 3).reshape(-1, n_heads * d_head)
            if lse_Th is not None:
                lse_Th[rows] = lse.transpose(2, 0, 1).reshape(-1, n_heads)


def merge(
    out_a_TN: Floats, lse_a_Th: Floats, out_b_TN: Floats, lse_b_Th: Floats, out_TN: Floats, lse_Th: Floats
) -> None:
    n_rows, n_heads = lse_Th.shape
    if not n_heads or out_TN.shape[1] % n_heads:
        raise ValueError("out's width must be a multiple of the number of heads")
    if {out_a_TN.shape, out_b_TN.shape} != {out_TN.shape} or len(out_TN) != n_rows:
        raise ValueError("out_a, out_b and out must have one shape")
    if {lse_a_Th.shape, lse_b_Th.shape} != {lse_Th.shape}:
        raise ValueError("lse_a, lse_b and lse must have one shape")
    heads = (n_rows, n_heads, out_TN.shape[1] // n_heads)
    out, lse_Th[:] = reference.merge(out_a_TN.reshape(heads), lse_a_Th, out_b_TN.reshape(heads), lse_b_Th)
    out_TN[:] = out.reshape(out_TN.shape)


def _check(
    qkv_TN: Floats,
    pages: Bytes,
    kind: PageKind,
    page_table_SM: Ints,
    cu_rows_S1: Ints,
    n_heads: int,
    n_kv_heads: int,
    d_head: int,
) -> None:
    bytes_of_page = page_bytes(kind, d_head)
    if n_kv_heads < 1 or n_heads < n_kv_heads or n_heads % n_kv_heads:
        raise ValueError("n_heads must be a multiple of n_kv_heads")
    if qkv_TN.shape[1] != (n_heads + 2 * n_kv_heads) * d_head:
        raise ValueError("qkv must be [T, (n_heads + 2 * n_kv_heads) * d_head]")
    if pages.shape[1:] != (n_kv_heads, bytes_of_page):
        raise ValueError("pages must be [P, n_kv_heads, page_bytes(kind, d_head)]")
    if len(pages) and not pages[0].flags.c_contiguous:
        raise ValueError("the heads of a page must lie side by side")
    if cu_rows_S1.shape != (len(page_table_SM) + 1,):
        raise ValueError("cu_rows must be [S + 1] where page_table is [S, M]")
    if cu_rows_S1[0] != 0 or cu_rows_S1[-1] != len(qkv_TN):
        raise ValueError("cu_rows must run from 0 to the number of rows")
    if (np.diff(cu_rows_S1) < 0).any():
        raise ValueError("cu_rows must not fall")


def _check_ids(ids: Ints, pages: Bytes) -> None:
    if ((ids < 0) | (ids >= len(pages))).any():
        raise ValueError("page_table names a page that does not exist")


def _scale(x_D: Floats) -> Floats:
    """Of int8 codes, over the last dimension."""
    scale: Floats = np.abs(x_D).max(axis=-1) / np.float32(127)
    return scale


def _coded(x_D: Floats, kind: PageKind) -> NDArray[np.generic]:
    """What a page of this kind stores of x."""
    if kind == "f32":
        return x_D
    if kind == "bf16":
        return round_bf16(x_D)
    scale = _scale(x_D)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 1e-37)
    return np.rint(x_D * inverse[..., None]).astype(np.int8)


def _gather(pages: Bytes, ids: Ints, kind: PageKind, d_head: int, n_keys: int) -> tuple[Floats, Floats]:
    """The first n_keys keys and values of these pages in float32, [g, L, D] each."""
    keys, values, scales = views(pages[ids], kind, d_head)
    if kind == "bf16":
        keys, values = ((cells.astype(np.uint32) << 16).view(np.float32) for cells in (keys, values))
    n_pages, n_heads = keys.shape[:2]
    k = keys.astype(np.float32).transpose(1, 0, 3, 2, 4).reshape(n_heads, -1, d_head)
    v = values.astype(np.float32).transpose(1, 0, 2, 4, 3).reshape(n_heads, -1, d_head)
    if scales is not None:
        by_token = scales.transpose(2, 1, 0, 3).reshape(2, n_heads, n_pages * PAGE_TOKENS)
        k, v = k * by_token[0, :, :, None], v * by_token[1, :, :, None]
    return k[:, :n_keys], v[:, :n_keys]
