"""The table, the thread pool, the measures."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from kogata.errors import BadInput
from kogata.ops import dispatch, linear, measure

needs_native = pytest.mark.skipif(dispatch.native_module() is None, reason="the extension was not built")


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_kogata_isa_picks_and_refuses():
    for isa in dispatch.isas():
        assert run("from kogata.ops import dispatch; print(dispatch.table().isa)", KOGATA_ISA=isa) == isa
    code = (
        "from kogata.ops import dispatch\ntry:\n dispatch.table()\nexcept Exception as e:\n print(type(e).__name__, e)"
    )
    assert run(code, KOGATA_ISA="sse9").startswith("BadInput KOGATA_ISA is 'sse9'; this machine runs fallback")
    with pytest.raises(BadInput), dispatch.use("sse9"):
        pass


def test_every_operation_says_what_it_runs_on():
    with dispatch.use("fallback"):
        assert {d["impl"] for d in dispatch.describe().values()} == {"fallback"}
        assert dispatch.why_not_native() is not None
    assert "linear" in dispatch.describe()


def test_threads_are_checked():
    for n in (0, -1, 257, True, 2.0):
        with pytest.raises(BadInput):
            dispatch.set_threads(n)


@needs_native
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is set on Linux only")
def test_affinity_decides_the_number_of_threads():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from kogata.ops import dispatch; print(dispatch.threads())"
    assert run(code) == "1"


def products() -> tuple[np.ndarray, list, list]:
    rng = np.random.default_rng(0)
    packed = [linear.pack(rng.standard_normal((n, 64)).astype(np.float32), "f32") for n in (16, 200, 700)]
    return rng.standard_normal((300, 64)).astype(np.float32), packed, []


@needs_native
def test_many_small_jobs_of_changing_size_neither_hang_nor_mix():
    """A worker that wakes late once ran a chunk of the next, longer job a second time, and the job never ended."""
    x, packed, _ = products()
    before = dispatch.threads()
    dispatch.set_threads(3)
    try:
        want = [[linear.linear(x[:t], p) for p in packed] for t in (1, 97, 300)]
        for _ in range(1500):
            for t, row in zip((1, 97, 300), want, strict=True):
                for p, result in zip(packed, row, strict=True):
                    assert np.array_equal(linear.linear(x[:t], p), result)
    finally:
        dispatch.set_threads(before)


@needs_native
def test_several_callers_at_once_get_their_own_results():
    x, packed, wrong = products()
    want = [linear.linear(x, p) for p in packed]

    def call(i: int) -> None:
        for _ in range(200):
            if not np.array_equal(linear.linear(x, packed[i]), want[i]):
                wrong.append(i)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert not wrong
    assert not any(caller.is_alive() for caller in callers)


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_pool_of_its_own():
    code = """
import os, numpy as np
from kogata.ops import dispatch, linear
dispatch.set_threads(3)
x = np.ones((500, 64), np.float32)
p = linear.pack(np.ones((300, 64), np.float32), "f32")
want = linear.linear(x, p)
pid = os.fork()
if pid == 0:
    os._exit(0 if np.array_equal(linear.linear(x, p), want) else 1)
assert os.waitpid(pid, 0)[1] == 0
assert np.array_equal(linear.linear(x, p), want)
"""
    run(code, PYTHONWARNINGS="ignore")


def test_measures_are_positive_and_ordered():
    assert measure.bandwidth() > 0.1
    odd = [np.arange(100_003, dtype=np.uint8), np.ones((3, 5), np.float32), np.zeros(0, np.uint8)]
    assert measure.bandwidth(odd) > 0.1
    peaks = measure.peaks()
    assert set(peaks) == {"f32", "bf16", "int8"}
    assert min(peaks.values()) > 0


@needs_native
def test_what_is_recorded_is_repeated_on_what_the_arrays_hold_then():
    rng = np.random.default_rng(0)
    packed = linear.pack(rng.standard_normal((40, 24)).astype(np.float32), "int8")
    rows, out = np.array([1, 2], np.int32), np.empty((2, 40), np.float32)
    calls = dispatch.Recording()
    with dispatch.use("native"), calls:
        x = linear.take(packed, rows)
        linear.linear(x, packed, out_TN=out)
    first = out.copy()
    for chosen in ([5, 7], [1, 2]):
        rows[:] = chosen
        calls.repeat()
        np.testing.assert_array_equal(out, linear.linear(linear.take(packed, rows), packed), err_msg=str(chosen))
    np.testing.assert_array_equal(out, first)
    rows[:] = [5, 40]
    with pytest.raises(ValueError, match="a row is outside the matrix"):
        calls.repeat()
    rows[:] = [5, 7]
    del packed, x, rows
    calls.repeat()  # the recording keeps what it reads alive
    assert not np.array_equal(out, first)


@needs_native
def test_only_its_own_thread_is_recorded_and_one_recording_at_a_time():
    packed = linear.pack(np.ones((16, 8), np.float32), "f32")
    x, mine, other = np.ones((1, 8), np.float32), np.zeros((1, 16), np.float32), np.zeros((1, 16), np.float32)
    calls = dispatch.Recording()
    with dispatch.use("native"), calls:
        thread = threading.Thread(target=lambda: linear.linear(x, packed, out_TN=other))
        thread.start()
        thread.join()
        linear.linear(x, packed, out_TN=mine)
        with pytest.raises(ValueError, match="recorded already"), dispatch.Recording():
            pass
    linear.linear(x, packed)  # after the end
    mine[:], other[:] = 0, 0
    calls.repeat()
    assert (mine[0, 0], other[0, 0]) == (8, 0)
