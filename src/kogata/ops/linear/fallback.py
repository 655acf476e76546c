"""The quantised linear without the extension: native's signatures, the same packed bytes, numpy's matrix product.

Shapes: T tokens, K inputs, N outputs, G groups along K.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kogata.ops.elementwise import reference as elementwise
from kogata.ops.linear import reference
from kogata.ops.linear.packed import (
    PANEL,
    STEP,
    TERNARY,
    CodedWeight,
    Floats,
    Glu,
    Kind,
    PackedLinear,
    check,
    padded_shape,
)


def pack(weight_NK: Floats | CodedWeight, kind: Kind, group: int, bias_N: Floats | None) -> PackedLinear:
    n, k = weight_NK.shape
    check(kind, n, k, group)
    rows, depth = padded_shape(kind, n, k, group)
    scales = sums = np.empty(0, np.float32)
    code_sums = np.empty(0, np.int32)
    if kind in ("int8", "int4", *TERNARY):
        codes_NK, scales_NG = coded(weight_NK, kind, group)
        padded = np.zeros((rows, depth), np.int8)
        padded[:n, :k] = codes_NK
        groups = scales_NG.shape[1]
        padded_scales = np.zeros((rows, groups), np.float32)
        padded_scales[:n] = scales_NG
        scales = padded_scales.reshape(-1, PANEL, groups).transpose(0, 2, 1).ravel()
        per_group = padded.reshape(rows, groups, -1).sum(axis=-1, dtype=np.int32)
        if kind in TERNARY:
            pass
        elif group:
            sums = (per_group * padded_scales).sum(axis=-1, dtype=np.float32)
        else:
            code_sums = per_group[:, 0]
        values: NDArray[np.generic] = padded
    else:
        values = np.zeros((rows, depth), np.float32)
        values[:n, :k] = weight_NK if isinstance(weight_NK, np.ndarray) else multiplied_out(weight_NK)
        if kind == "bf16":
            values = round_bf16(values.astype(np.float32, copy=False))
    step = STEP[kind]
    tiles = values.reshape(rows // PANEL, PANEL, depth // step, step).transpose(0, 2, 1, 3)
    if kind == "int4":
        nibbles = (tiles + 8).astype(np.uint8)
        tiles = nibbles[..., :4] | nibbles[..., 4:] << 4
    elif kind in TERNARY:
        digits = (tiles + 1).astype(np.uint8)
        base = 4 if kind == "ternary" else 3
        parts = [digits[..., 4 * s : 4 * s + 4] * np.uint8(base**s) for s in range(step // 4)]
        tiles = np.sum(parts, axis=0, dtype=np.uint8)
    data = np.ascontiguousarray(tiles).view(np.uint8).ravel()
    return PackedLinear(kind, n, k, group, data, scales, sums, code_sums, bias_N)


def coded(weight_NK: Floats | CodedWeight, kind: Kind, group: int) -> tuple[NDArray[np.int8], Floats]:
    """Codes [N, K] and scales [N, G]."""
    most = 127 if kind == "int8" else 7
    k = weight_NK.shape[1]
    if kind in TERNARY:
        if isinstance(weight_NK, np.ndarray):
            raise ValueError("ternary weights are packed from codes")
        if np.abs(weight_NK.codes_i8()).max(initial=0) > 1:
            raise ValueError("ternary codes are -1, 0 and 1")
    if isinstance(weight_NK, np.ndarray):
        short = -k % group if group else 0
        codes, scales = reference.quantise_weight(np.pad(weight_NK, ((0, 0), (0, short))), group, most)
        return codes[:, :k].astype(np.int8), scales.astype(np.float32)
    if group or kind in TERNARY:
        if weight_NK.scales_NG.shape[1] * (group or k) != k:
            raise ValueError("the group must be the codes' own")
        return weight_NK.codes_i8(), weight_NK.scales_NG
    codes, scales = reference.quantise_weight(multiplied_out(weight_NK), 0, most)
    return codes.astype(np.int8), scales.astype(np.float32)


def multiplied_out(weight: CodedWeight) -> Floats:
    """float32 [N, K]."""
    scales = weight.scales_NG
    codes = weight.codes_i8()
    dense: Floats = (codes.reshape(len(codes), scales.shape[1], -1) * scales[:, :, None]).reshape(codes.shape)
    return dense


def round_bf16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bf16 (ties to even) as uint16."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


# gelu(x) = x * Phi(x) by the rational fit of csrc/math.inl: numpy has no erf.
_P = (4.4425859679e-8, 1.30609600750e-5, 3.65736946422e-4, 9.52335863112e-3, 7.02873738317e-2, 7.97883972413e-1)
_Q = (1.195290035e-6, 7.86117445386e-5, 1.96249697585e-3, 2.93994164625e-2, 2.54755750301e-1, 1.0)


def gelu(x: Floats) -> Floats:
    """The exact form of GELU, to 1e-6."""
    inner = np.clip(x, np.float32(-5.5), np.float32(5.5))
    u = inner * inner
    p, q = np.full_like(u, _P[0]), np.full_like(u, _Q[0])
    for a, b in zip(_P[1:], _Q[1:], strict=True):
        p = p * u + np.float32(a)
        q = q * u + np.float32(b)
    half = np.float32(0.5) * np.maximum(x, np.float32(-5.5))
    return np.asarray(half * (inner * p / q) + half, np.float32)


def linear(
    x_TK: Floats, packed: PackedLinear, glu: Glu | None, norm: tuple[Floats, float] | None, gelu_after: bool,
    residual_TN: Floats | None, out_TN: Floats,
) -> None:  # fmt: skip
    if x_TK.ndim != 2 or x_TK.shape[1] != packed.n_in * (1 if glu is None else 2):
        raise ValueError("x is not as wide as the packed weights")
    x = x_TK if glu is None else reference.gated(x_TK, glu)
    if norm is not None:
        if norm[0].shape != (packed.n_in,):
            raise ValueError("the norm's gain must be as wide as its input")
        x = elementwise.rms_norm(x, norm[0], norm[1])
    if packed.integers and len(x):
        q, scale, zero = reference.quantise_tokens(x)
        x = (q - zero) * scale
    elif packed.ternary and len(x):
        q, scale = reference.quantise_ternary(x)
        x = q * scale
    y = reference.linear(x, packed.dense_NK, packed.bias_N, False, None)
    if gelu_after:
        y = gelu(y)
    out_TN[...] = y if residual_TN is None else y + residual_TN


def take(packed: PackedLinear, rows_R: NDArray[np.int32], factor: float, out_RK: Floats) -> None:
    if out_RK.shape != (len(rows_R), packed.n_in):
        raise ValueError("out must be [R, K]")
    if len(rows_R) and not 0 <= rows_R.min() <= rows_R.max() < packed.n_out:
        raise ValueError("a row is outside the matrix")
    np.multiply(packed.rows(rows_R), np.float32(factor), out=out_RK)
