"""Row-wise operations as plain mathematics, over the array API; numpy float64 is the truth for the kernels.

Shapes: T tokens, H width, S sequences.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from array_api_compat import array_namespace


def layer_norm(x_TH: Any, gain_H: Any, bias_H: Any, eps: float) -> Any:
    """(x - mean) / sqrt(variance + eps) * gain + bias over the last axis."""
    xp = array_namespace(x_TH)
    centred = x_TH - xp.mean(x_TH, axis=-1, keepdims=True)
    variance = xp.mean(centred * centred, axis=-1, keepdims=True)
    return centred / xp.sqrt(variance + eps) * gain_H + bias_H


def rms_norm(x_TH: Any, gain_H: Any, eps: float) -> Any:
    """x / sqrt(mean of squares + eps) * gain over the last axis (arXiv 1910.07467)."""
    xp = array_namespace(x_TH)
    return x_TH / xp.sqrt(xp.mean(x_TH * x_TH, axis=-1, keepdims=True) + eps) * gain_H


def erf(x: Any) -> Any:
    """2 / sqrt(pi) * exp(-x^2) * sum of 2^n x^(2n+1) / (2n+1)!!: all terms of one sign, so nothing cancels."""
    xp = array_namespace(x)
    inner = xp.clip(x, -6.0, 6.0)  # 1 - erf(6) is 2e-17
    term = inner
    total = term
    for n in range(1, 160):
        term = term * (2.0 * inner * inner / (2 * n + 1))
        total = total + term
    return 2.0 / math.sqrt(math.pi) * xp.exp(-inner * inner) * total


def gelu(x: Any) -> Any:
    """x * Phi(x) with the normal distribution's Phi (arXiv 1606.08415), not its tanh approximation."""
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def pool(hidden_TH: Any, cu_seqlens: Any, first_token: bool, normalise: bool) -> Any:
    """Mean or first row of every sequence, divided by its length (at least 1e-12) where asked."""
    xp = array_namespace(hidden_TH)
    rows = []
    for begin, end in pairwise(cu_seqlens):
        part = hidden_TH[int(begin) : int(end), :]
        if part.shape[0] == 0:
            rows.append(xp.zeros_like(hidden_TH[0, :]))
            continue
        row = part[0, :] if first_token else xp.mean(part, axis=0)
        if normalise:
            norm = float(xp.sqrt(xp.sum(row * row)))
            row = row / max(norm, 1e-12)
        rows.append(row)
    return xp.stack(rows)
