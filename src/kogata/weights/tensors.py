"""Tensors as checkpoints hold them.

Shape suffixes: N rows (outputs), K columns (inputs), G groups of 32 columns (K = 32 G), R chosen rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

FloatTensor = NDArray[np.float32]

#: Columns that share a scale.
GROUP = 32
#: Bytes of a group: a float16 scale, then 16 bytes of two codes each.
BLOCK_BYTES = 18


@dataclass(frozen=True, slots=True, eq=False)
class Q4Tensor:
    """A matrix at 4 bits: per row and group of 32 columns a float16 scale and 32 codes (``Q4_0`` in ggml's terms).

    A weight is ``(nibble - 8) * scale``. Byte ``j`` of a group's 16 holds column ``j`` in its low and column ``j + 16``
    in its high nibble. The blocks stay where they are (usually mapped from a file); every method reads only the rows it
    is asked for.

    Attributes:
        kind: The storage of the kernels that keeps the codes as they are.
        blocks_NGB: uint8 [N, G, 18], the groups as in the file.
    """

    kind: ClassVar[Literal["int4"]] = "int4"
    blocks_NGB: NDArray[np.uint8]

    def __post_init__(self) -> None:
        blocks = self.blocks_NGB
        if blocks.dtype != np.uint8 or blocks.ndim != 3 or blocks.shape[2] != BLOCK_BYTES:
            raise ValueError(f"blocks must be uint8 [N, G, {BLOCK_BYTES}], not {blocks.dtype} {list(blocks.shape)}")

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        n, g, _ = self.blocks_NGB.shape
        return n, g * GROUP

    @property
    def group(self) -> int:
        """Columns that share a scale: 32."""
        return GROUP

    @property
    def nbytes(self) -> int:
        """Bytes of scales and codes."""
        return self.blocks_NGB.nbytes

    @property
    def scales_f16(self) -> NDArray[np.float16]:
        """float16 [N, G], a strided view into the blocks."""
        return self.blocks_NGB[:, :, :2].view("<f2")[:, :, 0]

    @property
    def scales_NG(self) -> FloatTensor:
        """float32 [N, G], a copy."""
        return np.ascontiguousarray(self.scales_f16).astype(np.float32)

    @property
    def packed_NGH(self) -> NDArray[np.uint8]:
        """uint8 [N, G, 16], two codes (plus 8) a byte; a strided view into the blocks."""
        return self.blocks_NGB[:, :, 2:]

    def codes_i8(self, rows: NDArray[np.integer] | None = None) -> NDArray[np.int8]:
        """int8 [N, K] in -8..7, or [R, K] for chosen rows."""
        packed = self.packed_NGH if rows is None else self.packed_NGH[rows]
        n, g, half = packed.shape
        codes = np.empty((n, g, 2 * half), np.int8)
        np.bitwise_and(packed, 15, out=codes[:, :, :half].view(np.uint8))
        np.right_shift(packed, 4, out=codes[:, :, half:].view(np.uint8))
        codes -= 8
        return codes.reshape(n, g * GROUP)

    def dequantise(self, rows: NDArray[np.integer] | None = None) -> FloatTensor:
        """float32 [N, K], or [R, K] for chosen rows (any order, repeats allowed)."""
        codes = self.codes_i8(rows)
        scales = self.scales_f16 if rows is None else self.scales_f16[rows]
        n, k = codes.shape
        values = codes.reshape(n, k // GROUP, GROUP) * scales.astype(np.float32)[:, :, None]
        return values.reshape(n, k)


@dataclass(frozen=True, slots=True, eq=False)
class Q8Tensor:
    """A matrix at 8 bits: per row and group of 32 columns a float16 scale and 32 codes (``Q8_0`` in ggml's terms).

    A weight is ``code * scale``. The blocks stay where they are, usually mapped from a file.

    Attributes:
        kind: The storage of the kernels that keeps the codes as they are.
        blocks_NGB: uint8 [N, G, 34], the groups as in the file.
    """

    kind: ClassVar[Literal["int8"]] = "int8"
    blocks_NGB: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        n, g, _ = self.blocks_NGB.shape
        return n, g * GROUP

    @property
    def group(self) -> int:
        """Columns that share a scale: 32."""
        return GROUP

    @property
    def scales_NG(self) -> FloatTensor:
        """float32 [N, G], a copy."""
        return np.ascontiguousarray(self.blocks_NGB[:, :, :2]).view("<f2")[:, :, 0].astype(np.float32)

    def codes_i8(self) -> NDArray[np.int8]:
        """int8 [N, K], a copy."""
        return np.ascontiguousarray(self.blocks_NGB[:, :, 2:]).view(np.int8).reshape(self.shape)

    def dequantise(self) -> FloatTensor:
        """float32 [N, K]."""
        n, k = self.shape
        return (self.codes_i8().reshape(n, -1, GROUP) * self.scales_NG[:, :, None]).reshape(n, k)


@dataclass(frozen=True, slots=True, eq=False)
class TernaryTensor:
    """A matrix of codes -1, 0 and 1 with scales by row or by groups of columns; a weight is ``code * scale``.

    The codes stay in the file as they are stored until they are asked for (``kogata.weights.ternary`` knows the
    layouts).

    Attributes:
        shape: (N, K).
        scales_NG: float32 [N, G]; G = 1 where a row has one scale (a matrix's scale is repeated).
        unpack: Gives the codes, int8 [N, K].
    """

    shape: tuple[int, int]
    scales_NG: FloatTensor
    unpack: Callable[[], NDArray[np.int8]]

    @property
    def group(self) -> int:
        """Columns that share a scale: K where G = 1."""
        return self.shape[1] // int(self.scales_NG.shape[1])

    def codes_i8(self) -> NDArray[np.int8]:
        """int8 [N, K] in -1..1, a copy."""
        return self.unpack()

    def dequantise(self) -> FloatTensor:
        """float32 [N, K]."""
        n, k = self.shape
        groups = self.codes_i8().reshape(n, -1, self.group) * self.scales_NG[:, :, None]
        return groups.reshape(n, k)
