"""BitLinear against transformers' layers and the run path; its gradients by the straight-through formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations import bitnet
from transformers.integrations.bitnet import AutoBitLinear

from kogata.make.nn.bitlinear import BitLinear, eight_bits, ternary
from kogata.make.nn.decoder import RMSNorm
from kogata.ops import dispatch
from kogata.ops.linear import PackedLinear, linear, pack
from kogata.weights.ternary import master


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


def _run_path(layer: BitLinear, kind: str) -> PackedLinear:
    """The layer as ``kogata run`` has it: its bf16 file, rounded and packed by the loader."""
    stored = layer.weight.detach().bfloat16().view(torch.int16).numpy().view(np.uint16)
    return pack(master(stored, "BF16"), kind)


@pytest.mark.parametrize("isa", sorted({"fallback", dispatch.isas()[-1]}))
@settings(max_examples=40, deadline=None)
@given(
    t=st.integers(0, 40), k=st.integers(1, 200), n=st.integers(1, 70), kind=st.sampled_from(["ternary", "trits"]),
    size=st.sampled_from([0.0, 1e-6, 1.0, 1e4]), zero_rows=st.booleans(), zero_weights=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_evaluation_is_the_run_path_bit_for_bit(isa, t, k, n, kind, size, zero_rows, zero_weights, seed):
    layer = _layer(k, n, seed).eval()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16() * (0 if zero_weights else 1))
    x = torch.randn(t, k, generator=torch.Generator().manual_seed(seed + 1)) * size
    if zero_rows:
        x[::2] = 0
    with dispatch.use(isa), torch.no_grad():
        want = linear(x.numpy(), _run_path(layer, kind))
        got = layer(x).numpy()
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


@settings(max_examples=25, deadline=None)
@given(t=st.integers(1, 40), k=st.integers(2, 200), n=st.integers(1, 70), seed=st.integers(0, 99))
def test_behind_an_rms_norm_a_code_may_fall_on_the_other_side_and_nothing_else(t, k, n, seed):
    """The run path's norm sums in another order. A code differs by 1 where that decides a rounding, and each such code
    moves a sum by at most 1; everything else is float32's last bits."""
    layer, norm = _layer(k, n, seed).eval(), RMSNorm(k, 1e-5)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
        norm.weight.uniform_(0.5, 2, generator=torch.Generator().manual_seed(seed + 1))
        x = torch.randn(t, k, generator=torch.Generator().manual_seed(seed + 2))
        normed = norm(x)
        got = layer(normed).double()
        codes, factor = eight_bits(normed)
        want = torch.from_numpy(linear(x.numpy(), _run_path(layer, "ternary"), norm=(norm.weight.numpy(), 1e-5)))
        scale = ternary(layer.weight)[1]
    # Which codes are so close to a half that the last bits of the norm (some 1e-6 of the value) decide?
    near = ((normed.double() * factor).frac().abs() - 0.5).abs() < 127 * 2e-6
    steps = near.sum(-1, keepdim=True) * (scale / factor).double()
    slack = steps + 4e-6 * codes.abs().sum(-1, keepdim=True) * (scale / factor)
    assert ((got - want.double()).abs() <= slack).all(), ((got - want.double()).abs() / slack).max()


@settings(max_examples=25, deadline=None)
@given(t=st.integers(1, 20), k=st.integers(1, 600), quarter=st.integers(1, 20), seed=st.integers(0, 99))
def test_integer_sums_are_those_of_transformers(t, k, quarter, seed):
    """Fed integers whose largest is 127, nothing is rounded: results over the scale are the sums, exactly."""
    n = 4 * quarter
    layer = _layer(k, n, seed).eval()
    dice = torch.Generator().manual_seed(seed + 1)
    x = torch.randint(-127, 128, (t, k), generator=dice).float()
    x[:, 0] = 127
    with torch.no_grad():
        codes, scale = ternary(layer.weight)
        theirs = bitnet.BitLinear(k, n, bias=False, dtype=torch.float32)
        theirs.weight.copy_(bitnet.pack_weights(codes.clone()))
        sums = theirs(x).round().long()
        assert torch.equal(sums, x.long() @ codes.long().T)
        assert torch.equal((layer(x).double() / scale.double()).round().long(), sums)


def test_evaluation_has_the_gradients_of_training():
    layer, x = _layer(96, 40, 9), torch.randn(11, 96, generator=torch.Generator().manual_seed(10))
    found = []
    for training in (True, False):
        layer.train(training).zero_grad()
        leaf = x.clone().requires_grad_()
        layer(leaf).square().sum().backward()
        found.append((leaf.grad, layer.weight.grad.clone()))
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
