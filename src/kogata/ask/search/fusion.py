"""Words and meaning in one order.

Cosines of one embedder lie between 0.7 and 0.9, those of another between 0 and 0.6, and BM25 has no scale at all. So
each side's scores are standardised over the candidates of the query at hand and then added with one global weight.
Shapes: C candidates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]

WEIGHT = 0.7
"""Share of meaning in the sum, of words the rest (bench/retrieval_quality.py shows the neighbours)."""


def standardise(scores_C: npt.ArrayLike) -> Scores:
    """Zero mean and unit deviation over the known scores; unknown ones (NaN) stay unknown."""
    scores = np.asarray(scores_C, dtype=np.float64)
    known = scores[~np.isnan(scores)]
    if known.size == 0:
        return scores
    deviation = known.std()
    centred: Scores = scores - known.mean()
    return centred / deviation if deviation > 1e-12 * max(1.0, float(np.abs(known).max())) else centred * 0.0


def fuse(meaning_C: npt.ArrayLike, words_C: npt.ArrayLike, weight: float) -> Scores:
    """Fused score of each candidate, higher is better.

    Args:
        meaning_C: Cosines; NaN for a passage without a vector.
        words_C: BM25 scores; a passage that the words did not find has the lowest score they could have given it.
        weight: Share of meaning, 0 to 1.

    A passage without a vector is judged by its words alone, on the same scale.
    """
    meaning, words = standardise(meaning_C), standardise(words_C)
    fused = weight * meaning + (1.0 - weight) * words
    return np.where(np.isnan(meaning), words, fused)


def best_first(scores_C: npt.ArrayLike, ids_C: npt.ArrayLike, k: int) -> npt.NDArray[np.int64]:
    """Positions of the k best scores; equal scores in the order of their ids."""
    return np.lexsort((np.asarray(ids_C), -np.asarray(scores_C)))[:k].astype(np.int64)
