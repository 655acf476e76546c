"""What measuring a model's speed is made of: a cache full of random values, figures that fit together, bad numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogata.errors import BadInput
from kogata.ops import dispatch
from kogata.ops.attend.layout import views
from kogata.plan.operations import Operations
from kogata.run.cache import PagePool, Sequence
from kogata.run.decoder import Step
from kogata.run.model import Model, load
from kogata.run.speed import _least_seconds, fill, speed
from kogata.weights import load_decoder

Tiny = Callable[..., tuple[Path, Any]]


@pytest.mark.parametrize("kv", ["f32", "bf16", "int8"])
@pytest.mark.parametrize("depth", [1, 64, 700, 1100])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_a_filled_cache_has_as_many_keys_as_it_says(tiny_decoder: Tiny, kind: str, depth: int, kv: Any) -> None:
    settings = {"sliding_window": 70, "num_hidden_layers": 7} if kind == "gemma3_text" else {}
    config = load_decoder(
        tiny_decoder(kind, max_position_embeddings=2048, head_dim=16, **settings)[0]
    ).config  # fmt: skip
    pool, text = PagePool(config, kv, 20), Sequence()
    fill(pool, text, depth, config)
    assert text.length == depth
    for group, pages in zip(pool.groups, (text.pages, text.window), strict=False):
        live = range(depth) if group is pool.full else range(max(0, depth - config.window), depth)
        for layer in group.pages_PLHB.swapaxes(0, 1):
            keys, values, _ = views(layer, kv, config.d_head)
            for at in live:
                key = keys[pages[at // 64], :, :, at % 64, :]
                row, lane = divmod(at % 64, values.shape[-1])
                assert key.any(), (at, kv)
                assert values[pages[at // 64], :, row, :, lane].any(), (at, kv)
            assert not keys[pages[(depth - 1) // 64], :, :, (depth - 1) % 64 + 1 :].any()


def test_a_model_goes_on_from_a_filled_cache(tiny_decoder: Tiny) -> None:
    model = load(tiny_decoder("gemma3_text", max_position_embeddings=2048, head_dim=16, sliding_window=70)[0])
    pool, text = model.decoder.pool(1100), Sequence()
    fill(pool, text, 1000, model.packed.config)
    pool.reserve(text, 1001)
    logits = model.decoder.forward(Step([text], [[5]], [1]), pool)
    assert np.isfinite(logits).all()
    assert text.length == 1001


def test_figures_fit_together(tiny_decoder: Tiny) -> None:
    model = load(tiny_decoder("llama", head_dim=16, max_position_embeddings=1024)[0], kv="int8")
    before, told = dispatch.threads(), []
    found = speed(
        model, depths=[100, 0], threads=[1, 2], prompt=600, tokens=3, repeat=2,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert dispatch.threads() == before
    assert told == [(n + 1, 10) for n in range(10)]  # each depth once to warm up, then twice with 1 and 2 threads
    assert [(one.threads, one.depth) for one in found] == [(1, 100), (1, 0), (2, 100), (2, 0)]
    for one in found:
        for rate in (one.prefill, one.decode):
            assert 0 < rate.least <= rate.median <= rate.most
            assert rate.to_dict()["share"] == pytest.approx(rate.median / rate.floor)
        assert one.to_dict()["prefill"]["median"] == one.prefill.median


def test_the_floor_is_what_takes_longest() -> None:
    operations = Operations(weight_bytes=3 * 10**9, kv_bytes=10**9)
    assert _least_seconds(operations, 40.0, {"int8": 1000.0, "bf16": 500.0}) == pytest.approx(0.1)
    operations.products.update(ternary=10**12, bf16=10**11)
    # 2e12 operations at 1000 GOP/s, 2e11 at 500 GFLOP/s
    assert _least_seconds(operations, 40.0, {"int8": 1000.0, "bf16": 500.0}) == pytest.approx(2.4)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"depths": []}, "depths is empty"),
        ({"depths": [0, -1]}, "depths is -1; 0 to 1,024"),
        ({"depths": [1024]}, "1,024 tokens and 9 more are too many: .* hold 1,024"),
        ({"threads": [0]}, "threads is 0; 1 to 256"),
        ({"prompt": 0}, "prompt is 0; 1 to 1,024"),
        ({"tokens": 2000}, "tokens is 2,000; 1 to 1,024"),
        ({"repeat": 0}, "repeat is 0; 1 to 1,000"),
    ],
)
def test_bad_numbers_are_named(tiny_decoder: Tiny, numbers: dict[str, Any], said: str) -> None:
    model = Model(load(tiny_decoder("llama", head_dim=16, max_position_embeddings=1024)[0]).packed)
    good: dict[str, Any] = {"depths": [0], "threads": [1], "prompt": 9, "tokens": 2, "repeat": 1}
    with pytest.raises(BadInput, match=said):
        speed(model, **good | numbers)
