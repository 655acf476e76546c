"""ops/sample on every table: against float64, exact probabilities, transformers' logits processors, torch's log-softmax
and Random123's vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kogata.errors import BadInput
from kogata.ops import dispatch
from kogata.ops.sample import Row, TokenCounts, UnusableLogits, fallback, reference, sample

TABLES = dispatch.isas()
INF = np.inf


@pytest.fixture(params=TABLES, autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[str]:
    with dispatch.use(request.param):
        yield request.param


def f32(*values: float) -> NDArray[np.float32]:
    return np.array([values], np.float32)


def one(logits_V: NDArray[np.float32], position: int = 0, mask_BW: Any = None, **settings: Any) -> int:
    row = Row(**settings)
    return int(sample(logits_V.reshape(1, -1), [row], [position], mask_BW=mask_BW).tokens_B[0])


def drawn(logits_V: NDArray[np.float32], n: int, **settings: Any) -> NDArray[np.int32]:
    """Tokens at n positions."""
    logits_BV = np.ascontiguousarray(np.broadcast_to(logits_V, (n, logits_V.size)))
    return sample(logits_BV, [Row(**settings)] * n, np.arange(n)).tokens_B


def counted(prompt: list[int], output: list[int]) -> TokenCounts:
    counts = TokenCounts(prompt)
    for token in output:
        counts.add(token)
    return counts


def packed(allowed_V: NDArray[np.bool_]) -> NDArray[np.uint32]:
    padded = np.zeros(-(-allowed_V.size // 32) * 32, np.bool_)
    padded[: allowed_V.size] = allowed_V
    return (padded.reshape(1, -1, 32) * (1 << np.arange(32, dtype=np.uint64))).sum(axis=2).astype(np.uint32)


def uniform(seed: int, stream: int, position: int) -> float:
    return float(fallback.uniforms(np.array([[seed, stream, position]], np.uint64))[0])


def fits(
    token: int,
    u: float,
    z_V: NDArray[np.floating],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> bool:
    """Whether the float64 distribution has u at this token, to 2e-6. A border of top_p or min_p that lies within 1e-5
    of a token may fall on either side of it.
    """
    for moved in (1.0, 1 - 1e-5, 1 + 1e-5):
        order, shares = reference.distribution(
            z_V.astype(np.float64), temperature, top_k, min(1.0, top_p * moved), min(1.0, min_p * moved)
        )
        place = int(np.flatnonzero(order == token)[0])
        end = shares[: place + 1].sum()
        if shares[place] > 0 and end - shares[place] - 2e-6 <= u <= end + 2e-6:
            return True
    return False


# The generator


VECTORS = [  # Random123, tests/kat_vectors, philox4x32 10: counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def test_philox_gives_the_published_vectors(table: str) -> None:
    for counter, key, result in VECTORS:
        if table == "fallback":
            given = fallback.philox(np.array([words(counter)], np.uint32), np.array([words(key)], np.uint32))[
                0
            ].tolist()
        else:
            module = dispatch.native_module()
            assert module is not None
            given = list(module.philox(words(counter), words(key)))
        assert given == words(result)


def test_native_and_numpy_draw_from_the_same_bits() -> None:
    """With a million equally likely tokens the one drawn tells the first six digits of the uniform number."""
    logits_V = np.zeros(10**6, np.float32)
    for seed, stream, position in [(0, 0, 0), (1, 2, 3), (2**64 - 1, 2**64 - 1, 2**63), (2**32, 2**33, 2**34)]:
        token = one(logits_V, position, seed=seed, stream=stream)
        assert abs(token / 10**6 - uniform(seed, stream, position)) < 2e-6


def test_uniform_numbers_are_uniform_in_every_part_of_the_key() -> None:
    number = np.arange(20_000, dtype=np.uint64)
    for part in range(3):
        keys_B3 = np.full((len(number), 3), 7, np.uint64)
        keys_B3[:, part] = number
        assert scipy.stats.kstest(fallback.uniforms(keys_B3), "uniform").pvalue > 1e-3


# The distribution


@settings(max_examples=60, deadline=None)
@given(
    n_vocab=st.one_of(st.integers(1, 300), st.integers(1000, 6000)),
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.0, 1e-4, 0.3, 3.0, 30.0]),
    rounded=st.booleans(),
    holes=st.booleans(),
    temperature=st.sampled_from([1e-6, 0.3, 1.0, 2.0, 50.0]),
    top_k=st.sampled_from([0, 1, 2, 7, 50, 250, 3000, 2**31 - 1]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.95, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)
def test_the_token_is_where_the_float64_distribution_puts_the_draw(
    n_vocab: int,
    seed: int,
    spread: float,
    rounded: bool,
    holes: bool,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
) -> None:
    rng = np.random.default_rng(seed)
    logits_V = (rng.standard_normal(n_vocab) * spread).astype(np.float32)
    if rounded:  # ties
        logits_V = np.round(logits_V)
    if holes:
        logits_V[rng.random(n_vocab) < 0.7] = -INF
        logits_V[rng.integers(n_vocab)] = 1.0
    asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    for position, token in enumerate(drawn(logits_V, 8, seed=seed, **asked)):
        assert fits(token, uniform(seed, 0, position), logits_V, **asked)


@pytest.mark.parametrize("spread", [0.2, 2.0, 6.0])
def test_a_large_vocabulary(spread: float, table: str) -> None:
    """Large enough for the likeliest blocks to be looked at first, which is enough for the steep one only."""
    if table == "fallback":
        pytest.skip("it looks at everything")
    logits_V = (np.random.default_rng(9).standard_normal(100_003) * spread).astype(np.float32)
    for asked in (
        {},
        {"top_p": 0.9},
        {"top_k": 60},
        {"top_k": 5000, "top_p": 0.9},
        {"min_p": 0.01},
        {"temperature": 0.5},
    ):
        for position, token in enumerate(drawn(logits_V, 3, seed=5, **asked)):
            assert fits(token, uniform(5, 0, position), logits_V, **asked)


def test_fallback_and_native_draw_the_same_tokens(table: str) -> None:
    """They may differ only where the draw falls within 1e-6 of the border of two tokens; counted."""
    if table == "fallback":
        pytest.skip("it is what the others are compared with")
    rng = np.random.default_rng(11)
    n, n_vocab = 200, 3000
    kinds = [{}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 0.02}, {"top_k": 500, "top_p": 0.95, "temperature": 0.7}]
    for spread in (0.5, 3.0):
        logits_BV = (rng.standard_normal((n, n_vocab)) * spread).astype(np.float32)
        for kind in kinds:
            rows = [Row(seed=seed, **kind) for seed in range(n)]
            here = sample(logits_BV, rows, np.arange(n)).tokens_B
            with dispatch.use("fallback"):
                there = sample(logits_BV, rows, np.arange(n)).tokens_B
            for b in np.flatnonzero(here != there):
                for token in (here[b], there[b]):
                    assert fits(token, uniform(b, 0, b), logits_BV[b], **kind)
            different = int((here != there).sum())
            print(f"{table}, spread {spread}, {kind}: {different} of {n} tokens differ")
            assert different <= 3


@pytest.mark.parametrize(
    ("over", "asked"),
    [
        ("positions", {}),
        ("streams", {}),
        ("seeds", {}),
        ("seeds", {"temperature": 0.8}),
        ("seeds", {"top_k": 5}),
        ("seeds", {"top_p": 0.7}),
        ("seeds", {"min_p": 0.1}),
        ("seeds", {"temperature": 1.5, "top_k": 12, "top_p": 0.8, "min_p": 0.1}),
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(over: str, asked: dict[str, Any], table: str) -> None:
    """Chi-squared of many draws against exact probabilities."""
    n = 4000 if table == "fallback" else 20_000
    logits_V = np.random.default_rng(3).uniform(0, 3, 30).astype(np.float32)
    logits_BV = np.ascontiguousarray(np.broadcast_to(logits_V, (n, 30)))
    rows = [Row(seed=i if over == "seeds" else 5, stream=i if over == "streams" else 0, **asked) for i in range(n)]
    tokens = sample(logits_BV, rows, np.arange(n) if over == "positions" else np.zeros(n, np.int64)).tokens_B
    cuts = asked.get("top_k", 0), asked.get("top_p", 1.0), asked.get("min_p", 0.0)
    order, shares = reference.distribution(logits_V.astype(np.float64), asked.get("temperature", 1.0), *cuts)
    seen = np.bincount(tokens, minlength=30)[order]
    kept = shares > 0
    assert seen[~kept].sum() == 0
    assert shares[kept].min() * n > 5
    result = scipy.stats.chisquare(seen[kept], shares[kept] * n)
    print(f"{asked} over {over}: chi-squared {result.statistic:.1f} of {kept.sum()} tokens, p {result.pvalue:.3f}")
    assert result.pvalue > 1e-4


# Against transformers


def warped(logits_V: NDArray[np.float32], *warpers: Any) -> set[int]:
    torch = pytest.importorskip("torch")
    scores = torch.from_numpy(logits_V.copy())[None]
    for warper in warpers:
        scores = warper(None, scores)
    return set(torch.isfinite(scores[0]).nonzero().flatten().tolist())


@pytest.mark.filterwarnings("ignore")
def test_what_is_kept_is_what_transformers_keeps() -> None:
    """The reference keeps the same set, and all of that set and nothing else is drawn from."""
    generation = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(4)
    for trial in range(8):
        logits_V = (rng.standard_normal(20) * 0.8).astype(np.float32)
        temperature, top_k = float(rng.choice([0.7, 1.0, 1.6])), int(rng.choice([0, 3, 12]))
        top_p, min_p = float(rng.choice([0.5, 0.9, 1.0])), float(rng.choice([0.0, 0.2, 0.5]))
        warpers = [generation.TemperatureLogitsWarper(temperature)] if temperature != 1 else []
        warpers += [generation.TopKLogitsWarper(top_k)] if top_k else []
        warpers += [generation.TopPLogitsWarper(top_p)] if top_p < 1 else []
        warpers += [generation.MinPLogitsWarper(min_p)] if min_p else []
        wanted = warped(logits_V, *warpers)
        order, shares = reference.distribution(logits_V.astype(np.float64), temperature, top_k, top_p, min_p)
        assert set(order[shares > 0].tolist()) == wanted
        tokens = drawn(logits_V, 2000, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=trial)
        assert set(tokens.tolist()) <= wanted
        likely = set(order[shares > 0.01].tolist())  # missed by 2,000 draws once in 500 million
        assert likely <= set(tokens.tolist())


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), repetition=st.sampled_from([0.5, 1.0, 1.3, 4.0]))
def test_repetition_is_that_of_transformers(seed: int, repetition: float) -> None:
    torch = pytest.importorskip("torch")
    generation = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(seed)
    logits_V = rng.standard_normal(50).astype(np.float32)
    prompt, output = rng.integers(0, 50, 6).tolist(), rng.integers(0, 50, 4).tolist()
    processor = generation.RepetitionPenaltyLogitsProcessor(repetition)
    wanted_V = processor(torch.tensor([prompt + output]), torch.from_numpy(logits_V.copy())[None])[0].numpy()
    check_penalised(logits_V, wanted_V, prompt, output, repetition_penalty=repetition)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    repetition=st.sampled_from([1.0, 1.3]),
    presence=st.sampled_from([-2.0, 0.0, 0.7]),
    frequency=st.sampled_from([-1.0, 0.0, 0.4]),
)
def test_presence_and_frequency_are_openais_formula(
    seed: int, repetition: float, presence: float, frequency: float
) -> None:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, c counting the output; after repetition, before the bias."""
    rng = np.random.default_rng(seed)
    logits_V = rng.standard_normal(40).astype(np.float32)
    prompt, output = rng.integers(0, 40, 5).tolist(), rng.integers(0, 10, 12).tolist()
    bias = {int(token): float(value) for token, value in zip(rng.permutation(40)[:5], rng.normal(0, 3, 5), strict=True)}
    wanted_V = logits_V.astype(np.float64)
    for token in range(40):
        if token in prompt or token in output:
            wanted_V[token] = wanted_V[token] / repetition if wanted_V[token] > 0 else wanted_V[token] * repetition
        wanted_V[token] -= output.count(token) * frequency + (token in output) * presence
        wanted_V[token] += bias.get(token, 0.0)
    penalties = {"repetition_penalty": repetition, "presence_penalty": presence, "frequency_penalty": frequency}
    check_penalised(logits_V, wanted_V, prompt, output, bias=bias, **penalties)


