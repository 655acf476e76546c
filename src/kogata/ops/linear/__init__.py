"""The quantised linear: packed weights in f32, bf16, int8 or int4, one interface, fused bias, GELU and residual.

Shapes: T tokens, K inputs, N outputs, G groups along K. Activations and results are C-contiguous float32.

Storage kinds: ``f32``; ``bf16`` (products of bf16 by bf16 where the instruction set has them, else the weights are
widened and the activations stay f32); ``int8`` with one scale a row (group 0) or a group of K; ``int4`` with groups.
For int8 and int4 every token's activations are quantised to 8 bits inside: x = scale * (q - zero), q in 0..255, the
range
[min(x, 0), max(x, 0)] of that token; products are exact in int32 (per group where there are groups).

Row contract: a token's result is the same bits whatever the other tokens, T and the number of threads.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from kogata.ops import dispatch
from kogata.ops.linear.packed import CodedWeight, Floats, Kind, PackedLinear

__all__ = ["CodedWeight", "Kind", "PackedLinear", "linear", "pack"]


def pack(weight_NK: Floats | CodedWeight, kind: Kind, group: int = 0, bias_N: Floats | None = None) -> PackedLinear:
    """Packs a matrix of N rows (outputs) and K columns (inputs).

    weight: float32 [N, K] (int8 and int4: rounded to nearest, one symmetric scale a row or group), or integer
    codes
    with scales by group: int4 and int8 keep them as they are when group is their own, int8 with group 0 rounds them
    onto one
    scale a row, f32 and bf16 multiply them out.

    Raises ValueError where kind and group do not fit: groups are for int8 and int4 (which needs one), multiples of 8.
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
    activation: Literal["gelu"] | None = None,
    residual_TN: Floats | None = None,
    out_TN: Floats | None = None,
) -> Floats:
    """activation(x @ weight.T + bias) + residual. GELU is the exact form (not tanh), to 1e-6.

    out must not overlap x; it may be residual. Raises ValueError for shapes, TypeError for types that do not fit.
    """
    out = np.empty((len(x_TK), packed.n_out), np.float32) if out_TN is None else out_TN
    dispatch.table().linear(x_TK, packed, activation == "gelu", residual_TN, out)
    return out
