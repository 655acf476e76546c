"""Packed attention against torch's, sequence by sequence, in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kogata.ops import dispatch
from kogata.ops.attend import encode_attention


@pytest.mark.parametrize("isa", dispatch.isas())
@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.one_of(st.integers(0, 40), st.just(130)), min_size=1, max_size=5),
    heads=st.integers(1, 3),
    width=st.sampled_from([1, 5, 16, 32, 48, 64]),
    scale=st.sampled_from([0.1, 1.0, 8.0]),
)
def test_attention_and_its_denominator_match_torch(isa, lengths, heads, width, scale):
    cu = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rng = np.random.default_rng(sum(lengths) + heads)
    qkv = (scale * rng.standard_normal((cu[-1], 3 * heads * width))).astype(np.float32)
    out = np.full((cu[-1], heads * width), np.nan, np.float32)
    with dispatch.use(isa):
        _, lse = encode_attention(qkv, cu, heads, with_lse=True, out_TH=out)
    for a, b in pairwise(cu):
        if a == b:
            continue
        q, k, v = torch.tensor(qkv[a:b]).double().reshape(-1, 3, heads, width).permute(1, 2, 0, 3)
        want = torch.nn.functional.scaled_dot_product_attention(q, k, v).permute(1, 0, 2).reshape(-1, heads * width)
        scores = q @ k.mT / width**0.5
        # A score's rounding grows with scale^2, and moves a result that grows with scale.
        assert np.abs(out[a:b] - want.numpy()).max() <= 1e-5 * max(1.0, scale**3)
        assert np.abs(lse[a:b] - torch.logsumexp(scores, -1).T.numpy()).max() <= 1e-5 * max(1.0, scale**2)


@pytest.mark.parametrize("isa", dispatch.isas())
@pytest.mark.parametrize(("lengths", "heads", "width"), [([1, 0, 31, 129], 12, 32), ([2, 17, 270], 2, 5)])
def test_reduced_attention_is_as_exact_as_bf16(isa, lengths, heads, width):
    cu = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    qkv = np.random.default_rng(width).standard_normal((cu[-1], 3 * heads * width)).astype(np.float32)
    with dispatch.use(isa):
        got, lse = encode_attention(qkv, cu, heads, reduced=True, with_lse=True)
    for a, b in pairwise(cu):
        if a == b:
            continue
        q, k, v = torch.tensor(qkv[a:b]).double().reshape(-1, 3, heads, width).permute(1, 2, 0, 3)
        want = torch.nn.functional.scaled_dot_product_attention(q, k, v).permute(1, 0, 2).reshape(-1, heads * width)
        error = np.sqrt(np.mean((got[a:b] - want.numpy()) ** 2) / np.mean(want.numpy() ** 2))
        assert error < 6e-3, f"{b - a} tokens: relative error {error:.1e}"
        true_lse = torch.logsumexp(q @ k.mT / width**0.5, -1).T.numpy()
        assert np.abs(lse[a:b] - true_lse).max() < 0.03


@pytest.mark.parametrize("isa", dispatch.isas()[1:])
@pytest.mark.parametrize("reduced", [False, True])
def test_a_sequence_does_not_see_its_neighbours(isa, reduced):
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((300, 3 * 64)).astype(np.float32)
    cu = np.array([0, 7, 290, 300], np.int32)
    with dispatch.use(isa):
        together = encode_attention(qkv, cu, 2, reduced=reduced)
        alone = encode_attention(qkv[7:290].copy(), np.array([0, 283], np.int32), 2, reduced=reduced)
    np.testing.assert_array_equal(together[7:290], alone)


def test_wrong_borders_are_refused():
    qkv = np.zeros((4, 96), np.float32)
    for cu in ([0, 3], [1, 4], [0, 3, 2, 4]):
        with pytest.raises(ValueError):
            encode_attention(qkv, np.array(cu, np.int32), 2)