def check_penalised(
    logits_V: NDArray[np.float32], wanted_V: NDArray[np.floating], prompt: list[int], output: list[int], **asked: Any
) -> None:
    """Draws land where the distribution of `wanted_V` has them, and the highest of it is the greedy choice."""
    before = logits_V.copy()
    asked = {"counts": counted(prompt, output), **asked}
    assert one(logits_V, temperature=0, **asked) == int(np.argmax(wanted_V))
    for position, token in enumerate(drawn(logits_V, 20, seed=9, **asked)):
        assert fits(token, uniform(9, 0, position), wanted_V)
    np.testing.assert_array_equal(logits_V, before)


def test_the_reference_penalises_by_the_same_formula() -> None:
    rng = np.random.default_rng(8)
    logits_V = rng.standard_normal(30)
    counts = counted([1, 2, 3], [3, 3, 9])
    seen_V, counts_V = np.isin(np.arange(30), counts.ids), np.zeros(30, np.int64)
    counts_V[counts.ids] = counts.counts
    z_V = reference.penalise(logits_V, seen_V, counts_V, 1.5, 0.5, 0.25)
    assert np.flatnonzero(z_V != logits_V).tolist() == [1, 2, 3, 9]
    first = logits_V[3] / 1.5 if logits_V[3] > 0 else logits_V[3] * 1.5
    np.testing.assert_allclose(z_V[3], first - 0.5 - 2 * 0.25)
    order, shares = reference.distribution(z_V, 1.0, 0, 1.0, 0.0)
    row = Row(repetition_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.25, counts=counts, seed=4)
    logits_BV = np.ascontiguousarray(np.broadcast_to(logits_V.astype(np.float32), (50, 30)))
    wanted = [reference.draw(order, shares, uniform(4, 0, position)) for position in range(50)]
    assert sample(logits_BV, [row] * 50, np.arange(50)).tokens_B.tolist() == wanted


