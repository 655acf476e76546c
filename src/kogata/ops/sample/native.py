"""The sampler of the extension; contracts in __init__.py, code in csrc/sample.cpp."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kogata import _native
from kogata.ops.sample.rows import Bias, Chosen, Seen


def sample(
    logits_BV: NDArray[np.float32],
    numbers_B8: NDArray[np.float64],
    keys_B3: NDArray[np.uint64],
    seen: Seen,
    bias: Bias,
    mask_BW: NDArray[np.uint32] | None,
    n_top: int,
) -> Chosen:
    """Tokens (negative: why there is none), their log-probabilities, the n_top highest of a row and theirs.

    numbers: Row.numbers; keys: seed, stream, position.
    """
    n_rows = len(logits_BV)
    tokens_B, logprobs_B = np.empty(n_rows, np.int32), np.full(n_rows, np.nan, np.float32)
    top_ids_BL, top_logprobs_BL = np.full((n_rows, n_top), -1, np.int32), np.full((n_rows, n_top), -np.inf, np.float32)
    outputs = (tokens_B, logprobs_B, top_ids_BL, top_logprobs_BL)
    _native.sample(logits_BV, numbers_B8, keys_B3, *seen, *bias, mask_BW, *outputs)
    return outputs
