"""What a request may ask of generation: checked once, before anything runs."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from kogata.errors import BadInput
from kogata.ops.sample import Row, TokenCounts

MOST_TOKENS = 2**31 - 1
MOST_LOGPROBS = 20
MOST_CHOICES = 128
MOST_BIASES = 1024
MOST_STOPS, LONGEST_STOP = 64, 1024
MOST_STOP_IDS = 1024


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How answers are generated. The ranges are those of OpenAI's API where it has one.

    temperature: 0 (always the most probable token) to 2. top_k: the most probable tokens to choose from, 0 for all.
    top_p: the fewest tokens that hold this share of the probability, 0 to 1. min_p: 0 to 1, the least probability of a
    token relative to the first's. repetition_penalty: 0.01 to 100, 1 for none; presence_penalty, frequency_penalty: -2
    to 2. seed: the same seed gives the same answer, in whatever company; None for another one each time. logit_bias:
    token id to -100..100. logprobs: None, or how many to report beside each token's own, 0 to 20. stop: strings that
    end an answer and are not part of it; a string alone counts as one. stop_ids: tokens that do. max_tokens: at least
    1, or None for what the context holds. n: answers to one prompt, 1 to 128. ignore_eos: where the model would end, it
    goes on.

    Raises BadInput for anything else; the message names the value and what is accepted.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    stop: Sequence[str] = ()
    stop_ids: Sequence[int] = ()
    max_tokens: int | None = None
    n: int = 1
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        self._keep("temperature", number(self.temperature, "temperature", 0, 2))
        self._keep("top_k", whole(self.top_k, "top_k", 0, MOST_TOKENS, "0 for all tokens"))
        self._keep("top_p", number(self.top_p, "top_p", 0, 1))
        self._keep("min_p", number(self.min_p, "min_p", 0, 1))
        self._keep("repetition_penalty", number(self.repetition_penalty, "repetition_penalty", 0.01, 100))
        self._keep("presence_penalty", number(self.presence_penalty, "presence_penalty", -2, 2))
        self._keep("frequency_penalty", number(self.frequency_penalty, "frequency_penalty", -2, 2))
        if self.seed is not None:
            self._keep("seed", whole(self.seed, "seed", -(2**63), 2**64 - 1, "or none"))
        self._keep("logit_bias", biases(self.logit_bias))
        if self.logprobs is not None:
            self._keep("logprobs", whole(self.logprobs, "logprobs", 0, MOST_LOGPROBS, "or none"))
        self._keep("stop", stop_strings(self.stop))
        self._keep("stop_ids", stop_tokens(self.stop_ids))
        if self.max_tokens is not None:
            self._keep("max_tokens", whole(self.max_tokens, "max_tokens", 1, MOST_TOKENS, "or none"))
        self._keep("n", whole(self.n, "n", 1, MOST_CHOICES))
        if not isinstance(self.ignore_eos, bool):
            raise BadInput(f"ignore_eos is {shown(self.ignore_eos)}; it must be true or false.")

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def check(self, vocab_size: int) -> None:
        """Raises BadInput where a token id is not in a vocabulary of this size."""
        for name, ids in (("logit_bias", self.logit_bias), ("stop_ids", self.stop_ids)):
            outside = [token for token in ids if token >= vocab_size]
            if outside:
                raise BadInput(f"{name} names token {outside[0]}; the vocabulary has 0 to {vocab_size - 1}.")

    @property
    def is_penalised(self) -> bool:
        """Whether the tokens of prompt and answer have to be counted."""
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)

    def row(self, seed: int, choice: int = 0, counts: TokenCounts | None = None) -> Row:
        """The sampler's settings for one of the n answers. seed: this object's own, or one drawn where that is None."""
        return Row(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logprobs=self.logprobs,
            seed=seed % 2**64,
            stream=choice,
            counts=counts,
            bias=self.logit_bias,
        )


def shown(value: object) -> str:
    """A value in an error message: short, whatever it is."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return f"a whole number of {value.bit_length()} bits"
    return reprlib.repr(value)


def number(value: Any, name: str, low: float, high: float) -> float:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # which NaN is not
        raise BadInput(f"{name} is {shown(value)}; it must be a number from {low} to {high}.")
    return float(value)


def whole(value: Any, name: str, low: int, high: int, also: str = "") -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        if low <= (checked := operator.index(value)) <= high:
            return checked
    except TypeError:
        pass
    note = f" ({also})" if also else ""
    raise BadInput(f"{name} is {shown(value)}; it must be a whole number from {low} to {high}{note}.")


def biases(given: Any) -> dict[int, float]:
    if not isinstance(given, Mapping):
        raise BadInput(f"logit_bias is {shown(given)}; it must map token ids to numbers from -100 to 100.")
    if len(given) > MOST_BIASES:
        raise BadInput(f"logit_bias has {len(given)} entries; at most {MOST_BIASES} are accepted.")
    return {
        whole(token, "A token id of logit_bias", 0, MOST_TOKENS): number(
            bias, f"logit_bias of token {token}", -100, 100
        )
        for token, bias in given.items()
    }


def stop_strings(given: Any) -> tuple[str, ...]:
    strings = (given,) if isinstance(given, str) else given
    if not isinstance(strings, Sequence):
        raise BadInput(f"stop is {shown(given)}; it must be a string or a list of strings.")
    if len(strings) > MOST_STOPS:
        raise BadInput(f"stop has {len(strings)} strings; at most {MOST_STOPS} are accepted.")
    for string in strings:
        if not isinstance(string, str) or not 1 <= len(string) <= LONGEST_STOP:
            what = f"of {len(string)} characters" if isinstance(string, str) else shown(string)
            raise BadInput(f"stop holds a string {what}; strings of 1 to {LONGEST_STOP} characters are accepted.")
    return tuple(strings)


def stop_tokens(given: Any) -> tuple[int, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise BadInput(f"stop_ids is {shown(given)}; it must be a list of token ids.")
    if len(given) > MOST_STOP_IDS:
        raise BadInput(f"stop_ids has {len(given)} ids; at most {MOST_STOP_IDS} are accepted.")
    return tuple(whole(token, "A token id of stop_ids", 0, MOST_TOKENS) for token in given)
