"""Attention by the extension; contracts in __init__.py, kernels in csrc/attend.inl."""

from __future__ import annotations

from kogata import _native
from kogata.ops.attend import Floats, Ints


def encode_attention(
    qkv_T3H: Floats, cu_seqlens: Ints, n_heads: int, reduced: bool, out_TH: Floats, lse_Th: Floats | None
) -> None:
    _native.encode_attention(qkv_T3H, cu_seqlens, n_heads, reduced, out_TH, lse_Th)
