"""Generation: many texts at once, each step one forward pass over whatever is due.

A step takes the next token of every text that is being written and fills up with the beginnings of those that wait, in
the order in which they came. Memory for all that a text may become is set aside when it is taken in, so nothing ever
runs out in the middle; a text that can never fit is refused with the numbers.

Shapes: B texts of a step, V vocabulary.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kogata.errors import BadInput, ModelError
from kogata.ops.attend import PageKind
from kogata.ops.sample import Row, TokenCounts, UnusableLogits, sample
from kogata.run.cache import PAGE, PagePool
from kogata.run.cache import Sequence as CachedText
from kogata.run.decoder import STEP_ROWS, Decoder, Step
from kogata.run.sampling import SamplingParams
from kogata.text.stream import StopStrings, Utf8Stream
from kogata.text.tokenizer import TextTokenizer

__all__ = ["Answer", "Engine", "Finish", "Piece", "TokenLogprob"]

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its log-probability under the model itself: before temperature, penalties and truncation."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step adds to an answer.

    Attributes:
        text: Whole characters, which may be none; nothing that may still become a stop string.
        id: The token that was chosen, or None where the answer ended without one.
        logprob: Of that token, where they were asked for.
        finish: Why the answer ends here: a stop token or string, or its greatest length; None while it goes on.
    """

    text: str
    id: int | None
    logprob: TokenLogprob | None
    finish: Finish | None


@dataclass(eq=False)
class Answer:
    """A text that is being continued. Made by :meth:`Engine.submit`.

    Attributes:
        prompt: Its first tokens.
        params: How it is continued.
        ids: The tokens generated so far.
        pieces: What is new since it was last looked at: take from its left.
        finish: Why it ended; None before.
        error: What ended it instead, if something went wrong.
    """

    prompt: NDArray[np.int32]
    params: SamplingParams
    choice: int
    seed: int
    most: int
    row: Row
    cached: CachedText = field(default_factory=CachedText)
    ids: list[int] = field(default_factory=list)
    pieces: deque[Piece] = field(default_factory=deque)
    finish: Finish | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        self._characters = Utf8Stream()
        self._stop = StopStrings(self.params.stop)

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.finish is not None or self.error is not None

    @property
    def prefilled(self) -> int:
        """Tokens of the prompt that the model has read."""
        return min(self.cached.length, len(self.prompt))

    def _push(self, id_: int, said: bytes, logprob: TokenLogprob | None, *, ends: bool) -> None:
        """Take in the next token."""
        self.ids.append(id_)
        text = "" if ends else self._stop.push(self._characters.push(said))
        finish: Finish | None = None
        if ends or self._stop.matched is not None:
            finish = "stop"
        elif len(self.ids) >= self.most:
            finish = "length"
        if finish is not None and self._stop.matched is None:
            text += self._stop.push(self._characters.flush())
            if self._stop.matched is None:
                text += self._stop.flush()
        self.finish = finish
        self.pieces.append(Piece(text, id_, logprob, finish))


