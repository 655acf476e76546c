"""Dense scoring as plain mathematics, over the array API: numpy float64 is the truth the kernels are tested against.

Shapes: Q queries, N rows, D dimensions, K results, P prefix dimensions, S shortlisted rows.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace


def best(scores_QN: Any, k: int) -> Any:
    """Columns of the k highest scores of each line, best first; equal scores by lowest column. int64 [Q, min(k, N)]."""
    xp = array_namespace(scores_QN)
    return xp.argsort(-scores_QN, axis=-1, stable=True)[:, :k]


def topk(q_QD: Any, rows_ND: Any, k: int) -> tuple[Any, Any]:
    """Inner products of every query with every row and the k best of them: (scores [Q, K], rows [Q, K])."""
    xp = array_namespace(q_QD, rows_ND)
    scores_QN = q_QD @ rows_ND.T
    index_QK = best(scores_QN, k)
    return xp.take_along_axis(scores_QN, index_QK, axis=-1), index_QK


def topk_int8(q_QD: Any, q_scales_Q: Any, rows_ND: Any, scales_N: Any, k: int) -> tuple[Any, Any]:
    """The same over int8 codes: integer products (widened first: int8 wraps), times the query's and the row's scale."""
    xp = array_namespace(q_QD, rows_ND)
    products_QN = xp.astype(q_QD, xp.int64) @ xp.astype(rows_ND, xp.int64).T
    scores_QN = xp.astype(products_QN, scales_N.dtype) * scales_N[None, :] * q_scales_Q[:, None]
    index_QK = best(scores_QN, k)
    return xp.take_along_axis(scores_QN, index_QK, axis=-1), index_QK


def shortlist(weights_P: Any, codes_NP: Any, size: int) -> Any:
    """Rows with the `size` highest sums of weight times code, ascending by row; equal sums: the lowest rows. int64
    [S].
    """
    xp = array_namespace(weights_P, codes_NP)
    sums_N = xp.astype(codes_NP, xp.int64) @ xp.astype(weights_P, xp.int64)
    return xp.sort(best(sums_N[None, :], size)[0, :])
