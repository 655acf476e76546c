"""What this machine gives: memory bandwidth and arithmetic peaks, by native loops that do nothing else. Under 1.5 s.

For ``kogata doctor``, plans and benchmarks; nothing is ever chosen by these figures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from kogata.ops import dispatch

_MEGABYTES = 128
_SECONDS = 0.05


def bandwidth() -> float:
    """GB/s that all threads together read from memory: the best of several passes over 128 MB, far more than any cache."""
    x = np.ones(_MEGABYTES * (1 << 20) // 4, np.float32)
    native = dispatch.native_module() if dispatch.table().isa != "fallback" else None
    read: Callable[[], object] = (lambda: native.read(x)) if native is not None else x.sum
    best = min(_timed(read) for _ in range(8))
    return x.nbytes / best / 1e9


def peaks() -> dict[str, float]:
    """GFLOP/s in f32 and bf16, GOP/s in int8, of all threads together; a multiply-add is two operations.

    Without bf16 dot products bf16 runs at the rate of f32. On the fallback all three are numpy's f32 matrix product.
    """
    native = dispatch.native_module()
    if native is None or dispatch.table().isa == "fallback":
        a = np.ones((512, 512), np.float32)
        rate = 2 * 512**3 / min(_timed(lambda: a @ a) for _ in range(8)) / 1e9
        return {"f32": rate, "bf16": rate, "int8": rate}
    return {kind: _peak(lambda n, kind=kind: float(native.peak(kind, n))) for kind in ("f32", "bf16", "int8")}


def _peak(loop: Callable[[int], float]) -> float:
    """Best rate of a few runs on every thread at once."""
    iterations = 20_000
    while (seconds := _timed(lambda: loop(iterations))) < _SECONDS / 2:
        iterations = int(iterations * max(1.5, _SECONDS / max(seconds, 1e-6)))
    best = 0.0
    for _ in range(3):
        operations: list[float] = []
        others = [
            threading.Thread(target=lambda: operations.append(loop(iterations))) for _ in range(dispatch.threads() - 1)
        ]
        begin = time.perf_counter()
        for thread in others:
            thread.start()
        operations.append(loop(iterations))
        for thread in others:
            thread.join()
        best = max(best, sum(operations) / (time.perf_counter() - begin) / 1e9)
    return best


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
