"""What this machine gives: memory bandwidth and arithmetic peaks, by native loops that do nothing else.

Half a second on a quiet machine. For ``kogata doctor``, plans and benchmarks; nothing is ever chosen by these figures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogata.ops import dispatch

_MEGABYTES = 256  # of which a large cache holds little
_SECONDS = 0.02


def bandwidth(arrays: Sequence[NDArray[Any]] = ()) -> float:
    """GB/s that all threads together read from memory: the best of several passes.

    Args:
        arrays: What is read, a model's weights for example. Where they are less than 256 MB, of which a large cache
            holds little, 256 MB of other memory are read instead: the cache would answer.
    """
    if sum(array.nbytes for array in arrays) < _MEGABYTES << 20:
        arrays = [np.ones(_MEGABYTES << 20, np.uint8)]
    flat = [array.reshape(-1).view(np.uint8) for array in arrays]
    native = dispatch.native_module() if dispatch.table().isa != "fallback" else None
    read: Callable[[], object] = partial(native.read, flat) if native is not None else partial(_read, flat)
    return sum(array.nbytes for array in flat) / min(_timed(read) for _ in range(5)) / 1e9


def peaks() -> dict[str, float]:
    """GFLOP/s in f32 and bf16, GOP/s in int8, of all threads together; a multiply-add is two operations.

    Without bf16 dot products bf16 runs at the rate of f32. On the fallback all three are numpy's f32 matrix product.
    """
    native = dispatch.native_module()
    if native is None or dispatch.table().isa == "fallback":
        a = np.ones((512, 512), np.float32)
        rate = 2 * 512**3 / min(_timed(lambda: a @ a) for _ in range(8)) / 1e9
        return {"f32": rate, "bf16": rate, "int8": rate}
    return {kind: _peak(partial(native.peak, kind)) for kind in ("f32", "bf16", "int8")}


def _peak(loop: Callable[[int], float]) -> float:
    """Best rate of a few runs on every thread at once."""
    iterations = 20_000
    seconds = _timed(partial(loop, iterations))
    iterations = max(1, int(iterations * _SECONDS / max(seconds, 1e-6)))
    return max(_rate(loop, iterations) for _ in range(4))


def _rate(loop: Callable[[int], float], iterations: int) -> float:
    operations: list[float] = []

    def run() -> None:
        operations.append(loop(iterations))

    others = [threading.Thread(target=run) for _ in range(dispatch.threads() - 1)]
    begin = time.perf_counter()
    for thread in others:
        thread.start()
    run()
    for thread in others:
        thread.join()
    return sum(operations) / (time.perf_counter() - begin) / 1e9


def _read(arrays: Sequence[NDArray[np.uint8]]) -> None:
    for array in arrays:
        array[: len(array) // 8 * 8].view(np.uint64).max(initial=0)


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
