"""Dense scoring by the extension; contracts in __init__.py, kernels in csrc/score.inl."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kogata import _native
from kogata.ops.score.rows import Int8Rows, Rows, quantise


def topk(
    q_QD: NDArray[np.float32], rows: Rows, k: int, candidates_M: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    scores_QK = np.empty((len(q_QD), k), np.float32)
    index_QK = np.empty((len(q_QD), k), np.int64)
    if isinstance(rows, Int8Rows):
        codes_QD, scales_Q = quantise(q_QD)
        _native.score_topk_int8(codes_QD, scales_Q, rows.codes_ND, rows.scales_N, candidates_M, scores_QK, index_QK)
    elif rows.dtype == np.float16:
        _native.score_topk_f16(q_QD, rows.view(np.uint16), candidates_M, scores_QK, index_QK)
    else:
        _native.score_topk_f32(q_QD, rows, candidates_M, scores_QK, index_QK)
    return scores_QK, index_QK


def shortlist(
    weights_P: NDArray[np.int8], packed_BG64: NDArray[np.uint8], n: int, size: int, allowed_N: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    rows_S = np.empty(size, np.int64)
    allowed = None if allowed_N is None else np.ascontiguousarray(allowed_N).view(np.uint8)
    _native.score_shortlist(weights_P, packed_BG64, n, allowed, rows_S)
    return rows_S
