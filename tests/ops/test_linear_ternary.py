"""Ternary products, gated units and RMS norms before them, on every instruction set of this machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.ops import dispatch, linear
from kogata.ops.elementwise import rms_norm
from kogata.ops.linear import reference

ISAS = dispatch.isas()
FORMS = [("ternary", 0), ("trits", 0), ("ternary", 16), ("ternary", 128), ("trits", 40)]
GLUS = {
    "silu": torch.nn.functional.silu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu2": lambda x: torch.relu(x) ** 2,
}


@dataclass
class Codes:
    """Weights -1, 0 and 1 with scales, and the same multiplied out."""

    codes: np.ndarray
    scales_NG: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape

    def codes_i8(self) -> np.ndarray:
        return self.codes

    def dense(self) -> np.ndarray:
        n, k = self.shape
        grouped = self.codes.reshape(n, self.scales_NG.shape[1], -1) * self.scales_NG.astype(np.float64)[:, :, None]
        return grouped.reshape(n, k)


def ternary(seed: int, n: int, k: int, group: int) -> Codes:
    dice = np.random.default_rng(seed)
    scales = (dice.random((n, k // group if group else 1)) + 0.1).astype(np.float32)
    return Codes(dice.integers(-1, 2, (n, k)).astype(np.int8), scales)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "group"), FORMS)
@settings(max_examples=15, deadline=None)
@given(t=st.integers(0, 40), k=st.integers(1, 150), n=st.integers(1, 70), more=st.booleans(), seed=st.integers(0, 99))
def test_products_are_those_of_the_integers(isa, kind, group, t, k, n, more, seed):
    k = -(-k // group) * group if group else k
    x, w = normal(seed, t, k), ternary(seed + 1, n, k, group)
    bias, residual = (normal(seed + 2, n), normal(seed + 3, t, n)) if more else (None, None)
    with dispatch.use(isa):
        packed = linear.pack(w, kind, group, bias)
        np.testing.assert_allclose(packed.dense_NK, w.dense(), rtol=1e-6)
        got = linear.linear(x, packed, residual_TN=residual, out_TN=np.full((t, n), np.nan, np.float32))
    # The rule in float32, as the kernels have it: which side of a half a product falls on is part of the contract.
    s = np.float32(127) / np.maximum(np.abs(x).max(axis=1, keepdims=True), np.float32(1e-5))
    q = np.clip(np.rint(x * s), -128, 127).astype(np.float64)
    want = torch.nn.functional.linear(torch.from_numpy(q), torch.from_numpy(w.dense())).numpy() / s
    want = want + (0 if bias is None else bias) + (0 if residual is None else residual)
    np.testing.assert_allclose(got, want, atol=2e-5 * np.sqrt(k), rtol=1e-5)


@pytest.mark.parametrize("kind", ["ternary", "trits"])
@pytest.mark.parametrize("group", [0, 80])
def test_both_packers_write_the_same_bytes(kind, group):
    w = ternary(3, 50, 240, group)
    with dispatch.use("fallback"):
        plain = linear.pack(w, kind, group)
    with dispatch.use("native"):
        packed = linear.pack(w, kind, group)
    np.testing.assert_array_equal(plain.data_B, packed.data_B)
    np.testing.assert_array_equal(plain.scales, packed.scales)


@pytest.mark.parametrize("isa", ISAS[1:])
@pytest.mark.parametrize("group", [0, 80])
def test_a_row_is_the_same_bits_whatever_is_around_it_and_however_it_is_stored(isa, group):
    x, w, gain = normal(1, 203, 240), ternary(2, 300, 240, group), normal(3, 240)
    before = dispatch.threads()
    try:
        with dispatch.use(isa):
            packed = linear.pack(w, "ternary", group)
            whole = linear.linear(x, packed, norm=(gain, 1e-5))
            np.testing.assert_array_equal(linear.linear(x, linear.pack(w, "trits", group), norm=(gain, 1e-5)), whole)
            for threads in (1, 2, 3):
                dispatch.set_threads(threads)
                for a, b in ((0, 203), (0, 1), (7, 20), (100, 203), (202, 203)):
                    part = linear.linear(x[a:b].copy(), packed, norm=(gain, 1e-5))
                    np.testing.assert_array_equal(part, whole[a:b], err_msg=f"{threads} threads, rows {a} to {b}")
    finally:
        dispatch.set_threads(before)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["ternary", "trits"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_neither_saturate_nor_overflow(isa, kind, sign):
    k = 65520  # int16 would overflow from 259 on
    x = np.ones((3, k), np.float32)
    w = Codes(np.full((17, k), sign, np.int8), np.ones((17, 1), np.float32))
    with dispatch.use(isa):
        packed = linear.pack(w, kind)
        np.testing.assert_allclose(linear.linear(x, packed), sign * k, rtol=1e-6)
        np.testing.assert_allclose(linear.linear(-x, packed), -sign * k, rtol=1e-6)


@pytest.mark.parametrize("isa", ISAS[1:])
@pytest.mark.parametrize("kind", ["ternary", "trits"])
def test_a_row_that_is_not_finite_spoils_only_itself(isa, kind):
    x = normal(3, 9, 40)
    x[4, 7], x[6, 39] = np.nan, -np.inf
    with dispatch.use(isa):
        out = linear.linear(x, linear.pack(ternary(4, 20, 40, 0), kind))
    assert np.isnan(out[[4, 6]]).all(), out[[4, 6]]
    assert np.isfinite(np.delete(out, [4, 6], axis=0)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["f32", "bf16", "int8", "ternary"])
@settings(max_examples=15, deadline=None)
@given(
    t=st.integers(1, 30), k=st.integers(1, 70), glu=st.sampled_from([None, *GLUS]), norm=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_gate_and_norm_before_the_product(isa, kind, t, k, glu, norm, seed):
    x, gain = normal(seed, t, 2 * k if glu else k) * 3, normal(seed + 1, k)
    w = ternary(seed + 2, 21, k, 0)
    dense = w.dense().astype(np.float32)
    before = torch.from_numpy(x.astype(np.float64))
    if glu:
        before = GLUS[glu](before[:, :k]) * before[:, k:]
    if norm:
        before = torch.nn.functional.rms_norm(before, (k,), torch.from_numpy(gain.astype(np.float64)), 1e-5)
    with dispatch.use(isa):
        packed = linear.pack(w if kind == "ternary" else dense, kind)
        got = linear.linear(x, packed, glu=glu, norm=(gain, 1e-5) if norm else None)
        reduced = kind == "bf16" and dispatch.bf16_dot()
    size = np.abs(before.numpy()).max(axis=1, keepdims=True)
    want = before.numpy() @ packed.dense_NK.astype(np.float64).T
    step = {"f32": 1e-6, "bf16": 2**-8 if reduced else 1e-6, "int8": 1 / 255, "ternary": 1 / 127}[kind]
    slack = size * (step * np.abs(packed.dense_NK).sum(axis=1).max() + 1e-5) + 1e-6
    assert (np.abs(got - want) <= slack).all(), (np.abs(got - want) / slack).max()


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=15, deadline=None)
@given(t=st.integers(0, 40), h=st.integers(1, 100), more=st.booleans(), seed=st.integers(0, 99))
def test_rms_norm(isa, t, h, more, seed):
    x, gain = normal(seed, t, h), normal(seed + 1, h)
    residual = normal(seed + 2, t, h) if more else None
    want = torch.nn.functional.rms_norm(torch.from_numpy(x).double(), (h,), torch.from_numpy(gain).double(), 1e-6)
    want = want.numpy() + (0 if residual is None else residual)
    with dispatch.use(isa):
        np.testing.assert_allclose(rms_norm(x, gain, 1e-6, residual_TH=residual), want, atol=1e-5)
        target = x.copy() if residual is None else residual.copy()  # in place, of the one or of the other
        np.testing.assert_allclose(rms_norm(x, gain, 1e-6, residual_TH=residual, out_TH=target), want, atol=1e-5)


def test_reference_rounds_half_to_even():
    q, scale = reference.quantise_ternary(np.array([[127.0, 0.5, 1.5, -0.5, -2.5]]))
    np.testing.assert_array_equal(q, [[127, 0, 2, 0, -2]])
    np.testing.assert_allclose(scale, 1.0)


@pytest.mark.parametrize("isa", ["fallback", "native"])
def test_what_does_not_fit_is_refused(isa):
    with dispatch.use(isa):
        with pytest.raises(ValueError, match="-1, 0 and 1"):
            linear.pack(Codes(np.full((16, 32), 2, np.int8), np.ones((16, 1), np.float32)), "ternary")
        with pytest.raises(ValueError, match="codes"):
            linear.pack(normal(0, 16, 32), "ternary")
        with pytest.raises(ValueError, match="group"):
            linear.pack(ternary(0, 16, 64, 32), "trits", 32)
        with pytest.raises(ValueError, match="own"):
            linear.pack(ternary(0, 16, 64, 32), "ternary", 64)
        packed = linear.pack(ternary(0, 16, 64, 0), "ternary")
        with pytest.raises(ValueError, match="wide"):
            linear.linear(normal(0, 2, 64), packed, glu="silu")
        with pytest.raises(ValueError, match="gain"):
            linear.linear(normal(0, 2, 64), packed, norm=(normal(0, 63), 1e-5))
