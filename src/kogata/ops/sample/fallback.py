"""The sampler without the extension: numpy, row by row. Same signature as native.py and, but for draws that fall within
rounding of the border of two tokens, the same tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kogata.ops.sample import reference
from kogata.ops.sample.rows import Bias, Chosen, Seen

NOT_NUMBERS, NO_LOGITS, NOTHING_ALLOWED = -1, -2, -3


def philox(counter_B4: NDArray[np.uint32], key_B2: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox 4x32 with ten rounds: uint32 [B, 4], random bits of every counter and key."""
    c0, c1, c2, c3 = counter_B4.astype(np.uint64).T
    k0, k1 = key_B2.astype(np.uint64).T
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (second >> shift) ^ c1 ^ k0, second & low, (first >> shift) ^ c3 ^ k1, first & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def uniforms(keys_B3: NDArray[np.uint64]) -> NDArray[np.float64]:
    """In [0, 1): the top 53 of 64 random bits of every seed, stream and position."""
    halves_B32 = np.stack([keys_B3 & np.uint64(0xFFFFFFFF), keys_B3 >> np.uint64(32)], axis=2).astype(np.uint32)
    seed_B2, stream_B2, position_B2 = halves_B32[:, 0], halves_B32[:, 1], halves_B32[:, 2]
    words_B4 = philox(np.concatenate([position_B2, stream_B2], axis=1), seed_B2).astype(np.uint64)
    bits_B = (words_B4[:, 0] << np.uint64(32)) | words_B4[:, 1]
    return (bits_B >> np.uint64(11)).astype(np.float64) * 2.0**-53


def sample(
    logits_BV: NDArray[np.float32],
    numbers_B8: NDArray[np.float64],
    keys_B3: NDArray[np.uint64],
    seen: Seen,
    bias: Bias,
    mask_BW: NDArray[np.uint32] | None,
    n_top: int,
) -> Chosen:
    """See native.sample."""
    n_rows = len(logits_BV)
    tokens_B, logprobs_B = np.empty(n_rows, np.int32), np.full(n_rows, np.nan, np.float32)
    top_ids_BL, top_logprobs_BL = np.full((n_rows, n_top), -1, np.int32), np.full((n_rows, n_top), -np.inf, np.float32)
    u_B = uniforms(keys_B3)
    for b, logits_V in enumerate(logits_BV):
        if problem := unusable(logits_V, NO_LOGITS):
            tokens_B[b] = problem
            continue
        temperature, top_k, top_p, min_p, *penalties, top = numbers_B8[b]
        z_V = logits_V.copy()
        own = slice(seen[0][b], seen[0][b + 1])
        z_V[seen[1][own]] = penalise(z_V[seen[1][own]], seen[2][own], *np.array(penalties, np.float32))
        own = slice(bias[0][b], bias[0][b + 1])
        z_V[bias[1][own]] += bias[2][own]
        if mask_BW is not None:
            z_V[~unpacked(mask_BW[b], len(z_V))] = -np.inf
        if problem := unusable(z_V, NOTHING_ALLOWED):
            tokens_B[b] = problem
            continue
        ids = candidates(z_V, 1 if temperature == 0 else int(top_k))
        order, shares = reference.distribution(z_V[ids].astype(np.float64), temperature, int(top_k), top_p, min_p)
        tokens_B[b] = ids[reference.draw(order, shares, u_B[b])]
        if top >= 0:
            logprobs_V = reference.log_softmax(logits_V.astype(np.float64))
            logprobs_B[b] = logprobs_V[tokens_B[b]]
            ids = candidates(logits_V, max(1, int(top)))
            ids = ids[np.argsort(-logits_V[ids], kind="stable")[: int(top)]]
            top_ids_BL[b, : len(ids)], top_logprobs_BL[b, : len(ids)] = ids, logprobs_V[ids]
    return tokens_B, logprobs_B, top_ids_BL, top_logprobs_BL


def unusable(z_V: NDArray[np.float32], where_empty: int) -> int:
    """What stands in place of a token; 0 where there are tokens to choose from."""
    highest = z_V.max()
    if np.isnan(highest) or highest == np.inf:
        return NOT_NUMBERS
    return where_empty if highest == -np.inf else 0


def penalise(
    z_N: NDArray[np.float32],
    counts_N: NDArray[np.int32],
    repetition: np.float32,
    presence: np.float32,
    frequency: np.float32,
) -> NDArray[np.float32]:
    """In f32 and in the kernel's order, so that equal logits stay equal."""
    z_N = np.where(z_N > 0, z_N / repetition, z_N * repetition)
    lowered_N = z_N - frequency * counts_N.astype(np.float32) - presence
    return np.where(counts_N > 0, lowered_N, z_N)


def unpacked(mask_W: NDArray[np.uint32], n_vocab: int) -> NDArray[np.bool_]:
    bits_W32 = (mask_W[:, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return bits_W32.reshape(-1)[:n_vocab].astype(np.bool_)


def candidates(z_V: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Ids of the tokens among which the k highest are (0: all), ascending; none whose logit is -inf."""
    floor = np.float32(-np.inf)
    if 0 < k < len(z_V):
        floor = np.partition(z_V, len(z_V) - k)[len(z_V) - k]
    return np.flatnonzero((z_V >= floor) & (z_V > -np.inf))
