"""Row-wise operations by the extension; contracts in __init__.py, kernels in csrc/elementwise.inl."""

from __future__ import annotations

import numpy as np

from kogata import _native
from kogata.ops.elementwise import Floats, FourBitRows, Ints


def layer_norm(
    x_TH: Floats, residual_TH: Floats | None, gain_H: Floats, bias_H: Floats, eps: float, out_TH: Floats
) -> None:
    _native.layer_norm(x_TH, residual_TH, gain_H, bias_H, eps, out_TH)


def rms_norm(x_TH: Floats, residual_TH: Floats | None, gain_H: Floats, eps: float, out_TH: Floats) -> None:
    _native.rms_norm(x_TH, residual_TH, gain_H, eps, out_TH)


def embed(
    ids_T: Ints,
    positions_T: Ints,
    types_T: Ints | None,
    word_VH: Floats | FourBitRows,
    position_PH: Floats,
    type_NH: Floats | None,
    gain_H: Floats,
    bias_H: Floats,
    eps: float,
    out_TH: Floats,
) -> None:
    floats, blocks = (word_VH, None) if isinstance(word_VH, np.ndarray) else (None, word_VH.blocks_NGB)
    _native.embed(ids_T, positions_T, types_T, floats, blocks, position_PH, type_NH, gain_H, bias_H, eps, out_TH)


def pool(hidden_TH: Floats, cu_seqlens: Ints, first_token: bool, normalise: bool, out_SH: Floats) -> None:
    _native.pool(hidden_TH, cu_seqlens, first_token, normalise, out_SH)
