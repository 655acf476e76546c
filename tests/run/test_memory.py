"""The bound on what weights, keys and values take together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import kogata
from kogata.app.cli import cli
from kogata.config import DecoderConfig, Rope
from kogata.errors import BadInput
from kogata.ops.attend import PageKind
from kogata.run.cache import PAGE, PagePool, pages_within, pool_bytes
from kogata.run.sampling import SamplingParams

Tiny = Callable[..., tuple[Path, Any]]
TINY: dict[str, dict[str, Any]] = {
    "llama": {"kind": "llama", "hidden_size": 64, "max_position_embeddings": 4096},
    "gemma3_text": {
        "kind": "gemma3_text", "hidden_size": 32, "head_dim": 16, "sliding_window": 64, "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 20, "max_position_embeddings": 4096,
    },
}  # fmt: skip


def config(pattern: str, window: int) -> DecoderConfig:
    return DecoderConfig(
        architecture="llama", d_model=32, d_ff=32, n_layers=len(pattern), n_heads=2, n_kv_heads=2, d_head=16,
        vocab_size=300, context=100_000, norm_eps=1e-5, activation="silu", rope=Rope(theta=10_000.0), pattern=pattern,
        window=window, attention_scale=0.25, tied=True,
    )  # fmt: skip


kinds = st.sampled_from(["f32", "bf16", "int8"])


@given(st.text("FW", min_size=1, max_size=4), st.sampled_from([1, 64, 65, 1000]), kinds, st.integers(0, 40))
def test_a_pools_bytes_are_those_of_its_arrays(pattern: str, window: int, kind: PageKind, n_pages: int) -> None:
    made = config(pattern, window if "W" in pattern else 0)
    pool = PagePool(made, kind, n_pages)
    assert pool_bytes(made, kind, n_pages) == sum(group.pages_PLHB.nbytes for group in pool.groups)


@given(st.text("FW", min_size=1, max_size=4), kinds, st.integers(0, 30_000_000), st.integers(0, 900))
def test_as_many_pages_as_fit_and_no_more(pattern: str, kind: PageKind, n_bytes: int, most: int) -> None:
    made = config(pattern, 100 if "W" in pattern else 0)
    found = pages_within(made, kind, n_bytes, most)
    assert 0 <= found <= most
    assert found == 0 or pool_bytes(made, kind, found) <= n_bytes, (found, pool_bytes(made, kind, found))
    assert found == most or pool_bytes(made, kind, found + 1) > n_bytes, (found, pool_bytes(made, kind, found + 1))


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@pytest.mark.parametrize("kv", ["bf16", "int8"])
def test_memory_bounds_weights_keys_and_values(tiny_decoder: Tiny, kind: str, kv: PageKind) -> None:
    directory, _ = tiny_decoder(**TINY[kind])
    free = kogata.load(directory, kv=kv)
    weights = free.packed.nbytes
    bound = weights + pool_bytes(free.packed.config, kv, 12)
    model = kogata.load(directory, kv=kv, memory=bound)
    assert model.room() == 12 * PAGE, (model.room(), bound)
    taken = sum(group.pages_PLHB.nbytes for group in model.engine._pool.groups)
    assert weights + taken <= bound, (weights, taken, bound)
    ids = np.arange(12 * PAGE - 20, dtype=np.int32) % 250
    fits = model.engine.submit(ids, SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))
    assert sum(1 for _ in model.engine.run(fits)) == 20
    with pytest.raises(
        BadInput, match=rf"748 tokens and an answer of up to 21 need .* MB .*enough for {12 * PAGE} tok"
    ):
        model.engine.submit(ids, SamplingParams(max_tokens=21))
    for little in (weights, 0, -1e9, float("nan")):
        with pytest.raises(BadInput, match=r"memory is [0-9.nan,-]+ MB; the weights of .* take [0-9]"):
            kogata.load(directory, kv=kv, memory=little)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="memory is '4GB'; accepted: a number of bytes"):
        kogata.load(directory, kv=kv, memory="4GB")  # type: ignore[arg-type]
    assert kogata.load(directory, kv=kv, memory=np.float64(bound)).room() == 12 * PAGE  # type: ignore[arg-type]


def test_a_bound_changes_no_answer(tiny_decoder: Tiny) -> None:
    directory, _ = tiny_decoder(**TINY["llama"])
    free = kogata.load(directory)
    bound = kogata.load(directory, memory=free.packed.nbytes + pool_bytes(free.packed.config, "bf16", 3))
    params = {"temperature": 0.9, "seed": 3, "max_tokens": 100}
    assert bound.generate("one two three", **params) == free.generate("one two three", **params)


@pytest.mark.parametrize("told", ["4", "4XB", "-1GB", "1e9GB", "GB", "", "4 5GB", "１GB"])
def test_what_is_no_size_is_refused(told: str) -> None:
    ran = CliRunner().invoke(cli, ["run", "tiny", "once", "--memory", told])
    assert ran.exit_code == 2, ran.output
    assert "4GB, 1.5GB, 512MB and 2GiB are" in ran.output, ran.output
