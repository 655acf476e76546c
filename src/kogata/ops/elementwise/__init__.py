"""Row-wise operations: layer norm and RMS norm, an encoder's embedding rows and pooling.

Shapes: T tokens of all sequences packed, H width, S sequences, V vocabulary, P positions, N token types. All floats are
C-contiguous float32; ids, positions, types and cu_seqlens are int32. A row's result depends on that row alone.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kogata.ops import dispatch

__all__ = ["Floats", "FourBitRows", "Ints", "Pooling", "embed", "layer_norm", "pool", "rms_norm"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Pooling = Literal["mean", "cls"]


class FourBitRows(Protocol):
    """Embedding rows at 4 bits, as `kogata.weights` has them: uint8 [V, H / 32, 18], a float16 scale and 16 bytes."""

    @property
    def blocks_NGB(self) -> NDArray[np.uint8]: ...


def layer_norm(
    x_TH: Floats,
    gain_H: Floats,
    bias_H: Floats,
    eps: float,
    *,
    residual_TH: Floats | None = None,
    out_TH: Floats | None = None,
) -> Floats:
    """Layer norm (arXiv 1607.06450) of x, or of x + residual: (x - mean) / sqrt(variance + eps) * gain + bias.

    out may be x itself. Raises ValueError for shapes, TypeError for types that do not fit.
    """
    out = np.empty_like(x_TH) if out_TH is None else out_TH
    dispatch.table().layer_norm(x_TH, residual_TH, gain_H, bias_H, eps, out)
    return out


def rms_norm(
    x_TH: Floats, gain_H: Floats, eps: float, *, residual_TH: Floats | None = None, out_TH: Floats | None = None
) -> Floats:
    """RMS norm (arXiv 1910.07467), then the residual: x / sqrt(mean of squares + eps) * gain + residual.

    out may be x or residual itself. Raises ValueError for shapes, TypeError for types that do not fit.
    """
    out = np.empty_like(x_TH) if out_TH is None else out_TH
    dispatch.table().rms_norm(x_TH, residual_TH, gain_H, eps, out)
    return out


def embed(
    ids_T: Ints,
    positions_T: Ints,
    word_VH: Floats | FourBitRows,
    position_PH: Floats,
    type_NH: Floats | None,
    gain_H: Floats,
    bias_H: Floats,
    eps: float,
    *,
    types_T: Ints | None = None,
    out_TH: Floats | None = None,
) -> Floats:
    """Layer norm of word + position + type rows. Without types every token has type 0; the type table may be None.

    Raises ValueError for an id, position or type outside its table, and for shapes that do not fit.
    """
    out = np.empty((len(ids_T), len(gain_H)), np.float32) if out_TH is None else out_TH
    dispatch.table().embed(ids_T, positions_T, types_T, word_VH, position_PH, type_NH, gain_H, bias_H, eps, out)
    return out


def pool(hidden_TH: Floats, cu_seqlens: Ints, kind: Pooling = "mean", *, normalise: bool = True) -> Floats:
    """One vector a sequence: the mean over its tokens or its first token; scaled to length 1 where asked.

    cu_seqlens [S + 1] runs from 0 to T. A sequence without tokens gives zeros. Raises ValueError where shapes do not
    fit.
    """
    out = np.empty((len(cu_seqlens) - 1, hidden_TH.shape[1]), np.float32)
    dispatch.table().pool(hidden_TH, cu_seqlens, kind == "cls", normalise, out)
    return out