def test_token_counts() -> None:
    rng = np.random.default_rng(1)
    prompt, output = rng.integers(0, 500, 300).tolist(), rng.integers(0, 500, 700).tolist()
    counts = counted(prompt, output)
    assert len(set(counts.ids.tolist())) == len(counts.ids)
    assert {int(i): int(c) for i, c in zip(counts.ids, counts.counts, strict=True)} == {
        token: output.count(token) for token in {*prompt, *output}
    }
    assert TokenCounts().ids.size == 0


# Ties, edges, masks


def test_of_equals_the_lowest_id_comes_first() -> None:
    for n_vocab in (5, 128, 129, 1000):
        logits_V = np.full(n_vocab, -3.0, np.float32)
        for ties in ([1, 3], [n_vocab - 2, n_vocab - 1], [0, n_vocab - 1]):
            z_V = logits_V.copy()
            z_V[ties] = 2.0
            assert one(z_V, temperature=0) == ties[0]
            assert one(z_V, top_k=1, seed=3) == ties[0]
            assert one(z_V, top_p=0.0, seed=3) == ties[0]
            assert set(drawn(z_V, 60, top_k=2, seed=1).tolist()) == set(ties)
            assert set(drawn(z_V, 60, min_p=0.9, seed=1).tolist()) == set(ties)


