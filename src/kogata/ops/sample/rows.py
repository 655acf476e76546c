"""How one row of logits is sampled, and what its sequence has said so far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kogata.errors import BadInput

#: Lists of all rows one after another: where each row's part begins (and the end), token ids, and counts or biases.
Seen = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]
Bias = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
#: The fields of Sampled.
Chosen = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]

#: What each number of a row may be; both ends are accepted.
RANGES = {
    "temperature": (0.0, 1e6),
    "top_k": (0, 2**31 - 1),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-3, 1e3),
    "presence_penalty": (-1e3, 1e3),
    "frequency_penalty": (-1e3, 1e3),
    "seed": (0, 2**64 - 1),
    "stream": (0, 2**64 - 1),
}


class TokenCounts:
    """The tokens of a sequence, each once, with how often it was generated: 0 for one that only the prompt holds."""

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        ids = np.unique(np.fromiter(prompt, np.int32))
        self._places = {int(token): place for place, token in enumerate(ids)}
        self._ids = ids
        self._counts = np.zeros(len(ids), np.int32)

    def add(self, token: int) -> None:
        """Counts a token that was generated."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            room = max(64, len(self._ids))
            self._ids = np.concatenate([self._ids, np.zeros(room, np.int32)])
            self._counts = np.concatenate([self._counts, np.zeros(room, np.int32)])
        self._ids[place] = token
        self._counts[place] += 1

    @property
    def ids(self) -> NDArray[np.int32]:
        """int32 [N], no id twice."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.int32]:
        """int32 [N], how often each of `ids` was generated."""
        return self._counts[: len(self._places)]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What is done to one row of logits, in this order:

    1. a token seen in prompt or output: logits above 0 are divided by `repetition_penalty`, others multiplied by it;
       one seen in the output: minus `frequency_penalty` times its count, minus `presence_penalty`; plus its `bias`;
    2. tokens that the mask (see `sample`) does not allow: -inf;
    3. division by `temperature`; 0 takes the highest logit, of equals the lowest id, and nothing below matters;
    4. in the order of the logits, highest first, equal ones by lowest id: the first `top_k` (0: all); of these the
       fewest that hold `top_p` of their probability, at least one; of these the ones with at least `min_p` times the
       probability of the first;
    5. one draw. It depends on `seed`, `stream` and the position alone; `stream` tells apart several answers to one
       prompt.

    logprobs: None, or how many log-probabilities to report beside the chosen token's. Raises BadInput for numbers out
    of RANGES.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    seed: int = 0
    stream: int = 0
    counts: TokenCounts | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    numbers: tuple[float, ...] = field(init=False, repr=False)
    bias_ids: NDArray[np.int32] = field(init=False, repr=False)
    biases: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise BadInput(f"{name} is {getattr(self, name)!r}; it must be between {low} and {high}.")
        if self.logprobs is not None and not 0 <= self.logprobs <= 2**20:
            raise BadInput(f"logprobs is {self.logprobs!r}; it must be None or a number from 0.")
        if not all(math.isfinite(value) for value in self.bias.values()):
            raise BadInput("A bias is not a finite number.")
        numbers = (self.temperature, self.top_k, self.top_p, self.min_p)
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        object.__setattr__(self, "numbers", (*numbers, *penalties, -1 if self.logprobs is None else self.logprobs))
        object.__setattr__(self, "bias_ids", np.fromiter(self.bias.keys(), np.int32, len(self.bias)))
        object.__setattr__(self, "biases", np.fromiter(self.bias.values(), np.float32, len(self.bias)))

    @property
    def seen(self) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
        """Token ids to penalise and how often each was generated."""
        if self.counts is None or self.numbers[4:7] == (1.0, 0.0, 0.0):
            return None
        return self.counts.ids, self.counts.counts
