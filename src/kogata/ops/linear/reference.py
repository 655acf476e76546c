"""The quantised linear as plain mathematics, over the array API; numpy float64 is the truth for the kernels.

Shapes: T tokens, K inputs, N outputs, G groups along K.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from kogata.ops.elementwise.reference import gelu as exact_gelu


def linear(x_TK: Any, weight_NK: Any, bias_N: Any | None, gelu: bool, residual_TN: Any | None) -> Any:
    """activation(x @ weight.T + bias) + residual."""
    y = x_TK @ weight_NK.T
    if bias_N is not None:
        y = y + bias_N
    if gelu:
        y = exact_gelu(y)
    return y if residual_TN is None else y + residual_TN


def quantise_tokens(x_TK: Any) -> tuple[Any, Any, Any]:
    """(q [T, K] in 0..255, scale [T, 1], zero [T, 1]), x about scale * (q - zero): 8 bits over its range and 0."""
    xp = array_namespace(x_TK)
    low = xp.minimum(xp.min(x_TK, axis=-1, keepdims=True), xp.zeros_like(x_TK[:, :1]))
    high = xp.maximum(xp.max(x_TK, axis=-1, keepdims=True), xp.zeros_like(x_TK[:, :1]))
    scale = (high - low) / 255.0
    inverse = xp.where(scale > 1e-37, 1.0 / xp.where(scale > 1e-37, scale, xp.ones_like(scale)), xp.zeros_like(scale))
    zero = xp.round(-low * inverse)
    return xp.clip(xp.round(x_TK * inverse) + zero, 0.0, 255.0), scale, zero


def quantise_ternary(x_TK: Any) -> tuple[Any, Any]:
    """(q [T, K] in -128..127, scale [T, 1]), x about scale * q: BitNet's rule (arXiv 2402.17764)."""
    xp = array_namespace(x_TK)
    largest = xp.max(xp.abs(x_TK), axis=-1, keepdims=True)
    s = 127.0 / xp.maximum(largest, xp.full_like(largest, 1e-5))
    return xp.clip(xp.round(x_TK * s), -128.0, 127.0), 1.0 / s


def gated(x_T2K: Any, glu: str) -> Any:
    """act(gate) * up of [gate, up]: silu, gelu_tanh or relu2."""
    xp = array_namespace(x_T2K)
    half = x_T2K.shape[-1] // 2
    gate, up = x_T2K[..., :half], x_T2K[..., half:]
    if glu == "relu2":
        return xp.maximum(gate, xp.zeros_like(gate)) ** 2 * up
    inner = gate if glu == "silu" else 2 * (2 / 3.141592653589793) ** 0.5 * (gate + 0.044715 * gate**3)
    return gate / (1 + xp.exp(-xp.clip(inner, -80.0, 80.0))) * up


def quantise_weight(weight_NK: Any, group: int, most: int) -> tuple[Any, Any]:
    """(codes [N, K] in -most..most, scales [N, G]), symmetric, to nearest; group 0 is the whole row."""
    xp = array_namespace(weight_NK)
    n, k = weight_NK.shape
    grouped = xp.reshape(weight_NK, (n, -1, group or k))
    scales = xp.max(xp.abs(grouped), axis=-1, keepdims=True) / most
    codes = xp.round(grouped / xp.where(scales > 0, scales, xp.ones_like(scales)))
    return xp.reshape(codes, (n, k)), scales[:, :, 0]
