"""The ternary linear in torch: forward against the integers, backward against the straight-through rule in float64."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.ops import dispatch
from kogata.ops.linear.autograd import product, ternary_linear

ISAS = sorted({"fallback", dispatch.isas()[-1]})


def _normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _weights(seed: int, n: int, k: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Masters, codes and scales. The op does not ask how the ones became the others."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-1, 2, (n, k), generator=generator, dtype=torch.int8)
    scales = torch.rand((n, k // group if group else 1), generator=generator) + 0.1
    return torch.randn((n, k), generator=generator), codes, scales


def _multiplied_out(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return codes.double() * scales.double().repeat_interleave(codes.shape[1] // scales.shape[1], 1)


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """xq in float64: the rule in float32, since which side of a half a product falls on is part of it."""
    s = np.float32(127) / np.maximum(np.abs(x.numpy()).max(-1, keepdims=True), np.float32(1e-5))
    q = np.clip(np.rint(x.numpy() * s), -128, 127)
    return torch.from_numpy(q.astype(np.float64) / s)


def _straight_through(x, weight, codes, scales, dy):
    """y, dx and dW by torch's autograd in float64, from x + (q(x) - x).detach() for both roundings."""
    x_leaf, w_leaf = x.double().requires_grad_(), weight.double().requires_grad_()
    x_q = x_leaf + (_rounded(x) - x_leaf).detach()
    w_q = w_leaf + (_multiplied_out(codes, scales) - w_leaf).detach()
    y = x_q @ w_q.T
    y.backward(dy.double())
    return y.detach(), x_leaf.grad, w_leaf.grad


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None)
@given(
    t=st.integers(0, 40), k=st.integers(1, 150), n=st.integers(1, 70), group=st.sampled_from([0, 0, 16, 48]),
    size=st.sampled_from([1e-3, 1.0, 1e3]), zero_rows=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_result_and_gradients_are_the_straight_through_ones(isa, t, k, n, group, size, zero_rows, seed):
    k = -(-k // group) * group if group else k
    weight, codes, scales = _weights(seed, n, k, group)
    x, dy = _normal(seed + 1, t, k) * size, _normal(seed + 2, t, n)
    if zero_rows:
        x[::2] = 0
    want = _straight_through(x, weight, codes, scales, dy)
    x.requires_grad_()
    weight.requires_grad_()
    with dispatch.use(isa):
        y = ternary_linear(x, weight, codes, scales)
        y.backward(dy)
    for name, got, expected in zip(("y", "dx", "dW"), (y.detach(), x.grad, weight.grad), want, strict=True):
        assert got is not None
        assert got.dtype == torch.float32
        slack = 1e-6 * max(1.0, expected.abs().max().item()) * max(t, k, n) ** 0.5 if expected.numel() else 0
        torch.testing.assert_close(got.double(), expected, atol=slack, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_neither_saturate_nor_overflow(isa, sign):
    k = 65520
    weight = torch.ones(3, k)
    with dispatch.use(isa):
        y = ternary_linear(torch.full((2, k), 127.0), weight, weight.to(torch.int8) * sign, torch.ones(3, 1))
    assert y.eq(sign * 127.0 * k).all(), y  # 8,321,040, which float32 holds


def test_leading_dimensions_and_strides_do_not_matter():
    weight, codes, scales = _weights(1, 20, 48, 0)
    x = _normal(2, 48, 3, 5).movedim(0, -1)  # not contiguous
    want = ternary_linear(x.reshape(15, 48), weight, codes, scales)
    assert torch.equal(ternary_linear(x, weight, codes, scales), want.view(3, 5, 20))
    assert torch.equal(ternary_linear(x[1, 2], weight, codes, scales), want[7])
    assert ternary_linear(x[:0], weight, codes, scales).shape == (0, 5, 20)
    strided = codes.repeat_interleave(2, 1)[:, ::2], scales[:1].expand(20, 1)
    want = ternary_linear(x, weight, codes, scales[:1].repeat(20, 1))
    assert torch.equal(ternary_linear(x, weight, *strided), want)


def test_only_what_is_asked_for_gets_a_gradient():
    weight, codes, scales = _weights(3, 20, 48, 0)
    x = _normal(4, 7, 48).requires_grad_()
    ternary_linear(x, weight, codes, scales).sum().backward()
    assert x.grad is not None
    frozen = ternary_linear(x.detach(), weight.requires_grad_(), codes, scales)
    frozen.sum().backward()
    assert weight.grad is not None


def test_bf16_is_rounded_once_forward_and_in_each_product_backward():
    weight, codes, scales = _weights(5, 96, 320, 0)
    x, dy = _normal(6, 64, 320).bfloat16(), _normal(7, 64, 96).bfloat16()
    want = _straight_through(x.float(), weight, codes, scales, dy)
    x.requires_grad_()
    weight.requires_grad_()
    y = ternary_linear(x, weight, codes, scales)
    y.backward(dy)
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert weight.grad.dtype == torch.float32
    for name, got, expected in zip(("y", "dx", "dW"), (y.detach(), x.grad, weight.grad), want, strict=True):
        off = ((got.double() - expected).square().mean() / expected.square().mean()).sqrt().item()
        print(f"{name}: relative RMS {off:.1e}")
        assert off < 3e-3


CHECK = """
import torch
import kogata.ops.linear.autograd
weight, codes = torch.randn(20, 48).requires_grad_(), torch.randint(-1, 2, (20, 48), dtype=torch.int8)
for dtype in (torch.float32, torch.bfloat16):
    x = torch.randn(5, 48).to(dtype).requires_grad_()
    found = torch.library.opcheck(torch.ops.kogata.ternary_linear.default, (x, weight, codes, torch.rand(20, 3) + 0.1))
    assert set(found.values()) == {"SUCCESS"}, found
"""


def test_torch_finds_the_operators_well_made():
    """Schema, fake tensors, autograd registration, and that compiled graphs take them in.

    In a process of its own: after enough other libraries have been loaded into one, torch prints schemas without their
    numbers (seen with version 2.13) and cannot read them again.
    """
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_product_is_differentiable_to_the_second_order():
    a, b = _normal(10, 5, 12).requires_grad_(), _normal(11, 12, 7).requires_grad_()
    torch.testing.assert_close(product(a, b).double(), a.double() @ b.double(), atol=1e-5, rtol=0)
    found = torch.library.opcheck(torch.ops.kogata.product.default, (a, b))
    assert set(found.values()) == {"SUCCESS"}
    # It is bilinear: finite differences are exact at any step, but for float32's rounding.
    inputs = a.detach().double().requires_grad_(), b.detach().double().requires_grad_()

    def in_float32(a, b):
        return product(a.float(), b.float()).double()

    assert torch.autograd.gradcheck(in_float32, inputs, eps=0.5, atol=1e-5, rtol=1e-5)
    assert torch.autograd.gradgradcheck(in_float32, inputs, eps=0.5, atol=1e-4, rtol=1e-4)


def test_the_backward_is_linear_and_can_be_differentiated():
    """dx and dW as functions of dy: what a product with a Hessian asks for."""
    weight, codes, scales = _weights(12, 6, 16, 0)
    x = _normal(13, 4, 16).requires_grad_()
    y = ternary_linear(x, weight.requires_grad_(), codes, scales)

    def gradients(dy):
        found = torch.autograd.grad(y, (x, weight), dy.float(), create_graph=True)
        return tuple(grad.double() for grad in found)

    assert torch.autograd.gradcheck(gradients, _normal(14, 4, 6).double().requires_grad_(), eps=0.5, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_what_does_not_fit_is_refused(isa):
    weight, codes, scales = _weights(15, 16, 48, 0)
    x = _normal(16, 2, 48)
    with dispatch.use(isa):
        with pytest.raises(ValueError, match="-1, 0 and 1"):
            ternary_linear(x, weight, codes + 2, scales)
        with pytest.raises(ValueError, match="wide"):
            ternary_linear(x[:, :40], weight, codes, scales)
        with pytest.raises(ValueError, match="group"):
            ternary_linear(x, weight, codes, torch.ones(16, 6))


def test_the_run_path_does_not_import_torch():
    program = "import sys, kogata.ops.linear, kogata.run.decoder; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
