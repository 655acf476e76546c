"""Texts of a tiny random decoder's engine, for tests of what is cached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kogata.run.engine import Answer, Engine
from kogata.run.sampling import SamplingParams

MODELS: dict[str, dict[str, Any]] = {
    "bitnet": {"kind": "bitnet", "hidden_size": 64},
    "gemma3": {
        "kind": "gemma3_text", "hidden_size": 32, "head_dim": 16, "sliding_window": 70, "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 20,
    },
    "all windows": {
        "kind": "gemma3_text", "hidden_size": 32, "head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 20,
        "layer_types": ["sliding_attention"] * 3,
    },
}  # fmt: skip
WITH_FULL = ["bitnet", "gemma3"]


every_model = pytest.mark.parametrize("model", list(MODELS), indirect=True)


def prompt(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, n).astype(np.int32)


def greedy(max_tokens: int, **params: Any) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, logprobs=2, **params)


def said(engine: Engine, ids: np.ndarray, params: SamplingParams, **settings: Any) -> tuple[Answer, list[Any]]:
    """One answer and all its pieces, log-probabilities included: equal only where the logits are, bit for bit."""
    (answer,) = engine.submit(ids, params, **settings)
    return answer, [piece for _, piece in engine.run([answer])]


def assert_no_page_is_lost(engine: Engine) -> None:
    assert engine.idle
    for group in engine._pool.groups:
        assert group.held == 0, "no text has a page"
        assert sum(group._texts) == 0
        assert group.evictable == sum(kept > 0 for kept in group._kept)
    engine._prefixes.clear()
    for group in engine._pool.groups:
        assert group.free == group.n_pages
        assert sorted([*group._freed, *range(group._fresh, group.n_pages)]) == list(range(group.n_pages))
