"""Attention as plain mathematics, over the array API: numpy float64 is the truth the kernels are tested against.

Shapes: L tokens of one sequence, h heads, D head width.
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace


def attention(q_hLD: Any, k_hLD: Any, v_hLD: Any) -> tuple[Any, Any]:
    """softmax(q k^T / sqrt(D)) v and the logarithm of the softmax's denominator: ([h, L, D], [h, L])."""
    xp = array_namespace(q_hLD)
    scores_hLL = q_hLD @ xp.matrix_transpose(k_hLD) / math.sqrt(q_hLD.shape[-1])
    largest = xp.max(scores_hLL, axis=-1, keepdims=True)
    weights_hLL = xp.exp(scores_hLL - largest)
    total = xp.sum(weights_hLL, axis=-1, keepdims=True)
    return weights_hLL @ v_hLD / total, xp.squeeze(largest + xp.log(total), axis=-1)
