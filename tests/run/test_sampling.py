"""SamplingParams: what is accepted, and that a refusal names the value and the range."""

from __future__ import annotations

import math
import re
import time
from fractions import Fraction

import numpy as np
import pytest

from kogata.errors import BadInput
from kogata.ops.sample import TokenCounts, sample
from kogata.run.sampling import SamplingParams

NAN, INF = math.nan, math.inf

REFUSED = [
    ("temperature", [NAN, INF, -INF, -0.1, 2.1, 2**63, 10**400, "1", None, True, [1], 1j], "from 0 to 2"),
    ("top_k", [-1, 2**31, 2**63, 10**5000, 1.5, 2.0, "5", None, True, NAN], "from 0 to 2147483647"),
    ("top_p", [-1e-9, 1.01, NAN, INF, "0.9", None], "from 0 to 1"),
    ("min_p", [-1e-9, 1.01, NAN, INF, "0.9", None], "from 0 to 1"),
    ("repetition_penalty", [0, 0.009, 101, -1, NAN, INF], "from 0.01 to 100"),
    ("presence_penalty", [-2.1, 2.1, NAN, INF], "from -2 to 2"),
    ("frequency_penalty", [-2.1, 2.1, NAN, INF], "from -2 to 2"),
    ("seed", [2**64, -(2**63) - 1, 1.0, "7", True, NAN], "from -9223372036854775808 to 18446744073709551615"),
    ("logprobs", [-1, 21, 2**63, 1.0, True], "from 0 to 20"),
    ("max_tokens", [0, -1, 2**31, 2**63, 1.0, True, "9"], "from 1 to 2147483647"),
    ("n", [0, -1, 129, 2**63, 1.0, None], "from 1 to 128"),
    ("ignore_eos", [0, 1, "true", None], "true or false"),
    ("stop", [[""], ["fine", ""], "", ["x" * 1025], [5], [None], [b"x"]], "1 to 1024 characters"),
    ("stop", [None, 5, {"a": 1}], "a string or a list of strings"),
    ("stop", [["x"] * 65, ["x"] * 10**5], "at most 64"),
    ("stop_ids", [[-1], [2**31], [1.5], ["5"], [True]], "from 0 to 2147483647"),
    ("stop_ids", [None, 5, "12"], "a list of token ids"),
    ("stop_ids", [list(range(1025)), [0] * 10**6], "at most 1024"),
    ("logit_bias", [{-1: 0}, {2**31: 0}, {2**63: 0}, {"5": 1}, {1.5: 1}, {None: 1}], "from 0 to 2147483647"),
    ("logit_bias", [{1: 101}, {1: -100.5}, {1: NAN}, {1: INF}, {1: "5"}, {1: None}], "from -100 to 100"),
    ("logit_bias", [None, [1, 2], "5"], "must map token ids"),
    ("logit_bias", [dict.fromkeys(range(1025), 0), dict.fromkeys(range(10**6), 0)], "at most 1024"),
]


@pytest.mark.parametrize(
    ("name", "values", "accepted"), REFUSED, ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_refusal_names_the_value_and_what_is_accepted(name: str, values: list[object], accepted: str) -> None:
    for value in values:
        begin = time.perf_counter()
        with pytest.raises(BadInput) as refusal:
            SamplingParams(**{name: value})  # type: ignore[arg-type]
        message = str(refusal.value)
        assert name in message
        assert accepted in message
        assert len(message) < 250
        assert time.perf_counter() - begin < 0.5


def test_the_value_itself_stands_in_the_message() -> None:
    for name, value, shown in [
        ("temperature", 2**63, "9223372036854775808"),
        ("temperature", NAN, "nan"),
        ("top_p", -0.25, "-0.25"),
        ("max_tokens", 0, "0"),
        ("stop", ["x"] * 10**5, "100000"),
        ("logit_bias", {7: 1e9}, "1000000000.0"),
    ]:
        with pytest.raises(BadInput, match=re.escape(shown)):
            SamplingParams(**{name: value})  # type: ignore[arg-type]


def test_what_is_accepted_is_kept_in_plain_types() -> None:
    params = SamplingParams(
        temperature=np.float32(0.5),
        top_k=np.int64(40),
        top_p=1,
        min_p=Fraction(1, 4),
        repetition_penalty=1,
        seed=-(2**63),
        logit_bias={np.int32(3): -100, 0: 100},
        logprobs=0,
        stop="\n\n",
        stop_ids=[2, 3],
        max_tokens=1,
        n=128,
    )
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.5, 40, 1.0, 0.25)
    assert params.logit_bias == {3: -100.0, 0: 100.0}
    assert params.stop == ("\n\n",)
    assert params.stop_ids == (2, 3)
    assert {type(params.temperature), type(params.top_p), type(params.min_p)} == {float}
    assert type(params.top_k) is int
    assert SamplingParams() == SamplingParams()


def test_token_ids_are_checked_against_the_vocabulary() -> None:
    SamplingParams(logit_bias={99: 1}, stop_ids=[99]).check(100)
    for params in (SamplingParams(logit_bias={100: 1}), SamplingParams(stop_ids=[0, 100])):
        with pytest.raises(BadInput, match="token 100; the vocabulary has 0 to 99"):
            params.check(100)


def test_every_setting_reaches_the_sampler() -> None:
    """Each changes what is drawn from logits made for it."""
    counts = TokenCounts([0])
    counts.add(0)
    logits_BV = np.array([[2.0, 1.9, 1.0, 0.0]] * 400, np.float32)

    def drawn(**settings: object) -> tuple[int, ...]:
        params = SamplingParams(**settings)  # type: ignore[arg-type]
        row = params.row(7, counts=counts)
        return tuple(np.bincount(sample(logits_BV, [row] * 400, np.arange(400)).tokens_B, minlength=4))

    plain = drawn()
    assert min(plain) > 0
    assert drawn(temperature=0) == (400, 0, 0, 0)
    assert drawn(top_k=1) == (400, 0, 0, 0)
    assert drawn(top_p=0.0) == (400, 0, 0, 0)
    assert drawn(min_p=0.5)[2:] == (0, 0)
    assert drawn(logit_bias={3: 100}) == (0, 0, 0, 400)
    for penalty in ({"repetition_penalty": 1.5}, {"presence_penalty": 1.5}, {"frequency_penalty": 1.5}):
        assert drawn(**penalty)[0] < plain[0] - 40
        assert SamplingParams(**penalty).is_penalised  # type: ignore[arg-type]
    assert not SamplingParams().is_penalised


def test_answers_to_one_prompt_differ_and_a_negative_seed_is_one() -> None:
    logits_BV = np.zeros((1, 10**6), np.float32)
    tokens = {
        int(sample(logits_BV, [SamplingParams().row(seed, choice)], [0]).tokens_B[0])
        for seed, choice in [(1, 0), (1, 1), (2, 0), (-1, 0), (-(2**63), 0), (2**64 - 2, 0)]
    }
    assert len(tokens) == 6
