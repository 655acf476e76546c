"""Adaptive retrieval over a snapshot: segments, the tail of newer rows, and what was deleted since.

A large segment is searched in two steps: its 4-bit prefix codes are scanned for a shortlist, the shortlist is scored
by the full f16 vectors. Small segments and the tail are scored in full at once. Every score returned is the full
vector's, so that results of all parts merge, and exact and adaptive search differ only in which rows they looked at.

Shapes: n rows of a segment, D dimensions, K results, t tail rows, m ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kogata.ask.vectors import graph
from kogata.ask.vectors.segment import Segment
from kogata.errors import BadInput
from kogata.ops.score import shortlist, topk

EXACT_ROWS = 16_384  # up to here a segment is scored in full: under a millisecond, and no shortlist can miss
SHORTLIST = 4_096  # rows scored in full where there are more
SHORTLIST_PER_RESULT = 32


class VectorSet:
    """An immutable snapshot, safe to search from several threads.

    segments: open ones; tail_ids int64 [t] and tail_vectors f32 or f16 [t, D]: rows not in any segment yet; deleted
    int64: ids whose rows in the segments no longer count.
    """

    def __init__(
        self, segments: Sequence[Segment], tail_ids: ArrayLike, tail_vectors: NDArray[np.floating], deleted: ArrayLike
    ) -> None:
        self._segments = tuple(segments)
        self._deleted = np.unique(np.asarray(deleted, np.int64))
        order = np.argsort(np.asarray(tail_ids, np.int64), kind="stable")
        self._tail_ids = np.asarray(tail_ids, np.int64)[order]
        # f16 like the segments: a row's score does not change when it moves into one.
        self._tail_tD = np.ascontiguousarray(np.asarray(tail_vectors, np.float16)[order])

    @property
    def n(self) -> int:
        """Rows that can be found."""
        alive = sum(
            len(s.ids_n) if mask is None else int(mask.sum())
            for s, mask in zip(self._segments, self._alive, strict=True)
        )
        return len(self._tail_ids) + alive

    @cached_property
    def _alive(self) -> tuple[NDArray[np.bool_] | None, ...]:
        """For each segment the rows not deleted, or None for all."""
        masks: list[NDArray[np.bool_] | None] = []
        for segment in self._segments:
            dead = np.isin(segment.ids_n, self._deleted) if len(self._deleted) else np.zeros(0, np.bool_)
            masks.append(~dead if dead.any() else None)
        return tuple(masks)

    def search(
        self, q_D: ArrayLike, k: int, *, exact: bool = False, allowed: ArrayLike | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k live rows with the highest inner product: (scores f32 [K], ids int64 [K]), best first, ties by lowest
        id.

        K is k or, where fewer rows are live and allowed, their number. exact: score every row by its full vector.
        allowed: the only ids that may be returned (any order). Raises BadInput for k < 1 or a query that is not D
        finite numbers.
        """
        query_D = np.asarray(q_D, np.float32)
        ids = None if allowed is None else np.unique(np.asarray(allowed, np.int64))
        found = [
            self._search_segment(segment, alive, query_D, k, exact, ids)
            for segment, alive in zip(self._segments, self._alive, strict=True)
        ]
        tail_rows = None if ids is None else np.flatnonzero(np.isin(self._tail_ids, ids))
        scores, rows = topk(query_D[None], self._tail(len(query_D)), k, subset=tail_rows)
        found.append((scores[0], self._tail_ids[rows[0]]))
        all_scores = np.concatenate([part[0] for part in found])
        all_ids = np.concatenate([part[1] for part in found])
        best = np.lexsort((all_ids, -all_scores))[:k]
        return all_scores[best], all_ids[best]

    def scores(self, q_D: ArrayLike, ids: ArrayLike) -> NDArray[np.float32]:
        """Inner products with the given ids' vectors, f32 [m]; NaN where an id has no live vector."""
        query_D, wanted_m = np.asarray(q_D, np.float32), np.asarray(ids, np.int64)
        out_m = np.full(len(wanted_m), np.nan, np.float32)
        parts = [(s.ids_n, s.full_nD, alive) for s, alive in zip(self._segments, self._alive, strict=True)]
        for ids_n, full_nD, alive in [*parts, (self._tail_ids, self._tail(len(query_D)), None)]:
            rows_m = places(ids_n, wanted_m)
            hit = rows_m >= 0 if alive is None else (rows_m >= 0) & alive[rows_m]
            if hit.any():
                scores, rows = topk(query_D[None], full_nD, len(full_nD), subset=rows_m[hit])
                order = np.argsort(rows[0])
                out_m[hit] = scores[0][order][np.searchsorted(rows[0][order], rows_m[hit])]
        return out_m

    def _tail(self, dimensions: int) -> NDArray[np.float16]:
        """The tail's vectors; an empty tail has as many dimensions as anybody asks for."""
        return self._tail_tD if len(self._tail_ids) else np.empty((0, dimensions), np.float16)

    def _search_segment(
        self,
        segment: Segment,
        alive: NDArray[np.bool_] | None,
        query_D: NDArray[np.float32],
        k: int,
        exact: bool,
        ids: NDArray[np.int64] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if query_D.shape != (segment.header.dimensions,):
            raise BadInput(f"The query must be a vector of {segment.header.dimensions} numbers, not {query_D.shape}.")
        mask = alive
        if ids is not None:
            mask = np.zeros(len(segment.ids_n), np.bool_)
            rows = places(segment.ids_n, ids)
            mask[rows[rows >= 0]] = True
            mask = mask if alive is None else mask & alive
        candidates = len(segment.ids_n) if mask is None else int(mask.sum())
        size = max(SHORTLIST, SHORTLIST_PER_RESULT * k)
        subset = None
        if (
            segment.prefix is not None
            and not exact
            and candidates > max(EXACT_ROWS, 2 * size)
            and np.isfinite(query_D).all()
        ):
            subset = graph.search(segment, query_D, k, mask)
            if subset is None:
                subset = shortlist(
                    segment.prefix.weights(query_D), segment.codes_BG64, segment.header.n, size, allowed=mask
                )
            mask = None
        scores, rows_1K = topk(query_D[None], segment.full_nD, k, allowed=mask, subset=subset)
        return scores[0], segment.ids_n[rows_1K[0]]


def places(ids_n: NDArray[np.int64], wanted_m: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each wanted id is in the ascending ids, -1 for those that are not there."""
    if len(ids_n) == 0:
        return np.full(len(wanted_m), -1, np.int64)
    found_m = np.minimum(np.searchsorted(ids_n, wanted_m), len(ids_n) - 1)
    return np.where(ids_n[found_m] == wanted_m, found_m, -1)
