"""Answers of the model that writes, on their way from the engine to a client: whole, or as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from kogata.app.http.context import Context, context
from kogata.app.http.endpoint import as_json
from kogata.app.http.errors import ApiError, from_kogata
from kogata.app.http.events import DONE, EventStream, comment, data
from kogata.app.http.schemas.writing import CachedTokens, JsonSchema, ResponseFormat, WritingRequest, WritingUsage
from kogata.app.serve.parts import Echo, Event, Given, Piece, Reading, Taken, decode_events, decode_usage
from kogata.errors import KogataError

COMMENT_SECONDS = 1.5
"""Silence after which a stream says that it is alive."""

FIRST_SECONDS = 1.0
"""So long a stream waits for its first text before it begins: what fails meanwhile is an ordinary error."""


class Form(Protocol):
    """How a route shows an answer."""

    def begin(self) -> Iterable[object]:
        """What a stream begins with."""

    def event(self, event: Event) -> Iterable[object]:
        """What a stream sends for this."""

    def end(self, result: bytes) -> Iterable[object]:
        """What a stream ends with. ``result``: of the engine's call."""

    def whole(self, events: Sequence[Event], result: bytes) -> object:
        """The whole answer; bytes are JSON already."""


class Written:
    """One request's answers as they are written; counts them.

    Args:
        here: The server.
        method, asked: Of the engine.
        silence: Seconds between two signs of life after which it is given up.
    """

    def __init__(self, here: Context, silence: float, method: str, **asked: Any) -> None:
        self._metrics = here.metrics
        self._began = time.perf_counter()
        self._heard = self._began
        self._silence = silence
        self._parts = here.link.stream(method, **asked)
        self._state = self._metrics.answers.labels("waiting")
        self._state.inc()
        self._first = True
        self._closed = False
        self.shows = "waiting"

    async def next(self, seconds: float) -> list[Event] | None:
        """What came next; empty where nothing came in so many seconds, None where there is no more.

        Raises:
            KogataError: It failed.
            ApiError: Nothing was heard of it for too long.
        """
        try:
            async with asyncio.timeout(seconds):
                part = await anext(self._parts, None)
        except TimeoutError:
            if time.perf_counter() - self._heard > self._silence:
                message = f"Nothing was heard of this answer for {self._silence:.0f} seconds; it was given up."
                raise ApiError(504, message, code="timeout") from None
            return []
        if part is None:
            return None
        self._heard = time.perf_counter()
        events = decode_events(part)
        for event in events:
            self._count(event)
        return events

    async def rest(self) -> list[Event]:
        """All of it."""
        found: list[Event] = []
        while (events := await self.next(COMMENT_SECONDS)) is not None:
            found += events
        return found

    @property
    def result(self) -> bytes:
        """Of the engine's call, once it has ended."""
        return self._parts.result

    def close(self) -> None:
        """Whatever is not written yet is not wanted."""
        if not self._closed:
            self._closed = True
            self._state.dec()
            self._parts.close()

    def _count(self, event: Event) -> None:
        match event:
            case Taken():
                self._metrics.prompt_tokens.inc(sum(event.prompts))
            case Reading():
                self.shows = f"prefill {event.done}/{event.total}" if event.done else "waiting"
                if event.done:
                    self._runs()
            case Piece():
                self._runs()
                self.shows = "writing"
                self._metrics.written_tokens.inc(event.tokens)
                self._metrics.cached_tokens.inc(event.cached)
                if self._first:
                    self._first = False
                    self._metrics.first_token.observe(time.perf_counter() - self._began)

    def _runs(self) -> None:
        running = self._metrics.answers.labels("running")
        if self._state is not running and not self._closed:
            self._state.dec()
            running.inc()
            self._state = running


async def answer(request: Request, form: Form, stream: bool | None, method: str, **asked: Any) -> Response:
    """The response to a request for a text: whole, or a stream.

    Args:
        request: What is answered.
        form: How it is shown.
        stream: As it is written, or whole.
        method, asked: Of the engine.
    """
    asked["salt"] = request.scope["state"].get("salt", b"")
    written = Written(context(request), request.app.state.limits.silence, method, **asked)
    if not stream:
        try:
            events = await written.rest()
            return as_json(form.whole(events, written.result))
        finally:
            written.close()
    came: list[Event] = []
    try:
        until = time.monotonic() + FIRST_SECONDS
        while (left := until - time.monotonic()) > 0 and not any(map(_is_text, came)):
            more = await written.next(left)
            if more is None:
                break
            came += more
    except BaseException:
        written.close()
        raise
    return EventStream(_events(written, form, came), written.close)


def _is_text(event: Event) -> bool:
    return isinstance(event, (Given, Echo, Piece))


async def _events(written: Written, form: Form, came: list[Event] | None) -> AsyncIterator[bytes]:
    for value in form.begin():
        yield data(value)
    try:
        while came is not None:
            shown = [value for event in came for value in form.event(event)]
            if not shown and not any(map(_is_text, came)):
                yield comment(written.shows)
            for value in shown:
                yield data(value)
            came = await written.next(COMMENT_SECONDS)
    except ApiError as error:
        yield data(error.body())
        return
    except KogataError as error:
        yield data(from_kogata(error).body())
        return
    for value in form.end(written.result):
        yield data(value)
    yield DONE


def usage_of(result: bytes) -> WritingUsage:
    """How many tokens there were, from the result of the engine's call."""
    usage = decode_usage(result)
    return WritingUsage(usage.prompt, usage.written, usage.prompt + usage.written, CachedTokens(usage.cached))


def sampling(body: WritingRequest, **more: Any) -> dict[str, Any]:
    """What :class:`kogata.run.sampling.SamplingParams` takes; what was not said is left out.

    Raises:
        ApiError: Two fields contradict each other.
    """
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise ApiError(400, "`best_of` other than `n` is not supported.", param="best_of", code="invalid_value")
    top_k = None if body.top_k is None else max(body.top_k, 0)
    named = {
        "temperature": body.temperature, "top_p": body.top_p, "top_k": top_k, "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty, "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty, "seed": body.seed, "logit_bias": body.logit_bias,
        "stop": body.stop, "stop_ids": body.stop_token_ids, "ignore_eos": body.ignore_eos, "n": body.n, **more,
    }  # fmt: skip
    return {name: value for name, value in named.items() if value is not None}


def held(body: WritingRequest) -> dict[str, Any] | None:
    """What the answer is held to, as the engine takes it.

    Raises:
        ApiError: It is said twice, or a schema is missing.
    """
    forms: list[dict[str, Any]] = [{"regex": one} for one in (body.regex, body.guided_regex) if one is not None]
    match body.response_format:
        case ResponseFormat(type="json_object"):
            forms.append({"json_object": True})
        case ResponseFormat(type="json_schema", json_schema=None):
            message = "`response_format` of the type json_schema needs `json_schema`."
            raise ApiError(400, message, param="response_format", code="invalid_request")
        case ResponseFormat(type="json_schema", json_schema=JsonSchema(schema=schema)):
            forms.append({"json_schema": schema})
    if len(forms) > 1:
        message = "An answer is held to one of `response_format`, `regex` and `guided_regex`, not to several."
        raise ApiError(400, message, param="response_format", code="invalid_value")
    return forms[0] if forms else None


def spelt(token: bytes) -> str:
    """A token for people: its text, or its bytes where they are no whole characters."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
