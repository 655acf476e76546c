"""Every layout of ternary weights against transformers' own code, or against its definition, one weight at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.errors import ModelError
from kogata.ops.linear.packed import CodedWeight
from kogata.weights import TernaryTensor, ternary

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def stored(values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as safetensors files hold them in a type, and what they are then, in float32."""
    import torch

    tensor = torch.tensor(values).to(getattr(torch, DTYPES[dtype]))
    bits = tensor.view(torch.int16).numpy().view(np.uint16) if dtype == "BF16" else tensor.numpy()
    return bits, tensor.float().numpy()


def test_a_ternary_tensor_is_a_coded_weight_for_the_linear() -> None:
    tensor: CodedWeight = TernaryTensor((2, 4), np.ones((2, 1), np.float32), lambda: np.zeros((2, 4), np.int8))
    assert tensor.shape == (2, 4)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_four_codes_a_byte(n_packed: int, k: int, seed: int) -> None:
    import torch
    from transformers.integrations.bitnet import pack_weights, unpack_weights

    codes = np.random.default_rng(seed).integers(-1, 2, (4 * n_packed, k))
    packed_PK = pack_weights(torch.tensor(codes)).numpy()
    tensor = ternary.packed(packed_PK, 0.75)
    assert tensor.shape == codes.shape
    assert tensor.codes_i8().dtype == np.int8
    np.testing.assert_array_equal(tensor.codes_i8(), codes)
    np.testing.assert_array_equal(tensor.codes_i8(), unpack_weights(torch.tensor(packed_PK), torch.float32).numpy())
    for row in range(4 * n_packed):
        byte = int(packed_PK[row % n_packed, k - 1])
        assert codes[row, k - 1] == ((byte >> 2 * (row // n_packed)) & 3) - 1
    np.testing.assert_array_equal(tensor.scales_NG, np.full((4 * n_packed, 1), 0.75))
    np.testing.assert_array_equal(tensor.dequantise(), codes * np.float32(0.75))
    assert tensor.group == k


def test_bytes_that_are_no_codes_are_noticed() -> None:
    legal = [a + 4 * b + 16 * c + 64 * d for a in range(3) for b in range(3) for c in range(3) for d in range(3)]
    for byte in range(256):
        packed = np.zeros((5, 7), np.uint8)
        packed[4, 3] = byte
        assert ternary.packed_codes_are_ternary(packed) == (byte in legal)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_master_weights_are_rounded_as_transformers_rounds_them(dtype: str) -> None:
    import torch
    from transformers.integrations.bitnet import WeightQuant

    differing = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bits, values = stored(rng.normal(size=(96, 160)) * 10 ** rng.uniform(-3, 1), dtype)
        expected = WeightQuant.apply(torch.tensor(values)).numpy()
        tensor = ternary.master(bits, dtype)
        differing += int((tensor.codes_i8() != np.sign(expected)).sum())
        np.testing.assert_allclose(tensor.scales_NG, np.abs(expected).max(), rtol=1e-6)
    print(f"{dtype}: {differing} of {20 * 96 * 160} codes differ from transformers'")
    assert differing == 0


def test_master_weights_by_the_definition() -> None:
    bits, values = stored(np.random.default_rng(3).normal(size=(7, 13)), "BF16")
    tensor = ternary.master(bits, "BF16")
    mean = float(np.abs(values.astype(np.float64)).mean())
    for row in range(7):
        for column in range(13):
            assert tensor.codes_i8()[row, column] == min(1, max(-1, round(float(values[row, column]) / mean)))
    np.testing.assert_allclose(tensor.scales_NG, mean, rtol=1e-6)
    # A tie is rounded to even, so 0.5 of the mean is 0 and 1.5 of it is 1 by clipping.
    ties = ternary.master(np.array([[0.5, -0.5, 1.5, -1.5]], np.float32), "F32")
    assert ties.codes_i8().tolist() == [[0, 0, 1, -1]]


def test_master_weights_of_zeros() -> None:
    for make in (ternary.master, ternary.binary_master):
        tensor = make(np.zeros((4, 8), np.float32), "F32")
        assert np.abs(tensor.dequantise()).max() <= 1e-5
        assert np.isfinite(tensor.scales_NG).all()


def test_binary_master_weights_by_the_definition() -> None:
    values = np.random.default_rng(4).normal(0.3, 1.0, (9, 11)).astype(np.float32)
    values[3, 3] = 0.25
    tensor = ternary.binary_master(values, "F32")
    mean, scale = float(values.mean(dtype=np.float64)), float(np.abs(values).mean(dtype=np.float64))
    for row in range(9):
        for column in range(11):
            assert tensor.codes_i8()[row, column] == (1 if values[row, column] > mean else -1)
    np.testing.assert_allclose(tensor.scales_NG, scale, rtol=1e-6)
    level = ternary.binary_master(np.full((2, 2), 3.0, np.float32), "F32")
    assert level.codes_i8().tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_unpacked_codes(dtype: str) -> None:
    codes = np.random.default_rng(5).integers(-1, 2, (6, 10))
    tensor = ternary.unpacked(stored(codes, dtype)[0], dtype, 2.0)
    np.testing.assert_array_equal(tensor.codes_i8(), codes)
    np.testing.assert_array_equal(tensor.dequantise(), 2.0 * codes)


@pytest.mark.parametrize("wrong", [0.5, 2.0, -1.0078125, 1e-30, float("nan")])
def test_codes_that_are_none(wrong: float) -> None:
    codes = np.ones((6, 10))
    codes[5, 9] = wrong
    with pytest.raises(ModelError, match="not all -1, 0 or 1"):
        ternary.unpacked(stored(codes, "F32")[0], "F32", 2.0).codes_i8()


@settings(deadline=None)
@given(
    dtype=st.sampled_from(["F32", "F16", "BF16"]),
    n=st.integers(1, 40),
    k=st.sampled_from([32, 48, 128, 200, 256, 640]),
    scaled=st.sampled_from(["group", "row", "matrix"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_matrices_of_three_values_are_detected(dtype: str, n: int, k: int, scaled: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = 128 if k % 128 == 0 and scaled == "group" else k
    codes = rng.integers(-1, 2, (n, k // group, group))
    codes[:, :, 0] = 1  # so that no group's scale can be lost
    shape = {"group": (n, k // group, 1), "row": (n, 1, 1), "matrix": (1, 1, 1)}[scaled]
    scales = stored(rng.uniform(0.001, 2.0, shape), dtype)[1]
    bits, values = stored((codes * scales).reshape(n, k), dtype)
    tensor = ternary.detected(bits, dtype)
    assert tensor is not None
    np.testing.assert_array_equal(tensor.codes_i8(), codes.reshape(n, k))
    np.testing.assert_array_equal(tensor.dequantise(), values)
    assert tensor.scales_NG.shape == (n, k // group)
    assert tensor.scales_NG.flags.c_contiguous
    np.testing.assert_array_equal(tensor.scales_NG, np.broadcast_to(scales[:, :, 0], (n, k // group)))
    # One weight that is something else, anywhere.
    values[rng.integers(n), rng.integers(k)] *= np.float32(1.5)
    values[rng.integers(n), rng.integers(k)] = np.float32(3.0)
    assert ternary.detected(stored(values, dtype)[0], dtype) is None


def test_a_single_wrong_weight_among_many_rows() -> None:
    values = np.where(np.arange(1000 * 256).reshape(1000, 256) % 3, 0.5, -0.5).astype(np.float32)
    assert ternary.detected(values, "F32") is not None
    for place in ((0, 0), (517, 131), (999, 255)):
        wrong = values.copy()
        wrong[place] = 0.25
        assert ternary.detected(wrong, "F32") is None


def test_groups_of_zeros_and_of_two_values() -> None:
    values = np.zeros((3, 256), np.float32)
    assert ternary.detected(values, "F32").scales_NG.shape == (3, 1)  # type: ignore[union-attr]
    values[:, :128] = np.where(np.arange(128) % 2, 0.25, -0.25)  # Bonsai's binary sibling has no zeros
    values[1, 200] = -0.0
    tensor = ternary.detected(values, "F32")
    assert tensor is not None
    assert tensor.scales_NG.shape == (3, 1)
    np.testing.assert_array_equal(tensor.dequantise(), values)


@pytest.mark.parametrize(("shape", "dtype"), [((0, 128), "F32"), ((5, 31), "F32"), ((5, 128), "F64")])
def test_what_is_not_looked_at(shape: tuple[int, int], dtype: str) -> None:
    assert ternary.detected(np.zeros(shape, np.float64 if dtype == "F64" else np.float32), dtype) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda bits: ternary.master(bits, "BF16"),
        lambda bits: ternary.binary_master(bits, "BF16"),
        lambda bits: ternary.detected(bits & 0x8000 | 0x3F80, "BF16"),
    ],
)
def test_large_matrices_are_read_in_pieces(make: Callable[[Any], TernaryTensor], monkeypatch: Any) -> None:
    bits = stored(np.random.default_rng(6).normal(size=(50, 256)), "BF16")[0]
    whole = make(bits)
    monkeypatch.setattr(ternary, "_CHUNK", 600)
    pieces = make(bits)
    np.testing.assert_array_equal(pieces.codes_i8(), whole.codes_i8())
    np.testing.assert_allclose(pieces.scales_NG, whole.scales_NG, rtol=1e-6)
