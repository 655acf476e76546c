"""Linear maps with ternary weights and 8-bit activations, trained through the rounding (BitNet b1.58).

Shapes: K inputs, N outputs, ``...`` any leading dimensions (a token each).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kogata.ops.linear.autograd import eight_bits, ternary_linear

SMALLEST = 1e-5  # the least scale: an all-zero matrix must not divide by zero


def ternary(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix to -1, 0 and 1 times its mean magnitude.

    Returns:
        The codes, in float32, and the scale they are multiplied by (a scalar).
    """
    # The mean in float64, where the order of the sum does not show; its reciprocal, as published checkpoints were made
    # (the quotient can differ from it in the last bit): the run path's loader finds the same codes and scale.
    factor = 1.0 / weight_NK.abs().mean(dtype=torch.float64).float().clamp(min=SMALLEST)
    return (weight_NK.float() * factor).round().clamp(-1, 1), 1.0 / factor


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

    In training the products are torch's: bf16 under autocast (the codes are exact in it, sums are rounded to it at the
    end), else float32. In evaluation they are those of the run path, bit for bit, whose integer sums are exact. Both
    have the same straight-through gradients. Training on the run path's forward would be no faster: the same tokens/s
    with one thread, 4 to 15 % fewer with two.

    Args:
        n_in: Inputs, K.
        n_out: Outputs, N.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))

    def forward(self, x_K: Tensor) -> Tensor:
        if not self.training:
            codes_NK, scale = ternary(self.weight.detach())
            return ternary_linear(x_K, self.weight, codes_NK.to(torch.int8), scale.expand(len(codes_NK), 1))
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        y_N: Tensor = _StraightThrough.apply(x_K, self.weight, dtype)  # type: ignore[no-untyped-call]
        return y_N
