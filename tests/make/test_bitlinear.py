"""BitLinear against transformers' AutoBitLinear, and its gradients against the straight-through formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.integrations.bitnet import AutoBitLinear

from kogata.make.nn.bitlinear import BitLinear, eight_bits, ternary


def _layer(n_in: int, n_out: int, seed: int) -> BitLinear:
    layer = BitLinear(n_in, n_out)
    with torch.no_grad():
        layer.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(seed))
    return layer


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize(("n_in", "n_out"), [(64, 32), (257, 5), (768, 256)])
def test_the_forward_and_the_gradients_are_those_of_transformers(n_in, n_out, size):
    ours, theirs = _layer(n_in, n_out, 1), AutoBitLinear(n_in, n_out, bias=False, online_quant=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(3, 7, n_in, generator=torch.Generator().manual_seed(2)) * size
    dy = torch.randn(3, 7, n_out, generator=torch.Generator().manual_seed(3))
    found = []
    for layer in (ours, theirs):
        x_leaf = x.clone().requires_grad_()
        y = layer(x_leaf)
        y.backward(dy)
        found.append((y.detach(), x_leaf.grad, layer.weight.grad))
    for name, got, want in zip(("y", "dx", "dW"), *found, strict=True):
        off = ((got - want).abs().max() / want.abs().max()).item()
        print(f"{name} {n_in}x{n_out} inputs of size {size}: {off:.1e} of the largest off")
        assert off < 1e-6


def test_gradients_follow_the_stated_formula():
    layer = _layer(96, 40, 4)
    x = torch.randn(11, 96, generator=torch.Generator().manual_seed(5), requires_grad=True)
    dy = torch.randn(11, 40, generator=torch.Generator().manual_seed(6))
    layer(x).backward(dy)
    # The definition, in float64: no clipping takes part, every weight and input gets its gradient.
    w, a, g = layer.weight.detach().numpy().astype(float), x.detach().numpy().astype(float), dy.numpy().astype(float)
    scale = np.abs(w).mean()
    w_q = np.clip(np.rint(w / scale), -1, 1) * scale
    factor = 127 / np.abs(a).max(1, keepdims=True)
    x_q = np.clip(np.rint(a * factor), -128, 127) / factor
    assert x.grad is not None
    assert layer.weight.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), g @ w_q, atol=1e-6)
    np.testing.assert_allclose(layer.weight.grad.numpy(), g.T @ x_q, atol=2e-5)


def test_ties_go_to_the_even_code_and_zeros_stay_finite():
    codes, factor = eight_bits(torch.tensor([[127.0, 0.5, 1.5, -2.5], [0.0, 0.0, 0.0, 0.0]]))
    assert codes.tolist() == [[127, 0, 2, -2], [0, 0, 0, 0]]
    assert factor.isfinite().all()
    codes, scale = ternary(torch.tensor([[0.5, -1.5, 1.0, 3.0], [-0.25, 0.25, 0.5, -1.0]]))
    assert scale.item() == 1.0
    assert codes.tolist() == [[0, -1, 1, 1], [0, 0, 0, -1]]
    assert ternary(torch.zeros(4, 4))[0].eq(0).all()


def test_bf16_products_keep_the_codes_exact():
    """Under autocast only the sum is rounded: to bf16, half a step of which is 2^-8 of it (sum, scale, result)."""
    layer, x = _layer(512, 128, 7), torch.randn(64, 512, generator=torch.Generator().manual_seed(8))
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)
    assert rounded.dtype == torch.bfloat16
    off = ((rounded.float() - exact).abs() / exact.abs().clamp(min=1e-9)).max().item()
    print(f"bf16: at most {off:.2e} of a value off; three roundings are {3 * 2**-8:.2e}")
    assert off < 3 * 2**-8
