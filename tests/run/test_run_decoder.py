"""The decoder beside transformers on tiny random models: prefill, cached steps, and texts of uneven length together."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kogata
from kogata.errors import BadInput, ModelError
from kogata.ops import dispatch
from kogata.run.cache import OutOfPages, Sequence
from kogata.run.decoder import Decoder, Step
from kogata.weights import DecoderCheckpoint, load_decoder
from kogata.weights.packed import pack_decoder

Tiny = Callable[..., tuple[Path, Any]]

SIZES = {"hidden_size": 64, "max_position_embeddings": 512, "head_dim": 16}
ROPES = {
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64},
}  # fmt: skip
OFFLINE = {"linear_class": "autobitlinear", "quantization_mode": "offline"}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"kind": "llama", "attention_bias": True, "mlp_bias": True},
    **{f"llama, {name}": {"kind": "llama", "rope_parameters": rope} for name, rope in ROPES.items()},
    "qwen2": {"kind": "qwen2", "use_sliding_window": True, "sliding_window": 70, "max_window_layers": 1},
    "qwen3": {"kind": "qwen3", "tie_word_embeddings": True},
    "gemma3": {"kind": "gemma3_text", "sliding_window": 20, "sliding_window_pattern": 2, "query_pre_attn_scalar": 20},
    "bitnet, not quantised": {"kind": "bitnet"},
}
QUANTISED: dict[str, dict[str, Any]] = {
    "2B4T": {"kind": "bitnet", "quantised": OFFLINE},
    "2B4T master": {"kind": "bitnet", "quantised": {"linear_class": "autobitlinear", "quantization_mode": "online"}},
    "Falcon": {"kind": "llama", "quantised": {"linear_class": "bitlinear"}},
    "norms of their own": {"kind": "llama", "quantised": {"linear_class": "bitlinear", "use_rms_norm": True}},
    "parts": {
        "kind": "qwen2",
        "quantised": {"linear_class": "bitlinear", "modules_to_not_convert": ["lm_head", "k_proj", "model.layers.1"]},
    },
}


def made(tiny_decoder: Tiny, name: str) -> tuple[Path, Any]:
    settings = (MODELS | QUANTISED)[name]
    sizes = {k: v for k, v in SIZES.items() if k != "head_dim" or settings["kind"] in ("qwen3", "gemma3_text", "llama")}
    return tiny_decoder(**sizes | settings)


def loaded(directory: Path, context: int | None = None, **storage: Any) -> Decoder:
    checkpoint = load_decoder(directory)
    assert isinstance(checkpoint, DecoderCheckpoint)
    return Decoder(pack_decoder(checkpoint, **storage), context=context)


def ids(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, n)


def expected(model: Any, text: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.asarray(model(torch.tensor(text[None])).logits[0].double())


def continued(decoder: Decoder, texts: list[np.ndarray], cuts: list[list[int]], kv: str = "f32") -> list[np.ndarray]:
    """Logits of all rows of these texts, read together, each in pieces that end at its cuts."""
    pool = decoder.pool(sum(len(text) + 64 for text in texts), kv)
    cached = [Sequence() for _ in texts]
    for one, text in zip(cached, texts, strict=True):
        pool.reserve(one, len(text))
    logits: list[list[np.ndarray]] = [[] for _ in texts]
    for turn in range(max(map(len, cuts))):
        going = [n for n in range(len(texts)) if turn < len(cuts[n])]
        new = [texts[n][cached[n].length : cuts[n][turn]] for n in going]
        rows = decoder.forward(Step([cached[n] for n in going], new, [len(one) for one in new]), pool)
        for n, one in zip(going, np.split(rows, np.cumsum([len(one) for one in new])[:-1]), strict=True):
            logits[n].append(one)
    return [np.concatenate(parts) for parts in logits]


@pytest.mark.parametrize("name", MODELS)
def test_prefill_steps_and_uneven_batches_give_the_logits_of_transformers(tiny_decoder: Tiny, name: str) -> None:
    directory, model = made(tiny_decoder, name)
    decoder = loaded(directory, quantise="f32")
    texts = [ids(0, 150), ids(1, 1), ids(2, 65), ids(3, 13)]
    wanted = [expected(model, text) for text in texts]
    one_go = continued(decoder, texts, [[len(text)] for text in texts])
    for got, want in zip(one_go, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * max(1.0, np.abs(want).max()))
    cuts = [[64, 65, 66, 130, 150], [1], [1, 2, 3, 65], list(range(1, 14))]
    for got, want in zip(continued(decoder, texts, cuts), one_go, strict=True):
        np.testing.assert_array_equal(got, want)  # the row contract


@pytest.mark.parametrize("name", QUANTISED)
def test_ternary_models_give_the_logits_of_transformers(tiny_decoder: Tiny, name: str) -> None:
    """Up to the first activation that rounds the other way: those rows are few, and counted."""
    directory, model = made(tiny_decoder, name)
    text = ids(0, 150)
    want = expected(model, text)
    for storage in ("ternary", "trits"):
        decoder = loaded(directory, quantise="f32", ternary=storage)
        (got,) = continued(decoder, [text], [[7, 64, 128, 150]])
        apart = np.abs(got - want).max(axis=1) > 1e-4 * max(1.0, np.abs(want).max())
        assert apart.mean() <= 0.2, f"{apart.sum()} of {len(apart)} rows differ: {np.flatnonzero(apart)}"


@pytest.mark.parametrize("kind", ["bf16", "int8", "int4"])
def test_narrower_weights_stay_close(tiny_decoder: Tiny, kind: str) -> None:
    directory, model = made(tiny_decoder, "qwen3")
    text = ids(0, 100)
    want = expected(model, text)
    (got,) = continued(loaded(directory, quantise=kind), [text], [[100]], "bf16")
    error = np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2))
    assert error < {"bf16": 0.03, "int8": 0.06, "int4": 0.5}[kind], error


@pytest.mark.parametrize("kv", ["f32", "bf16", "int8"])
def test_a_text_is_the_same_bits_in_any_company(tiny_decoder: Tiny, kv: str) -> None:
    directory, _ = made(tiny_decoder, "2B4T")
    decoder = loaded(directory)
    texts = [ids(0, 150), ids(1, 40), ids(2, 65)]
    alone = [continued(decoder, [text], [[len(text)]], kv)[0] for text in texts]
    before = dispatch.threads()
    try:
        for threads in (1, 2, 3):
            dispatch.set_threads(threads)
            together = continued(decoder, texts, [[3, 64, 150], [40], [64, 65]], kv)
            for got, want in zip(together, alone, strict=True):
                np.testing.assert_array_equal(got, want, err_msg=f"{threads} threads")
    finally:
        dispatch.set_threads(before)


def test_limits(tiny_decoder: Tiny) -> None:
    directory, _ = made(tiny_decoder, "llama")
    decoder = loaded(directory, context=100)
    pool = decoder.pool(128)
    text = Sequence()
    with pytest.raises(OutOfPages, match="3 more pages"):
        pool.reserve(text, 129)
    assert pool.free == 2, "nothing is given where not all can be"
    pool.reserve(text, 128)
    with pytest.raises(BadInput, match="context of 100"):
        decoder.forward(Step([text], [ids(0, 101)], [1]), pool)
    with pytest.raises(BadInput, match="outside"):
        decoder.forward(Step([text], [np.array([262])], [1]), pool)
    assert text.length == 0
    assert decoder.forward(Step([text], [ids(0, 100)], [0]), pool).shape == (0, 262)
    pool.release(text)
    assert (pool.free, text.length) == (2, 0)


@pytest.mark.parametrize("head_dim", [8, 12, 264])
def test_heads_of_other_widths_are_refused_with_the_numbers(tiny_decoder: Tiny, head_dim: int) -> None:
    directory, _ = tiny_decoder("qwen3", head_dim=head_dim)
    with pytest.raises(ModelError, match=f"heads {head_dim} wide; .* multiples of 8 from 16 to 256"):
        kogata.load(directory)


def test_pages_that_come_back_are_zero(tiny_decoder: Tiny) -> None:
    directory, _ = made(tiny_decoder, "llama")
    decoder = loaded(directory)
    pool = decoder.pool(64, "f32")
    text = Sequence()
    pool.reserve(text, 64)
    pool.full.pages_PLHB[:] = 255  # NaN wherever it is read
    pool.release(text)
    pool.reserve(text, 10)
    logits = decoder.forward(Step([text], [ids(0, 10)], [10]), pool)
    assert np.isfinite(logits).all()


@pytest.mark.skipif(dispatch.table().isa == "fallback", reason="only the extension's calls are recorded")
@pytest.mark.parametrize("name", ["llama", "gemma3", "2B4T", "qwen2", "norms of their own"])
@pytest.mark.parametrize("kv", ["bf16", "int8"])
def test_repeated_calls_give_the_same_bits(
    tiny_decoder: Tiny, monkeypatch: pytest.MonkeyPatch, name: str, kv: Any
) -> None:
    directory, _ = made(tiny_decoder, name)
    monkeypatch.setattr("kogata.run.decoder.TABLE_STEP", 1)  # so that tables get longer, and calls are recorded anew
    monkeypatch.setattr("kogata.run.decoder.FIRST_POSITIONS", 64)
    monkeypatch.setattr("kogata.run.decoder.MOST_RECORDINGS", 2)
    given = [ids(seed, 190) for seed in range(3)]

    def logits(record: bool) -> list[np.ndarray]:
        decoder = loaded(directory)
        assert decoder._can_record == (name != "norms of their own")
        decoder._can_record &= record
        pool, found = decoder.pool(4 * 256, kv), []
        texts = [Sequence() for _ in given]

        def step(chosen: list[int], n_tokens: int = 1) -> None:
            new = [given[i][texts[i].length : texts[i].length + n_tokens] for i in chosen]
            for i in chosen:
                pool.reserve(texts[i], texts[i].length + n_tokens)
            found.append(decoder.forward(Step([texts[i] for i in chosen], new, [1] * len(chosen)), pool))

        step([0], 60)
        for _ in range(10):  # over the edge of a page
            step([0])
        step([1, 2], 30)
        for n in range(40):  # more and fewer texts, and one that begins meanwhile
            step([[0, 1, 2], [2, 0], [1]][n // 4 % 3])
        step([0, 1], 50)
        for _ in range(3):
            step([1, 0])
        assert len(decoder._recorded.get(pool, {})) == (2 if decoder._can_record else 0)
        return found

    for n, (repeated, called) in enumerate(zip(logits(record=True), logits(record=False), strict=True)):
        np.testing.assert_array_equal(repeated, called, err_msg=f"step {n}")


@pytest.mark.skipif(dispatch.table().isa == "fallback", reason="only the extension's calls are recorded")
def test_recordings_do_not_hold_the_memory_of_a_pool_that_is_gone(tiny_decoder: Tiny) -> None:
    decoder = loaded(made(tiny_decoder, "llama")[0])
    pool, text = decoder.pool(64), Sequence()
    pool.reserve(text, 64)
    decoder.forward(Step([text], [[1]], [1]), pool)
    memory = weakref.ref(pool.full.pages_PLHB.base)
    assert len(decoder._recorded[pool]) == 1
    del pool
    assert len(decoder._recorded) == 0
    assert memory() is None
