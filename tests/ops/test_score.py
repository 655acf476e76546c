"""ops/score on every table: against float64, sklearn and usearch; ties, odd shapes, refusals, threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kogata.errors import BadInput
from kogata.ops import dispatch
from kogata.ops.score import Int8Rows, pack_codes, reference, shortlist, topk, unpack_codes
from kogata.ops.score.rows import quantise

TABLES = dispatch.isas()


@pytest.fixture(params=TABLES, autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[str]:
    with dispatch.use(request.param):
        yield request.param


def whole_numbers(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Small whole numbers: every sum is exact in f32, in any order, and ties are plentiful."""
    return rng.integers(-3, 4, shape).astype(np.float32)


shapes = {
    "n": st.integers(1, 150),
    "d": st.integers(1, 140),
    "n_queries": st.integers(1, 4),
    "seed": st.integers(0, 2**32),
}


@settings(max_examples=25, deadline=None)
@given(**shapes, k=st.integers(1, 200), half=st.booleans())
def test_topk_with_ties_is_the_stable_order(n: int, d: int, n_queries: int, seed: int, k: int, half: bool) -> None:
    rng = np.random.default_rng(seed)
    rows_ND, q_QD = whole_numbers(rng, n, d), whole_numbers(rng, n_queries, d)
    wanted_scores, wanted_rows = reference.topk(q_QD.astype(np.float64), rows_ND.astype(np.float64), k)
    scores, rows = topk(q_QD, rows_ND.astype(np.float16) if half else rows_ND, k)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(scores, wanted_scores)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64


