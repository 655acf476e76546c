"""Linear maps with ternary weights and 8-bit activations, trained through the rounding (BitNet b1.58).

Shapes: K inputs, N outputs, ``...`` any leading dimensions (a token each).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 1e-5  # the least scale: an all-zero row or matrix must not divide by zero


def ternary(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to -1, 0 and 1 times its mean magnitude.

    Returns:
        The codes, in float32, and the scale they are multiplied by (a scalar).
    """
    scale = weight_NK.float().abs().mean().clamp(min=SMALLEST)
    # By the reciprocal, as published checkpoints were made: the quotient can differ from it in the last bit.
    return (weight_NK.float() * (1.0 / scale)).round().clamp(-1, 1), scale


def eight_bits(x_K: Tensor) -> tuple[Tensor, Tensor]:
    """Round each token's activations to 8 bits, symmetrically, half to even.

    Returns:
        The codes [..., K] in -128..127, in float32, and each token's factor [..., 1] they are divided by.
    """
    factor_1 = 127.0 / x_K.float().abs().amax(-1, keepdim=True).clamp(min=SMALLEST)
    return (x_K.float() * factor_1).round().clamp(-128, 127), factor_1


class _StraightThrough(torch.autograd.Function):
    """``y = xq @ Wq.T`` where both gradients pass the rounding as if it were not there.

    With xq and Wq the rounded values: ``dx = dy @ Wq`` and ``dW = dy.T @ xq``. The matrices that are multiplied hold
    the integer codes, which bf16 holds exactly; scales are applied outside.
    """

    @staticmethod
    def forward(ctx: Any, x_K: Tensor, weight_NK: Tensor, dtype: torch.dtype) -> Tensor:
        codes_NK, scale = ternary(weight_NK)
        codes_K, factor_1 = eight_bits(x_K)
        codes_NK, codes_K = codes_NK.to(dtype), codes_K.to(dtype)
        ctx.save_for_backward(codes_K, factor_1, codes_NK, scale)
        ctx.x_dtype = x_K.dtype
        return F.linear(codes_K, codes_NK) * (scale / factor_1).to(dtype)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor, Tensor, None]:
        codes_K, factor_1, codes_NK, scale = ctx.saved_tensors
        dy_N = dys[0].to(codes_NK.dtype)
        dx_K = (dy_N @ codes_NK) * scale.to(dy_N.dtype)
        dy_TN = (dy_N / factor_1.to(dy_N.dtype)).flatten(0, -2)
        dweight_NK = dy_TN.T @ codes_K.flatten(0, -2)
        return dx_K.to(ctx.x_dtype), dweight_NK.float(), None


class BitLinear(nn.Module):
    """A linear map without bias: ``weight`` is the float32 master copy, rounded to ternary in every forward.

    Under autocast the products are bf16 (the codes are exact in it, sums are rounded to it at the end), else float32.

    Args:
        n_in: Inputs, K.
        n_out: Outputs, N.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))

    def forward(self, x_K: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        y_N: Tensor = _StraightThrough.apply(x_K, self.weight, dtype)  # type: ignore[no-untyped-call]
        return y_N
