"""Choosing the next token of every row of logits.

A row's result depends on its own logits, settings, seed and position, never on the rows beside it or on threads; there
is no random state. The order of steps is that of :class:`Row`. Log-probabilities are of the logits as they come from
the model, before penalties, bias, mask, temperature and truncation, as OpenAI's API reports them.

Shapes: B rows, V vocabulary, W = ceil(V / 32) words of a mask, L log-probabilities, N tokens with a count, M biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kogata.errors import BadInput, ModelError
from kogata.ops.dispatch import table
from kogata.ops.sample.rows import Row, TokenCounts

__all__ = ["Row", "Sampled", "TokenCounts", "UnusableLogits", "sample"]

_WHY = {
    -1: "the model gave numbers that are NaN or infinite",
    -2: "the model gave every token -inf",
    -3: "no token is left that may come next",
}


class UnusableLogits(ModelError):
    """Rows from which no token can be chosen. The others can be sampled again without them, with the same result."""

    def __init__(self, rows: dict[int, str]) -> None:
        super().__init__("; ".join(f"Row {row}: {why}" for row, why in rows.items()) + ".")
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Sampled:
    """tokens_B int32; logprobs_B f32, the tokens' log-probabilities (NaN where Row.logprobs is None); top_ids_BL int32
    and top_logprobs_BL f32, the most probable tokens (L is the largest number that a row asks for; what a row does not
    ask for or its vocabulary does not have is -1 and -inf).
    """

    tokens_B: NDArray[np.int32]
    logprobs_B: NDArray[np.float32]
    top_ids_BL: NDArray[np.int32]
    top_logprobs_BL: NDArray[np.float32]


def sample(
    logits_BV: NDArray[np.float32],
    rows: Sequence[Row],
    positions_B: ArrayLike,
    *,
    mask_BW: NDArray[np.uint32] | None = None,
) -> Sampled:
    """One token a row. logits_BV: C-contiguous f32, left as it is.

    positions_B: where in its sequence each token will stand. mask_BW: bit i of word w allows token 32 w + i, as
    llguidance writes it. Raises BadInput for shapes, types and ids that do not fit, UnusableLogits where a row has NaN
    or infinite logits or no token that may come.
    """
    n_rows, n_vocab = check_logits(logits_BV, rows, mask_BW)
    numbers_B8 = np.array([row.numbers for row in rows], np.float64).reshape(n_rows, 8)
    keys_B3 = np.array([(row.seed, row.stream, 0) for row in rows], np.uint64).reshape(n_rows, 3)
    keys_B3[:, 2] = positions_B
    seen = listed([row.seen for row in rows], np.int32, n_vocab)
    bias = listed([(row.bias_ids, row.biases) if row.bias else None for row in rows], np.float32, n_vocab)
    n_top = max((row.logprobs or 0 for row in rows), default=0)
    sampled = Sampled(*table().sample(logits_BV, numbers_B8, keys_B3, seen, bias, mask_BW, n_top))
    if n_rows and sampled.tokens_B.min() < 0:
        raise UnusableLogits({b: _WHY[int(token)] for b, token in enumerate(sampled.tokens_B) if token < 0})
    return sampled


def check_logits(
    logits_BV: NDArray[np.float32], rows: Sequence[Row], mask_BW: NDArray[np.uint32] | None
) -> tuple[int, int]:
    """B and V."""
    if logits_BV.ndim != 2 or logits_BV.dtype != np.float32 or not logits_BV.flags.c_contiguous:
        raise BadInput(f"Logits must be contiguous float32 [B, V], not {logits_BV.dtype} {list(logits_BV.shape)}.")
    n_rows, n_vocab = logits_BV.shape
    if n_vocab == 0:
        raise BadInput("There are no tokens to choose from: the vocabulary is empty.")
    if len(rows) != n_rows:
        raise BadInput(f"There are {n_rows} rows of logits and settings for {len(rows)}.")
    if mask_BW is not None:
        words = -(-n_vocab // 32)
        if mask_BW.shape != (n_rows, words) or mask_BW.dtype != np.uint32 or not mask_BW.flags.c_contiguous:
            raise BadInput(
                f"The mask must be contiguous uint32 [{n_rows}, {words}], not {mask_BW.dtype} {list(mask_BW.shape)}."
            )
    return n_rows, n_vocab


def listed(
    parts: Sequence[tuple[NDArray[np.int32], NDArray[np.generic]] | None], dtype: type[np.generic], n_vocab: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
    """All rows' token ids and what goes with them, one row after another, and where each begins, int64 [B + 1]."""
    given = [part for part in parts if part is not None]
    if not given:
        return np.zeros(len(parts) + 1, np.int64), np.empty(0, np.int32), np.empty(0, dtype)
    starts_B1 = np.cumsum([0, *(0 if part is None else len(part[0]) for part in parts)], dtype=np.int64)
    ids, values = (np.concatenate([part[i] for part in given]) for i in range(2))
    if ids.size and not 0 <= ids.min() <= ids.max() < n_vocab:
        raise BadInput(f"Penalties or biases name tokens {ids.min()} to {ids.max()}; there are 0 to {n_vocab - 1}.")
    return starts_B1, ids, values
