"""Attention as plain mathematics, over the array API: numpy float64 is the truth the kernels are tested against.

Shapes: Q queries, L keys, D head width, … any leading dimensions that broadcast (heads, groups of them).
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace


def attention(q_QD: Any, k_LD: Any, v_LD: Any, scale: float | None = None, seen_QL: Any = None) -> tuple[Any, Any]:
    """softmax(scale * q k^T) v and the logarithm of the softmax's denominator: ([..., Q, D], [..., Q]).

    scale is 1 / sqrt(D) where it is not given. `seen_QL` says which keys a query sees; each sees at least one.
    """
    xp = array_namespace(q_QD)
    scores_QL = q_QD @ xp.matrix_transpose(k_LD) * (1 / math.sqrt(q_QD.shape[-1]) if scale is None else scale)
    if seen_QL is not None:
        scores_QL = xp.where(seen_QL, scores_QL, xp.asarray(-math.inf, dtype=scores_QL.dtype))
    largest = xp.max(scores_QL, axis=-1, keepdims=True)
    weights_QL = xp.exp(scores_QL - largest)
    total = xp.sum(weights_QL, axis=-1, keepdims=True)
    return weights_QL @ v_LD / total, xp.squeeze(largest + xp.log(total), axis=-1)


def rms_norm(x_D: Any, gain_D: Any, eps: float) -> Any:
    """x / sqrt(mean x^2 + eps) * gain, over the last dimension."""
    xp = array_namespace(x_D)
    return x_D / xp.sqrt(xp.mean(x_D * x_D, axis=-1, keepdims=True) + eps) * gain_D


def rotate(x_D: Any, cos_D2: Any, sin_D2: Any) -> Any:
    """Half-split rotary embedding: dimension i and i + D / 2 turn by the angle i of their position."""
    xp = array_namespace(x_D)
    half = x_D.shape[-1] // 2
    first, second = x_D[..., :half], x_D[..., half:]
    return xp.concat([first * cos_D2 - second * sin_D2, first * sin_D2 + second * cos_D2], axis=-1)


def merge(out_a_D: Any, lse_a: Any, out_b_D: Any, lse_b: Any) -> tuple[Any, Any]:
    """One softmax's (out, lse) from two over disjoint keys; an empty part is (0, -inf)."""
    xp = array_namespace(out_a_D)
    largest = xp.maximum(lse_a, lse_b)
    base = xp.where(largest == -math.inf, xp.zeros_like(largest), largest)
    share_a, share_b = xp.exp(lse_a - base), xp.exp(lse_b - base)
    total = share_a + share_b
    divisor = xp.where(total == 0, xp.ones_like(total), total)
    out_D = (out_a_D * share_a[..., None] + out_b_D * share_b[..., None]) / divisor[..., None]
    return out_D, xp.where(total == 0, largest, base + xp.log(divisor))