def test_truncation_inside_a_run_of_equals_is_exact() -> None:
    """Eight equal tokens: top_k 3 and top_p 0.3 (three eighths hold it) keep ids 0, 1, 2; a border exactly hit too."""
    equal_V = np.zeros(8, np.float32)
    assert set(drawn(equal_V, 200, top_k=3).tolist()) == {0, 1, 2}
    assert set(drawn(equal_V, 200, top_p=0.3).tolist()) == {0, 1, 2}
    assert set(drawn(equal_V, 200, top_p=0.25).tolist()) == {0, 1}
    many_V = np.zeros(100_000, np.float32)
    for asked in ({"top_k": 50_000}, {"top_p": 0.5}):
        tokens = drawn(many_V, 50, seed=2, **asked)
        assert 40_000 < tokens.max() < 50_000
    # Half of the tokens far below: one bin holds all that matter, however the range is cut.
    many_V[::2] = -60.0
    many_V[7] = 3e38
    assert set(drawn(many_V, 20).tolist()) == {7}


def test_plus_and_minus_zero_are_equal() -> None:
    assert one(f32(-1.0, -0.0, 0.0)[0], temperature=0) == 1
    assert one(f32(-1.0, 0.0, -0.0)[0], temperature=0) == 1


def test_clusters_within_clusters() -> None:
    """Logits whose spacing shrinks a thousandfold again and again: each look at a bin finds all the rest in one bin."""
    rng = np.random.default_rng(6)
    steps = [rng.random(200) * 1000.0**-i for i in range(1, 8)]
    logits_V = np.concatenate([-steps[i] - (i == 0) for i in range(7)]).astype(np.float32)
    rng.shuffle(logits_V)
    for asked in ({}, {"top_p": 0.5}, {"top_k": 900}, {"top_k": 900, "top_p": 0.4}):
        for position, token in enumerate(drawn(logits_V, 100, seed=1, **asked)):
            assert fits(token, uniform(1, 0, position), logits_V, **asked)


