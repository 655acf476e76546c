"""The published layouts of ternary weights -> :class:`~kogata.weights.tensors.TernaryTensor`.

Shapes: N rows (outputs), K columns (inputs), G groups along K, P packed rows (N = 4 P), R a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.errors import ModelError
from kogata.weights.safetensors import to_f32
from kogata.weights.tensors import FloatTensor, TernaryTensor

#: Columns that share a scale where a matrix's rows do not have one each (Ternary-Bonsai).
GROUP = 128
#: Rows that are looked at before a whole matrix is.
_SAMPLE = 16
#: Below this a row of few values is chance.
_LEAST_COLUMNS = 32
#: Numbers that are converted at a time.
_CHUNK = 2**22
#: The least mean magnitude that is divided by, as wherever such models are trained.
_SMALLEST = np.float32(1e-5)

#: Stored type -> numpy's type for its bits, and the bits that are not the sign.
_MAGNITUDES: dict[str, tuple[str, int]] = {
    "BF16": ("<u2", 0x7FFF),
    "F16": ("<u2", 0x7FFF),
    "F32": ("<u4", 0x7FFF_FFFF),
}


def packed(bytes_PK: NDArray[np.uint8], scale: float) -> TernaryTensor:
    """Four codes a byte: row r stands in packed row ``r % P``, bits ``2 * (r // P)``, plus 1 (BitNet 2B4T, bitlinear).

    Args:
        bytes_PK: The packed rows.
        scale: What a code is multiplied by.
    """
    n_packed, k = bytes_PK.shape

    def unpack() -> NDArray[np.int8]:
        codes = np.empty((4, n_packed, k), np.uint8)
        for quarter in range(4):
            np.right_shift(bytes_PK, 2 * quarter, out=codes[quarter])
        codes &= 3
        codes -= 1
        return codes.view(np.int8).reshape(4 * n_packed, k)

    return TernaryTensor((4 * n_packed, k), _one_scale(4 * n_packed, scale), unpack)


def packed_codes_are_ternary(bytes_PK: NDArray[np.uint8]) -> bool:
    """Whether no two bits of the packed rows are both set, which would be the code 2."""
    return all(not (rows & (rows >> 1) & 0x55).any() for rows in _chunks(bytes_PK))


def unpacked(stored_NK: NDArray[Any], dtype: str, scale: float) -> TernaryTensor:
    """A code an element, as floating point numbers (what transformers saves of an offline ``autobitlinear``).

    Asking for the codes raises ModelError if they are not all -1, 0 or 1.

    Args:
        stored_NK: The codes.
        dtype: Their type in safetensors' terms.
        scale: What a code is multiplied by.
    """
    n, k = stored_NK.shape

    def unpack() -> NDArray[np.int8]:
        codes = np.empty((n, k), np.int8)
        for out, rows in zip(_chunks(codes), _chunks(stored_NK), strict=True):
            values = to_f32(rows, dtype)
            if not ((values == 0) | (np.abs(values) == 1)).all():
                raise ModelError("The weights are said to be quantised already, but are not all -1, 0 or 1.")
            out[:] = values
        return codes

    return TernaryTensor((n, k), _one_scale(n, scale), unpack)


def master(stored_NK: NDArray[Any], dtype: str) -> TernaryTensor:
    """The weights that training rounds in every step, rounded: ``clip(round(W / mean|W|), -1, 1) * mean|W|``.

    The quotient is a product with the float32 reciprocal, as in the code that trained them.

    Args:
        stored_NK: W.
        dtype: Its type in safetensors' terms.
    """
    n, k = stored_NK.shape
    total = sum(float(np.abs(to_f32(rows, dtype)).sum(dtype=np.float64)) for rows in _chunks(stored_NK))
    factor = np.float32(1.0) / max(np.float32(total / (n * k)), _SMALLEST)

    def unpack() -> NDArray[np.int8]:
        codes = np.empty((n, k), np.int8)
        for out, rows in zip(_chunks(codes), _chunks(stored_NK), strict=True):
            out[:] = np.clip(np.rint(to_f32(rows, dtype) * factor), -1, 1)
        return codes

    return TernaryTensor((n, k), _one_scale(n, 1.0 / float(factor)), unpack)


def binary_master(stored_NK: NDArray[Any], dtype: str) -> TernaryTensor:
    """The same by the original BitNet (arXiv 2310.11453): ``sign(W - mean W) * mean|W|``, the sign of 0 being -1.

    Args:
        stored_NK: W.
        dtype: Its type in safetensors' terms.
    """
    n, k = stored_NK.shape
    total = magnitude = 0.0
    for rows in _chunks(stored_NK):
        values = to_f32(rows, dtype)
        total += float(values.sum(dtype=np.float64))
        magnitude += float(np.abs(values).sum(dtype=np.float64))
    mean = total / (n * k)

    def unpack() -> NDArray[np.int8]:
        codes = np.empty((n, k), np.int8)
        for out, rows in zip(_chunks(codes), _chunks(stored_NK), strict=True):
            out[:] = np.where(to_f32(rows, dtype) > mean, 1, -1)
        return codes

    return TernaryTensor((n, k), _one_scale(n, magnitude / (n * k)), unpack)


def detected(stored_NK: NDArray[Any], dtype: str) -> TernaryTensor | None:
    """The matrix as codes and scales, if it is ternary already: each group of 128 columns holds only -s, 0 and s.

    Where K is no multiple of 128, each row must; and where all groups of each row have one s, G = 1. (Ternary-Bonsai
    is published so, its binary sibling too, and the 16-bit files of Falcon-E.) A few rows tell most others apart.

    Args:
        stored_NK: The matrix.
        dtype: Its type in safetensors' terms.
    """
    if dtype not in _MAGNITUDES:
        return None
    n, k = stored_NK.shape
    group = GROUP if k % GROUP == 0 else k
    if group < _LEAST_COLUMNS or n == 0:
        return None
    bits, mask = _MAGNITUDES[dtype]
    bits_NGC = stored_NK.view(bits).reshape(n, k // group, group)
    if _group_magnitudes(bits_NGC[np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int)], mask) is None:
        return None
    tops = np.empty(bits_NGC.shape[:2], bits)
    for out, rows in zip(_chunks(tops, k), _chunks(bits_NGC, k), strict=True):
        found = _group_magnitudes(rows, mask)
        if found is None:
            return None
        out[:] = found
    scales = to_f32(tops if dtype == "BF16" else tops.view(stored_NK.dtype), dtype)
    row_scales = scales.max(axis=1, keepdims=True)
    if ((scales == row_scales) | (scales == 0)).all():
        scales = row_scales

    def unpack() -> NDArray[np.int8]:
        codes = np.empty((n, k), np.int8)
        for out, rows in zip(_chunks(codes), _chunks(stored_NK), strict=True):
            out[:] = np.sign(to_f32(rows, dtype))
        return codes

    return TernaryTensor((n, k), np.ascontiguousarray(scales, np.float32), unpack)


def ggml_blocks(blocks_NGB: NDArray[np.uint8]) -> TernaryTensor:
    """llama.cpp's blocks of 256 columns, each with a float16 scale: TQ2_0 (66 bytes) or TQ1_0 (54).

    TQ2_0: two halves of 128 columns, of which byte j of 32 holds columns j, j + 32, j + 64 and j + 96 from the low bits
    up, plus 1. TQ1_0 writes five codes to a byte (four in the last four bytes) as a fraction of 243 in 256ths, so that
    times 3 the next code is what overflows: 160 columns in 32 bytes, 80 in 16 and 16 in 4, strided likewise.

    Where all blocks of each row have one scale, or 0, G = 1.

    Args:
        blocks_NGB: uint8 [N, G, B].
    """
    n, n_blocks, size = blocks_NGB.shape
    scales = np.ascontiguousarray(blocks_NGB[:, :, -2:]).view("<f2")[:, :, 0].astype(np.float32)
    row_scales = np.take_along_axis(scales, np.abs(scales).argmax(axis=1, keepdims=True), axis=1)
    one = bool(((scales == row_scales) | (scales == 0)).all())
    of_block = _tq2_codes if size == 66 else _tq1_codes

    def unpack() -> NDArray[np.int8]:
        codes_NGC = np.empty((n, n_blocks, 256), np.int8)
        for out, rows in zip(_chunks(codes_NGC, n_blocks * 256), _chunks(blocks_NGB, n_blocks * 256), strict=True):
            of_block(rows, out.view(np.uint8))
        codes_NGC -= 1
        codes_NGC[scales == 0] = 0
        return codes_NGC.reshape(n, n_blocks * 256)

    return TernaryTensor((n, n_blocks * 256), row_scales if one else scales, unpack)


def ggml_codes_are_ternary(blocks_NGB: NDArray[np.uint8]) -> bool:
    """Whether no code is 3, which only TQ2_0 could hold."""
    if blocks_NGB.shape[2] != 66:
        return True
    return packed_codes_are_ternary(blocks_NGB[:, :, :-2].reshape(len(blocks_NGB), -1))


def _tq2_codes(blocks_RGB: NDArray[np.uint8], out_RGC: NDArray[np.uint8]) -> None:
    rows, groups, _ = blocks_RGB.shape
    halves = blocks_RGB[:, :, :64].reshape(rows, groups, 2, 1, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    np.bitwise_and(halves >> shifts, 3, out=out_RGC.reshape(rows, groups, 2, 4, 32))


def _tq1_codes(blocks_RGB: NDArray[np.uint8], out_RGC: NDArray[np.uint8]) -> None:
    column = byte = 0
    for width, digits in ((32, 5), (16, 5), (4, 4)):
        left = blocks_RGB[:, :, byte : byte + width].copy()
        for _ in range(digits):
            # The code is the byte's share of 256, in thirds; what remains of the byte is the rest, times 3.
            np.right_shift(left.astype(np.uint16) * 3, 8, out=out_RGC[:, :, column : column + width], casting="unsafe")
            left *= 3
            column += width
        byte += width


def _group_magnitudes(bits_RGC: NDArray[Any], mask: int) -> NDArray[Any] | None:
    """[R, G]: the bits of the one magnitude besides 0 in each group, or None if a group has more."""
    magnitudes = bits_RGC & bits_RGC.dtype.type(mask)
    tops: NDArray[Any] = magnitudes.max(axis=2)
    return tops if ((magnitudes == tops[:, :, None]) | (magnitudes == 0)).all() else None


def _chunks(array: NDArray[Any], columns: int | None = None) -> Iterator[NDArray[Any]]:
    """Views of a few rows at a time; ``columns``: how many numbers a row stands for."""
    step = max(1, _CHUNK // max(1, columns or array.shape[1]))
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _one_scale(n: int, scale: float) -> FloatTensor:
    return np.full((n, 1), scale, np.float32)
