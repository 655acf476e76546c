"""One row's sampling as plain mathematics over the array API: numpy float64 is the truth the kernel is tested against.

Shapes: V vocabulary.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace


def penalise(logits_V: Any, seen_V: Any, counts_V: Any, repetition: float, presence: float, frequency: float) -> Any:
    """seen_V: whether a token stands in prompt or output; counts_V: how often it stands in the output."""
    xp = array_namespace(logits_V)
    repeated_V = xp.where(logits_V > 0, logits_V / repetition, logits_V * repetition)
    z_V = xp.where(seen_V, repeated_V, logits_V)
    generated_V = xp.astype(counts_V > 0, z_V.dtype)
    return z_V - frequency * xp.astype(counts_V, z_V.dtype) - presence * generated_V


def distribution(z_V: Any, temperature: float, top_k: int, top_p: float, min_p: float) -> tuple[Any, Any]:
    """Token ids by logit (highest first, equal ones by lowest id; not all -inf) and their probabilities in that
    order, 0 for what is cut off.
    """
    xp = array_namespace(z_V)
    order_V = xp.argsort(-z_V, stable=True)
    rank_V = xp.arange(z_V.shape[0])
    sorted_V = xp.take(z_V, order_V)
    if temperature == 0:
        return order_V, xp.astype(rank_V == 0, z_V.dtype)
    weights_V = xp.exp((sorted_V - sorted_V[0]) / temperature)
    if top_k > 0:
        weights_V = xp.where(rank_V < top_k, weights_V, 0.0)
    if top_p < 1:
        before_V = xp.cumulative_sum(weights_V) - weights_V
        weights_V = xp.where((rank_V == 0) | (before_V < top_p * xp.sum(weights_V)), weights_V, 0.0)
    weights_V = xp.where(weights_V >= min_p, weights_V, 0.0)  # the first has weight 1
    return order_V, weights_V / xp.sum(weights_V)


def draw(order_V: Any, probabilities_V: Any, u: float) -> int:
    """The token at which the probabilities, added in order, reach u (in [0, 1))."""
    xp = array_namespace(probabilities_V)
    place = int(xp.count_nonzero(xp.cumulative_sum(probabilities_V) < u))
    last = int(xp.count_nonzero(probabilities_V)) - 1  # should rounding leave the sum short of u
    return int(order_V[min(place, last)])


def log_softmax(logits_V: Any) -> Any:
    xp = array_namespace(logits_V)
    shifted_V = logits_V - xp.max(logits_V)
    return shifted_V - xp.log(xp.sum(xp.exp(shifted_V)))
