"""The quantised linear by the extension; contracts in __init__.py, kernels in csrc/linear.inl."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata import _native
from kogata.ops.linear.packed import CodedWeight, Floats, Glu, Kind, PackedLinear, sizes


def pack(weight_NK: Floats | CodedWeight, kind: Kind, group: int, bias_N: Floats | None) -> PackedLinear:
    n, k = weight_NK.shape
    data, scales, sums, code_sums = sizes(kind, n, k, group)
    packed = PackedLinear(
        kind=kind,
        n_out=n,
        n_in=k,
        group=group,
        data_B=aligned(data),
        scales=np.empty(scales, np.float32),
        sums_N=np.empty(sums, np.float32),
        code_sums_N=np.empty(code_sums, np.int32),
        bias_N=bias_N,
    )
    arrays = (packed.data_B, packed.scales, packed.sums_N, packed.code_sums_N)
    if isinstance(weight_NK, np.ndarray):
        _native.pack_f32(kind, weight_NK, group, *arrays)
    elif scales:
        _native.pack_codes(kind, weight_NK.codes_i8(), weight_NK.scales_NG, group, *arrays)
    else:
        by_group = weight_NK.scales_NG
        dense = weight_NK.codes_i8().reshape(n, by_group.shape[1], -1) * by_group[:, :, None]
        _native.pack_f32(kind, np.ascontiguousarray(dense.reshape(n, k), np.float32), group, *arrays)
    return packed


def aligned(n_bytes: int) -> NDArray[np.uint8]:
    """Uninitialised bytes that start on a cache line."""
    memory = np.empty(n_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + n_bytes]


def linear(
    x_TK: Floats, packed: PackedLinear, glu: Glu | None, norm: tuple[Floats, float] | None, gelu: bool,
    residual_TN: Floats | None, out_TN: Floats,
) -> None:  # fmt: skip
    gain_K, eps = (None, 0.0) if norm is None else norm
    _kernel(packed)(x_TK, glu or "", gain_K, eps, gelu, residual_TN, out_TN)


def take(packed: PackedLinear, rows_R: NDArray[np.int32], factor: float, out_RK: Floats) -> None:
    _kernel(packed).take(rows_R, factor, out_RK)


def _kernel(packed: PackedLinear) -> Any:
    """The extension's view of the arrays, checked once and kept."""
    if packed.kernel is None:
        arrays = (packed.data_B, packed.scales, packed.sums_N, packed.code_sums_N, packed.bias_N)
        kernel = _native.Linear(packed.kind, packed.n_out, packed.n_in, packed.group, *arrays)
        object.__setattr__(packed, "kernel", kernel)
    return packed.kernel
