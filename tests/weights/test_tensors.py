"""Q4Tensor against the format's definition, one weight at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogata.weights import Q4Tensor


def one_weight(blocks: np.ndarray, row: int, column: int) -> tuple[int, np.float32]:
    block = blocks[row, column // 32].tobytes()
    scale = np.frombuffer(block[:2], "<f2")[0]
    within = column % 32
    byte = block[2 + within % 16]
    code = (byte & 15 if within < 16 else byte >> 4) - 8
    return code, np.float32(code) * np.float32(scale)


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_codes_scales_and_values(n: int, g: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n, g, 18), np.uint8)
    scales = rng.normal(size=(n, g)).astype("<f2")
    blocks[:, :, :2] = scales[:, :, None].view(np.uint8)
    tensor = Q4Tensor(blocks)
    assert tensor.shape == (n, 32 * g)
    assert tensor.nbytes == n * g * 18
    expected = [[one_weight(blocks, row, column) for column in range(32 * g)] for row in range(n)]
    codes = np.array([[code for code, _ in row] for row in expected], np.int8)
    values = np.array([[value for _, value in row] for row in expected], np.float32)
    np.testing.assert_array_equal(tensor.codes_i8(), codes)
    np.testing.assert_array_equal(tensor.dequantise(), values)
    np.testing.assert_array_equal(tensor.scales_NG, scales.astype(np.float32))
    np.testing.assert_array_equal(tensor.scales_f16, scales)
    rows = rng.integers(0, n, 7)
    np.testing.assert_array_equal(tensor.dequantise(rows), values[rows])
    np.testing.assert_array_equal(tensor.codes_i8(rows), codes[rows])
    assert tensor.dequantise(rows[:0]).shape == (0, 32 * g)


def test_all_codes_are_in_range() -> None:
    blocks = np.zeros((1, 16, 18), np.uint8)
    blocks[0, :, 2:] = np.arange(256).reshape(16, 16)
    assert sorted(set(Q4Tensor(blocks).codes_i8().ravel().tolist())) == list(range(-8, 8))


@pytest.mark.parametrize("blocks", [np.zeros((1, 18), np.uint8), np.zeros((1, 1, 17), np.uint8), np.zeros((1, 1, 18))])
def test_other_layouts_are_refused(blocks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        Q4Tensor(blocks)
