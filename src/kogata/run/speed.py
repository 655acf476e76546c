"""How fast a model reads and writes here, by depth and threads, and what this machine would give at best.

The cache is filled with random keys and values, so a depth of 64K needs no hour of reading first: both kernels do the
same work whatever the values are. Every figure is taken several times, the settings in turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.config import DecoderConfig
from kogata.errors import BadInput
from kogata.ops import dispatch, measure
from kogata.ops.attend import rotate_and_write
from kogata.plan.operations import Matrix, Operations, count
from kogata.run.cache import PagePool
from kogata.run.cache import Sequence as CachedText
from kogata.run.decoder import STEP_ROWS, Decoder, Step
from kogata.run.model import Model
from kogata.weights.packed import PackedDecoder

__all__ = ["Rate", "Speed", "fill", "matrices", "speed"]

_ARITHMETIC = {"ternary": "int8", "int8": "int8", "bf16": "bf16", "f32": "f32"}
"""The peak that bounds each kind of product: processors have no faster instruction for ternary weights."""


@dataclass(frozen=True)
class Rate:
    """Tokens a second, taken several times.

    Attributes:
        median, least, most: Of what was measured.
        floor: What it would be at the measured bandwidth and peaks, if nothing else took time.
    """

    median: float
    least: float
    most: float
    floor: float

    @property
    def share(self) -> float:
        """How much of what is possible was reached."""
        return self.median / self.floor

    def to_dict(self) -> dict[str, float]:
        return {**asdict(self), "share": self.share}


@dataclass(frozen=True)
class Speed:
    """One setting's figures.

    Attributes:
        threads, depth: The setting; depth is the tokens that are in the cache before.
        prefill, decode: Reading many tokens at once, and writing one after another.
        bandwidth_gb_s: Measured over the model's own weights, or over 256 MB where a cache would hold them.
        peaks: GFLOP/s and GOP/s by arithmetic.
    """

    threads: int
    depth: int
    prefill: Rate
    decode: Rate
    bandwidth_gb_s: float
    peaks: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "prefill": self.prefill.to_dict(), "decode": self.decode.to_dict()}


def matrices(packed: PackedDecoder) -> dict[str, Matrix]:
    """The linears of a packed model, for counting."""
    return {
        name: Matrix(linear.kind, linear.n_out, linear.n_in, linear.group, linear.nbytes)
        for name, linear in packed.linears.items()
    }


def weights_of_a_token(packed: PackedDecoder) -> list[NDArray[Any]]:
    """The weights that a token reads."""
    names = [name for name in packed.linears if name != "embed" or packed.config.tied]
    return [packed.linears[name].data_B for name in names]


def fill(pool: PagePool, text: CachedText, depth: int, config: DecoderConfig) -> None:
    """Makes an empty text ``depth`` tokens long without a model: random keys and values, the same in all layers."""
    shape = (config.n_heads, config.n_kv_heads, config.d_head)
    width = (config.n_heads + 2 * config.n_kv_heads) * config.d_head
    qkv_TN = np.random.default_rng(0).standard_normal((min(depth, STEP_ROWS), width), np.float32)
    cos_PD2 = np.ones((depth, config.d_head // 2), np.float32)
    sin_PD2 = np.zeros_like(cos_PD2)
    for begin in range(0, depth, STEP_ROWS):
        end = min(begin + STEP_ROWS, depth)
        pool.reserve(text, end)
        positions_T = np.arange(begin, end, dtype=np.int32)
        for group, pages in zip(pool.groups, (text.pages, text.window), strict=False):
            if not group.pages_PLHB.size:
                continue
            rotate_and_write(
                qkv_TN[: end - begin], positions_T, cos_PD2, sin_PD2, group.pages_PLHB[:, 0], pool.kind,
                np.array([pages], np.int32), np.array([0, end - begin], np.int32), *shape,
            )  # fmt: skip
            new = pages[begin // 64 :]
            group.pages_PLHB[new, 1:] = group.pages_PLHB[new, :1]
        text.length = end


def speed(
    model: Model,
    *,
    depths: Sequence[int],
    threads: Sequence[int],
    prompt: int = 512,
    tokens: int = 32,
    repeat: int = 3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Speed]:
    """Measures a model.

    Args:
        model: What to measure.
        depths: Tokens in the cache before what is measured.
        threads: How many to use.
        prompt: Tokens that are read at once; the logits of the last are computed.
        tokens: Tokens that are then computed one after another; none is sampled.
        repeat: How often; medians count.
        progress: Told how much of all is done.

    Raises:
        BadInput: A number is out of range, or the context or the memory does not hold so many tokens.
    """
    _check(model, depths, threads, prompt, tokens, repeat)
    weights = weights_of_a_token(model.packed)
    before = dispatch.threads()
    done, total = 0, len(depths) * (1 + repeat * len(threads))
    found: dict[tuple[int, int], list[_Times]] = {}
    try:
        for depth in depths:
            text, pool = CachedText(), model.decoder.pool(depth + max(prompt, tokens), model.kv)
            if depth:
                fill(pool, text, depth, model.packed.config)
            pool.reserve(text, depth + max(prompt, tokens))
            _times(model.decoder, pool, text, depth, prompt, 1, weights)  # memory and caches of the first time
            progress(done := done + 1, total)
            for _ in range(repeat):
                for n_threads in threads:
                    dispatch.set_threads(n_threads)
                    took = _times(model.decoder, pool, text, depth, prompt, tokens, weights)
                    found.setdefault((n_threads, depth), []).append(took)
                    progress(done := done + 1, total)
        return [_speed(model, n, depth, prompt, found[n, depth]) for n in threads for depth in depths]
    finally:
        dispatch.set_threads(before)


@dataclass(frozen=True)
class _Times:
    """Seconds of the prompt and of one token, GB/s, peaks."""

    prompt: float
    token: float
    bandwidth: float
    peaks: dict[str, float]


def _times(
    decoder: Decoder, pool: PagePool, text: CachedText, depth: int, prompt: int, tokens: int,
    weights: Sequence[NDArray[Any]],
) -> _Times:  # fmt: skip
    ids = np.random.default_rng(1).integers(0, decoder.config.vocab_size, max(prompt, tokens)).astype(np.int32)

    def took(parts: Sequence[NDArray[np.int32]]) -> float:
        text.length = depth
        began = time.perf_counter()
        for part in parts:
            decoder.forward(Step([text], [part], [1]), pool)
        return time.perf_counter() - began

    return _Times(
        took([ids[begin : min(begin + STEP_ROWS, prompt)] for begin in range(0, prompt, STEP_ROWS)]),
        took(list(ids[:tokens, None])) / tokens,
        measure.bandwidth(weights),
        measure.peaks(),
    )


def _speed(model: Model, threads: int, depth: int, prompt: int, times: Sequence[_Times]) -> Speed:
    config, stored = model.packed.config, matrices(model.packed)
    bandwidth = statistics.median(one.bandwidth for one in times)
    peaks = {kind: statistics.median(one.peaks[kind] for one in times) for kind in times[0].peaks}

    def rate(n_tokens: int, seconds: Sequence[float], operations: Operations) -> Rate:
        floor = n_tokens / _least_seconds(operations, bandwidth, peaks)
        return Rate(n_tokens / statistics.median(seconds), n_tokens / max(seconds), n_tokens / min(seconds), floor)

    reading, writing = (count(config, stored, model.kv, depth=depth, n_tokens=n) for n in (prompt, 1))
    reading.weight_bytes *= -(-prompt // STEP_ROWS)
    return Speed(
        threads, depth, rate(prompt, [one.prompt for one in times], reading),
        rate(1, [one.token for one in times], writing), bandwidth, peaks,
    )  # fmt: skip


def _least_seconds(operations: Operations, bandwidth: float, peaks: dict[str, float]) -> float:
    """Either the bytes at the bandwidth or the products at their peaks, whichever takes longer."""
    arithmetic = sum(2 * n / peaks[_ARITHMETIC[kind]] for kind, n in operations.products.items())
    return max(operations.nbytes / bandwidth, arithmetic) / 1e9


def _check(
    model: Model, depths: Sequence[int], threads: Sequence[int], prompt: int, tokens: int, repeat: int
) -> None:  # fmt: skip
    for name, values, least, most in (
        ("depths", depths, 0, model.longest),
        ("threads", threads, 1, 256),
        ("prompt", [prompt], 1, model.longest),
        ("tokens", [tokens], 1, model.longest),
        ("repeat", [repeat], 1, 1000),
    ):
        if not values:
            raise BadInput(f"{name} is empty; at least one number is needed.")
        for value in values:
            if not least <= value <= most:
                raise BadInput(f"{name} is {value:,}; {least:,} to {most:,} is accepted.")
    more = max(prompt, tokens)
    if max(depths) + more > model.longest:
        raise BadInput(
            f"{max(depths):,} tokens and {more:,} more are too many: context and memory of {model.name} hold "
            f"{model.longest:,}."
        )
