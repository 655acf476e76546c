"""/v1/completions: texts that go on from others, as OpenAI's clients and evaluation harnesses know it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from kogata.app.http import written
from kogata.app.http.context import context
from kogata.app.http.endpoint import Endpoint
from kogata.app.http.errors import ApiError
from kogata.app.http.schemas.writing import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from kogata.app.serve.parts import Echo, Event, Logged, Piece
from kogata.text.stream import Utf8Stream

DEFAULT_TOKENS = 16
"""As OpenAI's, where `max_tokens` is not said."""


async def completions(request: Request, body: CompletionRequest) -> Response:
    model = await context(request).writer(body.model)
    prompts = _prompts(body.prompt)
    max_tokens = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not body.echo:
        raise ApiError(400, "`max_tokens` may be 0 only with `echo`.", param="max_tokens", code="invalid_value")
    return await written.answer(
        request, _Form(model, body), body.stream, "complete", held=written.held(body), prompts=prompts,
        echo=bool(body.echo),
        sampling=written.sampling(body, max_tokens=max_tokens, logprobs=body.logprobs),
        prompt_logprobs=body.logprobs if body.echo else None,
    )  # fmt: skip


def _prompts(given: str | list[Any]) -> list[str | list[int]]:
    """What is to be continued, one entry each."""
    if isinstance(given, str):
        return [given]
    kinds = {type(one) for one in given}
    if kinds == {int}:
        return [given]
    if len(kinds) > 1:
        message = "`prompt` is a text, token ids, or a list of either; not a mixture of these."
        raise ApiError(400, message, param="prompt", code="invalid_request")
    return given


class _Form:
    """A completion, or pieces of one."""

    def __init__(self, model: dict[str, Any], body: CompletionRequest) -> None:
        self._about = {
            "id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model["id"],
            "system_fingerprint": model["fingerprint"],
        }  # fmt: skip
        self._n = body.n or 1
        self._log = body.logprobs is not None
        self._usage = None if body.stream_options and body.stream_options.include_usage else UNSET
        self._offsets: dict[int, _Offsets] = {}

    def begin(self) -> Iterable[object]:
        return ()

    def event(self, event: Event) -> Iterable[object]:
        if not isinstance(event, (Echo, Piece)):
            return
        finish = event.finish if isinstance(event, Piece) else None
        for choice in self._choices(event):
            text, logprobs = event.text, self._logprobs(choice, event)
            if text or finish or (logprobs and logprobs.tokens):
                made = CompletionChoice(text, choice, logprobs, finish)  # type: ignore[arg-type]
                yield Completion(**self._about, choices=[made], usage=self._usage)

    def end(self, result: bytes) -> Iterable[object]:
        if self._usage is None:  # asked for: null in every piece but the last
            yield Completion(**self._about, choices=[], usage=written.usage_of(result))

    def whole(self, events: Sequence[Event], result: bytes) -> object:
        usage = written.usage_of(result)
        choices: dict[int, CompletionChoice] = {}
        for event in (event for event in events if isinstance(event, (Echo, Piece))):
            for index in self._choices(event):
                made = choices.setdefault(index, CompletionChoice("", index, self._none(), None))
                made.text += event.text
                logprobs = self._logprobs(index, event)
                if logprobs is not None and made.logprobs is not None:
                    made.logprobs.tokens += logprobs.tokens
                    made.logprobs.token_logprobs += logprobs.token_logprobs
                    made.logprobs.top_logprobs += logprobs.top_logprobs
                    made.logprobs.text_offset += logprobs.text_offset
                if isinstance(event, Piece) and event.finish:
                    made.finish_reason = event.finish  # type: ignore[assignment]
        return Completion(**self._about, choices=[choices[index] for index in sorted(choices)], usage=usage)

    def _choices(self, event: Echo | Piece) -> Iterable[int]:
        """A prompt's echo begins each of its answers."""
        if isinstance(event, Piece):
            return (event.choice,)
        return range(event.prompt * self._n, (event.prompt + 1) * self._n)

    def _none(self) -> CompletionLogprobs | None:
        return CompletionLogprobs() if self._log else None

    def _logprobs(self, choice: int, event: Echo | Piece) -> CompletionLogprobs | None:
        found = self._none()
        if found is None:
            return None
        offsets = self._offsets.setdefault(choice, _Offsets())
        for one in event.tokens if isinstance(event, Echo) else event.logged:
            token = written.spelt(one.token)
            found.tokens.append(token)
            found.token_logprobs.append(one.logprob)
            found.text_offset.append(offsets.next(one))
            likely: dict[str, float] = {}
            for other, value in [*one.top, (one.token, one.logprob or 0.0)]:
                likely.setdefault(written.spelt(other), value)
            found.top_logprobs.append(None if one.logprob is None else likely)
        return found


class _Offsets:
    """Where tokens begin in the text, in characters."""

    def __init__(self) -> None:
        self._characters = Utf8Stream()
        self._at = 0

    def next(self, token: Logged) -> int:
        begin = self._at
        if not token.special:
            self._at += len(self._characters.push(token.token))
        return begin


ROUTES = (
    Endpoint(
        "POST", "/v1/completions", completions, "A text that goes on from another",
        "As OpenAI's. With `stream` the answer is server-sent events of the same objects, then `[DONE]`; lines that "
        "begin with a colon say how far a long prompt is read.",
        CompletionRequest, Completion, example={"model": "default", "prompt": "Once upon a time", "max_tokens": 8},
        unhurried=lambda body: True,
    ),
)  # fmt: skip
