"""Attention without the extension: native's signature, the reference over blocks of queries of one sequence at a time.

Shapes: T tokens, H = h * D width, h heads, D head width, L tokens of one sequence, B queries of a block.
"""

from __future__ import annotations

import numpy as np

from kogata.ops.attend import Floats, Ints, reference

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
