"""Row-wise operations without the extension: native's signatures, numpy's arithmetic.

Shapes: T tokens, H width, S sequences.
"""

from __future__ import annotations

import numpy as np

from kogata.ops.elementwise import Floats, FourBitRows, Ints, reference


def layer_norm(
    x_TH: Floats, residual_TH: Floats | None, gain_H: Floats, bias_H: Floats, eps: float, out_TH: Floats
) -> None:
    x = x_TH if residual_TH is None else x_TH + residual_TH
    out_TH[...] = reference.layer_norm(x, gain_H, bias_H, eps)


def rms_norm(x_TH: Floats, residual_TH: Floats | None, gain_H: Floats, eps: float, out_TH: Floats) -> None:
    y = reference.rms_norm(x_TH, gain_H, eps)
    out_TH[...] = y if residual_TH is None else y + residual_TH


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
    floats = isinstance(word_VH, np.ndarray)
    n_words = len(word_VH) if floats else len(word_VH.blocks_NGB)  # type: ignore[union-attr,arg-type]
    for name, index_T, n in (("token id", ids_T, n_words), ("position", positions_T, len(position_PH))):
        if len(index_T) and (index_T.min() < 0 or index_T.max() >= n):
            raise ValueError(f"a {name} is outside its table of {n} rows")
    x = (word_VH[ids_T] if isinstance(word_VH, np.ndarray) else four_bit_rows(word_VH, ids_T)) + position_PH[
        positions_T
    ]
    if type_NH is not None:
        if types_T is not None and len(types_T) and (types_T.min() < 0 or types_T.max() >= len(type_NH)):
            raise ValueError(f"a token type is outside its table of {len(type_NH)} rows")
        x = x + (type_NH[0] if types_T is None else type_NH[types_T])
    out_TH[...] = reference.layer_norm(x, gain_H, bias_H, eps)


def four_bit_rows(rows: FourBitRows, ids_T: Ints) -> Floats:
    """Chosen rows as floats: byte j of a block holds column j in its low and column j + 16 in its high four bits."""
    blocks = rows.blocks_NGB[ids_T]
    scales = np.ascontiguousarray(blocks[:, :, :2]).view("<f2").astype(np.float32)
    codes = np.concatenate([blocks[:, :, 2:] & 15, blocks[:, :, 2:] >> 4], axis=-1).astype(np.float32) - np.float32(8)
    values: Floats = (codes * scales).reshape(len(ids_T), -1)
    return values


def pool(hidden_TH: Floats, cu_seqlens: Ints, first_token: bool, normalise: bool, out_SH: Floats) -> None:
    if len(out_SH):
        out_SH[...] = reference.pool(hidden_TH, cu_seqlens, first_token, normalise)
