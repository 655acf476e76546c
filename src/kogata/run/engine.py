"""Generation: many texts at once, each step one forward pass over whatever is due.

A step takes the next token of every text that is being written and fills up with the beginnings of those that wait, in
the order in which they came. A text takes memory as it grows. Where there is no more, first what is only remembered is
forgotten, then the youngest text steps back: it gives up its memory, waits, and is read again later, to the same bits
(the row contract). The oldest always goes on. A text that can never fit is refused with the numbers.

What was computed for one text serves the next that begins alike: see :mod:`kogata.run.cache.prefixes`.

Shapes: B texts of a step, V vocabulary.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kogata import __version__
from kogata.errors import BadInput, Busy, KogataError, ModelError
from kogata.ops import dispatch
from kogata.ops.attend import PageKind
from kogata.ops.sample import Row, Sampled, TokenCounts, UnusableLogits, sample
from kogata.run.cache import PAGE, PagePool, PageStore, PrefixCache, pool_bytes
from kogata.run.cache import Sequence as CachedText
from kogata.run.decoder import STEP_ROWS, Decoder, Step
from kogata.run.sampling import SamplingParams
from kogata.text.stream import StopStrings, Utf8Stream
from kogata.text.tokenizer import TextTokenizer

__all__ = ["Answer", "Constraint", "Engine", "Finish", "Piece", "TokenLogprob"]

Finish = Literal["stop", "length"]

LOGGED_ROWS = 64
"""Most rows of a prompt in one step where the log-probabilities of its tokens are asked for: 64 rows of 128 k logits
take 33 MB."""

HEADROOM = PAGE
"""Tokens of its answer that must have room too when a text is taken in."""


class Constraint(Protocol):
    """What may come next in one answer, as :mod:`kogata.run.grammar` makes it."""

    @property
    def over(self) -> bool:
        """Whether nothing but the end may come."""

    def fork(self) -> Constraint:
        """Another one in the same state, for another answer."""

    def fill(self, mask_W: NDArray[np.uint32]) -> None:
        """Set bit b of word w exactly where token 32 w + b may come next.

        Raises:
            KogataError: It cannot be told, within bounded work.
        """

    def accept(self, token: int) -> None:
        """This token came."""


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
        constraint: What may come next; None for anything.
        prompt_logprobs: One for each token of the prompt, the first None; complete before the first piece, and empty
            where they are not asked for.
        reused: Tokens of the prompt that were not computed again.
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
    constraint: Constraint | None = None
    logged: Row | None = None  # how the prompt's tokens are logged
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)
    reused: int = 0
    salt: bytes = b""
    first: Answer | None = None  # of several answers to this prompt: it reads the prompt for all
    links: list[bytes] = field(default_factory=list)  # of its pages that are remembered
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

    @property
    def length(self) -> int:
        """Tokens so far, prompt and answer."""
        return len(self.prompt) + len(self.ids)

    def tokens(self, begin: int, end: int) -> NDArray[np.int32]:
        """Those from ``begin`` to ``end`` of prompt and answer."""
        n = len(self.prompt)
        said = np.array(self.ids[max(begin - n, 0) : max(end - n, 0)], np.int32)
        return said if begin >= n else np.concatenate([self.prompt[begin:end], said])

    @property
    def _unlogged(self) -> bool:
        """Whether tokens of the prompt have to be logged yet."""
        return self.logged is not None and len(self.prompt_logprobs) < len(self.prompt)

    def _push(self, id_: int, said: bytes, logprob: TokenLogprob | None, *, ends: bool) -> None:
        """Take in the next token."""
        self.ids.append(id_)
        text = "" if ends else self._stop.push(self._characters.push(said))
        finish: Finish | None = None
        if self.constraint is not None and not ends:
            self.constraint.accept(id_)
            ends = self.constraint.over
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
        most_waiting: Answers that may wait for their turn; None for any number.
        store: Where what is computed of texts is kept, beyond the life of the engine; None for nowhere.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: TextTokenizer,
        stop_ids: Iterable[int] = (),
        *,
        kv: PageKind = "bf16",
        n_tokens: int | None = None,
        most_waiting: int | None = None,
        store: PageStore | None = None,
    ) -> None:
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.stop_ids = frozenset(stop_ids)
        self._pool: PagePool = decoder.pool(decoder.context if n_tokens is None else n_tokens, kv)
        arithmetic = f"{dispatch.table().isa} {dispatch.bf16_dot()}"
        identity = f"{__version__} {decoder.identity} {arithmetic} {decoder.context} {kv}"  # a dynamic rope's context
        self._prefixes = PrefixCache(self._pool, identity, store)
        self._store = store
        self._words = -(-decoder.config.vocab_size // 32)  # of a mask of tokens
        self._most_waiting = most_waiting
        self._waiting: deque[Answer] = deque()
        self._running: list[Answer] = []

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._running

    def submit(
        self,
        prompt: Sequence[int] | NDArray[np.int32],
        params: SamplingParams,
        *,
        constraint: Constraint | None = None,
        prompt_logprobs: int | None = None,
        salt: bytes = b"",
    ) -> list[Answer]:
        """Texts to be continued: ``params.n`` of them, all from one prompt.

        Args:
            prompt: Token ids.
            params: How they are continued.
            constraint: What may come next.
            prompt_logprobs: Log the prompt's own tokens too, and this many of the likeliest beside each. All of them
                are computed then.
            salt: Texts of different salts share nothing.

        Raises:
            BadInput: The prompt is empty, has a token that there is not, or is longer than the context or the memory.
            Busy: Too many answers wait already.
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
            length = len(ids) + max(most, 1)
            need, have = (
                pool_bytes(self.decoder.config, self._pool.kind, n) for n in (-(-length // PAGE), room // PAGE)
            )
            raise BadInput(
                f"A prompt of {len(ids):,} tokens and an answer of up to {max(most, 1):,} need {need / 1e6:,.1f} MB "
                f"for keys and values; {have / 1e6:,.1f} MB are there, enough for {room:,} tokens.",
                hint="Give more with --memory, store them with 8 bits (--kv int8), or send less text.",
            )
        if self._most_waiting is not None and len(self._waiting) + params.n > self._most_waiting:
            raise Busy(
                f"{len(self._waiting):,} answers wait for their turn already, of {self._most_waiting:,} that may."
            )
        seed = secrets.randbits(63) if params.seed is None else params.seed
        logged = None if prompt_logprobs is None else Row(temperature=0.0, logprobs=prompt_logprobs)
        answers: list[Answer] = []
        for choice in range(params.n):
            counts = TokenCounts(ids) if params.is_penalised else None
            answer = Answer(ids, params, choice, seed, most, params.row(seed, choice, counts))
            answer.constraint = None if constraint is None else constraint.fork()
            answer.logged = logged
            answer.prompt_logprobs = [] if logged is None else [None]
            answer.salt, answer.first = salt, answers[0] if answers else None
            answers.append(answer)
        self._waiting.extend(answers)
        return answers

    def drop(self, answer: Answer) -> None:
        """Nobody wants this answer any more: its memory is free from the next step on."""
        if answer in self._running:
            self._end(answer)
        elif answer in self._waiting:
            self._waiting.remove(answer)

    def step(self) -> None:
        """One forward pass; every text that got a token has a new :class:`Piece` afterwards."""
        due, ids = self._due()
        if not due:
            return
        ends = [answer.cached.length + len(new) == answer.length for answer, new in zip(due, ids, strict=True)]
        logs = [answer._unlogged for answer in due]
        wanted = [len(new) if log else int(end) for new, log, end in zip(ids, logs, ends, strict=True)]
        logits_RV = self.decoder.forward(Step([answer.cached for answer in due], ids, wanted), self._pool)
        begin, chosen, last = 0, [], []
        for answer, n_rows, log, end in zip(due, wanted, logs, ends, strict=True):
            rows_RV = logits_RV[begin : begin + n_rows]
            begin += n_rows
            self._remember(answer, ends=answer.cached.length == len(answer.prompt))
            if log:
                self._log(answer, rows_RV)
            if end and answer.error is None:
                chosen.append(answer)
                last.append(begin - 1)
        self._choose(chosen, logits_RV if len(last) == len(logits_RV) else np.ascontiguousarray(logits_RV[last]))

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
        """The texts of the next step and their next tokens, the oldest first."""
        due, ids = [], []
        room = STEP_ROWS - sum(answer.cached.length + 1 == answer.length for answer in self._running)
        taken = 0
        while taken < len(self._running) or (room > 0 and self._take_in()):
            answer = self._running[taken]
            missing = answer.length - answer.cached.length
            if missing > 1 and (on_disk := self._on_disk(answer)):
                if not self._find_room(answer, (answer.cached.length // PAGE + len(on_disk)) * PAGE):
                    break
                if self._load(answer, on_disk):
                    taken += 1
                    continue
            rows = 1 if missing == 1 else min(missing, max(room, 0), LOGGED_ROWS if answer._unlogged else STEP_ROWS)
            taken += 1
            if rows == 0:
                continue
            if not self._find_room(answer, answer.cached.length + rows):
                break
            due.append(answer)
            ids.append(answer.tokens(answer.cached.length, answer.cached.length + rows))
            room -= rows if missing > 1 else 0
        return due, ids

    def _take_in(self) -> bool:
        """Take in the text that waits longest, if there is room for it; nobody overtakes it."""
        if not self._waiting:
            return False
        answer = self._waiting[0]
        reads = answer.first
        if reads in self._running and reads.prefilled < len(reads.prompt) and answer.logged is None:
            return False
        known = len(answer.prompt_logprobs) if answer._unlogged else answer.length
        self._prefixes.resume(answer.cached, answer.tokens(0, known - 1), answer.salt)
        if not self._fits(answer):
            self._pool.release(answer.cached)  # with all to itself it needs no page more than its tokens do
            if self._running or not self._fits(answer):
                return False
        if not answer.ids:
            answer.reused = answer.cached.length
        answer.links = [self._prefixes.root(answer.salt)]
        self._running.append(self._waiting.popleft())
        return True

    def _on_disk(self, answer: Answer) -> list[bytes]:
        """The links of a text's next pages on disk: as many as a step computes, and not the last token's."""
        if self._store is None or answer._unlogged:
            return []
        self._remember(answer, ends=False)
        return self._prefixes.on_disk(answer.tokens(0, answer.length - 1), answer.links, STEP_ROWS // PAGE)

    def _load(self, answer: Answer, links: list[bytes]) -> bool:
        """Take these pages of a text from disk, for which there is room; whether any could be read."""
        before = answer.cached.length
        self._prefixes.load(answer.cached, links)
        if not answer.ids:
            answer.reused += answer.cached.length - before
        return answer.cached.length > before

    def _fits(self, answer: Answer) -> bool:
        """Whether all of a text and the beginning of its answer have room, and those that run can go on a while."""
        left = answer.most - len(answer.ids)
        lacks = self._pool.missing(answer.cached, answer.length + min(left, HEADROOM))
        if self._pool.window is not None:
            lacks[1] = min(lacks[1], self._pool.most_window_pages)
        growth = len(self._running)
        return all(n + growth <= group.within_reach for n, group in zip(lacks, self._pool.groups, strict=True))

    def _find_room(self, answer: Answer, length: int) -> bool:
        """Pages for so many tokens of a text that runs, if need be from younger ones; else it steps back itself."""
        while not self._prefixes.make_room(answer.cached, length):
            youngest = self._running.pop()
            self._remember(youngest, ends=True)
            self._pool.release(youngest.cached)
            self._waiting.appendleft(youngest)
            if youngest is answer:
                return False
        self._pool.reserve(answer.cached, length)
        return True

    def _remember(self, answer: Answer, *, ends: bool) -> None:
        """What was computed of a text may serve others; ``ends`` where a prompt or turn does."""
        if ends or answer.cached.length >= len(answer.links) * PAGE:  # a page has become full
            tokens = answer.tokens(0, answer.cached.length)
            self._prefixes.remember(answer.cached, tokens, answer.links, ends=ends)

    def _log(self, answer: Answer, logits_RV: NDArray[np.float32]) -> None:
        """The log-probabilities of the prompt's tokens that come after these rows, the last that the model has read."""
        assert answer.logged is not None
        begin = answer.cached.length - len(logits_RV) + 1
        next_ = answer.prompt[begin : answer.cached.length + 1]
        only_RW = np.zeros((len(next_), self._words), np.uint32)  # no other token can be chosen
        only_RW[np.arange(len(next_)), next_ // 32] = np.uint32(1) << (next_ % 32).astype(np.uint32)
        logits_RV = logits_RV[: len(next_)]
        try:
            found = sample(logits_RV, [answer.logged] * len(next_), np.zeros(len(next_), np.int64), mask_BW=only_RW)
        except UnusableLogits as error:
            answer.error = ModelError(f"{self.decoder.name} cannot go on: {next(iter(error.rows.values()))}.")
            self._end(answer)
            return
        known = len(answer.prompt_logprobs) - begin  # more than none where a text is read again
        answer.prompt_logprobs.extend(_logprob(found, n) for n in range(known, len(next_)))

    def _allowed(self, answers: list[Answer]) -> NDArray[np.uint32] | None:
        """uint32 [B, W]: the tokens that may come next in each answer; None where all may in all."""
        if all(answer.constraint is None for answer in answers):
            return None
        mask_BW = np.full((len(answers), self._words), 0xFFFFFFFF, np.uint32)
        for answer, mask_W in zip(answers, mask_BW, strict=True):
            if answer.constraint is not None:
                try:
                    answer.constraint.fill(mask_W)
                except KogataError as error:
                    answer.error = error
        return mask_BW

    def _choose(self, answers: list[Answer], logits_BV: NDArray[np.float32]) -> None:
        """The next token of each of these texts."""
        mask_BW = self._allowed(answers)
        rows = [answer.row for answer in answers]
        try:
            chosen = sample(logits_BV, rows, [answer.cached.length for answer in answers], mask_BW=mask_BW)
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
            if answer.error is not None:
                self._end(answer)
                continue
            id_ = int(chosen.tokens_B[n])
            logprob = _logprob(chosen, n) if answer.params.logprobs is not None else None
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
        if answer.error is None:
            self._remember(answer, ends=True)
        self._pool.release(answer.cached)


def _logprob(sampled: Sampled, n: int) -> TokenLogprob:
    top = zip(sampled.top_ids_BL[n].tolist(), sampled.top_logprobs_BL[n].tolist(), strict=True)
    several = tuple((token, value) for token, value in top if token >= 0)
    return TokenLogprob(int(sampled.tokens_B[n]), float(sampled.logprobs_B[n]), several)
