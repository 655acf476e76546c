"""What packed weights look like in memory: one tiling for every instruction set.

Panels of 16 rows of the matrix; inside, steps of kk columns with the 16 rows' kk values adjacent: [N/16][K/kk][16][kk],
kk = 1 (f32), 2 (bf16 as uint16), 4 (int8), 8 (int4), 16 (ternary), 20 (trits). From int4 on a row has four bytes in a
step, and byte i holds columns i, i + 4, …: int4 two of them (plus 8) from the low bits up, ternary four (plus 1) of two
bits each, trits five (plus 1) as digits to the base 3. Scales per group: [N/16][G][16].

Shapes: N rows (outputs), K columns (inputs), G groups along K, L panels = ceil(N / 16), B bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Kind = Literal["f32", "bf16", "int8", "int4", "ternary", "trits"]
Glu = Literal["silu", "gelu_tanh", "relu2"]

PANEL = 16
STEP = {"f32": 1, "bf16": 2, "int8": 4, "int4": 8, "ternary": 16, "trits": 20}
TERNARY = ("ternary", "trits")


class CodedWeight(Protocol):
    """A matrix of integer codes with scales by group, as `kogata.weights.Q4Tensor`."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def scales_NG(self) -> Floats: ...
    def codes_i8(self) -> NDArray[np.int8]: ...


@dataclass(frozen=True, eq=False)
class PackedLinear:
    """Packed weights of one linear layer.

    Attributes:
        kind: f32, bf16, int8, int4, or -1, 0 and 1 at two bits (ternary) or five to a byte (trits).
        n_out: N.
        n_in: K.
        group: Columns that share a scale; 0: one scale a row (int8, ternary, trits), or none.
        data_B: uint8, the panels.
        scales: int8, int4, ternary and trits: per padded row, or [L, G, 16] flat.
        sums_N: int8 and int4 with groups: per padded row, sum over groups of scale times the sum of the codes.
        code_sums_N: int8 without groups: per padded row, the sum of the codes (int32).
        bias_N: Added to every result, or None.
        kernel: The extension's view of these arrays; None until it has been used.
    """

    kind: Kind
    n_out: int
    n_in: int
    group: int
    data_B: NDArray[np.uint8]
    scales: Floats
    sums_N: Floats
    code_sums_N: NDArray[np.int32]
    bias_N: Floats | None
    kernel: Any = field(default=None, init=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = (self.data_B, self.scales, self.sums_N, self.code_sums_N)
        return sum(a.nbytes for a in arrays) + (0 if self.bias_N is None else self.bias_N.nbytes)

    @property
    def padded_shape(self) -> tuple[int, int]:
        """(N, K) rounded up to whole panels and whole steps or groups."""
        return padded_shape(self.kind, self.n_out, self.n_in, self.group)

    @property
    def integers(self) -> bool:
        """Whether activations are quantised to a range of 8 bits."""
        return self.kind in ("int8", "int4")

    @property
    def ternary(self) -> bool:
        """Whether activations are quantised symmetrically, by BitNet's rule."""
        return self.kind in TERNARY

    @cached_property
    def dense_NK(self) -> Floats:
        """float32 [N, K], multiplied out; kept once asked for (the fallback computes with it)."""
        padded = np.arange(self.padded_shape[0])
        return self.rows(padded)[: self.n_out]

    def rows(self, rows_R: NDArray[np.integer]) -> Floats:
        """float32 [R, K]: chosen rows of the matrix, multiplied out."""
        n, k = self.padded_shape
        panel_R, column_R = np.divmod(rows_R, PANEL)
        step = STEP[self.kind]
        unit = step if self.kind in ("f32", "bf16", "int8") else 4
        dtype = {"f32": np.float32, "bf16": np.uint16, "int8": np.int8}.get(self.kind, np.uint8)
        stored_RKU = self.data_B.view(dtype).reshape(n // PANEL, k // step, PANEL, unit)[panel_R, :, column_R]
        if self.kind == "bf16":
            values = (stored_RKU.astype(np.uint32) << 16).view(np.float32)
        elif self.kind in ("f32", "int8"):
            values = stored_RKU.astype(np.float32)
        elif self.kind == "int4":
            values = np.concatenate([stored_RKU & 15, stored_RKU >> 4], axis=-1).astype(np.float32) - np.float32(8)
        else:
            base = 4 if self.kind == "ternary" else 3
            digits = [stored_RKU // base**s % base for s in range(step // 4)]
            values = np.concatenate(digits, axis=-1).astype(np.float32) - np.float32(1)
        values = values.reshape(len(rows_R), k)
        if self.integers or self.ternary:
            groups = 1 if self.group == 0 else k // self.group
            scales_RG1 = self.scales.reshape(n // PANEL, groups, PANEL)[panel_R, :, column_R][:, :, None]
            values = (values.reshape(len(rows_R), groups, k // groups) * scales_RG1).reshape(len(rows_R), k)
        return np.ascontiguousarray(values[:, : self.n_in], np.float32)


def padded_shape(kind: Kind, n_out: int, n_in: int, group: int) -> tuple[int, int]:
    """(N, K) rounded up to whole panels and whole steps or groups."""
    step = group or STEP[kind]
    return -(-n_out // PANEL) * PANEL, -(-n_in // step) * step


def sizes(kind: Kind, n_out: int, n_in: int, group: int) -> tuple[int, int, int, int]:
    """Elements of the four arrays of packed weights: data_B, scales, sums_N, code_sums_N.

    Raises:
        ValueError: Storage kind, shape and group do not fit.
    """
    check(kind, n_out, n_in, group)
    rows, depth = padded_shape(kind, n_out, n_in, group)
    panels, step = rows // PANEL, STEP[kind]
    data = panels * (depth // step) * PANEL * 4  # a step of any kind takes four bytes of a row
    groups = depth // group if group else 1
    integers = kind in ("int8", "int4")
    scales = rows * groups if integers or kind in TERNARY else 0
    return data, scales, rows if integers and group else 0, rows if integers and not group else 0


def check(kind: str, n_out: int, n_in: int, group: int) -> None:
    """Raises ValueError where storage kind, shape and group do not fit."""
    if kind not in STEP:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(STEP)}")
    if n_out < 1 or not 1 <= n_in <= 65536:
        raise ValueError(f"a weight of shape [{n_out}, {n_in}] cannot be packed; K must be between 1 and 65536")
    step = max(8, STEP[kind])
    if group != 0 and (kind in ("f32", "bf16") or group < 0 or group % step):
        raise ValueError(f"group is {group} for {kind}; integers have groups, multiples of 8 (ternary 16, trits 20)")
    if kind == "int4" and group == 0:
        raise ValueError("int4 weights need a group")
