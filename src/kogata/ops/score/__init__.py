"""Dense scoring fused with top-k, and the 4-bit prefix scan that shortlists rows for it.

`topk` scores f32, f16 or int8 rows exactly as stored; `shortlist` scans prefix codes (rows.pack_codes) and returns
the rows worth scoring. Results never depend on the number of threads; equal scores go to the lowest row.

Shapes: Q queries, N rows, D dimensions, K results, P prefix dimensions, B blocks of 16 rows, G groups of 8
dimensions, S shortlist.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kogata.errors import BadInput
from kogata.ops.dispatch import table
from kogata.ops.score.rows import Int8Rows, Rows, describe, pack_codes, unpack_codes

__all__ = ["Int8Rows", "pack_codes", "shortlist", "topk", "unpack_codes"]


def topk(
    q_QD: ArrayLike,
    rows: Rows,
    k: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    subset: ArrayLike | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k rows with the highest inner product for each query: (scores f32 [Q, K], rows int64 [Q, K]), best first.

    rows: C-contiguous f32 or f16 [N, D], or Int8Rows (then the query is quantised to int8 too). allowed: bool [N],
    rows that may be returned. subset: the only rows to score (any order, repeats counted once). K is k or, where
    there are fewer, the number of candidate rows. A row whose score is not a number counts as -inf. Raises BadInput
    for k < 1, a query that is not finite, or shapes and types that do not fit.
    """
    count = positive(k, "k")
    stored_ND = check_rows(rows)
    n, d = stored_ND.shape
    queries_QD = np.ascontiguousarray(q_QD, np.float32)
    if queries_QD.ndim != 2 or queries_QD.shape[1] != d:
        raise BadInput(f"Queries must be [Q, {d}] for rows of {d} dimensions, not {describe(queries_QD)}.")
    if not np.isfinite(queries_QD).all():
        raise BadInput("A query vector has entries that are not finite numbers.")
    candidates_M = check_candidates(n, allowed, subset)
    count = min(count, n if candidates_M is None else len(candidates_M))
    if count == 0 or len(queries_QD) == 0:
        return np.empty((len(queries_QD), count), np.float32), np.empty((len(queries_QD), count), np.int64)
    scores_QK, index_QK = table().score_topk(queries_QD, rows, count, candidates_M)
    return scores_QK, index_QK


def shortlist(
    weights_P: NDArray[np.int8],
    packed_BG64: NDArray[np.uint8],
    n: int,
    size: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The `size` rows of the first n with the highest sums of weight times 4-bit code, ascending by row (so that
    reranking reads forward); equal sums: the lowest rows; all allowed rows where there are fewer. int64 [S]. Raises
    BadInput as topk does.
    """
    count = positive(size, "The shortlist's size")
    if (
        packed_BG64.dtype != np.uint8
        or packed_BG64.ndim != 3
        or packed_BG64.shape[2] != 64
        or not contiguous(packed_BG64)
    ):
        raise BadInput(f"Packed codes must be contiguous uint8 [B, G, 64], not {describe(packed_BG64)}.")
    if not 0 <= n <= len(packed_BG64) * 16:
        raise BadInput(f"{len(packed_BG64)} blocks hold 0 to {len(packed_BG64) * 16} rows, not {n}.")
    if weights_P.dtype != np.int8 or weights_P.shape != (packed_BG64.shape[1] * 8,):
        raise BadInput(f"Weights must be int8 [{packed_BG64.shape[1] * 8}], not {describe(weights_P)}.")
    count = min(count, n if allowed is None else int(np.count_nonzero(check_allowed(n, allowed))))
    if count == 0:
        return np.empty(0, np.int64)
    rows_S: NDArray[np.int64] = table().score_shortlist(np.ascontiguousarray(weights_P), packed_BG64, n, count, allowed)
    return rows_S


def positive(value: int, what: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise BadInput(f"{what} must be a whole number of at least 1, not {value!r}.") from None
    if number < 1:
        raise BadInput(f"{what} must be at least 1, not {number}.")
    return number


def contiguous(array: NDArray[np.generic]) -> bool:
    return bool(array.flags.c_contiguous)


def check_rows(rows: Rows) -> NDArray[np.generic]:
    stored = rows.codes_ND if isinstance(rows, Int8Rows) else rows
    if not isinstance(rows, Int8Rows) and stored.dtype not in (np.float32, np.float16):
        raise BadInput(f"Rows must be float32, float16 or Int8Rows, not {describe(stored)}.")
    if stored.ndim != 2 or not contiguous(stored):
        raise BadInput(f"Rows must be one contiguous [N, D] block, not {describe(stored)}.")
    if len(stored) >= 2**32 - 1:
        raise BadInput(f"One call scores fewer than 2^32 - 1 rows, not {len(stored)}.")
    return stored


def check_allowed(n: int, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if allowed.dtype != np.bool_ or allowed.shape != (n,):
        raise BadInput(f"The filter must be bool [{n}], one entry for each row, not {describe(allowed)}.")
    return allowed


def check_candidates(n: int, allowed: NDArray[np.bool_] | None, subset: ArrayLike | None) -> NDArray[np.int64] | None:
    """The rows to score, ascending, or None for all of them."""
    if subset is None:
        return None if allowed is None else np.flatnonzero(check_allowed(n, allowed))
    rows_M = np.unique(np.asarray(subset, np.int64))
    if rows_M.size and not 0 <= rows_M[0] <= rows_M[-1] < n:
        raise BadInput(f"The subset names rows {rows_M[0]} to {rows_M[-1]}; there are rows 0 to {n - 1}.")
    return rows_M if allowed is None else rows_M[check_allowed(n, allowed)[rows_M]]
