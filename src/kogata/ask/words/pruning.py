"""Which passages of a large index deserve their BM25 score: FTS5 computes it for every passage that has any word.

Reading the row numbers of a word costs 60 ns a passage, counting them 20, FTS5's ``bm25()`` 1,000: for a word such as
*said* in 9 % of a million passages that alone is 90 ms. So passages are first ordered by the inverse document
frequencies of the words they have, which is BM25 with every word once and every passage of average length. The real
BM25 differs from that by less than a factor of two where it matters (a word three times gains 1.6, a passage half as
long 1.4), hence :data:`MARGIN`. This is the idea of MaxScore (Turtle and Flood, 1995) with a measured bound
instead of the rigorous one (2.2 = k1 + 1), which spares almost nothing on sentences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LARGE = 50_000
"""In indexes of up to this many passages every match is scored: that takes at most some 30 ms."""

MARGIN = 0.5
"""Passages with less than this share of the weight of the last one wanted are not scored."""

MOST = 20_000
"""How many passages are scored at most, ties with the last one apart; more when more are asked for."""


def worth_scoring(
    rows: Sequence[npt.NDArray[np.int64]],
    times: Sequence[int],
    n_passages: int,
    limit: int,
    allowed: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int64]:
    """The passages that may be among the `limit` best by BM25, ascending.

    Args:
        rows: For each term of a query the passages that have it, ascending.
        times: How often the query has each term.
        n_passages: How many passages the index has.
        limit: How many passages are wanted.
        allowed: The only passages that count, ascending; None: all.
    """
    import numpy as np

    # FTS5's own idf, which never goes below a millionth.
    idf = [max(1e-6, math.log(max(1e-6, n_passages - len(ids) + 0.5) / (len(ids) + 0.5))) for ids in rows]
    if allowed is not None:
        rows = [ids[np.isin(ids, allowed, assume_unique=True)] for ids in rows]
    ids_M = np.concatenate([np.empty(0, np.int64), *rows])
    if not ids_M.size:
        return ids_M
    weights_M = np.repeat(np.multiply(idf, times), [len(ids) for ids in rows])
    order_M = np.argsort(ids_M, kind="stable")  # merges the ascending runs
    ids_M = ids_M[order_M]
    first_P = np.flatnonzero(np.r_[True, ids_M[1:] != ids_M[:-1]])
    weights_P = np.add.reduceat(weights_M[order_M], first_P)
    last, most = (max(0, len(first_P) - n) for n in (limit, max(limit, MOST)))
    sorted_P = np.partition(weights_P, (most, last))
    least = max(sorted_P[most], MARGIN * sorted_P[last] if len(first_P) > limit else 0.0)
    chosen: npt.NDArray[np.int64] = ids_M[first_P[weights_P >= least * (1 - 1e-9)]]
    return chosen
