"""The quantised linear on every instruction set of this machine, against torch in float64 and the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.ops import dispatch, linear
from kogata.ops.linear import fallback, reference
from kogata.weights import TernaryTensor

ISAS = dispatch.isas()
FORMS = [("f32", 0), ("bf16", 0), ("int8", 0), ("int8", 32), ("int8", 128), ("int4", 32), ("int4", 128)]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def expected(x, packed, bias, gelu, residual, kind):
    """float64 over the weights as stored, with the activations as the kernel rounds them."""
    x64 = x.astype(np.float64)
    if kind in ("int8", "int4"):
        q, scale, zero = reference.quantise_tokens(x)
        x64 = (q.astype(np.float64) - zero) * scale.astype(np.float64)
    elif kind == "bf16" and dispatch.bf16_dot():
        x64 = (fallback.round_bf16(x).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    y = torch.nn.functional.linear(torch.from_numpy(x64), torch.from_numpy(packed.dense_NK.astype(np.float64)))
    if bias is not None:
        y = y + torch.from_numpy(bias.astype(np.float64))
    if gelu:
        y = torch.nn.functional.gelu(y)
    return y.numpy() + (0 if residual is None else residual)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "group"), FORMS)
@settings(max_examples=12, deadline=None)
@given(
    t=st.integers(1, 40),
    k=st.integers(1, 150),
    n=st.integers(1, 70),
    gelu=st.booleans(),
    more=st.booleans(),
    seed=st.integers(0, 99),
)
def test_products_match_float64_over_the_stored_weights(isa, kind, group, t, k, n, gelu, more, seed):
    x, w = normal(seed, t, k), normal(seed + 1, n, k)
    bias, residual = (normal(seed + 2, n), normal(seed + 3, t, n)) if more else (None, None)
    with dispatch.use(isa):
        packed = linear.pack(w, kind, group, bias)
        out = np.full((t, n), np.nan, np.float32)
        linear.linear(x, packed, activation="gelu" if gelu else None, residual_TN=residual, out_TN=out)
        want = expected(x, packed, bias, gelu, residual, kind)
    # A quantised activation on the border between two codes may fall either way: one code's worth in rare rows.
    slack = 1e-5 * np.sqrt(k) * 4
    if kind in ("int8", "int4"):
        slack += float(np.ptp(x, axis=1).max()) / 255 * float(np.abs(packed.dense_NK).max()) * 1.01
    assert np.abs(out - want).max() <= slack


@pytest.mark.parametrize(("kind", "group"), FORMS)
def test_all_packers_write_the_same_bytes(kind, group):
    w = normal(5, 50, 256)
    with dispatch.use("fallback"):
        plain = linear.pack(w, kind, group)
    with dispatch.use("native"):
        packed = linear.pack(w, kind, group)
    same = np.mean(plain.data_B == packed.data_B)
    assert same > 0.999, "rounding of exact halves apart"
    np.testing.assert_allclose(plain.scales, packed.scales, rtol=1e-6)


@pytest.mark.parametrize("isa", ISAS[1:])
@pytest.mark.parametrize(("kind", "group"), FORMS)
def test_a_row_is_the_same_bits_whatever_is_around_it(isa, kind, group):
    x, w = normal(1, 203, 96), normal(2, 300, 96)
    before = dispatch.threads()
    try:
        with dispatch.use(isa):
            packed = linear.pack(w, kind, group)
            whole = linear.linear(x, packed, activation="gelu")
            for threads in (1, 2, 3):
                dispatch.set_threads(threads)
                np.testing.assert_array_equal(linear.linear(x, packed, activation="gelu"), whole)
            for a, b in ((0, 1), (7, 20), (100, 203), (202, 203)):
                np.testing.assert_array_equal(linear.linear(x[a:b].copy(), packed, activation="gelu"), whole[a:b])
    finally:
        dispatch.set_threads(before)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_integers_neither_saturate_nor_overflow(isa, sign):
    """Every product at its largest: int16 would saturate at two, overflow at three."""
    k = 4096
    x = np.ones((5, k), np.float32)
    w = np.full((17, k), sign, np.float32)
    with dispatch.use(isa):
        for kind, group in (("int8", 0), ("int8", 128), ("int4", 128)):
            np.testing.assert_allclose(linear.linear(x, linear.pack(w, kind, group)), sign * k, rtol=1e-5)
            alternating = x * np.where(np.arange(k) % 2, 1, -1).astype(np.float32)
            np.testing.assert_allclose(linear.linear(alternating, linear.pack(w, kind, group)), 0, atol=k / 255 * 1.01)


@pytest.mark.parametrize("isa", ISAS[1:])
def test_a_row_that_is_not_finite_spoils_only_itself(isa):
    x = normal(3, 9, 40)
    x[4, 7] = np.nan
    with dispatch.use(isa):
        packed = linear.pack(normal(4, 20, 40), "int8")
        out = linear.linear(x, packed)
    assert np.isnan(out[4]).all()
    assert np.isfinite(np.delete(out, 4, axis=0)).all()


class Codes:
    """Integer weights with scales by groups of 32."""

    def __init__(self, n: int, k: int) -> None:
        rng = np.random.default_rng(0)
        self.shape = (n, k)
        self.scales_NG = (rng.random((n, k // 32)) + 0.1).astype(np.float32)
        self._codes = rng.integers(-8, 8, (n, k)).astype(np.int8)

    def codes_i8(self) -> np.ndarray:
        return self._codes


@pytest.mark.parametrize("isa", ISAS)
def test_integer_codes_are_kept_or_rounded_onto_one_scale(isa):
    codes = Codes(37, 96)
    exact = codes.codes_i8().reshape(37, 3, 32) * codes.scales_NG[:, :, None]
    exact = exact.reshape(37, 96)
    with dispatch.use(isa):
        for kind, group in (("int4", 32), ("int8", 32), ("f32", 0)):
            np.testing.assert_allclose(linear.pack(codes, kind, group).dense_NK, exact, rtol=1e-6)
        rounded = linear.pack(codes, "int8").dense_NK
    assert np.abs(rounded - exact).max() <= np.abs(exact).max() / 127 / 2 * 1.01


def test_wrong_shapes_types_and_groups_are_refused():
    packed = linear.pack(normal(0, 8, 16), "f32")
    with pytest.raises(ValueError, match="wide"):
        linear.linear(normal(0, 3, 15), packed)
    with pytest.raises(TypeError):
        linear.linear(normal(0, 3, 16).astype(np.float64), packed)
    for kind, group in (("f16", 0), ("int4", 0), ("f32", 32), ("int8", 12)):
        with pytest.raises(ValueError):
            linear.pack(normal(0, 8, 16), kind, group)


@pytest.mark.parametrize("isa", ["fallback", "native"])
@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from([*FORMS, ("int8", 8), ("ternary", 0), ("ternary", 16), ("trits", 0), ("trits", 20)]),
    rows=st.lists(st.integers(0, 69), max_size=40),
    k=st.integers(1, 150),
    factor=st.sampled_from([1.0, 8.0, 27.7]),
    seed=st.integers(0, 99),
)
def test_rows_are_those_of_the_matrix_by_the_factor(isa, form, rows, k, factor, seed):
    kind, group = form
    rng = np.random.default_rng(seed)
    with dispatch.use(isa):
        if kind in ("ternary", "trits"):
            k = max(k // (group or 1), 1) * (group or 1)
            scales = rng.standard_normal((70, k // group if group else 1)).astype(np.float32)
            codes = rng.integers(-1, 2, (70, k), np.int8)
            packed = linear.pack(TernaryTensor((70, k), scales, codes.copy), kind, group)
        else:
            packed = linear.pack(normal(seed, 70, k), kind, group)
        found = linear.take(packed, np.array(rows, np.int32), factor=factor)
    want = packed.dense_NK[rows] * np.float32(factor)
    assert found.shape == (len(rows), k)
    np.testing.assert_array_equal(found, want, err_msg=f"{kind}, groups of {group}, {70} x {k}")


@pytest.mark.parametrize("isa", ["fallback", "native"])
@pytest.mark.parametrize("row", [-1, 70, 2**31 - 1, -(2**31)])
def test_a_row_that_is_not_there_is_refused(isa, row):
    with dispatch.use(isa):
        packed = linear.pack(normal(0, 70, 9), "int8")
        with pytest.raises(ValueError, match="a row is outside the matrix"):
            linear.take(packed, np.array([3, row], np.int32))
