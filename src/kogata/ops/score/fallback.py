"""Dense scoring without the extension: blocks of rows through numpy's matrix product, a partial selection after each.

Same signatures and results as native.py, to rounding. Shapes: Q queries, N rows, D dimensions, K results, P prefix
dimensions, B blocks of 16 rows, G groups of 8 prefix dimensions, S shortlisted rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kogata.ops.score.rows import Int8Rows, Rows, quantise

BLOCK_BYTES = 8 << 20


def select(scores_N: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the k highest scores, best first, equal scores by lowest place. numpy's partition alone breaks ties
    at random.
    """
    if k < len(scores_N):
        border = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
        above = np.flatnonzero(scores_N > border)
        places = np.concatenate([above, np.flatnonzero(scores_N == border)[: k - len(above)]])
        places.sort()
    else:
        places = np.arange(len(scores_N))
    return places[np.argsort(-scores_N[places], kind="stable")]


def topk(
    q_QD: NDArray[np.float32], rows: Rows, k: int, candidates_M: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of the candidate rows (all of them for None) for each query; k is at most their number."""
    codes_ND = rows.codes_ND if isinstance(rows, Int8Rows) else rows
    n, step = len(codes_ND), max(1, BLOCK_BYTES // (4 * max(1, codes_ND.shape[1])))
    kept_scores = np.empty((len(q_QD), 0), np.float32)
    kept_index = np.empty((len(q_QD), 0), np.int64)
    count = n if candidates_M is None else len(candidates_M)
    for start in range(0, count, step):
        stop = min(count, start + step)
        index_B = np.arange(start, stop) if candidates_M is None else candidates_M[start:stop]
        picked = slice(start, stop) if candidates_M is None else index_B
        scores_QB = products(q_QD, rows, picked)
        scores_QB[np.isnan(scores_QB)] = -np.inf
        scores = np.concatenate([kept_scores, scores_QB], axis=1)
        index = np.concatenate([kept_index, np.broadcast_to(index_B, scores_QB.shape)], axis=1)
        chosen = np.stack([select(line, min(k, scores.shape[1])) for line in scores])
        kept_scores, kept_index = np.take_along_axis(scores, chosen, 1), np.take_along_axis(index, chosen, 1)
    return kept_scores, kept_index


def products(q_QD: NDArray[np.float32], rows: Rows, picked: slice | NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores of the picked rows, f32 [Q, B]. Sums of int8 products stay below 2^24 up to 1,040 dimensions; beyond,
    f64 holds them.
    """
    if not isinstance(rows, Int8Rows):
        scores_QB: NDArray[np.float32] = q_QD @ rows[picked].astype(np.float32).T
        return scores_QB
    codes_QD, q_scales_Q = quantise(q_QD)
    wide: type[np.floating] = np.float32 if codes_QD.shape[1] <= 1040 else np.float64
    sums_QB: NDArray[np.floating] = codes_QD.astype(wide) @ rows.codes_ND[picked].astype(wide).T
    return sums_QB.astype(np.float32) * (q_scales_Q[:, None] * rows.scales_N[picked][None, :])


def shortlist(
    weights_P: NDArray[np.int8], packed_BG64: NDArray[np.uint8], n: int, size: int, allowed_N: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Rows with the `size` highest sums, ascending by row; see reference.shortlist. `size` is at most the allowed
    rows.
    """
    n_blocks, n_groups = packed_BG64.shape[0], packed_BG64.shape[1]
    weights_G24 = weights_P.reshape(n_groups, 2, 4).astype(np.float32)
    sums_N = np.empty(n_blocks * 16, np.float32)
    step = max(1, BLOCK_BYTES // (64 * 8 * max(1, n_groups)))
    for start in range(0, n_blocks, step):
        codes_BGR4 = packed_BG64[start : start + step].reshape(-1, n_groups, 16, 4)
        low = np.einsum("bgrj,gj->br", (codes_BGR4 & 15).astype(np.float32), weights_G24[:, 0], optimize=True)
        high = np.einsum("bgrj,gj->br", (codes_BGR4 >> 4).astype(np.float32), weights_G24[:, 1], optimize=True)
        sums_N[start * 16 : start * 16 + low.size] = (low + high).reshape(-1)
    sums_N = sums_N[:n]
    rows_M = np.arange(n) if allowed_N is None else np.flatnonzero(allowed_N)
    chosen: NDArray[np.int64] = np.sort(rows_M[select(sums_N[rows_M], size)])
    return chosen
