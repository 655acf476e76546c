"""The model that writes: one thread owns it and continues all texts that are asked for, step by step.

A call renders its prompts in a thread of its own and puts them into a queue. The writer takes what waits there, leaves
out what nobody wants any more, lets the model make one step, and tells each call what is new. With nothing to do it
waits for the queue.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kogata.app.serve import parts
from kogata.app.serve.calling import Calls, form_of_calls
from kogata.app.serve.conversation import as_template_reads, bounded
from kogata.errors import BadInput, ModelError
from kogata.run.engine import Engine
from kogata.run.grammar import Constraint, Grammars
from kogata.run.model import load
from kogata.run.sampling import SamplingParams
from kogata.text.chat import NoChatTemplate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kogata.app.serve.messages import Writer
    from kogata.ask.answers.written import Draft
    from kogata.run.engine import Answer, TokenLogprob

MOST_WAITING = 128
"""Answers that wait for their turn; more are refused."""

MOST_TEXTS = 8
"""The keys and values of so many texts as long as the context have room, where memory suffices."""

TELL_SECONDS = 1.0
"""Between two reports of how far a prompt is read."""

Tell = Callable[[bytes], None]
_to_json = msgspec.json.Encoder().encode


@dataclass(eq=False)
class _Job:
    """One call: its prompts, and their answers once it is taken."""

    prompts: list[NDArray[np.int32]]
    params: SamplingParams
    constraint: Constraint | None
    salt: bytes
    tell: Tell
    unwritten: bool = False  # the prompts are all that is asked for
    echoes: list[str] | None = None  # the prompts' texts, where they are given back
    prompt_logprobs: int | None = None
    readers: Sequence[Calls] = ()  # of each answer, where it may hold calls
    draft: Draft | None = None  # where it is written from passages
    future: Future[bytes] = field(default_factory=Future)
    answers: list[Answer] = field(default_factory=list)
    told: float = 0.0  # when it last heard of us
    echoed: set[int] = field(default_factory=set)
    open: list[int] = field(default_factory=list)  # answers that go on

    def say(self, events: Sequence[parts.Event]) -> None:
        self.told = time.monotonic()
        self.tell(parts.encode_events(events))


class Writing:
    """A model for many callers at once.

    A call returns a future that is done when its answers are; until then ``tell`` gets :mod:`~kogata.app.serve.parts`.
    Cancelling the future drops the answers before the next step.

    Args:
        what: Which model, and how it runs.
        threads: For all kernels of this process.

    Attributes:
        model: The model; only its tokenizer, its template and its numbers are for all threads.

    Raises:
        KogataError: It cannot be run.
    """

    def __init__(self, what: Writer, threads: int | None) -> None:
        self.model = model = load(
            what.model, quantise=what.quantise, threads=threads, context=what.context, kv=what.kv, memory=what.memory,  # type: ignore[arg-type]
            cache_dir=what.cache_dir, cache_size=what.cache_size,
        )  # fmt: skip
        self._engine = Engine(
            model.decoder, model.tokenizer, model.packed.stop_ids, kv=model.kv, n_tokens=model.room(MOST_TEXTS),
            most_waiting=MOST_WAITING, store=model.store,
        )  # fmt: skip
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after the step it is at, and keeps what it has read."""
        self._queue.put(None)
        self._thread.join()
        if self.model.store is not None:
            self.model.store.close()

    # --- calls, each in a thread of its own

    def describe(self) -> dict[str, Any]:
        """What callers have to know of the model."""
        decoder = self.model.decoder
        return {
            "id": decoder.name, "max_length": self.model.longest, "fingerprint": decoder.identity[:16],
            "chat": self.model.packed.chat_template is not None,
        }  # fmt: skip

    def chat(
        self, tell: Tell, *, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]],
        must_call: str | None, several_calls: bool, variables: Mapping[str, Any], sampling: Mapping[str, Any],
        held: Mapping[str, Any] | None, salt: bytes,
    ) -> Future[bytes]:  # fmt: skip
        """Answers to a conversation.

        Args:
            tell: Takes the parts.
            messages, tools, variables: For the model's template.
            must_call: The tool that must be called, "" for any of them, None where none must.
            several_calls: Whether there may be several calls in one answer.
            sampling: As of :class:`kogata.run.sampling.SamplingParams`.
            held: What answers are held to: json_schema, json_object or regex.
            salt: Requests of different salts share nothing.
        """
        params = SamplingParams(**sampling)
        job = _Job([self._render(messages, tools, variables)], params, self._constraint(held), salt, tell)
        if must_call is not None:
            callable_ = [tool for tool in tools if must_call in ("", tool["function"]["name"])]
            job.constraint = self._grammars.json_schema(form_of_calls(callable_, several=several_calls))
        if tools:
            names = [tool["function"]["name"] for tool in tools]
            job.readers = [Calls(names) for _ in range(params.n)]
        return self._submit(job)

    def complete(
        self, tell: Tell, *, prompts: Sequence[str | Sequence[int]], sampling: Mapping[str, Any], echo: bool,
        prompt_logprobs: int | None, held: Mapping[str, Any] | None, salt: bytes,
    ) -> Future[bytes]:  # fmt: skip
        """Texts that go on from others, held as in :meth:`chat`. With ``max_tokens`` 0 they are only read."""
        unwritten = sampling["max_tokens"] == 0
        params = SamplingParams(**{**sampling, "max_tokens": 1} if unwritten else sampling)
        ids = [self._ids(prompt) for prompt in prompts]
        echoes = None
        if echo:
            decode = self.model.tokenizer.decode
            echoes = [prompt if isinstance(prompt, str) else decode(prompt) for prompt in prompts]
        job = _Job(ids, params, self._constraint(held), salt, tell)
        job.unwritten, job.echoes, job.prompt_logprobs = unwritten, echoes, prompt_logprobs
        return self._submit(job)

    def answer(self, tell: Tell, draft: Draft, salt: bytes) -> Future[bytes]:
        """An answer written from passages, as `kogata ask --writer --json`."""
        tell(parts.encode_events([parts.Given(_to_json([passage.to_dict() for passage in draft.passages]))]))
        job = _Job([draft.ids], draft.params, None, salt, tell)
        job.draft = draft
        return self._submit(job)

    def tokenize(
        self, *, text: str | None, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any],
        add_special_tokens: bool, add_generation_prompt: bool,
    ) -> bytes:  # fmt: skip
        """A text or a conversation as the model reads it."""
        if text is None:
            ids = self._render(messages, (), variables, add_generation_prompt)
        else:
            ids = self.model.tokens(text) if add_special_tokens else self.model.tokenizer.encode(text)
        pieces = [self.model.tokenizer.token_bytes(id_) for id_ in ids.tolist()]
        return msgspec.msgpack.encode((ids.tolist(), pieces))

    def detokenize(self, *, ids: Sequence[int]) -> bytes:
        """The text of these tokens, special ones left out."""
        size = self.model.decoder.config.vocab_size
        if (largest := max(ids, default=0)) >= size:
            raise BadInput(f"There is no token {largest}; the vocabulary has 0 to {size - 1}.")
        return _to_json({"text": self.model.tokenizer.decode(ids)})

    def _submit(self, job: _Job) -> Future[bytes]:
        if (wanted := len(job.prompts) * job.params.n) > MOST_WAITING:
            raise BadInput(f"{wanted:,} answers are asked for; one request may ask for {MOST_WAITING}.")
        self._queue.put(job)
        return job.future

    def _ids(self, prompt: str | Sequence[int]) -> NDArray[np.int32]:
        if isinstance(prompt, str):
            return self.model.tokens(prompt)
        return np.asarray(prompt, np.int32)

    def _render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any], add_generation_prompt: bool = True,
    ) -> NDArray[np.int32]:  # fmt: skip
        bounded(variables, "chat_template_kwargs")
        bounded(list(tools), "tools")
        try:
            template = self.model.template
        except NoChatTemplate as error:
            raise BadInput(str(error), hint=error.hint) from None
        read = as_template_reads(messages, self.model.packed.chat_template or "")
        return template.render_ids(
            read,
            self.model.tokenizer,
            tools=tools or None,
            variables=variables,
            add_generation_prompt=add_generation_prompt,
        )  # fmt: skip

    def _constraint(self, held: Mapping[str, Any] | None) -> Constraint | None:
        match held:
            case None:
                return None
            case {"json_schema": schema}:
                return self._grammars.json_schema(schema)
            case {"regex": pattern}:
                return self._grammars.regex(pattern)
        return self._grammars.json_object()

    @cached_property
    def _grammars(self) -> Grammars:
        model = self.model
        try:
            return Grammars(model.tokenizer, model.decoder.config.vocab_size, model.packed.stop_ids)
        except ModelError as error:  # that is how the model is: asking it for a form is the caller's mistake
            raise BadInput(str(error)) from None

    # --- the thread

    def _run(self) -> None:
        live: list[_Job] = []
        while True:
            if live and self._queue.empty():
                live = [job for job in live if self._wanted(job)]
                if live:
                    self._step(live)
                    live = [job for job in live if self._goes_on(job)]
                continue
            job = self._queue.get()
            if job is None:
                return
            if self._taken(job):
                live.append(job)

    def _taken(self, job: _Job) -> bool:
        if job.future.cancelled():
            return False
        try:
            for prompt in job.prompts:
                job.answers += self._engine.submit(
                    prompt,
                    job.params,
                    constraint=job.constraint,
                    prompt_logprobs=job.prompt_logprobs,
                    salt=job.salt,
                )
            job.open = list(range(len(job.answers)))
            job.say([parts.Taken([len(prompt) for prompt in job.prompts])])
        except Exception as error:
            self._end(job, error)
            return False
        return True

    def _wanted(self, job: _Job) -> bool:
        if job.future.cancelled():
            self._end(job, None)
            return False
        return True

    def _step(self, live: Sequence[_Job]) -> None:
        """One step of the model. What was in one that fails ends with it; the others go on."""
        try:
            self._engine.step()
        except Exception as error:
            traceback.print_exception(error)
            in_it = [job for job in live if any(answer.cached.pages for answer in job.answers)]
            for job in in_it or live:  # where it failed before anything was in it, the next one would fail as well
                self._end(job, error)

    def _goes_on(self, job: _Job) -> bool:
        """Tell a call what is new; whether there will be more. What fails here ends this call alone."""
        try:
            return self._tell(job)
        except Exception as error:
            traceback.print_exception(error)
            self._end(job, error)
            return False

    def _tell(self, job: _Job) -> bool:
        if job.future.done() and not job.future.cancelled():  # the step has failed
            return False
        events: list[parts.Event] = []
        for choice in job.open:
            answer = job.answers[choice]
            if answer.error is not None:
                self._end(job, answer.error)
                return False
            if answer.pieces and choice % job.params.n == 0:
                events += self._echo(job, choice // job.params.n, answer)
            events += self._pieces(job, choice, answer)
        job.open = [choice for choice in job.open if not job.answers[choice].over]
        if events:
            job.say(events)
        elif time.monotonic() - job.told > TELL_SECONDS:
            job.say([parts.Reading(*(sum(each) for each in zip(*map(_read, job.answers), strict=True)))])
        if not job.open:
            result = self._result(job)
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(result)
        return bool(job.open)

    def _echo(self, job: _Job, prompt: int, answer: Answer) -> list[parts.Event]:
        if job.echoes is None or prompt in job.echoed:
            return []
        job.echoed.add(prompt)
        logged = [
            self._logged(int(id_), logprob) for id_, logprob in zip(answer.prompt, answer.prompt_logprobs, strict=True)
        ] if job.prompt_logprobs is not None else []  # fmt: skip
        return [parts.Echo(prompt, job.echoes[prompt], logged)]

    def _pieces(self, job: _Job, choice: int, answer: Answer) -> list[parts.Event]:
        found: list[parts.Event] = []
        while answer.pieces:
            piece = answer.pieces.popleft()
            if job.unwritten:
                found.append(parts.Piece(choice, "", 0, finish="length"))
                continue
            logged = [self._logged(piece.logprob.id, piece.logprob)] if piece.logprob is not None else []
            text, calls = piece.text, []
            if job.readers:
                reader = job.readers[choice]
                known = len(reader.calls)
                text = reader.push(text) + (reader.flush() if piece.finish else "")
                calls = reader.calls[known:]
            elif job.draft is not None:
                said = job.draft.said
                text = said.push(text) + (said.flush() if piece.finish else "")
            cached = answer.reused if piece.finish and choice % job.params.n == 0 else 0
            found.append(parts.Piece(choice, text, int(piece.id is not None), logged, calls, piece.finish, cached))
        return found

    def _logged(self, id_: int, logprob: TokenLogprob | None) -> parts.Logged:
        spelt = self.model.tokenizer.token_bytes
        top = [] if logprob is None else [(spelt(token), value) for token, value in logprob.top]
        special = id_ in self.model.tokenizer.special_ids
        return parts.Logged(spelt(id_), special, None if logprob is None else logprob.logprob, top)

    def _result(self, job: _Job) -> bytes:
        first = job.answers[:: job.params.n]
        written = 0 if job.unwritten else sum(len(answer.ids) for answer in job.answers)
        usage = parts.Usage(sum(map(len, job.prompts)), sum(answer.reused for answer in first), written)
        if job.draft is None:
            return parts.encode_usage(usage)
        counted = {"prompt_tokens": usage.prompt, "cached_tokens": usage.cached, "completion_tokens": usage.written}
        return _to_json(job.draft.answer(self.model.name, first[0].finish, counted).to_dict())

    def _end(self, job: _Job, error: Exception | None) -> None:
        """Nothing more is written for this call."""
        for answer in job.answers:
            self._engine.drop(answer)
        if error is not None and job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)


def _read(answer: Answer) -> tuple[int, int]:
    return answer.prefilled, len(answer.prompt)
