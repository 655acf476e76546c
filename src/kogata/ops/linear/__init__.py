"""The quantised linear: packed weights of six kinds, one interface; fused before it a gated unit and an RMS norm, after
it bias, GELU and residual.

Shapes: T tokens, K inputs, N outputs, G groups along K. Activations and results are C-contiguous float32.

Storage kinds: ``f32``; ``bf16`` (products of bf16 by bf16 where the instruction set has them, else the weights are
widened and the activations stay f32); ``int8`` with one scale a row (group 0) or a group of K; ``int4`` with groups;
``ternary`` (-1, 0 and 1 at two bits) and ``trits`` (five of them to a byte) with one scale a row or with groups.
For int8 and int4 every token's activations are quantised to 8 bits inside: x = scale * (q - zero), q in 0..255, the
range [min(x, 0), max(x, 0)] of that token. For ternary and trits by BitNet's rule (arXiv 2402.17764), as its published
models have it: s = 127 / max(max |x|, 1e-5), q = rint(x s) within -128..127. Products are exact in int32 (per group
where there are groups), so both ternary kinds give the same bits.

Row contract: a token's result is the same bits whatever the other tokens, T and the number of threads.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kogata.ops import dispatch
from kogata.ops.linear.packed import CodedWeight, Floats, Glu, Kind, PackedLinear
from kogata.ops.linear.packed import sizes as packed_sizes

__all__ = ["CodedWeight", "Glu", "Kind", "PackedLinear", "linear", "pack", "packed_sizes", "take"]


def pack(weight_NK: Floats | CodedWeight, kind: Kind, group: int = 0, bias_N: Floats | None = None) -> PackedLinear:
    """Packs a matrix of N rows (outputs) and K columns (inputs).

    weight: float32 [N, K] (int8 and int4: rounded to nearest, one symmetric scale a row or group), or integer codes
    with scales by group: int4 and int8 keep them as they are when group is their own, int8 with group 0 rounds them
    onto one scale a row, f32 and bf16 multiply them out. ternary and trits take codes only, -1, 0 and 1.

    Raises ValueError where kind and group do not fit: groups are for int8, int4 (which needs one), ternary and trits,
    in multiples of 8, 8, 16 and 20.
    """
    if isinstance(weight_NK, np.ndarray):
        weight_NK = np.ascontiguousarray(weight_NK, np.float32)
    bias = None if bias_N is None else np.ascontiguousarray(bias_N, np.float32)
    packed: PackedLinear = dispatch.table().pack(weight_NK, kind, group, bias)
    return packed


def linear(
    x_TK: Floats,
    packed: PackedLinear,
    *,
    glu: Glu | None = None,
    norm: tuple[Floats, float] | None = None,
    activation: Literal["gelu"] | None = None,
    residual_TN: Floats | None = None,
    out_TN: Floats | None = None,
) -> Floats:
    """activation(norm(glu(x)) @ weight.T + bias) + residual.

    glu: x is [T, 2K], a gate and what it multiplies: act(gate) * up with silu, GELU's tanh form, or the square of ReLU.
    norm: (gain [K], eps) of an RMS norm: x / sqrt(mean of x^2 + eps) * gain.
    activation: GELU in its exact form (not tanh), to 1e-6.
    out must not overlap x; it may be residual. Raises ValueError for shapes, TypeError for types that do not fit.
    """
    out = np.empty((len(x_TK), packed.n_out), np.float32) if out_TN is None else out_TN
    dispatch.table().linear(x_TK, packed, glu, norm, activation == "gelu", residual_TN, out)
    return out


def take(packed: PackedLinear, rows_R: NDArray[np.int32], *, factor: float = 1.0) -> Floats:
    """float32 [R, K]: chosen rows of the matrix, multiplied out, then by a factor: the embeddings of tokens.

    Raises ValueError for a row that is not there, TypeError for types that do not fit.
    """
    out = np.empty((len(rows_R), packed.n_in), np.float32)
    dispatch.table().take(packed, rows_R, factor, out)
    return out