@pytest.mark.parametrize("temperature", [1e-45, 1e-30, 1e-6, 1.0, 1e6])
def test_extreme_logits_and_temperatures(temperature: float) -> None:
    z_V = f32(-3e38, 3e38, -INF, 3e38, 1.0, 1e-40)[0]
    assert set(drawn(z_V, 50, temperature=temperature).tolist()) == {1, 3}
    close_V = f32(0.0, 1e-40)[0]  # a difference that any temperature leaves without meaning, or that decides
    assert set(drawn(close_V, 50, temperature=temperature).tolist()) <= {0, 1}


def test_no_rows_and_one_token() -> None:
    empty = sample(np.empty((0, 9), np.float32), [], [])
    assert (empty.tokens_B.shape, empty.top_ids_BL.shape) == ((0,), (0, 0))
    sampled = sample(f32(-7.5), [Row(logprobs=3)], [0])
    assert (sampled.tokens_B.tolist(), sampled.logprobs_B.tolist()) == ([0], [0.0])
    assert sampled.top_ids_BL.tolist() == [[0, -1, -1]]
    assert sampled.top_logprobs_BL.tolist() == [[0.0, -INF, -INF]]


@settings(max_examples=30, deadline=None)
@given(
    n_vocab=st.sampled_from([1, 31, 32, 33, 127, 128, 129, 1000]),
    seed=st.integers(0, 2**32),
    share=st.sampled_from([0.02, 0.5, 0.98, 1.0]),
    kind=st.sampled_from([{"temperature": 0}, {}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.05}]),
)
def test_a_mask_leaves_the_distribution_over_what_it_allows(
    n_vocab: int, seed: int, share: float, kind: dict[str, Any]
) -> None:
    rng = np.random.default_rng(seed)
    allowed_V = rng.random(n_vocab) < share
    allowed_V[rng.integers(n_vocab)] = True
    logits_V = rng.standard_normal(n_vocab).astype(np.float32)
    mask_BW = packed(allowed_V)
    beyond = n_vocab % 32
    if beyond and seed % 2:  # bits beyond the vocabulary say nothing
        mask_BW[0, -1] |= np.uint32((0xFFFFFFFF << beyond) & 0xFFFFFFFF)
    ids = np.flatnonzero(allowed_V)
    for position in range(4):
        token = one(logits_V, position, mask_BW=mask_BW, seed=seed, **kind)
        assert token == ids[one(logits_V[ids].copy(), position, seed=seed, **kind)]


def test_each_row_has_its_own_mask() -> None:
    logits_BV = np.zeros((3, 40), np.float32)
    mask_BW = np.concatenate([packed(np.arange(40) == token) for token in (0, 32, 39)])
    assert sample(logits_BV, [Row()] * 3, [0, 1, 2], mask_BW=mask_BW).tokens_B.tolist() == [0, 32, 39]


# Log-probabilities


