"""Layer norm, embedding rows and pooling against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kogata.ops import dispatch
from kogata.ops.elementwise import embed, layer_norm, pool
from kogata.ops.linear import linear, pack
from kogata.weights import Q4Tensor

ISAS = dispatch.isas()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", [1, 3, 16, 33, 384])
def test_layer_norm_matches_torch_in_float64(isa, width):
    rng = np.random.default_rng(width)
    x, r = (5 * rng.standard_normal((2, 70, width)) + 3).astype(np.float32)
    gain, bias = rng.standard_normal((2, width)).astype(np.float32)
    with dispatch.use(isa):
        got, in_place = layer_norm(x, gain, bias, 1e-5, residual_TH=r), x.copy()
        layer_norm(in_place, gain, bias, 1e-5, residual_TH=r, out_TH=in_place)
    both = torch.tensor(x).double() + torch.tensor(r)
    want = torch.nn.functional.layer_norm(
        both, (width,), torch.tensor(gain).double(), torch.tensor(bias).double(), 1e-5
    )
    assert np.abs(got - want.numpy()).max() < 1e-5
    np.testing.assert_array_equal(got, in_place)


@pytest.mark.parametrize("isa", ISAS)
def test_gelu_is_the_exact_form_to_a_millionth(isa):
    x = np.linspace(-40, 40, 40_001, dtype=np.float32)[:, None]
    with dispatch.use(isa):
        got = linear(x, pack(np.ones((1, 1), np.float32), "f32"), activation="gelu")
    want = torch.nn.functional.gelu(torch.tensor(x).double()).numpy()
    assert (np.abs(got - want) <= 1e-6 * np.maximum(1, np.abs(want))).all()


@pytest.mark.parametrize("isa", ISAS)
def test_embedding_gathers_float_and_four_bit_rows(isa):
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (50, 2, 18), dtype=np.uint8)
    blocks[:, :, :2] = (rng.random((50, 2)).astype("<f2") + np.float16(0.1)).view(np.uint8).reshape(50, 2, 2)
    four_bit = Q4Tensor(blocks)
    position = rng.standard_normal((9, 64)).astype(np.float32)
    types = rng.standard_normal((2, 64)).astype(np.float32)
    gain, bias = rng.standard_normal((2, 64)).astype(np.float32)
    ids, at, kinds = (
        np.array([0, 49, 3, 3], np.int32),
        np.array([0, 8, 1, 2], np.int32),
        np.array([0, 1, 1, 0], np.int32),
    )
    rows = torch.tensor(four_bit.dequantise()[ids] + position[at] + types[kinds]).double()
    want = torch.nn.functional.layer_norm(rows, (64,), torch.tensor(gain).double(), torch.tensor(bias).double(), 1e-5)
    with dispatch.use(isa):
        for word in (four_bit, four_bit.dequantise()):
            got = embed(ids, at, word, position, types, gain, bias, 1e-5, types_T=kinds)
            assert np.abs(got - want.numpy()).max() < 1e-5
        for bad in (np.array([0, 50, 1, 2], np.int32), np.array([0, -1, 1, 2], np.int32)):
            with pytest.raises(ValueError, match="token id"):
                embed(bad, at, four_bit, position, types, gain, bias, 1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["mean", "cls"])
def test_pooling_gives_unit_vectors_and_zeros_for_nothing(isa, kind):
    hidden = np.random.default_rng(2).standard_normal((20, 37)).astype(np.float32)
    cu = np.array([0, 1, 1, 13, 20], np.int32)
    with dispatch.use(isa):
        got = pool(hidden, cu, kind)
    for row, a, b in zip(got, cu[:-1], cu[1:], strict=True):
        part = torch.tensor(hidden[a:b]).double()
        want = (
            torch.zeros(37)
            if a == b
            else torch.nn.functional.normalize(part[0] if kind == "cls" else part.mean(0), dim=0)
        )
        assert np.abs(row - want.numpy()).max() < 1e-6