@settings(max_examples=25, deadline=None)
@given(**shapes, k=st.integers(1, 200))
def test_subset_and_filter(n: int, d: int, n_queries: int, seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    rows_ND, q_QD = whole_numbers(rng, n, d), whole_numbers(rng, n_queries, d)
    subset, allowed = rng.integers(0, n, rng.integers(0, n + 1)), rng.random(n) < 0.7
    for chosen, arguments in [
        (np.unique(subset), {"subset": subset}),
        (np.flatnonzero(allowed), {"allowed": allowed}),
        (np.intersect1d(subset, np.flatnonzero(allowed)), {"allowed": allowed, "subset": subset}),
    ]:
        scores, rows = topk(q_QD, rows_ND, k, **arguments)
        wanted_scores, wanted = reference.topk(q_QD.astype(np.float64), rows_ND[chosen].astype(np.float64), k)
        np.testing.assert_array_equal(rows, chosen[wanted])
        np.testing.assert_array_equal(scores, wanted_scores)


@settings(max_examples=25, deadline=None)
@given(**shapes, k=st.integers(1, 20))
def test_int8_sums_are_exact(n: int, d: int, n_queries: int, seed: int, k: int) -> None:
    """Codes include -128 and runs of extremes: instructions that saturate or take one side as unsigned would show."""
    rng = np.random.default_rng(seed)
    codes_ND = rng.choice(np.array([-128, -127, -1, 0, 1, 127], np.int8), (n, d))
    q_QD = rng.choice(np.array([-1.0, 1.0, 0.5]), (n_queries, d)).astype(np.float32)
    scales_N = rng.choice(np.array([0.0, 0.25, 1.0], np.float32), n)
    codes_QD, scales_Q = quantise(q_QD)
    sums_QN = codes_QD.astype(np.int64) @ codes_ND.astype(np.int64).T
    exact_QN = sums_QN.astype(np.float32) * (scales_Q[:, None] * scales_N[None, :])
    wanted = reference.best(exact_QN, k)
    scores, rows = topk(q_QD, Int8Rows(codes_ND, scales_N), k)
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_array_equal(scores, np.take_along_axis(exact_QN, wanted, 1))


def test_int8_reference_is_the_same_formula() -> None:
    rng = np.random.default_rng(0)
    rows = Int8Rows.quantise(rng.standard_normal((50, 33)))
    q_QD = rng.standard_normal((2, 33)).astype(np.float32)
    codes_QD, scales_Q = quantise(q_QD)
    wanted = reference.topk_int8(
        codes_QD, scales_Q.astype(np.float64), rows.codes_ND, rows.scales_N.astype(np.float64), 9
    )
    scores, index = topk(q_QD, rows, 9)
    np.testing.assert_array_equal(index, wanted[1])
    np.testing.assert_allclose(scores, wanted[0], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 200),
    groups=st.integers(1, 20),
    size=st.integers(1, 250),
    seed=st.integers(0, 2**32),
    extreme=st.booleans(),
)
def test_shortlist(n: int, groups: int, size: int, seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    high = rng.choice(np.array([0, 15], np.uint8), (n, 8 * groups))
    codes_NP = high if extreme else rng.integers(0, 16, (n, 8 * groups), dtype=np.uint8)
    weights_P = (
        rng.choice(np.array([-127, 127], np.int8), 8 * groups)
        if extreme
        else rng.integers(-3, 4, 8 * groups).astype(np.int8)
    )
    packed = pack_codes(codes_NP)
    np.testing.assert_array_equal(unpack_codes(packed, n), codes_NP)
    np.testing.assert_array_equal(shortlist(weights_P, packed, n, size), reference.shortlist(weights_P, codes_NP, size))
    allowed = rng.random(n) < 0.5
    chosen = np.flatnonzero(allowed)
    wanted = chosen[reference.shortlist(weights_P, codes_NP[chosen], size)] if len(chosen) else chosen
    np.testing.assert_array_equal(shortlist(weights_P, packed, n, size, allowed=allowed), wanted)


def test_packed_layout_is_what_the_docstring_says() -> None:
    codes_NP = np.random.default_rng(0).integers(0, 16, (21, 24), dtype=np.uint8)
    packed = pack_codes(codes_NP)
    for row, dimension in [(0, 0), (20, 23), (17, 12), (5, 7), (15, 8)]:
        byte = packed[row // 16, dimension // 8, 4 * (row % 16) + dimension % 4]
        assert (byte >> 4 if dimension % 8 >= 4 else byte & 15) == codes_NP[row, dimension]


@pytest.mark.parametrize("order", ["random", "rising", "falling", "equal", "one block"])
def test_shortlist_of_many_rows(order: str) -> None:
    """Enough rows for the sampled threshold; in the last order it is far too high and the scan must be repeated."""
    rng = np.random.default_rng(1)
    n = 140_001
    codes_NP = rng.integers(0, 16, (n, 8), dtype=np.uint8)
    weights_P = np.array([100, 30, 10, 3, 1, 1, 1, 1], np.int8)
    if order in ("rising", "falling"):
        codes_NP = codes_NP[
            np.argsort(codes_NP.astype(np.int64) @ weights_P, kind="stable")[:: 1 if order == "rising" else -1]
        ]
    elif order == "equal":
        codes_NP[:] = 7
    elif order == "one block":  # the sampled runs (8 blocks every n / 16 / 128) are the only good rows
        in_run = (np.arange(n) // 16) % (-(-n // 16) // 128) < 8
        codes_NP[~in_run] = 0
        weights_P = np.abs(weights_P)
    for size in (10, 3000):
        np.testing.assert_array_equal(
            shortlist(weights_P, pack_codes(codes_NP), n, size), reference.shortlist(weights_P, codes_NP, size)
        )


def test_near_ties_and_real_valued_scores() -> None:
    """f32 sums of 384 products: scores within rounding of float64, the order right wherever scores differ by more."""
    rng = np.random.default_rng(2)
    rows_ND = rng.standard_normal((3000, 384)).astype(np.float32)
    rows_ND[1000:2000] = rows_ND[:1000] * np.float32(1 + 1e-7)
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    q_QD = rows_ND[:5]
    for stored in (rows_ND, rows_ND.astype(np.float16)):
        exact_QN = q_QD.astype(np.float64) @ stored.astype(np.float64).T
        scores, rows = topk(q_QD, stored, 50)
        np.testing.assert_allclose(scores, np.take_along_axis(exact_QN, rows, 1), atol=1e-6)
        np.testing.assert_allclose(scores, -np.sort(-exact_QN)[:, :50], atol=1e-6)
        assert (np.diff(scores) <= 0).all()


def test_against_sklearn_and_usearch() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    usearch = pytest.importorskip("usearch.index")
    rng = np.random.default_rng(3)
    rows_ND, q_QD = rng.standard_normal((500, 37)).astype(np.float32), rng.standard_normal((7, 37)).astype(np.float32)
    rows_ND /= np.linalg.norm(rows_ND, axis=1, keepdims=True)
    q_QD /= np.linalg.norm(q_QD, axis=1, keepdims=True)
    scores, rows = topk(q_QD, rows_ND, 10)
    distance, index = (
        neighbors.NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(rows_ND).kneighbors(q_QD)
    )
    np.testing.assert_array_equal(rows, index)
    np.testing.assert_allclose(scores, 1 - distance, atol=1e-6)
    matches = usearch.search(rows_ND, q_QD, 10, usearch.MetricKind.IP, exact=True)
    np.testing.assert_array_equal(rows, matches.keys)


def test_half_precision_numbers_of_every_kind() -> None:
    """All finite f16 values, subnormals and negative zero included, read exactly as numpy reads them."""
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = bits[np.isfinite(bits)]
    scores, rows = topk(np.ones((1, 1), np.float32), finite[:, None].copy(), len(finite))
    np.testing.assert_array_equal(scores[0], finite.astype(np.float32)[rows[0]])
    np.testing.assert_array_equal(rows[0], np.argsort(-finite.astype(np.float64), kind="stable"))


def test_a_score_that_is_no_number_comes_last() -> None:
    rows_ND = np.array([[1.0, 0], [np.nan, 0], [np.inf, 0], [-1, 0]], np.float32)
    assert topk(np.array([[1.0, 1]]), rows_ND, 4)[1].tolist() == [[2, 0, 3, 1]]


def test_threads_change_nothing(table: str) -> None:
    rng = np.random.default_rng(4)
    rows_ND, q_QD = (
        rng.standard_normal((40_000, 65)).astype(np.float32),
        rng.standard_normal((3, 65)).astype(np.float32),
    )
    packed = pack_codes(rng.integers(0, 16, (140_000, 16), dtype=np.uint8))
    weights_P = rng.integers(-127, 128, 16).astype(np.int8)
    before = dispatch.threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            dispatch.set_threads(threads)
            results.append((*topk(q_QD, rows_ND, 777), shortlist(weights_P, packed, 140_000, 5000)))
    finally:
        dispatch.set_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_rows_score_does_not_depend_on_its_neighbours(table: str) -> None:
    if table == "fallback":
        pytest.skip("numpy's matrix product promises no such thing")
    rng = np.random.default_rng(5)
    rows_ND, q_QD = rng.standard_normal((700, 77)).astype(np.float32), rng.standard_normal((2, 77)).astype(np.float32)
    for stored in (rows_ND, rows_ND.astype(np.float16), Int8Rows.quantise(rows_ND)):
        scores, rows = topk(q_QD, stored, 700)
        for place in (0, 350, 699):
            alone, _ = topk(q_QD[1:], stored, 1, subset=[rows[1, place]])
            assert alone[0, 0] == scores[1, place]


def test_k_beyond_the_rows_allocates_nothing_large() -> None:
    assert topk(np.ones((1, 2)), np.ones((3, 2), np.float32), 10**9)[1].tolist() == [[0, 1, 2]]
    assert topk(np.ones((1, 2)), np.ones((3, 2), np.float32), 10**30)[0].shape == (1, 3)


def test_empty_shapes() -> None:
    assert topk(np.ones((2, 4)), np.empty((0, 4), np.float32), 3)[1].shape == (2, 0)
    assert topk(np.empty((0, 4)), np.ones((5, 4), np.float32), 3)[1].shape == (0, 3)
    assert topk(np.ones((1, 4)), np.ones((5, 4), np.float32), 3, allowed=np.zeros(5, np.bool_))[0].shape == (1, 0)
    assert topk(np.empty((1, 0)), np.empty((5, 0), np.float32), 3)[1].tolist() == [[0, 1, 2]]
    assert shortlist(np.zeros(8, np.int8), pack_codes(np.zeros((0, 8), np.uint8)), 0, 5).shape == (0,)


ROWS = np.ones((4, 3), np.float32)
PACKED = pack_codes(np.zeros((4, 8), np.uint8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topk(np.ones((1, 3)), ROWS, 0), "at least 1, not 0"),
        (lambda: topk(np.ones((1, 3)), ROWS, -5), "at least 1"),
        (lambda: topk(np.ones((1, 3)), ROWS, 1.5), "whole number"),
        (lambda: topk(np.full((1, 3), np.nan), ROWS, 1), "not finite"),
        (lambda: topk(np.full((1, 3), np.inf), ROWS, 1), "not finite"),
        (lambda: topk(np.ones((1, 4)), ROWS, 1), "3 dimensions"),
        (lambda: topk(np.ones(3), ROWS, 1), "3 dimensions"),
        (lambda: topk(np.ones((1, 3)), ROWS.astype(np.float64), 1), "float32, float16 or Int8Rows"),
        (lambda: topk(np.ones((1, 4)), ROWS.T, 1), "contiguous"),
        (lambda: topk(np.ones((1, 3)), ROWS, 1, subset=[4]), "rows 0 to 3"),
        (lambda: topk(np.ones((1, 3)), ROWS, 1, subset=[-1]), "rows 0 to 3"),
        (lambda: topk(np.ones((1, 3)), ROWS, 1, allowed=np.ones(3, np.bool_)), r"bool \[4\]"),
        (lambda: Int8Rows(np.ones((2, 2), np.int8), np.ones(3, np.float32)), "one float32 scale"),
        (lambda: Int8Rows(np.ones((2, 2), np.int16), np.ones(2, np.float32)), "type int8"),
        (lambda: shortlist(np.zeros(8, np.int8), PACKED, 4, 0), "at least 1"),
        (lambda: shortlist(np.zeros(16, np.int8), PACKED, 4, 1), r"int8 \[8\]"),
        (lambda: shortlist(np.zeros(8, np.int8), PACKED, 17, 1), "0 to 16 rows"),
        (lambda: pack_codes(np.zeros((4, 9), np.uint8)), "groups of 8"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()  # type: ignore[operator]
