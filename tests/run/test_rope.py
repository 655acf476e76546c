"""Rotary tables against transformers' own functions, for every kind of rope."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kogata.config import DecoderConfig, Rope
from kogata.run.rope import rope_frequencies, rope_tables

KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 8.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    "yarn without whole pairs": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 200,
        "beta_fast": 24.0,
        "beta_slow": 1.5,
        "truncate": False,
    },
    "yarn of DeepSeek": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 64,
        "mscale": 0.707,
        "mscale_all_dim": 1.1,
    },
    "yarn with a factor of attention": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.25},
    "yarn by the ratio": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 64},
}


def configs(parameters: dict[str, Any], theta: float, d_head: int) -> tuple[Any, DecoderConfig]:
    """transformers' config and ours."""
    from transformers import LlamaConfig

    theirs = LlamaConfig(
        vocab_size=32, hidden_size=4 * d_head, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=512, rope_parameters={**parameters, "rope_theta": theta},
    )  # fmt: skip
    return theirs, DecoderConfig.from_hf(theirs.to_dict())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("theta", "d_head"), [(10_000.0, 64), (500_000.0, 128), (1e6, 6)])
def test_tables_are_those_of_transformers(kind: str, theta: float, d_head: int) -> None:
    import torch
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    theirs, ours = configs(KINDS[kind], theta, d_head)
    embedding = LlamaRotaryEmbedding(theirs)
    np.testing.assert_allclose(rope_frequencies(ours.rope, d_head, 512), embedding.inv_freq.numpy(), rtol=2e-6)
    cos, sin = embedding(torch.zeros(1), torch.arange(300)[None])
    found_cos, found_sin = rope_tables(ours.rope, d_head, 300, 512)
    for found, expected in ((found_cos, cos), (found_sin, sin)):
        assert found.dtype == np.float32
        error = np.abs(found - expected[0, :, : d_head // 2].numpy()).max()
        print(f"{kind}, theta {theta:g}, d_head {d_head}: largest error of a table {error:.1e}")
        assert error < 1e-4  # transformers' products of position and frequency are float32


@pytest.mark.parametrize("length", [10, 512, 513, 2000])
def test_a_dynamic_rope_depends_on_the_length(length: int) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    theirs, ours = configs(KINDS["dynamic"], 10_000.0, 64)
    expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](theirs, seq_len=length)
    np.testing.assert_allclose(rope_frequencies(ours.rope, 64, length), expected.numpy(), rtol=2e-6)
    assert ours.context == 1536


def test_far_positions_keep_their_precision() -> None:
    cos, sin = rope_tables(Rope(theta=1e6), 128, 131_072)
    assert cos.shape == sin.shape == (131_072, 64)
    # Pair 0 turns by one radian a position.
    np.testing.assert_allclose([cos[131_071, 0], sin[131_071, 0]], [np.cos(131_071.0), np.sin(131_071.0)], atol=1e-7)
    np.testing.assert_allclose(cos**2 + sin**2, 1.0, atol=3e-7)


def test_a_head_of_two_is_one_pair() -> None:
    for kind in KINDS:
        _, ours = configs(KINDS[kind], 10_000.0, 2)
        assert rope_frequencies(ours.rope, 2, 4096).shape == (1,)
