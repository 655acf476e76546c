"""Rotary positions: the tables of cosines and sines that attention rotates queries and keys by.

Everything is computed in float64 and rounded once (transformers multiplies positions and frequencies in float32: at
position 100,000 its angles are off by up to 0.004).

Shapes: P positions, D width of a head.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kogata.config import Rope

Floats = NDArray[np.float32]


def rope_tables(rope: Rope, d_head: int, n_positions: int, length: int | None = None) -> tuple[Floats, Floats]:
    """The cosines and sines of positions 0 to ``n_positions - 1``.

    Args:
        rope: What turns positions into angles.
        d_head: D.
        n_positions: P.
        length: Tokens that the text may come to have, which a dynamic rope depends on (keys in the cache stay rotated
            as they are, so choose it once for a text); P if not given.

    Returns:
        cos and sin, float32 [P, D / 2], multiplied by the rope's attention factor. Pair i of a head is its elements
        i and i + D / 2.
    """
    turns_D2 = rope_frequencies(rope, d_head, n_positions if length is None else length)
    angles_PD2 = np.arange(n_positions, dtype=np.float64)[:, None] * turns_D2
    scale = rope.attention_factor
    return (np.cos(angles_PD2) * scale).astype(np.float32), (np.sin(angles_PD2) * scale).astype(np.float32)


def rope_frequencies(rope: Rope, d_head: int, length: int) -> NDArray[np.float64]:
    """float64 [D / 2]: the angle, in radians, that each pair turns by a position.

    Args:
        rope: What turns positions into angles.
        d_head: D.
        length: Tokens of the text; only a dynamic rope depends on it.
    """
    theta, pairs_D2 = rope.theta, np.arange(d_head // 2)
    if rope.kind == "dynamic" and d_head > 2:
        longer = rope.factor * max(length, rope.original_context) / rope.original_context - (rope.factor - 1.0)
        theta *= longer ** (d_head / (d_head - 2))
    plain_D2 = theta ** (-2.0 * pairs_D2 / d_head)
    if rope.kind == "linear":
        return plain_D2 / rope.factor
    if rope.kind == "factors":
        factors_D2 = np.array(rope.factors, np.float64)
        return plain_D2 / factors_D2
    if rope.kind == "llama3":
        turns_D2 = rope.original_context * plain_D2 / (2.0 * math.pi)
        kept_D2 = (turns_D2 - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
        return _blend(plain_D2, rope.factor, np.clip(kept_D2, 0.0, 1.0))
    if rope.kind == "yarn":
        low, high = _pair(rope, d_head, rope.beta_fast), _pair(rope, d_head, rope.beta_slow)
        if rope.truncate:
            low, high = float(math.floor(low)), float(math.ceil(high))
        low, high = max(low, 0.0), min(high, d_head - 1.0)
        stretched_D2 = np.clip((pairs_D2 - low) / (high - low if high != low else 0.001), 0.0, 1.0)
        return _blend(plain_D2, rope.factor, 1.0 - stretched_D2)
    return plain_D2


def _blend(plain_D2: NDArray[np.float64], factor: float, kept_D2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequencies of which a share is kept and the rest divided by the factor."""
    blended: NDArray[np.float64] = plain_D2 * kept_D2 + plain_D2 / factor * (1.0 - kept_D2)
    return blended


def _pair(rope: Rope, d_head: int, turns: float) -> float:
    """The pair, between two of them mostly, that turns so often within the original context."""
    return d_head * math.log(rope.original_context / (turns * 2.0 * math.pi)) / (2.0 * math.log(rope.theta))
