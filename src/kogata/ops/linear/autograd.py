"""The ternary linear for torch: the run path's kernels forward, straight-through backward.

With ``xq`` the activations by BitNet's rule (per token, 8 bits; arXiv 2402.17764) and ``Wq`` the weights' codes times
their scales, ``y = xq @ Wq.T``. The straight-through rule: gradients pass both roundings as if these were not there,
clipping and the largest or mean magnitude they take included. So::

    dx = dy @ Wq        dW = dy.T @ xq

and ``dW`` goes to the master weights that were rounded. Both follow from autograd when a rounding ``q`` is written
``x + (q(x) - x).detach()``.

Tensors are seen as numpy arrays without a copy; bf16 activations are widened before, and the result rounded after, in
torch. The kernels run on the calling thread and Kogata's own pool: a process that trains gives torch its cores and the
pool the calling thread alone, ``kogata.ops.dispatch.set_threads(1)``.

Shapes: T tokens, K inputs, N outputs, G groups along K, ``...`` any leading dimensions (a token each).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kogata.ops.linear import linear, pack

__all__ = ["eight_bits", "product", "ternary_linear"]


def ternary_linear(x_K: Tensor, weight_NK: Tensor, codes_NK: Tensor, scales_NG: Tensor) -> Tensor:
    """``xq @ Wq.T``, the same bits as the run path; its gradients are straight-through.

    Args:
        x_K: Activations [..., K]. In bf16, the result and the backward's products are too.
        weight_NK: The float32 master weights. Only the gradient needs them.
        codes_NK: What they were rounded to: int8, -1, 0 and 1.
        scales_NG: What the codes are multiplied by: float32, one a row (G = 1) or a group of K / G columns.

    Returns:
        [..., N], of x's type.

    Raises:
        ValueError: A code is another number, or a group is no multiple of 16.
    """
    y_TN: Tensor = _ternary(x_K.reshape(-1, x_K.shape[-1]), weight_NK, codes_NK, scales_NG)
    return y_TN.reshape(*x_K.shape[:-1], codes_NK.shape[0])


def eight_bits(x_K: Tensor) -> tuple[Tensor, Tensor]:
    """Round each token's activations to 8 bits, symmetrically, half to even: the kernels' codes, bit for bit.

    Returns:
        The codes [..., K] in -128..127, in float32, and each token's factor [..., 1] they are divided by.
    """
    x_K = x_K.float()
    largest_1 = x_K.abs().amax(-1, keepdim=True).clamp(min=1e-5)
    factor_1 = torch.full_like(largest_1, 127.0) / largest_1  # 127.0 / y is 127 * (1 / y) in torch, rounded twice
    return (x_K * factor_1).round().clamp(-128, 127), factor_1


@dataclass(frozen=True)
class _Codes:
    codes_NK: NDArray[np.int8]
    scales_NG: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        n, k = self.codes_NK.shape
        return n, k

    def codes_i8(self) -> NDArray[np.int8]:
        return self.codes_NK


@torch.library.custom_op("kogata::ternary_linear", mutates_args=(), device_types="cpu")
def _ternary(x_TK: Tensor, weight_NK: Tensor, codes_NK: Tensor, scales_NG: Tensor) -> Tensor:
    groups, k = scales_NG.shape[1], codes_NK.shape[1]
    weight = _Codes(_array(codes_NK), _array(scales_NG))
    # Packed anew in every call, which costs what a few rows do: weights in training are others the next time.
    packed = pack(weight, "ternary", 0 if groups == 1 else k // groups)
    return torch.from_numpy(linear(_array(x_TK.float()), packed)).to(x_TK.dtype)


@_ternary.register_fake
def _(x_TK: Tensor, weight_NK: Tensor, codes_NK: Tensor, scales_NG: Tensor) -> Tensor:
    return x_TK.new_empty((x_TK.shape[0], codes_NK.shape[0]))


def _ternary_saves(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    x_TK, _, codes_NK, scales_NG = inputs
    ctx.save_for_backward(x_TK, codes_NK, scales_NG)


def _ternary_backward(ctx: Any, dy_TN: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    x_TK, codes_NK, scales_NG = ctx.saved_tensors
    dtype = x_TK.dtype
    dx_TK = dweight_NK = None
    if ctx.needs_input_grad[0]:
        groups = codes_NK.unflatten(1, (scales_NG.shape[1], -1)) * scales_NG[:, :, None]
        weight_NK = groups.flatten(1).to(dtype)
        # Zen 5, one thread, 256 x 768 to 2560 x 2560: float32 by our kernel 190 to 240 GFLOP/s, packing included, by
        # torch.matmul 103 to 113; bf16 230 to 440 and 390 to 450.
        dx_TK = product(dy_TN, weight_NK) if dtype == torch.float32 else dy_TN @ weight_NK
    if ctx.needs_input_grad[1]:
        codes_TK, factor_T1 = eight_bits(x_TK)
        # torch.matmul: for our kernels the activations would have to be packed too. 91 to 155 GFLOP/s in float32, where
        # torch has 105 to 115, and 92 to 176 in bf16, where it has about 400.
        dweight_NK = ((dy_TN / factor_T1).to(dtype).T @ codes_TK.to(dtype)).float()
    return dx_TK, dweight_NK, None, None


_ternary.register_autograd(_ternary_backward, setup_context=_ternary_saves)


@torch.library.custom_op("kogata::product", mutates_args=(), device_types="cpu")
def product(a_TN: Tensor, b_NK: Tensor) -> Tensor:
    """``a @ b`` in float32, float32 [T, K], where b is a layer's weights: it is packed anew in every call."""
    return torch.from_numpy(linear(_array(a_TN), pack(_array(b_NK.T), "f32")))


@product.register_fake
def _(a_TN: Tensor, b_NK: Tensor) -> Tensor:
    return a_TN.new_empty((a_TN.shape[0], b_NK.shape[1]))


def _product_saves(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _product_backward(ctx: Any, dc_TK: Tensor) -> tuple[Tensor, Tensor]:
    a_TN, b_NK = ctx.saved_tensors
    return product(dc_TK, b_NK.T), a_TN.T @ dc_TK


product.register_autograd(_product_backward, setup_context=_product_saves)


def _array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory as a C-contiguous array, copied only where the tensor is not contiguous."""
    array: NDArray[Any] = tensor.detach().contiguous().numpy()
    return array
