"""What a query is scored against: the storage of rows and of prefix codes.

Shapes: N rows, D dimensions, P prefix dimensions (a multiple of 8), B = ceil(N/16) blocks, G = P/8 groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kogata.errors import BadInput

BLOCK_ROWS = 16


@dataclass(frozen=True)
class Int8Rows:
    """Rows as int8 codes with one f32 scale each: row i is about codes_ND[i] * scales_N[i]. Codes lie in -127..127."""

    codes_ND: NDArray[np.int8]
    scales_N: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.codes_ND.ndim != 2 or self.codes_ND.dtype != np.int8:
            raise BadInput(f"int8 rows need codes of type int8 in two dimensions, not {describe(self.codes_ND)}.")
        if self.scales_N.shape != self.codes_ND.shape[:1] or self.scales_N.dtype != np.float32:
            needed = f"one float32 scale for each of {len(self.codes_ND)} rows"
            raise BadInput(f"int8 rows need {needed}, not {describe(self.scales_N)}.")

    @classmethod
    def quantise(cls, rows_ND: NDArray[np.floating]) -> Int8Rows:
        """The nearest codes with the largest entry of each row at ±127; a row of zeros stays zeros."""
        return cls(*quantise(np.asarray(rows_ND, np.float32)))

    def __len__(self) -> int:
        return len(self.codes_ND)


def quantise(x_ND: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 codes and one scale a row: x is about codes * scale, the largest entry is ±127."""
    scales_N = np.abs(x_ND).max(axis=1, initial=0.0).astype(np.float32) / np.float32(127)
    safe_N = np.where(scales_N > 0, scales_N, np.float32(1))
    return np.rint(x_ND / safe_N[:, None]).astype(np.int8), scales_N


Rows = NDArray[np.float32] | NDArray[np.float16] | Int8Rows


def describe(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def pack_codes(codes_NP: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """4-bit codes (0..15) in the scan's order, uint8 [B, G, 64]; missing rows of the last block are zeros.

    Sixteen rows lie side by side, so that one dot-product instruction over four dimensions yields sixteen sums and no
    sum is ever folded across lanes. In block b, group g, byte 4*r + j: its low half is row 16b+r, dimension 8g+j; its
    high half dimension 8g+4+j. One layout for every instruction set.
    """
    n, p = codes_NP.shape
    if p % 8:
        raise BadInput(f"Prefix codes come in groups of 8 dimensions, not {p}.")
    n_blocks = -(-n // BLOCK_ROWS)
    padded = np.zeros((n_blocks * BLOCK_ROWS, p), np.uint8)
    padded[:n] = codes_NP
    codes_BRG24 = padded.reshape(n_blocks, BLOCK_ROWS, p // 8, 2, 4)
    packed_BRG4 = codes_BRG24[:, :, :, 0] | (codes_BRG24[:, :, :, 1] << 4)
    return np.ascontiguousarray(packed_BRG4.transpose(0, 2, 1, 3)).reshape(n_blocks, p // 8, 64)


def unpack_codes(packed_BG64: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    """The inverse of pack_codes: codes uint8 [n, P]."""
    n_blocks, n_groups = packed_BG64.shape[:2]
    packed_BRG4 = packed_BG64.reshape(n_blocks, n_groups, BLOCK_ROWS, 4).transpose(0, 2, 1, 3)
    codes_BRG24 = np.stack([packed_BRG4 & 15, packed_BRG4 >> 4], axis=3)
    return codes_BRG24.reshape(n_blocks * BLOCK_ROWS, n_groups * 8)[:n]