class Engine:
    """Texts that are continued together by one model.

    Not for several threads at once: one thread calls :meth:`submit`, :meth:`step` and :meth:`drop`.

    Args:
        decoder: The model.
        tokenizer: Its tokenizer.
        stop_ids: Tokens that end a text.
        kv: How keys and values are stored.
        n_tokens: Room for this many tokens of all texts together; by default one text as long as the context.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: TextTokenizer,
        stop_ids: Iterable[int] = (),
        *,
        kv: PageKind = "bf16",
        n_tokens: int | None = None,
    ) -> None:
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.stop_ids = frozenset(stop_ids)
        self._pool: PagePool = decoder.pool(decoder.context if n_tokens is None else n_tokens, kv)
        self._waiting: deque[Answer] = deque()
        self._running: list[Answer] = []

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._running

    def submit(self, prompt: Sequence[int] | NDArray[np.int32], params: SamplingParams) -> list[Answer]:
        """Texts to be continued: ``params.n`` of them, all from one prompt.

        Raises:
            BadInput: The prompt is empty, has a token that there is not, or is longer than the context or the memory.
        """
        ids = np.asarray(prompt, np.int32)
        params.check(self.decoder.config.vocab_size)
        context, room = self.decoder.context, self._pool.n_pages * PAGE
        if ids.ndim != 1 or not len(ids):
            raise BadInput("The prompt has no tokens; at least one is needed.")
        if ids.min() < 0 or ids.max() >= self.decoder.config.vocab_size:
            raise BadInput(f"The prompt has a token outside of 0 to {self.decoder.config.vocab_size - 1}.")
        if len(ids) >= context:
            raise BadInput(
                f"The prompt has {len(ids):,} tokens; {self.decoder.name} takes texts of at most {context:,}, of which "
                "one at least has to be left for the answer."
            )
        if params.max_tokens is not None and len(ids) + params.max_tokens > context:
            raise BadInput(
                f"A prompt of {len(ids):,} tokens and an answer of up to {params.max_tokens:,} are more than "
                f"{self.decoder.name}'s context of {context:,}."
            )
        most = min(context, room) - len(ids) if params.max_tokens is None else params.max_tokens
        if most < 1 or len(ids) + most > room:
            need = (len(ids) + max(most, 1)) * self._pool.nbytes_of_page / PAGE / 1e6
            have = self._pool.n_pages * self._pool.nbytes_of_page / 1e6
            raise BadInput(
                f"A prompt of {len(ids):,} tokens and an answer of up to {max(most, 1):,} need {need:,.0f} MB for keys "
                f"and values; {have:,.0f} MB are there.",
                hint="Give more with --memory, or ask for a shorter answer.",
            )
        seed = secrets.randbits(63) if params.seed is None else params.seed
        answers = []
        for choice in range(params.n):
            counts = TokenCounts(ids) if params.is_penalised else None
            answers.append(Answer(ids, params, choice, seed, most, params.row(seed, choice, counts)))
        self._waiting.extend(answers)
        return answers

    def drop(self, answer: Answer) -> None:
        """Nobody wants this answer any more: its memory is free from the next step on."""
        if answer in self._running:
            self._running.remove(answer)
            self._pool.release(answer.cached)
        elif answer in self._waiting:
            self._waiting.remove(answer)

    def step(self) -> None:
        """One forward pass; every text that got a token has a new :class:`Piece` afterwards."""
        due, ids = self._due()
        if not due:
            return
        ends = [answer.cached.length + len(new) >= len(answer.prompt) for answer, new in zip(due, ids, strict=True)]
        logits_BV = self.decoder.forward(
            Step([answer.cached for answer in due], ids, [int(end) for end in ends]), self._pool
        )
        self._choose([answer for answer, end in zip(due, ends, strict=True) if end], logits_BV)

    def run(self, answers: Sequence[Answer]) -> Iterator[tuple[Answer, Piece]]:
        """Step until these answers are over, giving what each step adds."""
        try:
            while not all(answer.over for answer in answers):
                self.step()
                for answer in answers:
                    while answer.pieces:
                        yield answer, answer.pieces.popleft()
                    if answer.error is not None:
                        raise answer.error
        finally:
            for answer in answers:
                self.drop(answer)

    def _due(self) -> tuple[list[Answer], list[NDArray[np.int32]]]:
        """The texts of the next step and their next tokens."""
        while self._waiting:
            first = self._waiting[0]
            needed = -(-(len(first.prompt) + first.most) // PAGE)
            if needed > self._pool.free:  # it waits for others to end; nobody overtakes it
                break
            self._pool.reserve(first.cached, len(first.prompt) + first.most)
            self._running.append(self._waiting.popleft())
        due, ids, room = [], [], STEP_ROWS
        for answer in self._running:
            if answer.ids:
                due.append(answer)
                ids.append(np.array(answer.ids[-1:], np.int32))
                room -= 1
        for answer in self._running:
            if not answer.ids and room > 0:
                new = answer.prompt[answer.cached.length : answer.cached.length + room]
                due.append(answer)
                ids.append(new)
                room -= len(new)
        return due, ids

    def _choose(self, answers: list[Answer], logits_BV: NDArray[np.float32]) -> None:
        """The next token of each of these texts."""
        rows = [answer.row for answer in answers]
        try:
            chosen = sample(logits_BV, rows, [answer.cached.length for answer in answers])
        except UnusableLogits as error:
            bad = error.rows
            for n, why in bad.items():
                answers[n].error = ModelError(f"{self.decoder.name} cannot go on: {why}.")
                self._end(answers[n])
            kept = [n for n in range(len(answers)) if n not in bad]
            if kept:
                self._choose([answers[n] for n in kept], np.ascontiguousarray(logits_BV[kept]))
            return
        for n, answer in enumerate(answers):
            id_ = int(chosen.tokens_B[n])
            logprob = None
            if answer.params.logprobs is not None:
                top = zip(chosen.top_ids_BL[n].tolist(), chosen.top_logprobs_BL[n].tolist(), strict=True)
                several = tuple((token, value) for token, value in top if token >= 0)
                logprob = TokenLogprob(id_, float(chosen.logprobs_B[n]), several)
            if answer.row.counts is not None:
                answer.row.counts.add(id_)
            ends = id_ in answer.params.stop_ids or (id_ in self.stop_ids and not answer.params.ignore_eos)
            answer._push(id_, self._said(id_), logprob, ends=ends)
            if answer.over:
                self._end(answer)

    def _said(self, id_: int) -> bytes:
        """What a token adds to the text: a special one nothing."""
        return b"" if id_ in self.tokenizer.special_ids else self.tokenizer.token_bytes(id_)

    def _end(self, answer: Answer) -> None:
        self._running.remove(answer)
        self._pool.release(answer.cached)