@settings(max_examples=25, deadline=None)
@given(n_vocab=st.sampled_from([1, 3, 20, 128, 500, 5000]), seed=st.integers(0, 2**32), top=st.integers(0, 20))
def test_log_probabilities_are_those_of_the_logits_as_given(n_vocab: int, seed: int, top: int) -> None:
    """Not of what penalties, bias, mask, temperature and truncation make of them; ties by lowest id; torch agrees."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    logits_V = np.round(rng.standard_normal(n_vocab) * 4, 1).astype(np.float32)
    logits_V[rng.random(n_vocab) < 0.1] = -INF
    logits_V[rng.integers(n_vocab)] = 2.0
    finite = np.flatnonzero(logits_V > -INF)
    row = Row(
        temperature=0.5,
        top_k=5,
        logprobs=top,
        seed=seed,
        bias={int(finite[0]): 3.0},
        counts=counted([int(finite[-1])], []),
    )
    allowed_V = rng.random(n_vocab) < 0.5
    allowed_V[finite[0]] = True
    sampled = sample(logits_V[None], [row], [0], mask_BW=packed(allowed_V))
    wanted_V = torch.from_numpy(logits_V.astype(np.float64)).log_softmax(0).numpy()
    np.testing.assert_allclose(sampled.logprobs_B[0], wanted_V[sampled.tokens_B[0]], atol=2e-6)
    best = np.argsort(-logits_V, kind="stable")[: min(top, len(finite))]
    assert sampled.top_ids_BL[0, : len(best)].tolist() == best.tolist()
    np.testing.assert_allclose(sampled.top_logprobs_BL[0, : len(best)], wanted_V[best], atol=2e-6)
    assert (sampled.top_ids_BL[0, len(best) :] == -1).all()
    assert sampled.top_ids_BL.shape == (1, top)


def test_only_rows_that_ask_get_log_probabilities() -> None:
    logits_BV = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32)
    sampled = sample(logits_BV, [Row(), Row(logprobs=0), Row(logprobs=2)], [0, 0, 0])
    assert np.isnan(sampled.logprobs_B).tolist() == [True, False, False]
    assert (sampled.top_ids_BL >= 0).tolist() == [[False, False], [False, False], [True, True]]


# The same whatever else is going on


def mixed(n: int, n_vocab: int) -> tuple[NDArray[np.float32], list[Row], NDArray[np.int64], NDArray[np.uint32]]:
    rng = np.random.default_rng(21)
    spreads = rng.choice([0.1, 1.0, 4.0], (n, 1))
    logits_BV = (rng.standard_normal((n, n_vocab)) * spreads).astype(np.float32)
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0, "logprobs": 3},
        {},
        {"top_k": 20, "logprobs": 20},
        {"top_p": 0.9},
        {"min_p": 0.1, "temperature": 1.4},
        {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "top_p": 0.95},
        {"bias": {3: 5.0, 9: -100.0}, "top_k": n_vocab // 2},
    ]
    rows = [
        Row(seed=b // 3, stream=b % 3, counts=counted([1, 2, b], [b, b]), **kinds[b % len(kinds)]) for b in range(n)
    ]
    mask_BW = np.full((n, -(-n_vocab // 32)), 0xFFFFFFFF, np.uint32)
    mask_BW[::5] = rng.integers(0, 2**32, mask_BW[::5].shape, np.uint32)
    return logits_BV, rows, rng.integers(0, 1000, n), mask_BW


def test_batches_and_threads_change_no_bit() -> None:
    n = 42
    logits_BV, rows, positions_B, mask_BW = mixed(n, 3001)

    def fields(chosen: NDArray[np.int64]) -> list[NDArray[Any]]:
        sampled = sample(logits_BV[chosen], [rows[b] for b in chosen], positions_B[chosen], mask_BW=mask_BW[chosen])
        top = np.full((len(chosen), 20), -1, np.int32), np.full((len(chosen), 20), -INF, np.float32)
        for out, got in zip(top, (sampled.top_ids_BL, sampled.top_logprobs_BL), strict=True):
            out[:, : got.shape[1]] = got
        return [sampled.tokens_B, sampled.logprobs_B, *top]

    before = dispatch.threads()
    try:
        dispatch.set_threads(1)
        alone = [np.concatenate(parts) for parts in zip(*[fields(np.array([b])) for b in range(n)], strict=True)]
        for threads in (1, 2, 5):
            dispatch.set_threads(threads)
            for order in (np.arange(n), np.arange(n)[::-1], np.random.default_rng(threads).permutation(n)):
                for got, wanted in zip(fields(order), alone, strict=True):
                    assert got.tobytes() == wanted[order].tobytes()
    finally:
        dispatch.set_threads(before)


def test_calls_from_several_threads_do_not_meet() -> None:
    logits_BV, rows, positions_B, mask_BW = mixed(28, 2000)
    wanted = sample(logits_BV, rows, positions_B, mask_BW=mask_BW).tokens_B.tolist()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(sample, logits_BV, rows, positions_B, mask_BW=mask_BW) for _ in range(12)]
        assert all(call.result().tokens_B.tolist() == wanted for call in calls)


def test_instruction_sets_agree_on_nearly_every_token(table: str) -> None:
    """Sums of exponentials differ in their last bits, so a draw at the border of two tokens may fall on either."""
    logits_BV, rows, positions_B, mask_BW = mixed(210, 2000)
    here = sample(logits_BV, rows, positions_B, mask_BW=mask_BW)
    with dispatch.use("native"):
        best = sample(logits_BV, rows, positions_B, mask_BW=mask_BW)
    different = int((here.tokens_B != best.tokens_B).sum())
    print(f"{table}: {different} of 210 tokens differ from the best table's")
    assert different <= 2


# What cannot be sampled


def test_rows_without_usable_logits_are_named_and_the_others_can_go_on() -> None:
    rng = np.random.default_rng(0)
    logits_BV = rng.standard_normal((6, 300)).astype(np.float32)
    wanted = sample(logits_BV, [Row(seed=1)] * 6, np.arange(6)).tokens_B
    mask_BW = np.full((6, 10), 0xFFFFFFFF, np.uint32)
    logits_BV[1, 299] = np.nan
    logits_BV[2, 0] = INF
    logits_BV[3] = -INF
    mask_BW[4] = 0
    with pytest.raises(UnusableLogits) as error:
        sample(logits_BV, [Row(seed=1)] * 6, np.arange(6), mask_BW=mask_BW)
    assert sorted(error.value.rows) == [1, 2, 3, 4]
    assert "NaN or infinite" in error.value.rows[1]
    assert "NaN or infinite" in error.value.rows[2]
    assert "-inf" in error.value.rows[3]
    assert "no token is left" in error.value.rows[4]
    assert "Row 1: the model gave numbers that are NaN" in str(error.value)
    good = np.array([0, 5])
    again = sample(logits_BV[good], [Row(seed=1)] * 2, good, mask_BW=mask_BW[good]).tokens_B
    assert again.tolist() == wanted[good].tolist()


@pytest.mark.parametrize("n_vocab", [1, 2, 7, 127, 128, 129, 1000])
def test_one_nan_anywhere_is_found(n_vocab: int) -> None:
    for place in {0, n_vocab // 2, n_vocab - 1}:
        for value in (np.nan, -np.nan, INF):
            for kind in ({"temperature": 0.0}, {"top_k": 3}, {"logprobs": 1}):
                logits_V = np.linspace(-1, 1, n_vocab, dtype=np.float32)
                logits_V[place] = value
                with pytest.raises(UnusableLogits):
                    one(logits_V, **kind)


def test_a_mask_that_leaves_only_impossible_tokens() -> None:
    with pytest.raises(UnusableLogits, match="no token is left"):
        one(f32(1.0, -INF, -INF)[0], mask_BW=np.array([[6]], np.uint32))


LOGITS = np.zeros((2, 40), np.float32)
ROWS = [Row(), Row()]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(LOGITS.astype(np.float64), ROWS, [0, 0]), "float32"),
        (lambda: sample(LOGITS[0], ROWS, [0, 0]), r"\[B, V\]"),
        (lambda: sample(LOGITS.T, ROWS, [0, 0]), "contiguous"),
        (lambda: sample(LOGITS, ROWS[:1], [0]), "2 rows of logits and settings for 1"),
        (lambda: sample(np.zeros((1, 0), np.float32), ROWS[:1], [0]), "vocabulary is empty"),
        (lambda: sample(LOGITS, ROWS, [0, 0], mask_BW=np.zeros((2, 1), np.uint32)), r"uint32 \[2, 2\]"),
        (lambda: sample(LOGITS, ROWS, [0, 0], mask_BW=np.zeros((2, 2), np.int32)), r"uint32 \[2, 2\]"),
        (lambda: sample(LOGITS, [Row(), Row(bias={40: 1})], [0, 0]), "tokens 40 to 40; there are 0 to 39"),
        (lambda: sample(LOGITS, [Row(), Row(bias={-1: 1})], [0, 0]), "tokens -1 to -1"),
        (
            lambda: sample(LOGITS, [Row(presence_penalty=1, counts=counted([40], [])), Row()], [0, 0]),
            "tokens 40 to 40",
        ),
        (lambda: Row(temperature=-1), "temperature is -1"),
        (lambda: Row(temperature=np.nan), "temperature is nan"),
        (lambda: Row(top_p=1.5), "top_p is 1.5"),
        (lambda: Row(repetition_penalty=0), "repetition_penalty is 0"),
        (lambda: Row(seed=-1), "seed is -1"),
        (lambda: Row(logprobs=-1), "logprobs is -1"),
        (lambda: Row(bias={1: np.inf}), "not a finite number"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call()
